"""What a git patch says about its files in its headers: paths, modes, blob ids before and after."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from uniscale_build.errors import LayerError, UniscaleError
from uniscale_build.git.db import Entry
from uniscale_build.layers.layerfile import sections, shown

_INDEX = re.compile(rb"index ([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: (\d+))?")
_MODE = re.compile(rb"(?:new file|deleted file|new|old) mode (\d+)")
_MODES = (b"100644", b"100755", b"120000")
_ESCAPES = {b"a": b"\a", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"v": b"\v", b"f": b"\f",
            b"r": b"\r", b'"': b'"', b"\\": b"\\"}  # fmt: skip


@dataclass(frozen=True)
class Head:
    """One file of a patch; ``old`` and ``new`` are None where there is no such side.

    ``old_id`` and ``new_id`` are blob ids, shortened as in the patch; empty where it has none
    (a rename or a change of mode alone).
    """

    old: bytes | None
    new: bytes | None
    old_id: str
    new_id: str

    @property
    def path(self) -> bytes:
        """The name that the file is known by: the new one, unless it is deleted."""
        return self.new if self.new is not None else self.old or b""


def heads(patch: bytes, where: str) -> list[Head]:
    """The files of a patch, in its order; text around them (a mail) is ignored.

    `LayerError` when a header cannot be read, and for modes that git does not write.
    """
    found = []
    for section in sections(patch):
        if section.startswith(b"diff --git "):
            found.append(_head(section, where))
    if not found:
        web = patch.lstrip()[:1] == b"<"
        raise LayerError(
            "is a web page, not a patch" if web else "holds no git patch",
            where=where,
            hint="the download gave an error page; fetch the file again" if web else None,
            slug="no-patch",
        )
    return found


def _head(section: bytes, where: str) -> Head:
    lines = []
    for line in section.split(b"\n"):
        if line.startswith((b"@@ ", b"GIT binary patch", b"Binary files ")):
            break
        lines.append(line)
    for line in lines[1:]:
        mode = _MODE.fullmatch(line)
        if mode is not None and mode[1] not in _MODES:
            raise _odd(where, f"mode {mode[1].decode()} is not one that a layer can hold")
    named = {key: _value(lines, key) for key in
             (b"rename from ", b"rename to ", b"copy from ", b"copy to ")}  # fmt: skip
    old = named[b"rename from "] or named[b"copy from "]
    new = named[b"rename to "] or named[b"copy to "]
    if old is None or new is None:
        old = new = _both(lines[0], where)
    if any(line.startswith(b"new file mode") for line in lines):
        old = None
    if any(line.startswith(b"deleted file mode") for line in lines):
        new = None
    index = next((m for line in lines if (m := _INDEX.fullmatch(line))), None)
    if index is None and len(lines) < section.count(b"\n"):
        raise _odd(where, f"the change of {shown(new or old or b'')} has no index line")
    ids = (index[1].decode(), index[2].decode()) if index is not None else ("", "")
    return Head(old, new, *ids)


def _value(lines: list[bytes], key: bytes) -> bytes | None:
    found = next((line[len(key) :] for line in lines if line.startswith(key)), None)
    return None if found is None else _unquoted(found)


def _both(line: bytes, where: str) -> bytes:
    """The one path of ``diff --git a/<path> b/<path>``."""
    words = line.removeprefix(b"diff --git ")
    if words.startswith(b'"'):
        end = re.match(rb'"(?:[^"\\]|\\.)*"', words)
        pair = (words[: end.end()], words[end.end() + 1 :]) if end else (b"", b"")
    else:
        half = len(words) // 2
        pair = (words[:half], words[half + 1 :])
    old, new = _unquoted(pair[0]), _unquoted(pair[1])
    if not old.startswith(b"a/") or not new.startswith(b"b/") or old[2:] != new[2:]:
        raise _odd(where, "the names in its header do not agree: " + shown(line))
    return old[2:]


def _unquoted(word: bytes) -> bytes:
    """A path as git writes it, C-quoted when it has unusual bytes."""
    if len(word) < 2 or word[:1] != b'"' or word[-1:] != b'"':
        return word
    return re.sub(
        rb"\\([0-7]{3}|.)",
        lambda m: bytes([int(m[1], 8) & 255]) if len(m[1]) == 3 else _ESCAPES.get(m[1], m[1]),
        word[1:-1],
    )


def _odd(where: str, what: str) -> LayerError:
    return LayerError(what, where=where, slug="bad-patch")


def disagreeing(found: list[Head], tree: Mapping[bytes, Entry]) -> list[Head]:
    """The files whose blob id in ``tree`` (path → entry) is not the one the patch says it makes."""
    wrong = []
    for head in found:
        if head.new is None or not head.new_id:
            continue
        entry = tree.get(head.new)
        if entry is None or not entry.oid.startswith(head.new_id):
            wrong.append(head)
    return wrong


def share(found: list[Head], tree: Mapping[bytes, Entry]) -> tuple[int, int]:
    """Of the upstream files that a patch changes: how many ``tree`` has as they were; how many."""
    asked = [head for head in found if head.old is not None and head.old_id]
    matched = 0
    for head in asked:
        entry = tree.get(head.old) if head.old is not None else None
        matched += entry is not None and entry.oid.startswith(head.old_id)
    return matched, len(asked)


def all_heads(patches: Mapping[str, bytes]) -> tuple[list[Head], list[UniscaleError]]:
    """The files of many patches (place → patch), and an error for each that cannot be read."""
    found: list[Head] = []
    errors: list[UniscaleError] = []
    for where, patch in patches.items():
        try:
            found += heads(patch, where)
        except UniscaleError as error:
            errors.append(error)
    return found, errors
