"""Jobs that run on this machine: a folder for each, processes named by pid and start time.

A pid alone may be somebody else's by now; a pid with the moment it started, in this boot, is not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uniscale_build.errors import LaunchError
from uniscale_build.ids import slug

VARIABLE = "UNISCALE_STATE"
_FILE = "job.json"
_KEPT = 10  # ended jobs whose logs stay


@dataclass(frozen=True)
class Process:
    """One process of a job; ``start`` is in clock ticks since boot (proc(5), field 22)."""

    title: str
    pid: int
    start: int
    port: int
    state: str  # starting, ready, waiting (to be started again)
    restarts: int
    log: str | None

    @property
    def alive(self) -> bool:
        """True while this very process runs."""
        return self.pid > 0 and started(self.pid) == self.start


@dataclass(frozen=True)
class Job:
    """What one ``uniscale serve`` runs; ``pid`` is the supervisor's, or the lone engine's."""

    id: str
    folder: Path
    pid: int
    start: int
    boot: str
    kind: str  # engine, fleet, train
    models: tuple[str, ...]
    url: str  # of the API; of a training, its folder
    created: float  # seconds since the epoch
    processes: tuple[Process, ...] = field(default=())

    @property
    def alive(self) -> bool:
        """True while its process runs, in this boot of the machine."""
        return self.boot == boot() and started(self.pid) == self.start

    def save(self) -> None:
        """Write the record, whole or not at all."""
        told = {**asdict(self), "folder": None}
        write(self.folder / _FILE, json.dumps(told))


def write(path: Path, text: str) -> None:
    """``text`` at ``path`` for this user alone; a reader sees the old or the new, never half."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8", opener=_private) as stream:
        stream.write(text)
    part.replace(path)


def _private(name: str, mode: int) -> int:
    return os.open(name, mode, 0o600)


def started(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def boot() -> str:
    """An id of this boot of the machine: pids and start times mean nothing in another one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # some sandboxes hide it; the start times still tell processes apart
        return "unknown"


def root() -> Path:
    """The folder of all jobs: ``UNISCALE_STATE``, or uniscale/jobs under ``XDG_STATE_HOME``."""
    told = os.environ.get(VARIABLE)
    if told:
        return Path(os.path.abspath(told))
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "uniscale" / "jobs"


def create(name: str, *, kind: str, models: tuple[str, ...], url: str) -> Job:
    """A new job of this process, in a folder of its own; `LaunchError` when there is no place."""
    stem = slug("".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_."))) or "job"
    base = root()
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        _forget(base)
        for number in range(1, 10_000):
            identity = stem[:60] if number == 1 else f"{stem[:60]}-{number}"
            try:
                (base / identity).mkdir(mode=0o700)
            except FileExistsError:
                continue
            break
        job = Job(
            id=identity,
            folder=base / identity,
            pid=os.getpid(),
            start=started(os.getpid()) or 0,
            boot=boot(),
            kind=kind,
            models=models,
            url=url,
            created=time.time(),
        )
        job.save()
    except OSError as error:
        raise LaunchError(
            f"there is no place to note what runs: {error.strerror}",
            where=str(error.filename or base),
            hint=f"point {VARIABLE} to a folder that you may write to",
            slug="no-state",
        ) from error
    return job


def jobs() -> list[Job]:
    """All recorded jobs, the oldest first; folders without a readable record are left out."""
    found = [job for folder in _folders(root()) if (job := _read(folder)) is not None]
    return sorted(found, key=lambda job: (job.created, job.id))


def _folders(base: Path) -> Iterator[Path]:
    try:
        yield from sorted(entry for entry in base.iterdir() if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return


def _read(folder: Path) -> Job | None:
    try:
        told: Mapping[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        processes = tuple(Process(**one) for one in told["processes"])
        models = tuple(told["models"])
        return Job(**{**told, "folder": folder, "models": models, "processes": processes})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # being made at this moment, or not ours


def _forget(base: Path) -> None:
    """Remove the oldest ended jobs, so that logs do not pile up."""
    ended = [job for job in jobs() if not job.alive]
    for job in ended[: max(len(ended) - _KEPT, 0)]:
        import shutil  # it loads three compression libraries: not on the way to exec

        shutil.rmtree(job.folder, ignore_errors=True)
