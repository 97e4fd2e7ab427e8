"""From an install tree to a payload: regular files only, each library once, nothing outside.

`assemble` decides everything before it copies anything: with errors, the prefix stays empty.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from uniscale_build.build import elf as elf_file
from uniscale_build.build import libraries
from uniscale_build.build.distinfo import normalise_dist_info, write_dist_info
from uniscale_build.build.elf import Elf
from uniscale_build.build.libraries import Alias
from uniscale_build.build.scripts import relocatable
from uniscale_build.errors import UniscaleError, WheelError, raise_all
from uniscale_build.members import check_names
from uniscale_build.store import disk_errors

__all__ = ["DROP", "Alias", "Assembled", "assemble", "normalise_dist_info", "write_dist_info"]

# What building against a library needs and running does not; and what Python makes by itself.
DROP = ("include/**", "lib/cmake/**", "lib/pkgconfig/**", "**/*.a", "share/man/**")
_NEVER = ("**/__pycache__/**", "**/*.pyc", "**/.DS_Store")


@dataclass(frozen=True)
class Assembled:
    """What a payload holds.

    ``files`` are its names (POSIX, sorted); the paths of ``elfs`` are relative to the prefix.
    ``external`` are all libraries that it expects of the machine, ``vendor`` those of them that
    only the vendor's runtime has. ``aliases`` are the names of libraries that were left out.
    """

    files: tuple[str, ...]
    elfs: tuple[Elf, ...]
    external: tuple[str, ...]
    vendor: tuple[str, ...]
    aliases: tuple[Alias, ...]


@dataclass(frozen=True)
class _Found:
    """One file of the install tree: its name there and the regular file behind that name."""

    name: str
    real: Path
    executable: bool
    is_link: bool


def assemble(
    installed: Path,
    prefix: Path,
    *,
    allowed_external: frozenset[str],
    drop: tuple[str, ...] = DROP,
    dlopen: frozenset[str] = frozenset(),
    prebuilt: tuple[str, ...] = (),
) -> Assembled:
    """Copy the install tree ``installed`` into the empty folder ``prefix`` as a payload.

    ``allowed_external`` are SONAMEs that the vendor's runtime brings. ``drop`` are patterns of
    names to leave out (``*`` within a part, ``**`` over parts). ``dlopen`` are the names by which
    programs open libraries at run time: such a name is kept as one that is linked against is.
    ``prebuilt`` are patterns of files that were taken as they are from somebody else's build, whose
    absolute search paths are theirs to answer for.
    `WheelError` (all at once) for what `libraries.check` refuses, for links that lead out of the
    tree or nowhere, for names that no wheel may hold, and for anything that is not a file.
    """
    if prefix.exists() and any(prefix.iterdir()):
        raise WheelError(
            "the payload's folder is not empty",
            where=str(prefix),
            hint="a payload is made whole; remove what an earlier run left there",
            slug="prefix-not-empty",
        )
    errors: list[UniscaleError] = []
    found = _scan(installed, _patterns((*drop, *_NEVER)), errors)
    elfs = _read_elfs(found, errors)
    raise_all(errors)

    names, aliases = libraries.dedupe(
        [libraries.Candidate(entry.name, entry.real, entry.is_link, elfs.get(entry.name))
         for entry in found],
        dlopen, errors,
    )  # fmt: skip
    kept = {names[entry.name]: entry for entry in found if entry.name in names}
    placed = tuple(
        dataclasses.replace(elfs[entry.name], path=Path(name))
        for name, entry in sorted(kept.items())
        if entry.name in elfs
    )
    foreign = _patterns(prebuilt)
    external, vendor = libraries.check(
        placed, allowed_external, errors, lambda name: _matches(name, foreign)
    )
    errors.extend(check_names(sorted(kept), what="payload"))
    raise_all(errors)
    if not kept:
        raise WheelError(
            "the install tree holds nothing to ship",
            where=str(installed),
            hint="did the build's install step run, and are the programs among its targets?",
            slug="empty-payload",
        )
    with disk_errors(prefix):
        for folder in sorted({(prefix / name).parent for name in kept}):
            folder.mkdir(parents=True, exist_ok=True)
        for name, entry in sorted(kept.items()):
            _copy(entry, prefix / name)
    return Assembled(tuple(sorted(kept)), placed, external, vendor, aliases)


def _scan(root: Path, drop: Sequence[re.Pattern[str]], errors: list[UniscaleError]) -> list[_Found]:
    """All files below ``root`` that are not dropped, links inside the tree resolved."""
    top = root.resolve()
    found: list[_Found] = []

    def dropped(name: str) -> bool:
        return _matches(name, drop)

    for name, path in _walk(root, "", (top,), dropped, errors):
        if dropped(name):
            continue
        is_link = path.is_symlink()
        real = _resolved(path, name, top, errors) if is_link else path
        if real is None:
            continue
        mode = real.lstat().st_mode
        if not stat.S_ISREG(mode):
            errors.append(
                WheelError(
                    f"{name!r} is neither a file nor a folder",
                    where=str(path),
                    hint="pipes, sockets and devices cannot be shipped",
                    slug="special-file",
                )
            )
            continue
        found.append(_Found(name, real, bool(mode & stat.S_IXUSR), is_link))
    return found


def _walk(
    folder: Path,
    name: str,
    above: tuple[Path, ...],
    dropped: Callable[[str], bool],
    errors: list[UniscaleError],
) -> Iterator[tuple[str, Path]]:
    """Names and paths of all that is no folder; ``above`` are the real folders on the way."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        inner = f"{name}/{entry.name}" if name else entry.name
        path = Path(entry.path)
        if not path.is_dir():  # unlike the entry's own, it takes a loop of links for no folder
            yield inner, path
            continue
        if dropped(f"{inner}/-"):  # everything in it is
            continue
        real = path.resolve() if entry.is_symlink() else above[-1] / entry.name
        if real in above:
            errors.append(_bad_link(inner, path, "leads back to a folder that it is in"))
        elif not real.is_relative_to(above[0]):
            errors.append(_bad_link(inner, path, f"leads out of the install tree, to {real}"))
        else:
            yield from _walk(path, inner, (*above, real), dropped, errors)


def _resolved(path: Path, name: str, top: Path, errors: list[UniscaleError]) -> Path | None:
    """The file that the link ``path`` leads to, inside ``top``; None and an error otherwise."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):  # Python before 3.13 raises RuntimeError for a loop
        errors.append(_bad_link(name, path, f"leads nowhere: {os.readlink(path)!r}"))
        return None
    if not real.is_relative_to(top):
        errors.append(_bad_link(name, path, f"leads out of the install tree, to {real}"))
        return None
    return real


def _bad_link(name: str, path: Path, what: str) -> WheelError:
    return WheelError(
        f"the link {name!r} {what}",
        where=str(path),
        hint="a wheel holds no links, and what is outside is never copied in: install the file "
        "itself, or leave the link out",
        slug="bad-link",
    )


def _read_elfs(found: Sequence[_Found], errors: list[UniscaleError]) -> dict[str, Elf]:
    """The ELF facts by name; a damaged file is an error."""
    elfs: dict[str, Elf] = {}
    by_real: dict[Path, Elf | None] = {}
    for entry in found:
        if entry.real not in by_real:
            try:
                by_real[entry.real] = elf_file.read(entry.real)
            except WheelError as error:
                errors.append(error)
                by_real[entry.real] = None
        facts = by_real[entry.real]
        if facts is not None:
            elfs[entry.name] = facts
    return elfs


def _copy(entry: _Found, target: Path) -> None:
    if PurePosixPath(entry.name).parts[0] == "bin" and _is_script(entry.real):
        target.write_bytes(relocatable(entry.real.read_bytes()))
    else:
        shutil.copyfile(entry.real, target, follow_symlinks=False)
    target.chmod(0o755 if entry.executable else 0o644)


def _is_script(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"#!"


def _matches(name: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(pattern.fullmatch(name) for pattern in patterns)


def _patterns(globs: Sequence[str]) -> list[re.Pattern[str]]:
    """Expressions that match whole names; ``**`` stands for any number of parts."""
    return [re.compile(_expression(glob), re.DOTALL) for glob in globs]


def _expression(glob: str) -> str:
    parts = glob.split("/")
    out = []
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            out.append(".*" if last else "(?:[^/]+/)*")
            continue
        text = "".join({"*": "[^/]*", "?": "[^/]"}.get(char, re.escape(char)) for char in part)
        out.append(text if last else text + "/")
    return "".join(out)
