"""One training under our eyes: torchrun as a child, its progress shown, its end told."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path

from uniscale_build.errors import LaunchError, UniscaleError, raise_all

from uniscale.engines.engines import Command
from uniscale.frozen import changed
from uniscale.jobs import run, state
from uniscale.meter import Meter, duration
from uniscale.talk import note
from uniscale.training.methods import METHODS
from uniscale.training.pretraining import BYTES
from uniscale.training.trainjob import TrainJob

_GLANCE = 0.2  # seconds between two looks at a job that trains
_PLOT = 5.0  # seconds between two plots
# What torchrun logs after a worker has failed: its own traceback, many lines, none of the cause.
_EPILOGUE = re.compile(rb"^E\d{4} [\d:.]+ \d+ torch/distributed/elastic/", re.MULTILINE)


def supervise(job: TrainJob, command: Command, *, as_json: bool) -> int:
    """Run the workers to their end; what they print goes to the log."""
    if job.told().get("nodes"):
        return _spread(job, command, as_json=as_json)
    folder = os.path.abspath(job.folder)
    name = str(job.told()["name"])
    record = state.create(name, kind="train", models=(name,), url=folder)
    note(f"training {name} in {job.folder}; log: uniscale logs -f {record.id}")
    script = job.told().get("script") is not None
    with run.ending_signals():
        child = run.spawn(command, name, job.log)
        start = state.started(child.process.pid) or 0
        process = state.Process(
            "train", child.process.pid, start, 0, "training", 0, str(job.log.absolute())
        )
        changed(record, processes=(process,)).save()
        try:
            code = _watch(job, child, script)
        except BaseException:
            job.say(phase="stopped")
            raise
        finally:
            child.stop()
            _draw(job)
    if code != 0:
        job.say(phase="failed")
        raise _failure(job, code)
    job.say(phase="done", eta=0)
    return tell(job, as_json=as_json)


def _spread(job: TrainJob, command: Command, *, as_json: bool) -> int:
    """The same on several machines."""
    from uniscale.training import trainnodes

    def show(meter: Meter) -> None:
        meter.show(job.progress(), last=False)

    told = False

    def write(line: bytes) -> None:
        nonlocal told
        told = told or _EPILOGUE.match(line) is not None
        if not told:
            sys.stderr.write(line.decode("utf-8", "replace") + "\n")
            sys.stderr.flush()

    try:
        code = trainnodes.supervise(job, command, show=show, write=write, draw=lambda: _draw(job))
    except UniscaleError as error:
        if job.failure.exists():
            raise _failure(job, 1) from error
        raise_all([_of_machine(one) for one in error.findings()])
        raise
    return code or tell(job, as_json=as_json)


def _of_machine(error: UniscaleError) -> UniscaleError:
    if error.slug != "node-died" or error.where is None:
        return error
    hint = "\n".join(["its last lines:", *_last_words(Path(error.where))])
    return LaunchError(error.what, where=error.where, hint=hint, slug=error.slug)


def _watch(job: TrainJob, child: run.Child, script: bool) -> int:
    drawn, place = time.monotonic(), 0
    with Meter() as meter:
        while True:
            code = child.ended(_GLANCE)
            if script:
                place = _pass_on(job.log, place)
            else:
                meter.show(job.progress(), last=code is not None)
            if code is not None:
                return code
            if time.monotonic() - drawn > _PLOT:
                _draw(job)
                drawn = time.monotonic()


def _pass_on(log: Path, place: int) -> int:
    """A script has no meter of ours: what it prints is what its user sees."""
    with log.open("rb") as stream:
        stream.seek(place)
        data = stream.read()
    data = data[: data.rfind(b"\n") + 1]
    epilogue = _EPILOGUE.search(data)
    if epilogue is not None:
        data = data[: epilogue.start()]
    sys.stderr.write(data.decode("utf-8", "replace"))
    sys.stderr.flush()
    return place + len(data)


def _last_words(log: Path) -> list[str]:
    """The last lines before torchrun's own story of what it saw."""
    lines = run.tail(log, keep=200)
    cut = [number for number, line in enumerate(lines) if _EPILOGUE.match(line.encode())]
    return lines[: cut[0] if cut else None][-20:]


def _draw(job: TrainJob) -> None:
    from uniscale.training.plot import svg

    found = job.measured()
    curves = [
        (name, [(one["step"], one[key]) for one in found if isinstance(one.get(key), (int, float))])
        for name, key in (("loss", "loss"), ("evaluation", "eval_loss"))
    ]
    shown = [curve for curve in curves if curve[1]]
    if shown:
        state.write(job.plot, svg(f"{job.folder.name}: loss", shown))


def _failure(job: TrainJob, code: int) -> LaunchError:
    told = {}
    if job.failure.exists():
        told = json.loads(job.failure.read_text(encoding="utf-8"))
    if told:
        what = f"the training failed: {told['type']}: {told['message'].strip()}"
        hint = "the whole story is in its log"
    else:
        ended = f"exit code {code}" if code >= 0 else f"signal {-code}"
        what = f"the training ended early ({ended})"
        hint = "\n".join(["its last lines:", *_last_words(job.log)])
    if job.checkpoint() is not None:
        hint += f"\ngo on from the last checkpoint: uniscale train {job.folder} --resume"
    return LaunchError(what, where=str(job.log), hint=hint, slug="training-failed")


def tell(job: TrainJob, *, as_json: bool) -> int:
    """What came out, and how to serve it."""
    told, facts, found = job.told(), job.progress(), job.measured()
    losses = [one["loss"] for one in found if isinstance(one.get("loss"), (int, float))]
    folder = job.folder
    serve: list[str] = []
    merges = told.get("backend") is not None or METHODS[told["method"]].merges
    if told.get("script") is None and merges and told["weights"] != BYTES:
        serve = [f"uniscale export {folder}", f"uniscale serve {folder}"]
    if as_json:
        shown = {
            "folder": str(folder), "steps": facts.get("steps"), "seconds": facts.get("seconds"),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "next": serve,
        }  # fmt: skip
        print(json.dumps(shown, indent=2))
        return 0
    summary = [f"done in {folder}"]
    if facts.get("steps"):
        summary.append(f"{facts['steps']} steps in {duration(float(facts.get('seconds') or 0))}")
    if losses:
        summary.append(f"loss {losses[0]:.4g} → {losses[-1]:.4g}")
    note(", ".join(summary))
    if serve:
        note(f"serve it: {' && '.join(serve)}")
    return 0
