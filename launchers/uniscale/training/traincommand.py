"""The command of a training: which payload's Python runs it, with what in its environment."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError

from uniscale.engines.engines import Command
from uniscale.talk import note
from uniscale.training.trainjob import COLLECTIVE, TrainJob
from uniscale.training.trainplan import TrainPlan
from uniscale.wheels.record import Payload

_BACKENDS = {"megatron": "Megatron-LM"}


def command(plan: TrainPlan, job: TrainJob) -> Command:
    """The torchrun of a plan; the worker's only argument is the job folder."""
    folder = os.path.abspath(job.folder)
    environment = dict(plan.environment)
    environment["UNISCALE_JOB"] = folder
    prefixes: list[str] = []
    python = sys.executable
    if plan.kind == "script":
        target = [
            "-m",
            "uniscale.workers.script",
            str(Path(str(plan.script)).expanduser()),
            *plan.flags,
        ]
    else:
        worker = "sft" if plan.kind == "finetune" else "gpt"
        target = ["-m", f"uniscale.workers.{worker}", folder]
    if plan.backend is not None:
        from uniscale.wheels import payloads

        payload = trainers(plan)[0]
        more = payloads.libraries(payloads.find(), payload)
        prefixes, python = [one.root for one in (payload, *more)], payload.python or python
        environment = {**payloads.device_environment(payload, more), **environment}
        plan = replace(plan, device=payload.device)
    environment = {**_collective(plan), **_visible(plan), **environment}
    if plan.kind != "script":
        # The current folder may hold files that are named like modules.
        environment["PYTHONSAFEPATH"] = "1"
        environment.setdefault("TOKENIZERS_PARALLELISM", "false")
    old = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [*prefixes, *our_sources(), *old]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(filter(None, path)))
    if plan.processes != "gpu" and (not plan.processes.isdigit() or int(plan.processes) < 1):
        raise SettingsError(
            f"processes cannot be {plan.processes!r}", where="processes",
            hint='a whole number from 1, or "gpu": one for each', slug="bad-number",
        )  # fmt: skip
    return Command(
        argv=(*torchrun(plan.processes, python), *target),
        environment=environment, host="", port="0", served_name=plan.title, probe="", metrics=None,
    )  # fmt: skip


def _visible(plan: TrainPlan) -> dict[str, str]:
    """The vendor's variable that limits which chips the processes see."""
    if plan.devices is None:
        return {}
    from uniscale.devices import chips, devices

    known = devices.known()
    device = devices.named(plan.device, known) if plan.device else devices.here(known)[0]
    if device.visible is None:
        raise chips.no_choice(device.name)
    value, remark = chips.chosen(plan.devices, device.name)
    if remark:
        note(remark)
    return {device.visible: value}


def _collective(plan: TrainPlan) -> dict[str, str]:
    """Which torch.distributed backend the workers talk by, where a device is named that says it."""
    if plan.device is None:
        return {}
    from uniscale.devices import devices

    known = devices.known()
    # A payload may be for a device that this installation has no manifest of.
    device = known.get(plan.device) if plan.backend else devices.named(plan.device, known)
    backend = device.collective.backend if device else ""
    return {COLLECTIVE: backend} if backend else {}


def torchrun(processes: str, python: str) -> tuple[str, ...]:
    """The head that starts ``processes`` workers of ``python`` here, without a fixed port."""
    head = (python, "-m", "torch.distributed.run")
    return (*head, "--standalone", "--nproc-per-node", processes)


def our_sources() -> list[str]:
    """Where the worker finds us, when we are no installed package."""
    import uniscale_build

    import uniscale

    found = [str(Path(str(one.__file__)).parents[1]) for one in (uniscale, uniscale_build)]
    return [one for one in found if Path(one).name not in ("site-packages", "dist-packages")]


def trainers(plan: TrainPlan) -> list[Payload]:
    """The payload that ``plan`` trains with, then others here that could.

    Of several, the one whose device is in this machine; `LaunchError` when there is none, or when
    nothing says which one is meant.
    """
    from uniscale_build.ids import slug

    from uniscale.wheels import payloads

    wanted = slug(_BACKENDS.get(str(plan.backend).lower(), str(plan.backend)))
    device = None if plan.device is None else slug(plan.device)
    able = [
        one
        for one in payloads.find().payloads
        if slug(one.backend) == wanted and "train" in one.tasks
        if device is None or device in {slug(name) for name in (one.device, *one.aliases)}
    ]
    if not able:
        raise LaunchError(
            f"no payload here trains with {plan.backend}",
            where="backend",
            hint="uniscale list shows what is installed; build one, in a clone of uniscale:\n"
            "pip install . --config-settings=backend=Megatron-LM --config-settings=device=cpu",
            slug="no-payload",
        )
    best = payloads.preferred(able)
    if len(best) > 1:
        raise payloads.several(best, f"train with {plan.backend}")
    return [*best, *(one for one in able if one is not best[0])]
