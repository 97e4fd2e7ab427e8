"""FlagScale's experiment and task files, read as they are (their layout of November 2025).

Nothing in them is run by a shell: ``cmds`` are told and left alone. Where FlagScale's launcher
reads a key that is no business of ours (its tuner, its profiler), the key is known and unused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from uniscale_build.errors import UniscaleError, did_you_mean
from uniscale_build.yamlfile import Fields, Value

from uniscale import ports
from uniscale.config import spec
from uniscale.config.plans import ModelPlan, ServePlan
from uniscale.nodes import hostfile
from uniscale.nodes.hostfile import Host

_EXPERIMENT = (
    *("exp_name", "exp_dir", "task", "runner", "envs", "cmds", "auto_tuner", "seed", "deploy"),
    *("save_steps", "load", "ckpt_format"),
)
_SPECIAL = ("nodes_envs", "node_specific", "device_type_specific")
_TOP = ("action", "hydra", "train", "inference", "rl", "compress", "nodes")
_ITEM = ("serve_id", "engine", "engine_args", "engine_args_specific", "resources", "profile")


def is_flagscale(root: Value) -> bool:
    """True for an experiment in FlagScale's words, or a task file of its serve layout."""
    if not isinstance(root.data, dict):
        return False
    experiment, serve = root.data.get("experiment"), root.data.get("serve")
    keys = set(experiment.data) if experiment and isinstance(experiment.data, dict) else set()
    task = experiment.data.get("task") if experiment and isinstance(experiment.data, dict) else None
    told = bool(keys & {"exp_name", "exp_dir", "runner"})
    return (
        told
        or bool(serve and isinstance(serve.data, list))
        or bool(task and isinstance(task.data, dict))
    )


def serve_plan(fields: Fields, errors: list[UniscaleError]) -> ServePlan:
    """What FlagScale's configuration serves; what is wrong with it is added to ``errors``."""
    experiment = fields.fields("experiment")
    name = experiment.maybe("exp_name")
    runner = experiment.fields("runner")
    # It stands in either place; older files have it beside the runner.
    deploy = (runner if runner.get("deploy") else experiment).fields("deploy")
    environment = _environment(experiment, errors)
    hosts = hosts_of(runner, errors)
    warnings = _unused(experiment, runner)
    for key in _EXPERIMENT:
        experiment.get(key)
    experiment.finish()
    for key in _TOP:
        fields.get(key)
    models, address = _items(fields, environment, errors)
    fields.finish()
    port = deploy.maybe("port") or address.get("port")
    if port is not None and ports.number(str(port)) is None:
        fields.fail(fields.value, f'"port" must be a number {ports.RANGE}, not {str(port)!r}')
        port = None
    return ServePlan(
        models=tuple(models),
        name=name,
        host=str(address.get("host") or ServePlan.host),
        port=int(str(port)) if port else ServePlan.port,
        nodes=hosts,
        master_port=master_port_of(runner),
        special=special_of(experiment),
        warnings=tuple(warnings),
    )


def hosts_of(runner: Fields, errors: list[UniscaleError]) -> tuple[Host, ...]:
    """The machines that ``experiment.runner`` names; () where this one is meant."""
    name, number, port = (runner.maybe(key) for key in ("hostfile", "nnodes", "ssh_port"))
    if not name or number == "1":
        return ()
    try:
        hosts = hostfile.read(Path(name))
    except UniscaleError as error:
        errors += error.findings()
        return ()
    if number is not None and not (number.isascii() and number.isdigit()):
        runner.fail(runner.value, f'"runner.nnodes" must be a whole number, not {number!r}')
        return ()
    if port is not None and ports.number(port) is None:
        what = f'"runner.ssh_port" must be a number {ports.RANGE}, not {port!r}'
        runner.fail(runner.value, what)
        return ()
    wanted = int(number) if number else len(hosts)
    if not 1 <= wanted <= len(hosts):
        runner.fail(runner.value, f'"runner.nnodes" is {wanted}, and {name} names {len(hosts)}')
    if port:
        hosts = tuple(replace(one, port=one.port or int(port)) for one in hosts)
    return hosts[:wanted]


def master_port_of(runner: Fields) -> int | None:
    """The port on the first machine where the others meet; None where nothing is said."""
    text = runner.maybe("master_port")
    if text is None:
        return None
    found = ports.number(text)
    if found is None:
        what = f'"runner.master_port" must be a number {ports.RANGE}, not {text!r}'
        runner.fail(runner.value, what)
    return found


def special_of(experiment: Fields) -> dict[str, dict[str, str]]:
    """Variables of one machine (by its name) or of one kind of chip (by its type)."""
    value = experiment.get("envs")
    found: dict[str, dict[str, str]] = {}
    if value is None or not isinstance(value.data, dict):
        return found
    for key in _SPECIAL:
        table = value.data.get(key)
        for name, item in table.data.items() if table and isinstance(table.data, dict) else ():
            for variable, one in item.data.items() if isinstance(item.data, dict) else ():
                if isinstance(one.data, str):
                    found.setdefault(name, {})[variable] = one.data
                elif one.data is not None:
                    experiment.fail(one, f'"envs.{key}.{name}.{variable}" must be text')
    return found


def common(
    experiment: Fields, runner: Fields, errors: list[UniscaleError]
) -> tuple[dict[str, str], list[str]]:
    """What every task's experiment says: environment variables, and warnings of what is unused."""
    return _environment(experiment, errors), _unused(experiment, runner)


def _environment(experiment: Fields, errors: list[UniscaleError]) -> dict[str, str]:
    value = experiment.get("envs")
    if value is None or not isinstance(value.data, dict):
        return {}
    found = {}
    for name, item in value.data.items():
        if name in _SPECIAL or item.data is None:
            continue
        if isinstance(item.data, str):
            found[name] = item.data
        else:
            experiment.fail(item, f'"envs.{name}" must be text')
    return found


def _unused(experiment: Fields, runner: Fields) -> list[str]:
    told = []
    commands = experiment.get("cmds")
    if commands is not None and isinstance(commands.data, dict):
        for name, item in commands.data.items():
            if item.data not in (None, ""):
                told.append(f"experiment.cmds.{name} is not run: do it before you start uniscale")
    if runner.maybe("nnodes") not in (None, "1") and not runner.maybe("hostfile"):
        told.append("experiment.runner.nnodes without a hostfile: this machine alone is used")
    if experiment.get("auto_tuner"):
        told.append("experiment.auto_tuner is not used")
    return told


def _items(
    fields: Fields, environment: Mapping[str, str], errors: list[UniscaleError]
) -> tuple[list[ModelPlan], dict[str, object]]:
    models: list[ModelPlan] = []
    address: dict[str, object] = {}
    items = fields.items("serve")
    if not items and not errors:
        fields.fail(fields.value, "the configuration serves nothing", slug="nothing-to-serve")
    for value in items:
        item = Fields(value, errors, "an entry of serve")
        common = _arguments(item, "engine_args")
        specific = {
            engine: dict(told) if isinstance(told, dict) else {}
            for engine, told in _arguments(item, "engine_args_specific").items()
        }
        for where in ("host", "port"):
            found = common.pop(where, None)
            for told in specific.values():
                found = told.pop(where, found)
            address.setdefault(where, found)
        models.append(_model(item, common, specific, environment))
        for key in _ITEM:
            item.get(key)
        _finish(item)
    return models, address


def _arguments(item: Fields, key: str) -> dict[str, Any]:
    value = item.get(key)
    if value is None:
        return {}
    if not isinstance(value.data, dict):
        item.fail(value, f'"{key}" must be a mapping')
        return {}
    if key == "engine_args":
        return {name: spec.argument(one) for name, one in value.data.items()}
    return {
        engine: {name: spec.argument(one) for name, one in told.data.items()}
        for engine, told in value.data.items()
        if isinstance(told.data, dict)
    }


def _model(
    item: Fields,
    common: dict[str, Any],
    specific: dict[str, dict[str, Any]],
    environment: Mapping[str, str],
) -> ModelPlan:
    engine = item.maybe("engine") or (item.maybe("serve_id") or "").removesuffix("_model")
    model = common.pop("model", None)
    for told in specific.values():
        model = told.pop("model", told.pop("model_path", model))
    if model is None:
        item.fail(item.value, '"engine_args.model" is missing', slug="missing-key")
    name = common.pop("served_model_name", None)
    for told in specific.values():
        name = told.pop("served_model_name", name)
    return ModelPlan(
        model=str(model),
        name=None if name is None else str(name),
        engines=(engine,) if engine else (),
        replicas=_replicas(item),
        arguments=common,
        engine_arguments=specific,
        environment=dict(environment),
    )


def _replicas(item: Fields) -> int:
    resources = item.get("resources")
    if resources is None or not isinstance(resources.data, dict):
        return 1
    told = resources.data.get("num_replicas")
    if told is None or told.data in (None, "auto"):
        return 1
    if not isinstance(told.data, str) or not told.data.isdigit() or int(told.data) < 1:
        item.fail(told, '"resources.num_replicas" must be a whole number from 1')
        return 1
    return int(told.data)


def _finish(item: Fields) -> None:
    for key in item.keys:
        if key not in _ITEM:
            value = item.get(key) or item.value
            item.fail(value, f'unknown key "{key}"', did_you_mean(key, _ITEM), "unknown-key")
