"""Compiled members that come from a pinned wheel of upstream instead of a compiler."""

from __future__ import annotations

import fnmatch
import platform
import shutil
import zipfile
from pathlib import Path

from uniscale_build.errors import SourceError, UniscaleError, WheelError, raise_all
from uniscale_build.manifests.model import Kit, PinnedWheel, Precompiled
from uniscale_build.members import check_names
from uniscale_build.progress import Reporter
from uniscale_build.sources import pypi
from uniscale_build.sources.download import download
from uniscale_build.store import Store

_FROM_SOURCE = "kernels=source compiles them here"


def fetch(store: Store, pinned: Precompiled | Kit, reporter: Reporter, *, offline: bool) -> Path:
    """The pinned wheel for this machine, in the store, its hash verified; `SourceError`."""
    wheel = for_machine(pinned, platform.machine())
    kept = store.downloads / wheel.sha256 / wheel.file
    if kept.is_file():
        return kept
    if offline:
        raise SourceError(
            f"{wheel.file} is not in the cache, and the build is offline",
            where=pinned.where,
            hint=f"build once with a network, or: {_otherwise(pinned)}",
            slug="no-source",
        )
    reporter.stage("fetch", wheel.file)
    url = pypi.find_file(pinned.project, wheel.file).url
    return download(store, url, wheel.sha256, wheel.file, reporter)


def _otherwise(pinned: Precompiled | Kit) -> str:
    if isinstance(pinned, Kit):
        return f"install what brings {pinned.unless} into the SDK"
    return _FROM_SOURCE


def for_machine(pinned: Precompiled | Kit, machine: str) -> PinnedWheel:
    """The wheel for ``machine`` (as ``uname -m`` names it)."""
    for wheel in pinned.files:
        if wheel.machine == machine:
            return wheel
    have = ", ".join(item.machine for item in pinned.files)
    raise SourceError(
        f"there is no pinned wheel of {pinned.project} for {machine}",
        where=pinned.where,
        hint=f"there are for {have}; {_otherwise(pinned)}",
        slug="no-precompiled",
    )


def take(wheel: Path, pinned: Precompiled, install: Path) -> tuple[str, ...]:
    """Copy the members that ``pinned`` names from ``wheel`` into ``install``; gives their names.

    `WheelError` (all at once) for a pattern that fits no member, a member that the build made too,
    and names that leave ``install``; then nothing is copied.
    """
    errors: list[UniscaleError] = []
    try:
        with zipfile.ZipFile(wheel) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            chosen = _choose(infos, pinned, errors)
            errors.extend(check_names([info.filename for info in chosen], what="wheel"))
            errors.extend(
                WheelError(
                    f"{info.filename} is in the built wheel already",
                    where=pinned.where,
                    hint="upstream's build must not make what is taken precompiled: see the "
                    "environment of the recipe",
                    slug="member-twice",
                )
                for info in chosen
                if (install / info.filename).exists()
            )
            raise_all(errors)
            for info in chosen:
                _copy(archive, info, install / info.filename)
    except zipfile.BadZipFile as error:
        raise WheelError(f"not a wheel: {error}", where=str(wheel), slug="bad-zip") from error
    return tuple(sorted(info.filename for info in chosen))


def _choose(
    infos: list[zipfile.ZipInfo], pinned: Precompiled, errors: list[UniscaleError]
) -> list[zipfile.ZipInfo]:
    chosen: dict[str, zipfile.ZipInfo] = {}
    for pattern in pinned.members:
        fitting = [info for info in infos if fnmatch.fnmatchcase(info.filename, pattern)]
        chosen |= {info.filename: info for info in fitting}
        if not fitting:
            errors.append(
                WheelError(
                    f"no member of the pinned wheel fits {pattern!r}",
                    where=pinned.where,
                    hint="look what the wheel has: python -m zipfile -l WHEEL",
                    slug="no-member",
                )
            )
    return list(chosen.values())


def _copy(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, target.open("xb") as out:
        shutil.copyfileobj(source, out, 1 << 20)
    target.chmod(0o755 if info.external_attr >> 16 & 0o100 else 0o644)
