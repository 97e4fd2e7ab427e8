"""Which paths a layer may name: inside the tree, not git's own, and readable in a terminal.

The rules for ``.git`` in disguise are those of git's ``verify_path`` with core.protectHFS and
core.protectNTFS: a tree that is safe here is safe on every machine that checks it out.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

# Characters that HFS+ leaves out when it compares names.
_IGNORED_BY_HFS = dict.fromkeys(
    (*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF)
)
_SHORT_MODULES = re.compile(r"gitmod~[1-4]|gi7eba~[1-9]|gi7eb~[1-9]\d|gi7e~[1-9]\d\d")
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")
_DRIVE = re.compile(rb"[A-Za-z]:[\\/]")
# No dot in front, nothing that a file system leaves out or cuts off: no part can be git's own.
_ORDINARY = re.compile(rb"[\w+=,-][\w.+=,-]*(?:/[\w+=,-][\w.+=,-]*)*")
_LINKS_DEEP = 40  # as many as Linux follows


def path_problem(path: bytes) -> tuple[str, str] | None:
    """What is wrong with a path in a layer, as (slug, sentence about it); None when it is fine."""
    if len(path) <= 255 and _ORDINARY.fullmatch(path):
        return None
    if not path:
        return "bad-path", "has no name"
    if path.startswith((b"/", b"\\")) or _DRIVE.match(path):
        return "absolute-path", "is an absolute path"
    if _CONTROL.search(path):
        return "control-character", "has a control character in its name"
    for part in path.split(b"/"):
        if part in (b"", b"."):
            return "bad-path", "is not a plain path"
        if part == b"..":
            return "path-escape", "leaves the tree"
        if len(part) > 255:
            return "bad-path", "has a part that is longer than 255 bytes"
        if is_dot_git(part):
            return "dot-git", "is inside git's own folder"
        if is_gitmodules(part):
            return "gitmodules", "redirects submodules"
    return None


@functools.lru_cache(maxsize=8192)
def is_dot_git(part: bytes) -> bool:
    """True for ``.git`` as any file system may spell it."""
    return any(word in (".git", "git~1") for word in _spellings(part))


@functools.lru_cache(maxsize=8192)
def is_gitmodules(part: bytes) -> bool:
    """True for ``.gitmodules`` as any file system may spell it."""
    return any(
        word == ".gitmodules" or _SHORT_MODULES.fullmatch(word) is not None
        for word in _spellings(part)
    )


def _spellings(part: bytes) -> list[str]:
    plain = part.decode("utf-8", "surrogateescape").translate(_IGNORED_BY_HFS).casefold()
    # NTFS: a backslash separates, a colon begins a stream, dots and spaces at the end vanish.
    return [plain, *(word.split(":")[0].rstrip(" .") for word in plain.split("\\"))]


def link_problem(path: bytes, target: bytes) -> str | None:
    """What is wrong with a link's own words, seen without the other links of the tree."""
    if target.startswith(b"/") or _DRIVE.match(target):
        return "points to an absolute path"
    if not target or b"\0" in target:
        return "points nowhere"
    depth = path.count(b"/")
    for part in target.split(b"/"):
        depth += -1 if part == b".." else part not in (b"", b".")
        if depth < 0:
            return "points out of the tree"
    if any(is_dot_git(part) for part in target.split(b"/")):
        return "points into git's own folder"
    return None


def escaping_links(links: Mapping[bytes, bytes]) -> list[bytes]:
    """The links (path → target, all of a tree) that lead out of it when followed step by step.

    ``a/up -> ..`` is harmless and ``x -> a/up/../..`` looks so; together they leave the tree.
    """
    return [path for path in links if _leaves(path, links)]


def _leaves(path: bytes, links: Mapping[bytes, bytes]) -> bool:
    todo = path.split(b"/")
    here: list[bytes] = []
    followed = 0
    while todo:
        part = todo.pop(0)
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not here:
                return True
            here.pop()
            continue
        target = links.get(b"/".join([*here, part]))
        if target is None:
            here.append(part)
            continue
        followed += 1
        if target.startswith(b"/"):
            return True
        if followed > _LINKS_DEEP:
            return False  # a circle: it leads nowhere
        todo[:0] = target.split(b"/")
    return False
