"""Names, object ids and paths: parsed once, trusted afterwards.

Every id that reaches git or the file system passes through here first.
"""

from __future__ import annotations

import re
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError

_OBJECT_ID = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# One path component that is safe on every file system that we meet.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


def is_object_id(text: str) -> bool:
    """True for a full lower-case git object id (SHA-1 or SHA-256)."""
    return _OBJECT_ID.fullmatch(text) is not None


def is_sha256(text: str) -> bool:
    """True for a lower-case SHA-256 in hex."""
    return _SHA256.fullmatch(text) is not None


def check_name(text: str, *, what: str, error: type[UniscaleError] = SettingsError) -> str:
    """``text`` itself when it may name a folder (no separators, no leading dot), else an error."""
    if _NAME.fullmatch(text) is None or ".." in text:
        raise error(
            f"{text!r} cannot be the name of a {what}",
            hint="letters, digits, '.', '_', '+' and '-', beginning with a letter or digit",
            slug="bad-name",
        )
    return text


def slug(text: str) -> str:
    """The canonical spelling for comparing names: lower case, runs of ``-_. `` as one ``-``."""
    return re.sub(r"[-_. ]+", "-", text.strip()).lower()


def label(text: str) -> str:
    """``text`` as a PEP 440 local version label: ``Cambricon_MLU`` gives ``cambricon.mlu``."""
    return ".".join(part for part in re.split(r"[^a-z0-9]+", text.lower()) if part)


def inside(root: Path, path: Path, *, what: str, error: type[UniscaleError]) -> Path:
    """``path`` resolved, when it stays inside ``root``; an error otherwise."""
    resolved = path.resolve()
    if not resolved.is_relative_to(root.resolve()):
        raise error(
            f"{what} leaves its folder",
            where=str(path),
            hint=f"it must stay inside {root}",
            slug="path-escape",
        )
    return resolved


def whole_number(text: str) -> int | None:
    """The number that ``text`` says in plain digits, below 10**9; None when it says none."""
    return int(text) if re.fullmatch(r"0|[1-9][0-9]{0,8}", text) else None
