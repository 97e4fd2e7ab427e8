"""Shared libraries of a payload: each kept once, each found by those that need it.

A wheel holds no links, and ``libX.so -> libX.so.0 -> libX.so.0.5.0`` copied three times is three
libraries to the loader: three times the size, and initialised twice when opened by two names.
"""

from __future__ import annotations

import mmap
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uniscale_build.build.elf import Elf
from uniscale_build.build.tags import is_system, unknown_library
from uniscale_build.errors import UniscaleError, WheelError
from uniscale_build.recordfile import file_sha256

# A Python module's name has the ABI that it was built for.
_MODULE = re.compile(r"\.(?:cpython-|abi3|pypy|graalpy)[^.]*\.so$")
_ORIGIN = ("$ORIGIN", "${ORIGIN}")


@dataclass(frozen=True)
class Candidate:
    """A file that may be shipped: its name, the regular file behind it, and its ELF facts."""

    name: str
    real: Path
    is_link: bool
    elf: Elf | None


@dataclass(frozen=True)
class Alias:
    """A name of a library that was left out, and the name under which the library is kept.

    ``mentioned_in`` are kept files that hold the name as a string of its own: they may open the
    library by it at run time.
    """

    name: str
    kept: str
    mentioned_in: tuple[str, ...]


def dedupe(
    found: Sequence[Candidate], dlopen: frozenset[str], errors: list[UniscaleError]
) -> tuple[dict[str, str], tuple[Alias, ...]]:
    """The names to ship, by the names found, and the aliases that are not.

    Of several names for one library in one folder, the one that is needed (``DT_NEEDED``) or
    opened (``dlopen``: base names or whole names) stays, else its SONAME, else its own. A library
    that is needed under a SONAME that no file has is kept under that name.
    """
    needed = {library for entry in found if entry.elf for library in entry.elf.needed}
    present = {PurePosixPath(entry.name).name for entry in found}
    names: dict[str, str] = {}
    dropped: dict[str, str] = {}
    for group in _groups(found):
        if group[0].elf is None or not _is_library(group[0]):
            names.update({entry.name: entry.name for entry in group})
            continue
        kept, source = _kept_name(group, needed, present, dlopen, errors)
        if kept in names.values():
            errors.append(
                WheelError(
                    f"several libraries have the SONAME of {kept}, and none has the name",
                    where=source.name,
                    hint="did an older build's file stay in the install folder?",
                    slug="library-names",
                )
            )
        names[source.name] = kept
        dropped.update({entry.name: kept for entry in group if entry is not source})
        if source.name != kept:
            dropped[source.name] = kept
    dropped = {name: kept for name, kept in dropped.items() if name not in names.values()}
    return names, _aliases(dropped, [entry for entry in found if entry.name in names])


def check(
    elfs: Sequence[Elf],
    allowed_external: frozenset[str],
    errors: list[UniscaleError],
    prebuilt: Callable[[str], bool] = lambda name: False,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The libraries that ``elfs`` (paths relative to the payload) expect of the machine, and the
    vendor's among them.

    An error is noted for a library from nowhere, a search path that is not relative to the file,
    and a library in the payload that its user's search path does not reach. Files that
    ``prebuilt`` accepts were built elsewhere: absolute search paths in them are no concern.
    """
    places: dict[str, set[str]] = {}
    for elf in elfs:
        places.setdefault(elf.path.name, set()).add(elf.path.parent.as_posix())
    folders = _search_folders(elfs)
    for elf in elfs:
        strange = [entry for entry in elf.rpath if not _is_relative(entry)]
        if prebuilt(elf.path.as_posix()):
            strange = [entry for entry in strange if not entry]
        missed = [name for name in elf.needed
                  if name in places and not places[name] & folders[elf.path]]  # fmt: skip
        if strange or missed:
            errors.append(_search_path_error(elf, places, strange, missed))
    external: dict[str, list[str]] = {}
    for elf in elfs:
        for library in elf.needed:
            if library not in places:
                external.setdefault(library, []).append(str(elf.path))
    errors.extend(
        unknown_library(library, external[library])
        for library in sorted(external)
        if not is_system(library) and library not in allowed_external
    )
    names = sorted(external)
    return tuple(names), tuple(name for name in names if not is_system(name))


def _is_library(entry: Candidate) -> bool:
    """True for what is found by a library's names; Python finds its modules by their own."""
    base = PurePosixPath(entry.name).name
    if entry.elf is None or entry.elf.is_executable:
        return False
    if entry.elf.python_module or _MODULE.search(base):
        return False
    return entry.elf.soname is not None or ".so" in PurePosixPath(base).suffixes


def _soname(entry: Candidate) -> str | None:
    return entry.elf.soname if entry.elf is not None else None


def _stem(name: str) -> str:
    return PurePosixPath(name).name.split(".so", 1)[0]


def _groups(found: Sequence[Candidate]) -> list[list[Candidate]]:
    """``found`` grouped: names in one folder for one library, or for equal copies of it.

    Copies are taken for one library when they have one SONAME and one stem (``libX`` of
    ``libX.so.1``); links also when their stem is another, unless there is no SONAME to go by.
    """
    groups: dict[object, list[Candidate]] = {}
    alike: dict[object, list[Candidate]] = {}
    for entry in found:
        if entry.elf is None or not _is_library(entry):
            groups[entry.name] = [entry]
            continue
        folder, size = posixpath.dirname(entry.name), entry.real.stat().st_size
        alike.setdefault((folder, entry.elf.soname, _stem(entry.name), size), []).append(entry)
    same: dict[tuple[str, Path], Path] = {}
    for entries in alike.values():
        folder, files = posixpath.dirname(entries[0].name), sorted({e.real for e in entries})
        first: dict[str, Path] = {}
        for real in files:
            key = file_sha256(real) if len(files) > 1 and _soname(entries[0]) else str(real)
            same.setdefault((folder, real), first.setdefault(key, real))
    for entries in alike.values():
        for entry in entries:
            folder = posixpath.dirname(entry.name)
            stem = "" if _soname(entry) else _stem(entry.name)
            groups.setdefault((folder, same[folder, entry.real], stem), []).append(entry)
    return list(groups.values())


def _kept_name(
    group: Sequence[Candidate],
    needed: set[str],
    present: set[str],
    dlopen: frozenset[str],
    errors: list[UniscaleError],
) -> tuple[str, Candidate]:
    """The name to keep a library under, and the candidate to take its bytes from."""
    folder = posixpath.dirname(group[0].name)
    by_base = {PurePosixPath(entry.name).name: entry for entry in group}
    soname = _soname(group[0])
    wanted = {
        base for base, entry in by_base.items()
        if base in needed or base in dlopen or entry.name in dlopen
    }  # fmt: skip
    if soname is not None and soname in needed and soname not in present:
        wanted.add(soname)
    files = [entry for entry in group if not entry.is_link] or list(group)
    source = min(files, key=lambda entry: entry.name)
    if len(wanted) > 1:
        errors.append(
            WheelError(
                f"one library is wanted under several names: {', '.join(sorted(wanted))}",
                where=source.name,
                hint="a wheel holds no links, and two copies would be two libraries to the "
                "loader: link and open it under its SONAME",
                slug="library-names",
            )
        )
    if wanted:
        base = min(wanted)
    elif soname in by_base:
        base = str(soname)
    else:
        base = PurePosixPath(source.name).name
    return posixpath.join(folder, base), by_base.get(base, source)


def _aliases(dropped: Mapping[str, str], kept: Sequence[Candidate]) -> tuple[Alias, ...]:
    """The dropped names, each with the kept ELF files that mention it."""
    mentions: dict[str, list[str]] = {name: [] for name in dropped}
    if dropped:
        needles = {name: b"\0" + PurePosixPath(name).name.encode() + b"\0" for name in dropped}
        for entry in kept:
            if entry.elf is None:
                continue
            with (
                entry.real.open("rb") as stream,
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
            ):
                for name, needle in needles.items():
                    if data.find(needle) >= 0:
                        mentions[name].append(entry.name)
    return tuple(Alias(name, dropped[name], tuple(mentions[name])) for name in sorted(dropped))


def _search_folders(elfs: Sequence[Elf]) -> dict[Path, set[str]]:
    """The folders of the payload where the loader looks for each file's libraries.

    These are its own, and without RUNPATH also the RPATHs of those that need it, all the way up.
    """
    found = {elf.path: {_expanded(entry, elf) for entry in elf.rpath} for elf in elfs}
    by_name: dict[str, list[Elf]] = {}
    for elf in elfs:
        by_name.setdefault(elf.path.name, []).append(elf)
    todo = [elf for elf in elfs if elf.inherits]
    while todo:
        user = todo.pop()
        for name in user.needed:
            for elf in by_name.get(name, ()):
                reached = elf.path.parent.as_posix() in found[user.path]
                if elf.inherits and reached and not found[user.path] <= found[elf.path]:
                    found[elf.path] |= found[user.path]
                    todo.append(elf)
    return found


def _search_path_error(
    elf: Elf, places: Mapping[str, set[str]], strange: Sequence[str], missed: Sequence[str]
) -> WheelError:
    """What is wrong with where ``elf`` looks for libraries, in one error."""
    told = []
    if strange:
        named = " and ".join(repr(entry) if entry else "the current folder" for entry in strange)
        told.append(f"names {named}, which is not relative to the file")
    if missed:
        told.append(f"does not reach {', '.join(missed)} in the payload")
    start = elf.path.parent.as_posix()
    wanted = {_from_origin(start, min(places[name])) for name in elf.needed if name in places}
    cure = f"'{':'.join(sorted(wanted)) or '$ORIGIN'}'"
    return WheelError(
        f"the library search path of {elf.path.name} {', and '.join(told)}",
        where=str(elf.path),
        hint=f"install it with INSTALL_RPATH {cure} (CMAKE_INSTALL_RPATH) and with "
        "CMAKE_INSTALL_RPATH_USE_LINK_PATH=OFF; other folders are those of the building machine",
        slug="rpath",
    )


def _is_relative(entry: str) -> bool:
    start, _, rest = entry.partition("/")
    return start in _ORIGIN and "$" not in rest


def _expanded(entry: str, elf: Elf) -> str:
    """A search path entry as a folder of the payload; one that is no such thing gives ``/``."""
    start, _, rest = entry.partition("/")
    if start not in _ORIGIN:
        return "/"
    return posixpath.normpath(posixpath.join(elf.path.parent.as_posix(), rest))


def _from_origin(start: str, folder: str) -> str:
    way = posixpath.relpath(folder, start)
    return "$ORIGIN" if way == "." else f"$ORIGIN/{way}"
