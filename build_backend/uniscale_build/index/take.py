"""Takes wheels in: copies each beside the stored ones and verifies the copy, on all cores."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from uniscale_build.ending import ends_with
from uniscale_build.errors import IndexSiteError, UniscaleError, WheelError, raise_all
from uniscale_build.index.entry import Entry, Sidecars, check_file_name, read_entry
from uniscale_build.index.state import Source, source_of
from uniscale_build.processors import cores
from uniscale_build.progress import Reporter

# Below this a pool costs more than it saves, unless the wheels are large.
_FEW, _LARGE = 24, 64 << 20
METADATA, PROVENANCE = ".metadata", ".provenance.json"


class Given(NamedTuple):
    """A wheel that was given: its path, its name, how it looks from outside."""

    path: str
    name: str
    source: Source


def given_wheels(words: Sequence[Path]) -> list[Given]:
    """The wheels among files and folders; errors for what has none."""
    found: dict[str, Given] = {}
    errors: list[UniscaleError] = []
    for word in words:
        folder = os.path.abspath(word)
        try:
            with os.scandir(folder) as items:
                inside = [one for one in items if one.name.endswith(".whl") and one.is_file()]
            ours = [Given(item.path, item.name, source_of(item.stat())) for item in inside]
            what = "there is no wheel in this folder"
        except NotADirectoryError:
            ours = [Given(folder, word.name, source_of(os.stat(folder)))]
        except FileNotFoundError:
            ours, what = [], "there is no such file"
        if not ours:
            hint = "uniscale-build wheel --split makes wheels"
            errors.append(IndexSiteError(what, where=str(word), hint=hint, slug="no-wheel"))
        found.update((one.path, one) for one in sorted(ours))
    raise_all(errors)
    return list(found.values())


@dataclass(frozen=True)
class Job:
    """A wheel to read, and an own folder for what comes of it: sidecars, and unless the wheel is
    ``stored`` already, the copy that is verified."""

    path: Path
    folder: Path
    upload: int
    stored: bool = False


@dataclass(frozen=True)
class Taken:
    """What reading a wheel gave: its entry, or what is wrong with it."""

    job: Job
    entry: Entry | None
    errors: tuple[UniscaleError, ...] = ()


def now() -> int:
    """When wheels are added: ``SOURCE_DATE_EPOCH`` in seconds, else the clock."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else int(time.time())


def take(job: Job) -> Taken:
    """Read one wheel and write its sidecars; nothing of it is published yet."""
    try:
        check_file_name(job.path)
        job.folder.mkdir(parents=True)
        path = job.path if job.stored else job.folder / job.path.name
        if not job.stored:
            shutil.copyfile(job.path, path)
            path.chmod(0o644)
            os.utime(path, (job.upload, job.upload))
        entry, sidecars = read_entry(path, job.upload)
        _write_sidecars(job.folder / job.path.name, sidecars)
    except UniscaleError as error:
        return Taken(job, None, tuple(_told(one, job.path) for one in error.findings()))
    except FileNotFoundError:
        gone = WheelError("there is no such wheel", where=str(job.path), slug="no-wheel")
        return Taken(job, None, (gone,))
    return Taken(job, entry)


def _write_sidecars(path: Path, sidecars: Sidecars) -> None:
    for suffix, data in ((METADATA, sidecars.metadata), (PROVENANCE, sidecars.provenance)):
        if data is not None:
            target = path.with_name(path.name + suffix)
            target.write_bytes(data)
            target.chmod(0o644)


def _told(error: UniscaleError, path: Path) -> UniscaleError:
    """The error with the name that the user gave."""
    if error.where is not None and error.where.endswith(path.name):
        error.where = str(path)
    return error


def take_all(jobs: Sequence[Job], reporter: Reporter) -> Iterator[Taken]:
    """All of them, in order."""
    heavy = len(jobs) > 1 and sum(_size(job.path) for job in jobs) > _LARGE
    workers = min(cores(), len(jobs)) if heavy or len(jobs) >= _FEW else 1
    if workers < 2:
        for number, job in enumerate(jobs, 1):
            yield take(job)
            reporter.advance(number, len(jobs), "wheels")
        return
    from concurrent.futures import ProcessPoolExecutor  # takes as long as reading a wheel

    chunk = max(1, min(64, len(jobs) // (workers * 4)))
    # Workers have the index's lock open: one that outlived us would hold it for ever.
    with ProcessPoolExecutor(workers, initializer=ends_with, initargs=(os.getpid(),)) as pool:
        for number, taken in enumerate(pool.map(take, jobs, chunksize=chunk), 1):
            yield taken
            reporter.advance(number, len(jobs), "wheels")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
