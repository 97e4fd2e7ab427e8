"""The ``.dist-info`` folder of a payload, so that Python's own tools know what the payload is.

``importlib.metadata`` finds it when the payload's prefix is on PYTHONPATH: version lookups, entry
points and plugins work as if the backend were installed. Written by PEP 376 and PEP 427.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from uniscale_build import __version__, recordfile
from uniscale_build.errors import UniscaleError, WheelError, raise_all, some
from uniscale_build.store import disk_errors, write_atomic

INSTALLER = "uniscale"
_PROJECT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_TAG = re.compile(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")
# What installers leave about the place that they installed from: paths and times of one machine.
_TRACES = ("direct_url.json", "REQUESTED", "RECORD.jws", "RECORD.p7s", "uv_cache.json",
           "uv_build.json")  # fmt: skip


def file_stem(name: str, version: str) -> str:
    """``name-version`` as file names have it (the binary distribution format's escaping).

    `WheelError` for what is no project name or no version (PEP 440).
    """
    from packaging.version import InvalidVersion, Version

    if _PROJECT.fullmatch(name) is None:
        raise WheelError(
            f"{name!r} cannot be the name of a distribution",
            hint="letters, digits, '.', '_' and '-', beginning and ending with letter or digit",
            slug="bad-name",
        )
    try:
        parsed = Version(version)
    except InvalidVersion as error:
        raise WheelError(
            f"{version!r} cannot be the version of a distribution",
            hint="versions follow PEP 440, like 0.9.2.post1+musa.s5000",
            slug="bad-version",
        ) from error
    project = re.sub(r"[-_.]+", "_", name).lower()
    return f"{project}-{str(parsed).replace('-', '_')}"


def expanded_tags(tag: str) -> tuple[str, ...]:
    """The single tags that a compressed tag set stands for, sorted (PEP 425)."""
    parts = tag.split("-")
    if len(parts) != 3 or not all(_TAG.fullmatch(part) for part in parts):
        raise WheelError(
            f"{tag!r} is no wheel tag",
            hint="it is python-abi-platform, like py3-none-manylinux_2_34_x86_64",
            slug="bad-tag",
        )
    pythons, abis, platforms = (part.split(".") for part in parts)
    return tuple(sorted({f"{p}-{a}-{x}" for p in pythons for a in abis for x in platforms}))


def wheel_file(tag: str, generator: str) -> str:
    """The text of a ``WHEEL`` file for ``tag``."""
    tags = expanded_tags(tag)
    pure = all(single.endswith("-none-any") for single in tags)
    lines = [
        "Wheel-Version: 1.0",
        f"Generator: {generator}",
        f"Root-Is-Purelib: {str(pure).lower()}",
        *(f"Tag: {single}" for single in tags),
    ]
    return "\n".join(lines) + "\n"


def generator(detail: str = "") -> str:
    """What ``WHEEL`` files of ours are made by."""
    return f"uniscale {__version__}{f' ({detail})' if detail else ''}"


def write_dist_info(
    prefix: Path,
    *,
    name: str,
    version: str,
    requires: Sequence[str],
    entry_points: str | None,
    tag: str,
) -> Path:
    """Write the dist-info of a native payload and return its folder.

    Call it last: its RECORD lists every file that is under ``prefix`` by then. `WheelError` for a
    name, version, requirement or tag that the standards do not allow.
    """
    from packaging.requirements import InvalidRequirement, Requirement

    stem = file_stem(name, version)
    errors: list[UniscaleError] = []
    kept = []
    for text in requires:
        try:
            kept.append(str(Requirement(text)))
        except InvalidRequirement as error:
            what = f"{text!r} is no requirement: {str(error).splitlines()[0]}"
            errors.append(WheelError(what, where=stem, hint="see PEP 508", slug="bad-requirement"))
    raise_all(errors)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {stem.partition('-')[2]}"]
    lines += [f"Requires-Dist: {text}" for text in kept]
    folder = prefix / f"{stem}.dist-info"
    with disk_errors(prefix):
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "METADATA", "\n".join(lines) + "\n")
        _write(folder / "WHEEL", wheel_file(tag, generator()))
        _write(folder / "INSTALLER", f"{INSTALLER}\n")
        if entry_points:
            _write(folder / "entry_points.txt", entry_points)
        _record(prefix, folder, _files(prefix))
    return folder


def normalise_dist_info(prefix: Path, *, main: str | None = None) -> tuple[str, ...]:
    """Make the dist-infos that a PEP 517 build brought true again; gives their folders' names.

    INSTALLER becomes ours, traces of the building machine go, every RECORD lists the files that
    are there. Files that no RECORD lists belong to the distribution ``main``, or to the only one.
    `WheelError` for a payload without dist-info, with ``.pth`` files at its top (they are not
    processed on PYTHONPATH, so what needs them would not work), or with files of no owner.
    """
    folders = sorted(path for path in prefix.glob("*.dist-info") if path.is_dir())
    errors: list[UniscaleError] = [
        WheelError(
            f"the payload relies on {path.name}, which Python ignores in a payload",
            where=str(path),
            hint="a payload is on PYTHONPATH, where .pth files have no effect: make a layer that "
            "does without it",
            slug="pth-file",
        )
        for path in sorted(prefix.glob("*.pth"))
    ]
    if not folders:
        errors.append(
            WheelError(
                "the payload has no dist-info",
                where=str(prefix),
                hint="a backend that is no Python project gets one from write_dist_info",
                slug="no-dist-info",
            )
        )
    raise_all(errors)
    with disk_errors(prefix):
        for folder in folders:
            for trace in _TRACES:
                (folder / trace).unlink(missing_ok=True)
            _write(folder / "INSTALLER", f"{INSTALLER}\n")
        names = _files(prefix)
        for folder, owned in _owners(prefix, folders, names, main).items():
            _record(prefix, folder, owned)
    return tuple(folder.name for folder in folders)


def _owners(
    prefix: Path, folders: Sequence[Path], names: Sequence[str], main: str | None
) -> dict[Path, list[str]]:
    """The files of each distribution: what its RECORD lists and is there, and the unlisted."""
    left = dict.fromkeys(names)
    owned: dict[Path, list[str]] = {}
    for folder in folders:
        record = folder / "RECORD"
        text = record.read_text("utf-8", "surrogateescape") if record.is_file() else ""
        listed = {row.name for row in recordfile.parse(text)[0]}
        own = f"{folder.name}/"
        owned[folder] = [name for name in left if name in listed or name.startswith(own)]
        for name in owned[folder]:
            del left[name]
    if left:
        owned[_main_folder(prefix, folders, list(left), main)].extend(left)
    return owned


def _main_folder(prefix: Path, folders: Sequence[Path], left: list[str], main: str | None) -> Path:
    if main is None and len(folders) == 1:
        return folders[0]
    wanted = re.sub(r"[-_.]+", "_", main or "").lower()
    for folder in folders:
        if re.sub(r"[-_.]+", "_", folder.name.split("-")[0]).lower() == wanted:
            return folder
    raise WheelError(
        f"no distribution in the payload lists {some(left, 3)}",
        where=str(prefix),
        hint="name the distribution that they belong to: "
        + ", ".join(folder.name.split("-")[0] for folder in folders),
        slug="unowned-files",
    )


def _files(prefix: Path) -> list[str]:
    """The names of all files under ``prefix``, sorted, after removing compiled bytecode."""
    names: list[str] = []
    for folder, inner, files in os.walk(prefix):
        if "__pycache__" in inner:
            inner.remove("__pycache__")
            shutil.rmtree(os.path.join(folder, "__pycache__"))
        names += (os.path.relpath(os.path.join(folder, name), prefix) for name in files)
    return sorted(names)


def _record(prefix: Path, folder: Path, names: Sequence[str]) -> None:
    own = f"{folder.name}/RECORD"
    rows = recordfile.rows_of(prefix, (name for name in names if name != own))
    _write(folder / "RECORD", recordfile.render(rows, own))


def _write(path: Path, text: str) -> None:
    write_atomic(path, text.encode("utf-8"))
