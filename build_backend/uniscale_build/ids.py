"""Names, object ids and paths: parsed once, trusted afterwards.

Every id that reaches git or the file system passes through here first.
"""

from __future__ import annotations

import os
import re

from uniscale_build.errors import SettingsError, UniscaleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

# Read without regular expressions: the launchers need names and slugs on their way to exec.
_HEX = "0123456789abcdef"
_ALPHANUMERIC = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_LONGEST = 128  # characters of one path component that is safe on every file system that we meet


def is_object_id(text: str) -> bool:
    """True for a full lower-case git object id (SHA-1 or SHA-256)."""
    return len(text) in (40, 64) and not text.strip(_HEX)


def is_sha256(text: str) -> bool:
    """True for a lower-case SHA-256 in hex."""
    return len(text) == 64 and not text.strip(_HEX)


def check_name(text: str, *, what: str, error: type[UniscaleError] = SettingsError) -> str:
    """``text`` itself when it may name a folder (no separators, no leading dot), else an error."""
    safe = 0 < len(text) <= _LONGEST and text[0] in _ALPHANUMERIC
    if not safe or text.strip(_ALPHANUMERIC + "._+-") or ".." in text:
        raise error(
            f"{text!r} cannot be the name of a {what}",
            hint="letters, digits, '.', '_', '+' and '-', beginning with a letter or digit",
            slug="bad-name",
        )
    return text


def slug(text: str) -> str:
    """The canonical spelling for comparing names: lower case, runs of ``-_. `` as one ``-``."""
    same = text.strip().translate({ord(one): "-" for one in "_. "})
    while "--" in same:
        same = same.replace("--", "-")
    return same.lower()


def label(text: str) -> str:
    """``text`` as a PEP 440 local version label: ``Cambricon_MLU`` gives ``cambricon.mlu``."""
    return ".".join(part for part in re.split(r"[^a-z0-9]+", text.lower()) if part)


def inside(root: Path, path: Path, *, what: str, error: type[UniscaleError]) -> Path:
    """``path`` resolved, when it stays inside ``root``; an error otherwise."""
    if leaves(str(root), str(path)):
        raise error(
            f"{what} leaves its folder",
            where=str(path),
            hint=f"it must stay inside {root}",
            slug="path-escape",
        )
    return path.resolve()


def leaves(root: str, path: str) -> bool:
    """True when ``path``, resolved, is neither ``root`` nor below it."""
    top = os.path.realpath(root)
    return not os.path.join(os.path.realpath(path), "").startswith(os.path.join(top, ""))


def whole_number(text: str) -> int | None:
    """The number that ``text`` says in plain digits, below 10**9; None when it says none."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else None
