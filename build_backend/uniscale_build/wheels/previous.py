"""The wheel that was written before: its compressed members, found by what they hold.

Copying them is allowed only where it gives the bytes that compressing would: the wheel must have
been written by a codec of the same identity, and be what it was then, byte for byte. A wheel that
another tool packed anew keeps our WHEEL file; only its digest tells.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from uniscale_build import recordfile
from uniscale_build.errors import WheelError
from uniscale_build.wheels.deflate import BLOCK, Codec
from uniscale_build.wheels.zipfmt import DEFLATED, STORED

_GENERATOR = re.compile(r"^Generator: uniscale [^ \n]+ \(([^()\n]+)\)$", re.MULTILINE)

_TICK = 20_000_000  # nanoseconds: more than two ticks of a kernel's clock
_RECORD = re.compile(r"[^/]+\.dist-info/RECORD")
# What zipfile raises for archives that are damaged in one way or another.
_DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError,
            NotImplementedError, RuntimeError, EOFError)  # fmt: skip


def shrunk() -> WheelError:
    """The error for a previous wheel that somebody cuts short while it is read."""
    return WheelError(
        "the previous wheel became shorter while it was read",
        hint="something else writes to it; run again",
        slug="previous-changed",
    )


def is_intact(handle: int, sha256: str, stamped: Sequence[int] | None) -> bool:
    """True when the open file has that digest still; it is read unless its `stamp` says so."""
    if stamped is not None and list(stamped) == _state(handle):
        return True
    return recordfile.file_sha256(Path(f"/proc/self/fd/{handle}")) == sha256


def stamp(file: int | Path) -> list[int]:
    """What the system changes whenever a file does: equal stamps spare reading it, as in git.

    Inode, bytes, and the times of the last change of content and of anything, in nanoseconds.
    """
    # Within one tick of the file system's clock, a change would leave the times as they are.
    time.sleep(min(max(0, os.stat(file).st_ctime_ns + _TICK - time.time_ns()), _TICK) / 1e9)
    return _state(file)


def _state(file: int | Path) -> list[int]:
    found = os.stat(file)
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


@dataclass(frozen=True)
class Packed:
    """A member of the previous wheel, ready to be copied; ``sha256`` is of its content."""

    sha256: str
    crc: int
    size: int
    packed: int
    method: int
    _handle: int
    _offset: int

    def read(self) -> bytes:
        """Its compressed bytes at once."""
        return b"".join(self.chunks())

    def chunks(self) -> Iterator[bytes]:
        """Its compressed bytes, a block at a time."""
        at, left = self._offset, self.packed
        while left:
            data = os.pread(self._handle, min(BLOCK, left), at)
            if not data:
                raise shrunk()
            at, left = at + len(data), left - len(data)
            yield data


def packed_member(handle: int, info: zipfile.ZipInfo, sha256: str) -> Packed | None:
    """The member ``info`` of the archive open at ``handle``, whose content has ``sha256``.

    None when it is not where the archive's directory says.
    """
    head = os.pread(handle, 30, info.header_offset)
    if len(head) != 30 or not head.startswith(b"PK\3\4"):
        return None
    name_length, extra_length = struct.unpack("<26x2H", head)
    start = info.header_offset + 30 + name_length + extra_length
    if start + info.compress_size > os.fstat(handle).st_size:
        return None
    return Packed(
        sha256, info.CRC, info.file_size, info.compress_size, info.compress_type, handle, start
    )


class Previous:
    """An open wheel to copy from; close it, or use it in a ``with`` statement."""

    def __init__(
        self, path: Path, codec: Codec, sha256: str, stamped: Sequence[int] | None = None
    ) -> None:
        """Open ``path``; `reason` is set, and nothing is found in it, when it is of no use.

        ``sha256`` is what the whole file had when it was written. Members are given out before it
        is compared: `is_intact` must be asked before what was made of them is used. ``stamped`` is
        its `stamp` at that time.
        """
        self.reason: str | None = None
        self._by_digest: dict[str, zipfile.ZipInfo] = {}
        self._sizes: frozenset[int] = frozenset()
        self._sha256 = sha256
        self._stamp = stamped
        self.handle = -1
        try:
            self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self.reason = self._load(codec)
        except _DAMAGED as error:
            self.reason = f"it cannot be read ({error})"
        if self.reason is not None:
            self._by_digest, self._sizes = {}, frozenset()

    def __enter__(self) -> Previous:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def _load(self, codec: Codec) -> str | None:
        with (
            os.fdopen(os.dup(self.handle), "rb") as stream,
            zipfile.ZipFile(stream) as archive,
        ):
            infos = {info.filename: info for info in archive.infolist()}
            # Payloads have a dist-info of their own, further down.
            record = next((name for name in infos if _RECORD.fullmatch(name)), None)
            if record is None:
                return "it has no RECORD"
            generator = archive.read(record.replace("/RECORD", "/WHEEL")).decode("utf-8")
            written = _GENERATOR.search(generator)
            if written is None or written[1] != codec.identity:
                return "it was compressed in another way"
            rows, problems = recordfile.parse(archive.read(record).decode("utf-8"))
        if problems:
            return "its RECORD is damaged"
        for row in rows:
            info = infos.get(row.name)
            if row.sha256 is None or info is None or info.file_size != row.size:
                continue
            if info.compress_type in (STORED, DEFLATED) and not info.flag_bits & 0x41:
                self._by_digest[row.sha256] = info
        self._sizes = frozenset(info.file_size for info in self._by_digest.values())
        return None

    def is_intact(self) -> bool:
        """True when every byte is what it was when the wheel was written."""
        return is_intact(self.handle, self._sha256, self._stamp)

    def may_have(self, size: int) -> bool:
        """True when some member has that size: only then is it worth hashing a file for it."""
        return size in self._sizes

    def find(self, sha256: str, size: int) -> Packed | None:
        """The member with that content; None when there is none."""
        info = self._by_digest.get(sha256)
        if info is None or info.file_size != size:
            return None
        return packed_member(self.handle, info, sha256)
