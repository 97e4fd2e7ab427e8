"""From what the user typed to a command that can be started: model, payload, flags, checks."""

from __future__ import annotations

import os
import sys

from uniscale_build.errors import (
    Gathering,
    LaunchError,
    SettingsError,
    UniscaleError,
    did_you_mean,
    raise_all,
)

from uniscale.engines import engines, flags
from uniscale.engines.engines import Command, Launch, Place
from uniscale.frozen import NONE, Frozen, changed
from uniscale.models import models
from uniscale.models.models import Model
from uniscale.wheels import payloads
from uniscale.wheels.record import Payload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniscale.engines.enginefile import EngineFile
    from uniscale.engines.vocabulary import Spoken

_PARALLEL = ("tensor", "pipeline", "data")
_VISION = "--mmproj"  # llama.cpp's flag for the image part of a model
_ALWAYS = ("host", "port", "served_model_name")


class Request(Frozen, kw_only=True):
    """What every launching command is asked for."""

    model: str
    backend: str | None
    device: str | None
    raw: tuple[str, ...]  # the engine's own flags, from behind ``--``
    name: str | None = None  # what the API calls the model; None: as its file
    arguments: Mapping[str, object] = NONE  # common ones, vLLM's names
    engine_arguments: Mapping[str, Mapping[str, object]] = NONE
    environment: Mapping[str, str] = NONE  # for the engine, from a file
    devices: str | None = None  # the chips that the engine may see, as its vendor counts them
    share: tuple[int, int] = (0, 1)  # of the chips it may have: which of how many equal parts
    must_exist: bool = True  # False for a dry run on another machine than the model's


class Engine(Frozen):
    """What serves: a payload of this environment, or a program that an engine file names."""

    backend: str
    device: str
    version: str
    launch: Launch
    place: Place
    payload: Payload | None

    @property
    def title(self) -> str:
        """The words for people: ``llama.cpp (cpu)``."""
        return f"{self.backend} ({self.device})"


class Prepared(Frozen):
    """A resolved model, the engine that serves it, and the command that does."""

    model: Model
    payload: Engine
    command: Command

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``; ``environment`` holds only what we add or change."""
        from uniscale.ports import url

        facts: dict[str, object] = {
            "model": self.command.served_name,
            "backend": self.payload.backend,
            "device": self.payload.device,
            "version": self.payload.version,
            "argv": list(self.command.argv),
            "environment": dict(self.command.environment),
            "url": url(self.command.host, self.command.port) + "/v1",
            "warnings": list(self.command.warnings),
        }
        if self.command.variable is not None:
            facts["document"] = {"variable": self.command.variable, "text": self.command.document}
        return facts


def prepare(request: Request, *, task: str, host: str, port: int) -> Prepared:
    """Resolve ``request`` for ``task`` at ``host`` and ``port``; starts and listens to nothing.

    Raises `LaunchError` for a model, payload, argument or raw flag that does not fit,
    `SettingsError` for a word that matches nothing.
    """
    model = models.resolve(request.model, must_exist=request.must_exist)
    engine = _engine(request, task, model)
    launch = engine.launch
    path = next(model.formats[form] for form in launch.formats if form in model.formats)
    arguments: dict[str, object] = {
        "host": host,
        "port": port,
        "served_model_name": request.name or model.name,
    }
    described, spoken = _checked(request, engine, {**arguments, "model": path})
    words = spoken.words if spoken else ()
    if model.vision is not None and path == model.formats.get("gguf") and _VISION in launch.flags:
        words = (_VISION, model.vision, *words)
    environ = {**os.environ, **request.environment}
    command = engines.command(
        launch,
        engine.place,
        model=path,
        arguments=arguments,
        raw=request.raw,
        environ=environ,
        spoken=words,
    )
    added = {**request.environment, **_visible(request, engine), **command.environment}
    warnings = spoken.warnings if spoken else ()
    if engine.payload is not None and request.must_exist:
        lacking = payloads.without_chip(engine.payload)
        warnings = (*warnings, lacking) if lacking else warnings
    command = changed(command, environment=added, warnings=warnings)
    if described is not None and described.variable is not None and spoken is not None:
        command = _documented(command, described, spoken, str(arguments["served_model_name"]))
    return Prepared(model, engine, command)


def _engine(request: Request, task: str, model: Model) -> Engine:
    found = payloads.find()
    external = None
    if request.backend and not payloads.has_backend(found, request.backend):
        from uniscale.engines import enginefile

        external = enginefile.find(request.backend)
        if external is None and found.payloads:
            known = [one.backend for one in found.payloads] + enginefile.names()
            raise SettingsError(
                f'no payload or engine file here has the backend "{request.backend}"',
                where="--backend",
                hint=did_you_mean(request.backend, known),
                slug="unknown-backend",
            )
    if external is not None:
        return _external(external, request, model)
    payload = payloads.choose(
        found,
        task=task,
        formats=list(model.formats),
        model=request.model,
        backend=request.backend,
        device=request.device,
    )
    more = payloads.libraries(found, payload)
    place = Place(
        payload.root,
        payload.python or _interpreter(),
        payloads.device_environment(payload, more),
        tuple(one.root for one in more),
    )
    serve = payload.launch["serve"]
    return Engine(payload.backend, payload.device, payload.version, serve, place, payload)


def _external(described: EngineFile, request: Request, model: Model) -> Engine:
    launch = described.serve
    if launch is None:
        raise LaunchError(
            f"{described.title} has no payload here, and its file does not say how it is started",
            where=str(described.path),
            hint="add serve: {argv: [program], formats: [hf]} to the file",
            slug="no-payload",
        )
    if not set(launch.formats) & set(model.formats):
        raise LaunchError(
            f"{request.model} is {' and '.join(model.formats)}, which {described.title} does not "
            "serve",
            where=request.model,
            hint=f"{described.title} takes {' or '.join(launch.formats)}",
            slug="wrong-format",
        )
    rules = described.arguments
    flags_of = {
        name: rules[name].flags[0] for name in _ALWAYS if name in rules and rules[name].flags
    }
    launch = changed(launch, arguments=flags_of)
    place = Place(None, _interpreter())
    return Engine(described.name, request.device or "any", "external", launch, place, None)


def _checked(
    request: Request, engine: Engine, always: Mapping[str, object]
) -> tuple[EngineFile | None, Spoken | None]:
    """What `_spoken` gives, once the raw flags are checked too: what is wrong in both, at once."""
    problems: list[UniscaleError] = []
    # Python's engines have argparse read their flags.
    python = engine.launch.argv[:1] == ("python",)
    with Gathering(problems):
        flags.check(request.raw, engine.launch.flags, engine=engine.backend, abbreviates=python)
    made: tuple[EngineFile | None, Spoken | None] = (None, None)
    with Gathering(problems):
        made = _spoken(request, engine, always)
    raise_all(problems)
    return made


def _spoken(
    request: Request, engine: Engine, always: Mapping[str, object]
) -> tuple[EngineFile | None, Spoken | None]:
    """The engine's file and the arguments in its words; nothing is read where none are given."""
    if engine.payload is not None and not request.arguments and not request.engine_arguments:
        return None, None
    from uniscale.engines import enginefile, vocabulary

    described = enginefile.find(engine.backend)
    if described is None:
        raise LaunchError(
            f"nothing says how {engine.backend} takes common arguments",
            hint=f"give its own flags behind --, or write {engine.backend}.yaml into a folder that "
            f"{enginefile.VARIABLE} names",
            slug="no-engine-file",
        )
    names = {described.name, *described.aliases}
    own = {
        key: text for one in names for key, text in request.engine_arguments.get(one, {}).items()
    }
    common = dict(request.arguments)
    if described.variable is not None:
        common.update(always)
    spoken = vocabulary.speak(
        described,
        common,
        own,
        known=engine.launch.flags,
        recorded=engine.launch.arguments if engine.payload is not None else {},
    )
    return described, spoken


def _visible(request: Request, engine: Engine) -> dict[str, str]:
    if request.devices is None:
        return {}
    visible = engine.payload.visible if engine.payload is not None else None
    from uniscale.devices import chips
    from uniscale.talk import note

    if visible is None:
        raise chips.no_choice(engine.title)
    value, remark = chips.chosen(request.devices, engine.device)
    which, parts = request.share
    if remark and which == 0:
        note(remark)
    return {visible: chips.shared(value, which, parts, each=_chips_of_one(request))}


def _chips_of_one(request: Request) -> int:
    """How many chips one engine spans, as its common arguments say; 1 when they say nothing."""
    import math

    told = (request.arguments.get(f"{kind}_parallel_size") for kind in _PARALLEL)
    return math.prod(int(text) for size in told if (text := str(size)).isdecimal())


def _documented(
    command: Command, described: EngineFile, spoken: Spoken, served_name: str
) -> Command:
    import json

    from uniscale.config.document import filled

    text = json.dumps(filled(described.document, spoken.document), ensure_ascii=False, indent=2)
    # The model stands in the document; a positional one would be a word too many.
    argv = command.argv[:1] if len(command.argv) == 2 else command.argv
    return changed(
        command,
        argv=argv,
        document=text + "\n",
        variable=described.variable,
        served_name=served_name,
    )


def _interpreter() -> str:
    if not sys.executable:
        raise LaunchError("the running Python does not know its own program", slug="no-interpreter")
    return sys.executable
