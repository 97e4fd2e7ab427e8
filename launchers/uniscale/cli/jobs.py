"""``uniscale ps``, ``logs`` and ``stop``: jobs by their record, processes by pid and start time."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError, did_you_mean

from uniscale.jobs import logfile, state
from uniscale.nodes.nodes import RECORD
from uniscale.talk import note

_PATIENCE = 25.0  # seconds: the supervisor gives its engines ten before it kills them


def ps(*, everything: bool, as_json: bool) -> int:
    """Print the jobs that run (with ``everything``, also those that ended); 0 also for none."""
    found = [job for job in state.jobs() if everything or _stoppable(job)]
    unread = state.unread()
    if as_json:
        print(json.dumps({"jobs": [_facts(job) for job in found], "unread": unread}, indent=2))
        return 0
    for folder in unread:
        note(f"a record is damaged or of another version, its job is not shown: {folder}")
    if not found:
        print("nothing runs")
    for job in found:
        word = "running" if job.alive else "broken off" if _stoppable(job) else "ended"
        age = _age(time.time() - job.created)
        print(f"{job.id}  {word}  {age}  {', '.join(job.models)}  {job.url}  pid {job.pid}")
        for one in job.processes if job.alive else ():
            told = one.state if one.alive else "gone"
            restarts = f"  {one.restarts} restarts" if one.restarts else ""
            port = f"  port {one.port}" if one.port else _step(job)
            print(f"  {one.title}  {told}{port}  pid {one.pid}{restarts}")
    return 0


def _facts(job: state.Job) -> dict[str, object]:
    return {
        "id": job.id,
        "alive": job.alive,
        "kind": job.kind,
        "models": list(job.models),
        "url": job.url,
        "pid": job.pid,
        "created": job.created,
        "folder": str(job.folder),
        "processes": [{**vars(one), "alive": one.alive} for one in job.processes],
    }


def _step(job: state.Job) -> str:
    """How far a training is, in its own words."""
    if job.kind != "train":
        return ""
    from uniscale.meter import told
    from uniscale.training.trainjob import TrainJob

    return f"  {told(TrainJob(Path(job.url)).progress())}".rstrip()


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(max(seconds, 0))} s"


def _named(name: str | None, *, running: bool) -> state.Job:
    jobs = [job for job in state.jobs() if not running or _stoppable(job)]
    if name is None:
        if len(jobs) == 1:
            return jobs[0]
        told = "\n".join(job.id for job in jobs)
        hint = f"name one:\n{told}" if jobs else "see uniscale ps --all"
        what = f"{len(jobs)} jobs run" if jobs else "nothing runs"
        raise LaunchError(what, hint=hint, slug="no-job")
    for job in reversed(jobs):
        if job.id == name:
            return job
    for folder in state.unread():
        if os.path.basename(folder) == name:
            raise LaunchError(
                "the record of this job is damaged, or of another version of uniscale",
                where=os.path.join(folder, "job.json"),
                hint="stop it with the version that started it; then delete its folder",
                slug="bad-record",
            )
    hint = did_you_mean(name, [job.id for job in jobs]) if jobs else "see uniscale ps --all"
    raise SettingsError(f"there is no job {name}", where=name, hint=hint, slug="no-job")


def _stoppable(job: state.Job) -> bool:
    """True for a job that runs here, or may have left something on other machines."""
    return job.alive or (job.folder / RECORD).exists()


def stop(names: Sequence[str], *, everything: bool) -> int:
    """End jobs and everything that they started; returns when they are gone.

    Raises `LaunchError` or `SettingsError` when there is no such job, before any is ended.
    """
    if everything:
        chosen = [job for job in state.jobs() if _stoppable(job)]
    else:
        chosen = [_named(name, running=True) for name in names or [None]]  # type: ignore[list-item]
    for job in chosen:
        _signal(job.pid, job.start, signal.SIGTERM)
    deadline = time.monotonic() + _PATIENCE
    for job in chosen:
        while job.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if job.alive:
            note(f"{job.id} does not stop: it is killed")
        _sweep(job)
        if (job.folder / RECORD).exists():
            from uniscale.nodes import cluster

            cluster.clear(job.folder)
        print(f"stopped {job.id}")
    return 0


def _sweep(job: state.Job) -> None:
    """End what a job that stopped the hard way may have left behind."""
    _signal(job.pid, job.start, signal.SIGKILL)
    if job.boot != state.boot():
        return
    for one in job.processes:
        if one.alive and one.pid == os.getpgid(one.pid):
            with suppress(ProcessLookupError):
                os.killpg(one.pid, signal.SIGKILL)


def _signal(pid: int, start: int, number: int) -> None:
    """Signal the process of that pid and start time, and never one that took its pid since."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The handle is the process that has the pid now; whether it is ours, its start tells.
        if state.started(pid) == start:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
    finally:
        os.close(handle)


def logs(name: str | None, part: str | None, *, follow: bool, lines: int) -> int:
    """Print the last ``lines`` of a job's logs (of the ``part`` whose title holds that text).

    With ``follow``, go on until the job ends or Ctrl-C.
    """
    job = _named(name, running=name is None)
    chosen = [(one.title, Path(one.log)) for one in job.processes if one.log]
    if part is not None:
        chosen = [one for one in chosen if part in one[0] or part == one[1].stem]
    if not chosen:
        what = "its output went to where it was started" if part is None else f"no part is {part}"
        titles = "\n".join(one.title for one in job.processes)
        raise LaunchError(f"{job.id} has no log: {what}", hint=titles or None, slug="no-log")
    places = {path: _show(title, path, lines, len(chosen) > 1) for title, path in chosen}
    while follow:
        ended = not job.alive
        for title, path in chosen:
            places[path] = _more(title, path, places[path], len(chosen) > 1)
        sys.stdout.flush()
        if ended:
            break
        time.sleep(0.2)
    return 0


def _show(title: str, path: Path, lines: int, several: bool) -> int:
    try:
        data = path.read_bytes()
    except FileNotFoundError:  # not started yet
        return 0
    for line in data.splitlines()[-lines:] if lines else ():
        _print(title, line, several)
    return data.rfind(b"\n") + 1


def _more(title: str, path: Path, place: int, several: bool) -> int:
    place = logfile.resumed(path, place)
    try:
        with path.open("rb") as stream:
            stream.seek(place)
            data = stream.read()
    except FileNotFoundError:
        return place
    whole = data[: data.rfind(b"\n") + 1]
    for line in whole.splitlines():
        _print(title, line, several)
    return place + len(whole)


def _print(title: str, line: bytes, several: bool) -> None:
    text = line.decode("utf-8", "replace")
    clean = "".join(char for char in text if char.isprintable() or char == "\t")
    print(f"{title} | {clean}" if several else clean)
