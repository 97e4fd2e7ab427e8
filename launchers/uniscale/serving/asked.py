"""From the words of a command line to a plan: models or a configuration, and what changes it."""

from __future__ import annotations

from uniscale_build.errors import Gathering, SettingsError, UniscaleError, raise_all

from uniscale.config.plans import ModelPlan, ServePlan
from uniscale.frozen import Frozen, changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from uniscale_build.yamlfile import Value


class Asked(Frozen):
    """The options of ``uniscale serve``; None and () say nothing."""

    models: tuple[str, ...]
    backend: str | None
    device: str | None
    host: str | None
    port: int | None
    name: str | None
    replicas: int | None
    arguments: tuple[str, ...]
    engine_arguments: tuple[str, ...]
    devices: str | None
    nodes: str | None
    api_keys: str | None
    settings: tuple[str, ...]
    raw: tuple[str, ...]


def serve_asked(asked: Asked, *, dry_run: bool, as_json: bool) -> int:
    """Do what the command line asks for; raises what `uniscale.serving.serve` raises."""
    from uniscale.serving.serve import serve_plan

    return serve_plan(planned(asked), dry_run=dry_run, as_json=as_json)


def planned(asked: Asked) -> ServePlan:
    """The plan of a command line: the file's, or one of its models, with its options applied.

    Raises `SettingsError` for words that contradict each other or cannot be read.
    """
    files = [word for word in asked.models if word.endswith((".yaml", ".yml"))]
    if files and len(asked.models) > 1:
        raise SettingsError(
            "a configuration is served alone",
            where=files[0],
            hint="write all models into it",
            slug="usage",
        )
    if files:
        from uniscale.config import remembered

        plan = remembered.plan(files[0], asked.settings)
    else:
        plan = ServePlan(tuple(ModelPlan(word) for word in asked.models))
        if asked.settings:
            plan = _set(plan, asked.settings)
    plan = changed(plan, models=tuple(_model(one, asked) for one in plan.models))
    if asked.name is not None and len({one.model for one in plan.models}) > 1 and not files:
        raise SettingsError(
            "one name for several models",
            where="--name",
            hint="a configuration gives each entry a name, several may share one",
            slug="usage",
        )
    gateway = {"api_keys": asked.api_keys} if asked.api_keys is not None else {}
    told = {"host": asked.host, "port": asked.port}
    plan = changed(plan, **{key: value for key, value in told.items() if value is not None})
    if asked.nodes is not None:
        from pathlib import Path

        from uniscale.nodes import hostfile

        plan = changed(plan, nodes=hostfile.read(Path(asked.nodes)))
    if gateway:
        plan = changed(plan, gateway={**(plan.gateway or {}), **gateway})
    return plan


def _model(plan: ModelPlan, asked: Asked) -> ModelPlan:
    engine = asked.backend or (plan.engines[0] if plan.engines else "")
    own = pairs(asked.engine_arguments, "--engine-arg")
    engine_arguments = dict(plan.engine_arguments)
    if own:
        if not engine:
            raise SettingsError(
                "--engine-arg needs to know the engine", where="--engine-arg",
                hint="name it: --backend NAME; or give the flag behind --", slug="usage",
            )  # fmt: skip
        engine_arguments[engine] = {**engine_arguments.get(engine, {}), **own}
    return changed(
        plan,
        name=asked.name or plan.name,
        engines=(asked.backend,) if asked.backend else plan.engines,
        device=asked.device or plan.device,
        devices=asked.devices or plan.devices,
        replicas=asked.replicas or plan.replicas,
        arguments={**plan.arguments, **pairs(asked.arguments, "--arg")},
        engine_arguments=engine_arguments,
        raw=(*plan.raw, *asked.raw),
    )


def _set(plan: ServePlan, settings: Sequence[str]) -> ServePlan:
    """``--set`` without a file."""
    from uniscale.config import servefile

    return servefile.plan(root_of([one.model for one in plan.models], settings))


def root_of(names: Sequence[str], settings: Sequence[str]) -> Value:
    """The configuration of a command line: as if a file named the models and nothing else."""
    from uniscale_build.yamlfile import Value

    from uniscale.config import config

    def value(data: str | list[Value] | dict[str, Value]) -> Value:
        return Value(data, "command line", 1)

    models = [value({"model": value(name)}) for name in names]
    serve = models[0] if len(models) == 1 else value({"models": value(models)})
    return config.resolve(config.override(value({"serve": serve}), settings))


def pairs(words: Sequence[str], option: str) -> dict[str, object]:
    """``NAME=VALUE`` words as arguments; a value is YAML: true, null, lists and mappings too."""
    errors: list[UniscaleError] = []
    found: dict[str, object] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name.strip():
            errors.append(
                SettingsError(
                    f"{word!r} sets nothing", where=option, hint="NAME=VALUE", slug="usage"
                )
            )
            continue
        with Gathering(errors):
            found[name.strip()] = _parsed(text, f"{option} {name}")
    raise_all(errors)
    return found


# As YAML and as Python write them.
_WORDS = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}


def _parsed(text: str, where: str) -> object:
    if not text.strip().startswith(("{", "[")):
        # Text as it is, so that quotes, colons and dollars need no care.
        return _WORDS.get(text, text)
    from uniscale_build.yamlfile import parse

    from uniscale.config.spec import argument

    return argument(parse(text.encode("utf-8", "surrogateescape"), where))
