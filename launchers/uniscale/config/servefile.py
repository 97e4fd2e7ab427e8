"""Reads what to serve from a configuration: ours, or FlagScale's own layout as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from uniscale_build.errors import ManifestError, UniscaleError
from uniscale_build.yamlfile import Fields, Value

from uniscale.config import config, flagscale, spec
from uniscale.config.plans import START_TIMEOUT, ModelPlan, ServePlan
from uniscale.config.taskfile import Experiment, Task


def read(path: Path, overrides: Sequence[str] = ()) -> ServePlan:
    """The plan in the configuration at ``path``; every wrong key and value at once, with lines."""
    return plan(config.compose(path, overrides))


def plan(root: Value) -> ServePlan:
    """The plan in a composed configuration; raises `ManifestError` (or `Problems`)."""
    from uniscale.config import recipe

    if recipe.is_recipe(root):
        return recipe.plan(root)
    return Task("serve", "{model: …}", _own, _flagscale).plan(root)


def _flagscale(fields: Fields, _serve: Value, errors: list[UniscaleError]) -> ServePlan:
    return flagscale.serve_plan(fields, errors)


def _own(experiment: Experiment, serve: Value, errors: list[UniscaleError]) -> ServePlan:
    block = Fields(serve, errors, '"serve"')
    top = spec.read(block, spec.SERVE)
    shared = experiment.environment
    listed = block.items("models")
    if listed:
        models = [_model(Fields(one, errors, "a model"), shared) for one in listed]
        for name in (*(key.name for key in spec.MODEL), "moe"):
            if (beside := block.get(name)) is not None:
                what = f'"{name}" stands beside "models"'
                block.fail(beside, what, "write it into each of the models")
    else:
        models = [_model(block, shared, finish=False)]
    gateway, none = _gateway(block, errors)
    block.finish()
    return ServePlan(
        models=tuple(models),
        name=experiment.name,
        host=str(top.get("host", ServePlan.host)),
        port=cast(int, top.get("port", ServePlan.port)),
        start_timeout=cast(float, top.get("start_timeout", START_TIMEOUT)),
        gateway=gateway,
        no_gateway=none,
        nodes=experiment.nodes,
    )


def _model(fields: Fields, shared: Mapping[str, str], *, finish: bool = True) -> ModelPlan:
    told: Mapping[str, Any] = spec.read(fields, spec.MODEL)
    moe: dict[str, object] = {}
    if fields.get("moe") is not None:
        block = fields.fields("moe")
        moe = {spec.MOE_ARGUMENTS[key]: one for key, one in spec.read(block, spec.MOE).items()}
        block.finish()
    if "model" not in told and fields.get("model") is None:
        fields.fail(fields.value, '"model" is missing', slug="missing-key")
    if finish:
        fields.finish()
    return ModelPlan(
        model=told.get("model", "?"),
        name=told.get("name"),
        engines=told.get("engine", ()),
        device=told.get("device"),
        devices=told.get("devices"),
        replicas=told.get("replicas", 1),
        arguments={**moe, **told.get("args", {})},
        engine_arguments=told.get("engine_args", {}),
        environment={**shared, **told.get("env", {})},
        raw=told.get("flags", ()),
    )


def _gateway(
    block: Fields, errors: list[UniscaleError]
) -> tuple[Mapping[str, object] | None, bool]:
    value = block.get("gateway")
    if value is None:
        return None, False
    if value.data == "none":
        return None, True
    fields = Fields(value, errors, '"gateway"')
    settings = spec.read(fields, spec.GATEWAY)
    for one, other in (("tls_certificate", "tls_key"), ("tls_key", "tls_certificate")):
        if one in settings and other not in settings:
            errors.append(
                ManifestError(f'"{one}" needs "{other}"', where=value.where, slug="missing-key")
            )
    fields.finish()
    return settings, False
