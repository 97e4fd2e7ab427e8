"""The files that go into a payload or wheel, and the names that they may have.

A wheel is unpacked on machines that we never see: a name is refused here, once, when some
unpacker somewhere would put it outside its folder, over another file, or nowhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import UniscaleError, WheelError

MODES = (0o644, 0o755)
# In a wheel's dist-info folder, beside what the wheel format asks for.
SBOM = "sboms/uniscale.cdx.json"
PROVENANCE = "provenance.intoto.json"

# C0, DEL, C1, and the marks that reorder what a reader sees; lone surrogates are not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Member:
    """One file of a wheel: its POSIX name there, its bytes or where they are, and its mode.

    A ``Path`` must be a regular file when it is read; links are refused, never followed.
    """

    name: str
    source: Path | bytes
    mode: int = 0o644


def name_problem(name: str) -> str | None:
    """Why ``name`` cannot be the name of a member; None when it can."""
    if not name:
        return "it is empty"
    if _UNSEEN.search(name):
        return "it holds control characters or bytes that are not UTF-8"
    if "\\" in name:
        return "it holds a backslash, which some systems take for a separator"
    if name.startswith("/") or _DRIVE.match(name):
        return "it is absolute"
    parts = name.split("/")
    if ".." in parts or "." in parts:
        return "it holds '.' or '..'"
    if "" in parts:
        return "it has an empty part: a file's name has single, inner slashes"
    if any(len(part.encode()) > 255 for part in parts) or len(name.encode()) > 4000:
        return "it is too long for a file system"
    return None


def check_names(names: Iterable[str], *, what: str) -> list[UniscaleError]:
    """Everything wrong with ``names`` as the files of one ``what`` (``payload``, ``wheel``).

    Besides each name: the same name twice, names that differ by case or Unicode form only, and a
    file where another name needs a folder.
    """
    errors: list[UniscaleError] = []
    folded: dict[str, str] = {}
    for name in names:
        problem = name_problem(name)
        if problem is not None:
            errors.append(_refused(f"{name!r} cannot be in a {what}: {problem}"))
            continue
        key = _folded(name)
        other = folded.get(key)
        if other is None:
            folded[key] = name
            continue
        difference = "twice" if other == name else f"and {other!r}: they differ by case only"
        errors.append(_refused(f"{name!r} is in the {what} {difference}", "duplicate-name"))
    for key, name in folded.items():
        parent = key
        while "/" in parent:
            parent = parent.rpartition("/")[0]
            if parent in folded:
                text = f"{folded[parent]!r} is a file, and {name!r} needs it to be a folder"
                errors.append(_refused(text, "duplicate-name"))
                break
    return errors


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _refused(text: str, slug: str = "bad-name") -> WheelError:
    return WheelError(
        text,
        hint="the backend's install step made this name: rename or leave the file out there",
        slug=slug,
    )
