"""Engines as data, and the one pure function that turns them into a process to start.

An engine is never imported. What is needed to start it (`Launch`) stands in its payload's
``payload.json``; `command` joins that with a model, common arguments and the user's raw flags.
"""

from __future__ import annotations

import os

from uniscale.engines import flags
from uniscale.frozen import NONE, Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Launch(Frozen):
    """How an engine is started for one task: ``launch.<task>`` of a payload."""

    argv: tuple[str, ...]  # the head: a program of the payload, `python`, or a name on PATH
    model: str  # the model's flag; "" when the model is a positional argument
    arguments: Mapping[str, str]  # common argument (vLLM's name) -> this engine's flag
    fixed: tuple[str, ...]  # what we always pass
    formats: tuple[str, ...]  # "gguf", "hf", best first
    probe: str  # path that answers 200 once the engine can work
    metrics: str | None = None  # path of the Prometheus metrics
    flags: tuple[str, ...] = ()  # every flag the engine knows, recorded at build; (): unknown


class Command(Frozen):
    """A process to start: nothing is hidden from ``--dry-run``."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]  # what we add to or change in the user's environment
    host: str
    port: str
    served_name: str  # what the engine calls the model in its API
    probe: str
    metrics: str | None
    document: str | None = None  # configuration that the engine reads from a file, as JSON
    variable: str | None = None  # the environment variable that names this file
    warnings: tuple[str, ...] = ()  # what the engine does otherwise than it was told


class Place(Frozen):
    """Where an engine runs: its prefix, what its device asks for, and the interpreter."""

    prefix: str | None  # None: an engine that no payload of ours holds
    python: str  # the interpreter that `python` in the head stands for
    device_environment: Mapping[str, str] = NONE
    libraries: tuple[str, ...] = ()  # prefixes that it finds modules in, after its own


def command(
    launch: Launch,
    place: Place,
    *,
    model: str,
    arguments: Mapping[str, object],
    raw: Sequence[str],
    environ: Mapping[str, str],
    spoken: Sequence[str] = (),
) -> Command:
    """The command that serves ``model``; a pure function.

    ``arguments`` uses common names and must hold ``host``, ``port`` and ``served_model_name``;
    those that the engine has no flag for are left out, as are None values. ``spoken`` are further
    arguments in the engine's own words (`uniscale.engines.vocabulary`). ``raw`` comes last,
    verbatim. What comes later wins: whatever ``raw`` sets we do not, whatever ``spoken`` sets is
    not fixed.
    """
    ours = [launch.model, model] if launch.model else []
    for common, flag in launch.arguments.items():
        if arguments.get(common) is not None:
            ours += [flag, str(arguments[common])]
    positional = () if launch.model else (model,)
    return Command(
        argv=(
            *_head(launch.argv, place),
            *positional,
            *flags.without((*flags.without((*ours, *launch.fixed), spoken), *spoken), raw),
            *raw,
        ),
        environment=_environment(place, environ),
        host=_effective("host", launch, arguments, (*spoken, *raw)),
        port=_effective("port", launch, arguments, (*spoken, *raw)),
        served_name=(
            _effective("served_model_name", launch, arguments, (*spoken, *raw))
            if "served_model_name" in launch.arguments
            else model
        ),
        probe=launch.probe,
        metrics=launch.metrics,
    )


def program(
    launch: Launch, place: Place, environ: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The head of ``launch`` as it is started, and what is added to the environment for it."""
    return _head(launch.argv, place), _environment(place, environ)


def _head(argv: tuple[str, ...], place: Place) -> tuple[str, ...]:
    program, *rest = argv
    if program == "python":
        program = place.python
    elif "/" in program and place.prefix is not None:
        program = os.path.join(place.prefix, program)
    return (program, *rest)


def _effective(
    common: str, launch: Launch, arguments: Mapping[str, object], raw: Sequence[str]
) -> str:
    flag = launch.arguments.get(common)
    given = flags.value(raw, flag) if flag else None
    return str(arguments[common]) if given is None else given


def _environment(place: Place, environ: Mapping[str, str]) -> dict[str, str]:
    own = {key: text for key, text in place.device_environment.items() if key not in environ}
    path = environ.get("PATH") or os.defpath
    if place.prefix is None:
        return {**own, "PATH": path}
    # Engines spawn workers: the prefix must be in their environment, not on our sys.path. An
    # empty entry would mean the current folder, so nothing is joined to an empty variable.
    old = environ.get("PYTHONPATH")
    added = {
        "PYTHONPATH": os.pathsep.join([place.prefix, *place.libraries, *([old] if old else [])]),
        "PATH": os.pathsep.join([os.path.join(place.prefix, "bin"), path]),
    }
    return {**own, **added}
