"""The data in git's binary patches: whole, and not larger than it may become when inflated."""

from __future__ import annotations

import base64
import re
import zlib

MAX_INFLATED = 256 << 20  # bytes that one binary may have after the patch

_HEAD = re.compile(rb"(literal|delta) (\d{1,15})")
_Told = tuple[str, str, str | None]


def block_problem(head: bytes, body: list[bytes]) -> _Told | None:
    """What is wrong with one block (``literal N`` or ``delta N`` and its lines), or None."""
    match = _HEAD.fullmatch(head)
    if match is None or not body:
        return "truncated", "binary data that git would not read", None
    for line in body:
        count = _length(line[:1])
        if count == 0 or len(line) - 1 != (count + 3) // 4 * 5:
            return "truncated", "binary data that was cut off or changed", None
    size = int(match[2])
    if match[1] == b"delta" and size <= MAX_INFLATED:
        result = _delta_result(body)
        if result is None:
            return "truncated", "a binary delta that cannot be read", None
        size = result
    if size > MAX_INFLATED:
        return (
            "bomb",
            f"a binary that becomes {size} bytes",
            f"at most {MAX_INFLATED} bytes are taken from a patch",
        )
    return None


def _length(code: bytes) -> int:
    if b"A" <= code <= b"Z":
        return code[0] - 64
    if b"a" <= code <= b"z":
        return code[0] - 70
    return 0


def _delta_result(body: list[bytes]) -> int | None:
    """The size that a delta makes: the second number of its head (the first is the base's)."""
    engine = zlib.decompressobj()
    head = b""
    try:
        for line in body:
            head += engine.decompress(base64.b85decode(line[1:])[: _length(line[:1])], 64)
            if len(head) >= 20:
                break
    except (ValueError, zlib.error):
        return None
    sizes, at = [], 0
    for _ in range(2):
        size, shift = 0, 0
        while at < len(head):
            size |= (head[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not head[at - 1] & 0x80:
                break
        else:
            return None
        sizes.append(size)
    return sizes[1]
