"""The folder of one training: its record, log, metrics, plot and checkpoints; begun or resumed."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniscale_build.errors import LaunchError, SettingsError

from uniscale.jobs import state

RECORD = "train.json"
COLLECTIVE = "UNISCALE_COLLECTIVE"  # the torch.distributed backend that the workers talk by
WHOLE = "uniscale-whole"  # stands in a checkpoint that was written to its end


@dataclass(frozen=True)
class TrainJob:
    """One job folder; every file in it has its name here."""

    folder: Path

    @property
    def record(self) -> Path:
        """What is trained and how: the worker's only input."""
        return self.folder / RECORD

    @property
    def data(self) -> Path:
        """The samples, one JSON object a line."""
        return self.folder / "data.jsonl"

    @property
    def eval_data(self) -> Path:
        """The samples that are only measured."""
        return self.folder / "eval.jsonl"

    @property
    def log(self) -> Path:
        """All that the processes print."""
        return self.folder / "train.log"

    @property
    def metrics(self) -> Path:
        """One JSON object for each measured step."""
        return self.folder / "metrics.jsonl"

    @property
    def plot(self) -> Path:
        """The loss over the steps."""
        return self.folder / "loss.svg"

    @property
    def state(self) -> Path:
        """How far it is."""
        return self.folder / "state.json"

    @property
    def failure(self) -> Path:
        """What a process that failed had to say."""
        return self.folder / "failure.json"

    @property
    def checkpoints(self) -> Path:
        """``checkpoint-STEP`` folders."""
        return self.folder / "checkpoints"

    @property
    def adapter(self) -> Path:
        """What a PEFT method learned."""
        return self.folder / "adapter"

    @property
    def weights(self) -> Path:
        """The whole model in Hugging Face's form."""
        return self.folder / "hf"

    @property
    def gguf(self) -> Path:
        """The whole model as llama.cpp reads it."""
        return self.folder / "model.gguf"

    def told(self) -> dict[str, Any]:
        """The record; `SettingsError` when the folder holds none that can be read."""
        try:
            told = json.loads(self.record.read_text(encoding="utf-8"))
            if isinstance(told, dict) and told.get("schema") == 1:
                return told
            reason = "it was written by another version"
        except OSError as error:
            reason = str(error.strerror)
        except ValueError as error:
            reason = str(error)
        raise SettingsError(
            f"{self.folder} is no training's folder: {reason}",
            where=str(self.record),
            slug="no-job",
        )

    def progress(self) -> dict[str, Any]:
        """What `state` says; empty before the first word."""
        return _read(self.state)

    def say(self, **facts: object) -> None:
        """Change what `state` says."""
        state.write(self.state, json.dumps({**self.progress(), **facts}))

    def measured(self) -> list[dict[str, Any]]:
        """Every whole line of the metrics, in the order of their steps."""
        try:
            lines = self.metrics.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        found = []
        for line in lines:
            try:
                one = json.loads(line)
            except ValueError:
                continue  # it is being written, or was cut by a kill
            if isinstance(one, dict) and isinstance(one.get("step"), int):
                found.append(one)
        return found

    def checkpoint(self) -> Path | None:
        """The last checkpoint that was written to its end."""
        found = [
            (int(entry.name.rpartition("-")[2]), entry)
            for entry in (self.checkpoints.iterdir() if self.checkpoints.is_dir() else ())
            if entry.name.rpartition("-")[2].isdigit() and (entry / WHOLE).is_file()
        ]
        return max(found)[1] if found else None


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


@contextmanager
def held(job: TrainJob) -> Iterator[None]:
    """Hold the folder against a second training in it; `LaunchError` when there is one."""
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(job.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LaunchError(
            f"the job folder cannot be written: {error.strerror}",
            where=str(error.filename or job.folder), hint="choose another with --out",
            slug="no-place",
        ) from error  # fmt: skip
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise LaunchError(
                "another training runs in this folder", where=str(job.folder),
                hint="see uniscale ps; or choose another folder with --out", slug="job-runs",
            ) from error  # fmt: skip
        yield
    finally:
        os.close(handle)


def begin(
    job: TrainJob,
    document: Mapping[str, object],
    samples: Sequence[Mapping[str, object]],
    measured: Sequence[Mapping[str, object]] = (),
) -> None:
    """Lay a new job down: data first, the record last, so that a record means a whole job."""
    _lines(job.data, samples)
    if measured:
        _lines(job.eval_data, measured)
    job.metrics.write_bytes(b"")
    job.log.write_bytes(b"")
    job.say(phase="starting")
    state.write(job.record, json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _lines(path: Path, items: Sequence[Mapping[str, object]]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogatepass") as stream:
        for item in items:
            stream.write(json.dumps(item) + "\n")


def check_same(job: TrainJob, document: Mapping[str, object]) -> None:
    """Raise `SettingsError` when the job in the folder is another one than ``document`` says."""
    told = job.told()
    wanted = json.loads(json.dumps(document))
    may_differ = ("devices", "environment", "processes", "nodes", "special", "master_port")
    differing = sorted(
        key
        for key in {*told, *wanted}
        if key not in may_differ and told.get(key) != wanted.get(key)
    )
    if differing:
        raise SettingsError(
            f"the job in this folder has another {', '.join(differing)}",
            where=str(job.folder),
            hint=f"go on with it as it was: uniscale train {job.folder} --resume\n"
            "or begin another with --out FOLDER",
            slug="other-job",
        )


def rewind(job: TrainJob) -> Path | None:
    """Make the folder ready to go on; the checkpoint to go on from, None: from the beginning.

    Metrics of steps that come again are dropped, and so are half-written checkpoints.
    """
    last = job.checkpoint()
    step = int(last.name.rpartition("-")[2]) if last is not None else 0
    kept = [one for one in job.measured() if one["step"] <= step]
    state.write(job.metrics, "".join(json.dumps(one) + "\n" for one in kept))
    for entry in job.checkpoints.iterdir() if job.checkpoints.is_dir() else ():
        if not (entry / WHOLE).is_file():
            shutil.rmtree(entry, ignore_errors=True)
    job.failure.unlink(missing_ok=True)
    job.say(phase="starting")
    return last
