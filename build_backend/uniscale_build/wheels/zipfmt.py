"""ZIP records as PKWARE's APPNOTE 6.3.9 has them: just what a wheel needs, the same every time.

No data descriptors, no extra fields except ZIP64's, which appears only where a number does not fit.
"""

from __future__ import annotations

import hashlib
import stat
import struct
import time
from dataclasses import dataclass
from typing import Protocol

from uniscale_build.errors import SettingsError

STORED = 0
DEFLATED = 8

_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s4B4H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")

# The largest numbers that the plain fields hold; tests lower them to see ZIP64 on small files.
LIMIT32 = 0xFFFFFFFF
LIMIT16 = 0xFFFF

_UTF8 = 0x800
_UNIX = 3
# 1980-01-01, the first moment that ZIP can tell.
FIRST_EPOCH = 315532800


def dos_time(epoch: int) -> tuple[int, int]:
    """Date and time words for ``epoch`` (seconds, UTC), not before 1980; two-second steps.

    `SettingsError` after 2107, which ZIP cannot tell.
    """
    when = time.gmtime(max(epoch, FIRST_EPOCH))
    if when.tm_year > 2107:
        raise SettingsError(
            f"a wheel cannot be dated {when.tm_year}",
            hint="SOURCE_DATE_EPOCH is in seconds since 1970; ZIP ends with 2107",
            slug="bad-epoch",
        )
    date = (when.tm_year - 1980) << 9 | when.tm_mon << 5 | when.tm_mday
    return date, when.tm_hour << 11 | when.tm_min << 5 | when.tm_sec // 2


class Sink(Protocol):
    """Where an archive goes: written from start to end, with steps back to headers."""

    def write(self, data: bytes, /) -> object:
        """``data`` at the present place."""

    def seek(self, place: int, /) -> object:
        """Go on at ``place``."""


@dataclass
class Entry:
    """One file of an archive; numbers are filled in as they become known."""

    name: str
    mode: int
    method: int = DEFLATED
    crc: int = 0
    packed: int = 0
    size: int = 0
    offset: int = 0
    zip64: bool = False


class Archive:
    """Writes a ZIP file to an empty stream that it does not own."""

    def __init__(self, stream: Sink, epoch: int) -> None:
        self._stream = stream
        self._date, self._time = dos_time(epoch)
        self._entries: list[Entry] = []
        self._end = 0
        self._packed = 0
        self._hash = hashlib.sha256()
        self._rewritten = False

    @property
    def sha256(self) -> str | None:
        """SHA-256 of all that was written; None when a header was written twice."""
        return None if self._rewritten else self._hash.hexdigest()

    def begin(self, entry: Entry, expected: int) -> None:
        """Start a file of about ``expected`` bytes; `write` its packed bytes, then `finish` it.

        What ``entry`` says already (checksum and sizes) spares a step back to its header.
        """
        # Deflate grows what it cannot shrink by less than a thousandth and a block's end.
        entry.zip64 = expected + expected // 1000 + 4096 > LIMIT32
        entry.offset = self._end
        self._entries.append(entry)
        self._packed = 0
        self._put(self._local(entry))

    def write(self, data: bytes) -> None:
        """Packed bytes of the file that was begun last."""
        self._put(data)
        self._packed += len(data)

    def finish(self, crc: int, size: int) -> Entry:
        """Say what the file that was begun last turned out to be; gives its entry."""
        entry = self._entries[-1]
        if (entry.crc, entry.size, entry.packed) == (crc, size, self._packed):
            return entry
        entry.crc, entry.size, entry.packed = crc, size, self._packed
        self._rewritten = True
        self._stream.seek(entry.offset)
        self._stream.write(self._local(entry))
        self._stream.seek(self._end)
        return entry

    def close(self) -> int:
        """Write the central directory; the size of the archive in bytes."""
        start = self._end
        for entry in self._entries:
            self._put(self._central(entry))
        count, length = len(self._entries), self._end - start
        if count > LIMIT16 or start > LIMIT32 or length > LIMIT32:
            end64 = self._end
            self._put(_END64.pack(b"PK\6\6", _END64.size - 12, _UNIX << 8 | 45, 45, 0, 0,
                                  count, count, length, start))  # fmt: skip
            self._put(_LOCATOR64.pack(b"PK\6\7", 0, end64, 1))
        shown = 0xFFFF if count > LIMIT16 else count
        self._put(_END.pack(b"PK\5\6", 0, 0, shown, shown, _clip(length), _clip(start), 0))
        return self._end

    def _put(self, data: bytes) -> None:
        self._stream.write(data)
        self._end += len(data)
        if not self._rewritten:
            self._hash.update(data)

    def _local(self, entry: Entry) -> bytes:
        name, flags = _encoded(entry.name)
        extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.packed) if entry.zip64 else b""
        both = (0xFFFFFFFF, 0xFFFFFFFF)
        packed, size = both if entry.zip64 else (entry.packed, entry.size)
        return (
            _LOCAL.pack(b"PK\3\4", 45 if entry.zip64 else 20, flags, entry.method, self._time,
                        self._date, entry.crc, packed, size, len(name), len(extra))
            + name
            + extra
        )  # fmt: skip

    def _central(self, entry: Entry) -> bytes:
        name, flags = _encoded(entry.name)
        # A field that does not fit says so, and its number is in the extra field, in this order.
        numbers = (entry.size, entry.packed, entry.offset)
        large = [number for number in numbers if number > LIMIT32]
        extra = struct.pack(f"<2H{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        version = 45 if large or entry.zip64 else 20
        return (
            _CENTRAL.pack(b"PK\1\2", version, _UNIX, version, 0, flags, entry.method, self._time,
                          self._date, entry.crc, _clip(entry.packed), _clip(entry.size),
                          len(name), len(extra), 0, 0, 0, (stat.S_IFREG | entry.mode) << 16,
                          _clip(entry.offset))
            + name
            + extra
        )  # fmt: skip


def _clip(number: int) -> int:
    return number if number <= LIMIT32 else 0xFFFFFFFF


def _encoded(name: str) -> tuple[bytes, int]:
    return (name.encode("ascii"), 0) if name.isascii() else (name.encode("utf-8"), _UTF8)
