"""``uniscale train``: checks all that can be known before, then torchrun trains under our eyes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale.engines.engines import Command
from uniscale.frozen import changed
from uniscale.nodes.hostfile import Host
from uniscale.talk import note
from uniscale.training import pretraining, traincommand, trainer_fields, trainjob
from uniscale.training.methods import named
from uniscale.training.trainjob import TrainJob
from uniscale.training.trainplan import TrainPlan
from uniscale.training.trainrun import supervise, tell
from uniscale.wheels.fitness import search_path


@dataclass(frozen=True)
class Ready:
    """A plan whose parts were all checked: where its model is, its samples, its command."""

    plan: TrainPlan
    job: TrainJob
    document: Mapping[str, object]
    samples: list[dict[str, Any]]
    measured: list[dict[str, Any]]
    command: Command


def train_plan(plan: TrainPlan, *, resume: bool, dry_run: bool, as_json: bool) -> int:
    """Train what ``plan`` says, in the foreground; 0 when it is done.

    Raises `SettingsError` and `LaunchError` for all that is wrong before anything is written, and
    `LaunchError` when the training fails.
    """
    for warning in plan.warnings:
        note(f"warning: {warning}")
    ready = prepare(plan)
    if dry_run:
        return _print(ready, as_json)
    with trainjob.held(ready.job):
        there = ready.job.record.exists()
        if there and not resume:
            raise LaunchError(
                "there is a training in this folder already", where=str(ready.job.folder),
                hint="go on with it: --resume; or begin another: --out FOLDER", slug="job-exists",
            )  # fmt: skip
        if not there:
            trainjob.begin(ready.job, ready.document, ready.samples, ready.measured)
            return supervise(ready.job, ready.command, as_json=as_json)
        trainjob.check_same(ready.job, ready.document)
        return _again(ready.job, ready.command, as_json=as_json)


def resume_job(folder: Path, *, dry_run: bool, as_json: bool) -> int:
    """Go on with the training in ``folder`` as its record says it was begun."""
    job = TrainJob(folder)
    told = job.told()
    known = TrainPlan.__dataclass_fields__
    plan = TrainPlan(**{key: value for key, value in told.items() if key in known})
    hosts = tuple(Host(**one) for one in told.get("nodes", ()))
    plan = replace(plan, flags=tuple(plan.flags), nodes=hosts, folder=str(folder))
    command = traincommand.command(plan, job)
    if dry_run:
        return _print(Ready(plan, job, told, [], [], command), as_json)
    with trainjob.held(job):
        return _again(job, command, as_json=as_json)


def _again(job: TrainJob, command: Command, *, as_json: bool) -> int:
    if job.progress().get("phase") == "done":
        note(f"it is done already; in {job.folder}")
        return tell(job, as_json=as_json)
    last = trainjob.rewind(job)
    if last is not None:
        note(f"going on from {last.name}")
        command = changed(command, argv=(*command.argv, str(last)))
    else:
        note("there is no checkpoint yet: it begins again")
    return supervise(job, command, as_json=as_json)


def prepare(plan: TrainPlan) -> Ready:
    """Check the whole plan; all problems at once."""
    job = TrainJob(plan.place)
    if plan.kind == "script":
        script = Path(str(plan.script)).expanduser()
        if not script.is_file():
            raise SettingsError(
                f"there is no script {script.name}", where=str(script), slug="no-script"
            )
        return Ready(plan, job, plan.document(None), [], [], traincommand.command(plan, job))
    errors: list[UniscaleError] = []
    if plan.kind == "finetune":
        plan = _named(plan, errors)
    else:
        errors += pretraining.check(plan.numbers().arguments, plan.processes)
        plan = _with_payload(plan, errors)
    weights = _model(plan, errors)
    samples, measured = _data(plan, errors)
    if plan.kind == "finetune" and weights and any("prompt" in one for one in samples[:1]):
        _template(plan, weights, errors)
    try:
        command = traincommand.command(plan, job)
    except UniscaleError as error:
        raise_all([*errors, error])
        raise
    raise_all(errors)
    return Ready(plan, job, plan.document(weights), samples, measured, command)


def _with_payload(plan: TrainPlan, errors: list[UniscaleError]) -> TrainPlan:
    """The plan with the device of the payload that trains it; says which, where others could."""
    try:
        payload, *others = traincommand.trainers(plan)
    except LaunchError:
        return plan  # told with the others, when its command is made
    if others:
        names = ", ".join(one.device for one in others)
        note(f"{payload.title} trains; with --device, another would: {names}")
    errors += pretraining.check_tokenizer(plan.model, search_path(payload))
    return replace(plan, device=payload.device)


def _named(plan: TrainPlan, errors: list[UniscaleError]) -> TrainPlan:
    """The plan with its method's own name, after a look at what trainer and method can be told."""
    try:
        trainer_fields.check_installed()
    except LaunchError as error:
        errors.append(error)
    errors += trainer_fields.check_arguments(plan.numbers().arguments)
    try:
        plan = replace(plan, method=named(plan.method))
    except SettingsError as error:
        errors.append(error)
        return plan
    errors += trainer_fields.check_method(plan.method, plan.numbers().method_arguments)
    return plan


def _model(plan: TrainPlan, errors: list[UniscaleError]) -> str | None:
    from uniscale.models import models

    if plan.model is None:
        hint = f"its tokenizer is used; {pretraining.BYTES}: none" if plan.backend else None
        what = "no model is named"
        errors.append(SettingsError(what, where="model", hint=hint, slug="missing-key"))
        return None
    if plan.kind == "pretrain" and plan.model == pretraining.BYTES:
        return pretraining.BYTES
    try:
        formats = models.resolve(plan.model).formats
    except LaunchError as error:
        errors.append(error)
        return None
    if "hf" not in formats:
        errors.append(
            LaunchError(
                f"{plan.model} is {' and '.join(formats)}, which cannot be trained",
                where=plan.model, hint="give the folder with config.json and .safetensors",
                slug="wrong-format",
            )
        )  # fmt: skip
        return None
    # An owner/name of the hub is fetched by the trainer; it is no path here.
    return str(formats["hf"])


def _data(
    plan: TrainPlan, errors: list[UniscaleError]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from uniscale.training.conversations import Source, read

    if plan.data is None:
        errors.append(
            SettingsError("no data is named", where="data", hint="--data FILE", slug="missing-key")
        )
        return [], []
    found: list[list[dict[str, Any]]] = []
    for path in (plan.data, plan.eval_data):
        if path is None:
            found.append([])
            continue
        try:
            source = Source(path, plan.format, plan.columns, plan.split)
            found.append(read(source, text=plan.kind == "pretrain"))
        except UniscaleError as error:
            errors += error.findings()
            found.append([])
    return found[0], found[1]


def _template(plan: TrainPlan, weights: str, errors: list[UniscaleError]) -> None:
    """Conversations need a chat template; a base model's tokenizer often has none."""
    if plan.chat_template is not None:
        if not Path(plan.chat_template).is_file():
            what = f"there is no chat template {plan.chat_template}"
            errors.append(SettingsError(what, where="chat_template", slug="no-template"))
        return
    folder = Path(weights)
    if not folder.is_dir() or (folder / "chat_template.jinja").is_file():
        return
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # the tokenizer itself will say what is wrong with it
    if isinstance(told, dict) and not told.get("chat_template"):
        errors.append(
            SettingsError(
                f"{plan.model} has no chat template, and the data is conversations",
                where=str(folder / "tokenizer_config.json"),
                hint="give one with --set train.chat_template=FILE, or data with a text column",
                slug="no-template",
            )
        )


def _print(ready: Ready, as_json: bool) -> int:
    from uniscale.nodes.nodes import Node
    from uniscale.nodes.nodes import shell as on_machine
    from uniscale.serving.serve import shell

    found: tuple[Node, ...] = ()
    if ready.plan.nodes:
        from uniscale.training.trainnodes import commands

        found = commands(json.loads(json.dumps(ready.document)), ready.command)
    if as_json:
        told: dict[str, object] = {"folder": str(ready.job.folder), "record": dict(ready.document)}
        told |= {"samples": len(ready.samples), "argv": list(ready.command.argv)}
        told |= {"environment": dict(ready.command.environment)}
        told |= {"nodes": [one.as_json() for one in found]} if found else {}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    print(f"# {ready.job.record}:")
    for line in json.dumps(ready.document, indent=2, ensure_ascii=False).splitlines():
        print(f"# {line}")
    print(f"# {ready.job.data}: {len(ready.samples)} samples")
    print("\n\n".join(map(on_machine, found)) if found else shell(ready.command))
    return 0
