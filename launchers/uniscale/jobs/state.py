"""Jobs that run on this machine: a folder for each, processes named by pid and start time.

A pid alone may be somebody else's by now; a pid with the moment it started, in this boot, is not.
"""

from __future__ import annotations

import json
import os
import time

from uniscale_build.errors import LaunchError
from uniscale_build.ids import slug

from uniscale import folders
from uniscale.frozen import Frozen
from uniscale.frozen import told as told_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import Any

_FILE = "job.json"
_KEPT = 10  # ended jobs whose logs stay


class Process(Frozen):
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


class Job(Frozen):
    """What one ``uniscale serve`` runs; ``pid`` is the supervisor's, or the lone engine's."""

    id: str
    root: str  # its folder, as text: see `folder`
    pid: int
    start: int
    boot: str
    kind: str  # engine, fleet, train
    models: tuple[str, ...]
    url: str  # of the API; of a training, its folder
    created: float  # seconds since the epoch
    processes: tuple[Process, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder of its record and its logs."""
        from pathlib import Path  # not on the way to exec: it takes 7 ms

        return Path(self.root)

    @property
    def alive(self) -> bool:
        """True while its process runs, in this boot of the machine."""
        return self.boot == boot() and started(self.pid) == self.start

    def save(self) -> None:
        """Write the record, whole or not at all."""
        told = told_by(self)
        del told["root"]
        told["processes"] = [told_by(one) for one in self.processes]
        write(os.path.join(self.root, _FILE), json.dumps(told))


def write(path: str | Path, text: str) -> None:
    """``text`` at ``path`` for this user alone; a reader sees the old or the new, never half."""
    folder, name = os.path.split(path)
    part = os.path.join(folder, f".{name}.{os.getpid()}")
    with open(part, "w", encoding="utf-8", opener=_private) as stream:
        stream.write(text)
    os.replace(part, path)


def _private(name: str, mode: int) -> int:
    return os.open(name, mode, 0o600)


def started(pid: int) -> int | None:
    """When ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
    try:
        text = _read(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def boot() -> str:
    """An id of this boot of the machine: pids and start times mean nothing in another one."""
    try:
        return _read("/proc/sys/kernel/random/boot_id").strip()
    except OSError:  # some sandboxes hide it; the start times still tell processes apart
        return "unknown"


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def create(name: str, *, kind: str, models: tuple[str, ...], url: str) -> Job:
    """A new job of this process, in a folder of its own; `LaunchError` when there is no place."""
    stem = slug("".join(c for c in name if c.isascii() and (c.isalnum() or c in "-_."))) or "job"
    base = folders.jobs()
    try:
        os.makedirs(base, exist_ok=True, mode=0o700)
        _forget()
        for number in range(1, 10_000):
            identity = stem[:60] if number == 1 else f"{stem[:60]}-{number}"
            try:
                os.mkdir(os.path.join(base, identity), mode=0o700)
            except FileExistsError:
                continue
            break
        job = Job(
            id=identity,
            root=os.path.join(base, identity),
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
            hint=f"point {folders.STATE} to a folder that you may write to",
            slug="no-state",
        ) from error
    return job


def jobs() -> list[Job]:
    """All recorded jobs, the oldest first; folders without a readable record are left out."""
    found = [job for folder in _folders(folders.jobs()) if (job := _recorded(folder)) is not None]
    return sorted(found, key=lambda job: (job.created, job.id))


def unread() -> list[str]:
    """The folders whose record cannot be read: damaged, or of another version of uniscale."""
    return [
        folder
        for folder in _folders(folders.jobs())
        # In this order: a record that is made at this moment is whole when it is there.
        if os.path.exists(os.path.join(folder, _FILE)) and _recorded(folder) is None
    ]


def _folders(base: str) -> Iterator[str]:
    try:
        with os.scandir(base) as entries:
            yield from sorted(entry.path for entry in entries if entry.is_dir())
    except (FileNotFoundError, NotADirectoryError):
        return


def _recorded(folder: str) -> Job | None:
    try:
        with open(os.path.join(folder, _FILE), encoding="utf-8") as stream:
            told: Mapping[str, Any] = json.load(stream)
        processes = tuple(Process(**one) for one in told["processes"])
        models = tuple(told["models"])
        return Job(**{**told, "root": folder, "models": models, "processes": processes})
    except (OSError, ValueError, TypeError, KeyError):
        return None  # being made at this moment, or not ours


def _forget() -> None:
    """Remove the oldest ended jobs, so that logs do not pile up."""
    ended = [job for job in jobs() if not job.alive]
    for job in ended[: max(len(ended) - _KEPT, 0)]:
        # shutil would do, but loads three compression libraries first.
        for folder, _, files in os.walk(job.root, topdown=False):
            try:
                for name in files:
                    os.unlink(os.path.join(folder, name))
                os.rmdir(folder)
            except OSError:
                break  # somebody else removes it too
