"""Reads what to train from a configuration: ours, or FlagScale's own layout as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from uniscale_build.errors import ManifestError, SettingsError, UniscaleError
from uniscale_build.yamlfile import Fields, Value

from uniscale.config import config, flagscale, spec
from uniscale.config.taskfile import Experiment, Task
from uniscale.nodes import hostfile
from uniscale.serving.asked import pairs
from uniscale.training.trainplan import TrainPlan


@dataclass(frozen=True)
class TrainAsked:
    """The words of ``uniscale train``; None and () say nothing."""

    word: str  # a model, a configuration, or a job folder
    data: str | None = None
    eval_data: str | None = None
    format: str | None = None
    columns: tuple[str, ...] = ()
    method: str | None = None
    arguments: tuple[str, ...] = ()
    method_arguments: tuple[str, ...] = ()
    backend: str | None = None
    device: str | None = None
    devices: str | None = None
    processes: str | None = None
    script: str | None = None
    name: str | None = None
    out: str | None = None
    nodes: str | None = None  # a hostfile
    settings: tuple[str, ...] = ()
    raw: tuple[str, ...] = ()


def train_asked(asked: TrainAsked, *, resume: bool, dry_run: bool, as_json: bool) -> int:
    """Do what the command line asks for; raises what `uniscale.training.train` raises."""
    from uniscale.training import train, trainjob

    folder = Path(asked.word)
    if (folder / trainjob.RECORD).is_file():
        if not resume:
            raise SettingsError(
                f"{asked.word} is a training's folder", where=asked.word,
                hint="go on with it: --resume", slug="usage",
            )  # fmt: skip
        changed = [
            name
            for name, value in vars(asked).items()
            if name != "word" and value not in (None, ())
        ]
        if changed:
            raise SettingsError(
                f"a training goes on as it was begun: {', '.join(changed)} cannot change",
                where=asked.word, hint="begin another with --out FOLDER", slug="usage",
            )  # fmt: skip
        return train.resume_job(folder, dry_run=dry_run, as_json=as_json)
    return train.train_plan(planned(asked), resume=resume, dry_run=dry_run, as_json=as_json)


def planned(asked: TrainAsked) -> TrainPlan:
    """The plan of a command line: the file's, or its model's, with its options applied."""
    if config.is_config(asked.word):
        plan = read(Path(asked.word), asked.settings)
    elif asked.settings:
        root = Value(
            {"train": Value({"model": _word(asked.word)}, "command line", 1)}, "command line", 1
        )
        plan = plan_of(config.resolve(config.override(root, asked.settings)))
    else:
        plan = TrainPlan(model=asked.word)
    if asked.raw and not (asked.script or plan.script):
        raise SettingsError(
            "what stands behind -- is for a script, and there is none", where="--",
            hint="the trainer's arguments are --arg NAME=VALUE", slug="usage",
        )  # fmt: skip
    told = {
        "data": asked.data, "eval_data": asked.eval_data, "format": asked.format,
        "method": asked.method, "backend": asked.backend, "device": asked.device,
        "devices": asked.devices,
        "processes": asked.processes, "script": asked.script, "name": asked.name,
        "folder": asked.out,
    }  # fmt: skip
    plan = replace(plan, **cast("dict[str, Any]", {k: v for k, v in told.items() if v is not None}))
    if asked.nodes is not None:
        plan = replace(plan, nodes=hostfile.read(Path(asked.nodes)))
    columns = {key: str(value) for key, value in pairs(asked.columns, "--column").items()}
    return replace(
        plan,
        columns={**plan.columns, **columns},
        arguments={**plan.arguments, **pairs(asked.arguments, "--arg")},
        method_arguments={**plan.method_arguments, **pairs(asked.method_arguments, "--method-arg")},
        flags=(*plan.flags, *asked.raw),
    )


def _word(text: str) -> Value:
    return Value(text, "command line", 1)


def read(path: Path, overrides: Sequence[str] = ()) -> TrainPlan:
    """The plan in the configuration at ``path``; every wrong key and value at once, with lines."""
    return plan_of(config.compose(path, overrides))


def plan_of(root: Value) -> TrainPlan:
    """The plan in a composed configuration; raises `ManifestError` (or `Problems`)."""
    return Task("train", "{model: …, data: …}", _own, _flagscale).plan(root)


def _own(experiment: Experiment, train: Value, errors: list[UniscaleError]) -> TrainPlan:
    block = Fields(train, errors, '"train"')
    told: Mapping[str, Any] = spec.read(block, spec.TRAIN)
    block.finish()
    if "script" not in told and "model" not in told:
        errors.append(ManifestError('"model" is missing', where=train.where, slug="missing-key"))
    same: dict[str, Any] = {
        key: told[key]
        for key in ("model", "data", "eval_data", "format", "columns", "split", "method",
                    "chat_template", "backend", "device", "devices", "processes", "script", "flags")
        if key in told
    }  # fmt: skip
    return TrainPlan(
        **same,
        method_arguments=told.get("method_args", {}),
        arguments=told.get("args", {}),
        environment={**experiment.environment, **told.get("env", {})},
        nodes=experiment.nodes,
        name=experiment.name,
        folder=experiment.folder,
    )


def _flagscale(fields: Fields, train: Value, errors: list[UniscaleError]) -> TrainPlan:
    """FlagScale's train task: groups of Megatron's arguments, and the script that takes them."""
    experiment = fields.fields("experiment")
    runner, task = experiment.fields("runner"), experiment.fields("task")
    environment, warnings = flagscale.common(experiment, runner, errors)
    block = Fields(train, errors, '"train"')
    flat: dict[str, object] = {}
    for group in ("system", "model", "data"):
        value = block.get(group)
        if value is not None and isinstance(value.data, dict):
            _flatten(value, flat)
    entry = task.maybe("entrypoint")
    there = entry is not None and Path(entry).is_file()
    if entry and not there:
        warnings.append(f"{entry} is not here: uniscale's own loop trains with the payload")
    if not there:
        flat = _known(flat, warnings)
    data = str(flat.pop("data_path")) if "data_path" in flat and not there else None
    tokenizer = flat.pop("tokenizer_path", None) if not there else None
    return TrainPlan(
        model=None if there or tokenizer is None else str(tokenizer),
        data=data,
        backend=None if there else "Megatron-LM",
        script=entry if there else None,
        flags=tuple(_flags(flat)) if there else (),
        arguments={} if there else flat,
        processes=runner.maybe("nproc_per_node") or "1",
        environment=environment,
        nodes=flagscale.hosts_of(runner, errors),
        master_port=flagscale.master_port_of(runner),
        special=flagscale.special_of(experiment),
        name=experiment.maybe("exp_name"),
        folder=experiment.maybe("exp_dir"),
        warnings=tuple(warnings),
    )


def _known(flat: dict[str, object], warnings: list[str]) -> dict[str, object]:
    """What uniscale's own loop takes; FlagScale's files hold much more, for Megatron's scripts."""
    from uniscale.training.pretraining import DEFAULTS, MEGATRON

    ours = {*DEFAULTS, "data_path", "tokenizer_path"}
    unused = sorted(set(flat) - ours)
    if unused:
        warnings.append(f"not used by uniscale's own loop: {', '.join(unused)}")
    return {**MEGATRON, **{key: value for key, value in flat.items() if key in ours}}


def _flatten(value: Value, into: dict[str, object]) -> None:
    for key, item in cast("dict[str, Value]", value.data).items():
        if isinstance(item.data, dict):
            _flatten(item, into)
        elif item.data is not None:
            into[key] = spec.argument(item)


def _flags(flat: Mapping[str, object]) -> list[str]:
    """As FlagScale gives them: ``--kebab-case``, true as a lone flag, false not at all."""
    words: list[str] = []
    for key, value in flat.items():
        if value is False:
            continue
        words.append("--" + key.replace("_", "-"))
        if isinstance(value, list):
            words += [str(one) for one in value]
        elif value is not True:
            words.append(str(value))
    return words
