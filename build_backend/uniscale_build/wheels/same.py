"""Whether a wheel would be the previous one again, byte for byte: then it need not be written.

Nothing in a wheel depends on anything but its members, the date and the compression, which WHEEL
names. So equal members in equal order, equally dated, are the same wheel, as long as that is what
it was when we wrote it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from uniscale_build import recordfile
from uniscale_build.members import Member
from uniscale_build.progress import Reporter
from uniscale_build.recordfile import Row
from uniscale_build.wheels.deflate import BLOCK
from uniscale_build.wheels.pack import hash_file, size_of
from uniscale_build.wheels.previous import is_intact
from uniscale_build.wheels.zipfmt import dos_time

# What zipfile raises for archives that are damaged in one way or another.
_DAMAGED = (OSError, zipfile.BadZipFile, zlib.error, struct.error, KeyError, ValueError,
            NotImplementedError, RuntimeError, EOFError)  # fmt: skip


def same_rows(
    handle: int,
    sha256: str,
    members: Sequence[Member],
    record: str,
    *,
    stamped: Sequence[int] | None,
    epoch: int,
    threads: int,
    reporter: Reporter,
) -> tuple[Row, ...] | None:
    """RECORD's rows when the wheel open at ``handle`` is what ``members`` would make; else None.

    ``sha256`` is what the file had when it was written and ``stamped`` its `stamp` then, ``record``
    the name of its RECORD, which is no member. Files are read only when names, sizes, modes and
    dates are all as they were.
    `WheelError` for a member that is no regular file or cannot be read.
    """
    sizes = [size_of(member) for member in members]
    try:
        with os.fdopen(os.dup(handle), "rb") as stream, zipfile.ZipFile(stream) as archive:
            infos = archive.infolist()
            if not _looks_same(infos, members, sizes, record, dos_time(epoch)):
                return None
            written = archive.read(record)
    except _DAMAGED:
        return None
    rows = _rows(members, sizes, threads, reporter)
    if recordfile.render(rows, record).encode() != written:
        return None
    if not is_intact(handle, sha256, stamped):
        return None
    return (*rows, Row(record, None, None))


def _looks_same(
    infos: Sequence[zipfile.ZipInfo],
    members: Sequence[Member],
    sizes: Sequence[int],
    record: str,
    date: tuple[int, int],
) -> bool:
    """True when all but the content is as it would be."""
    if len(infos) != len(members) + 1 or infos[-1].filename != record:
        return False
    return all(
        info.filename == member.name
        and info.file_size == size
        and info.external_attr >> 16 == stat.S_IFREG | member.mode
        and _dated(info) == date
        for info, member, size in zip(infos, members, sizes, strict=False)
    )


def _dated(info: zipfile.ZipInfo) -> tuple[int, int]:
    year, month, day, hour, minute, second = info.date_time
    return (year - 1980) << 9 | month << 5 | day, hour << 11 | minute << 5 | second // 2


def _rows(
    members: Sequence[Member], sizes: Sequence[int], threads: int, reporter: Reporter
) -> list[Row]:
    """Name, SHA-256 and size of each, read on all threads."""
    total, done, rows = sum(sizes), 0, []
    with ThreadPoolExecutor(threads, thread_name_prefix="hash") as pool:
        for part in pool.map(_hashed, *_shares(members, sizes)):
            rows += part
            done += sum(row.size or 0 for row in part)
            reporter.advance(done, total, "bytes")
    return rows


def _shares(
    members: Sequence[Member], sizes: Sequence[int]
) -> tuple[list[list[Member]], list[list[int]]]:
    """Members and their sizes in portions worth handing to a thread."""
    some: list[list[Member]] = [[]]
    theirs: list[list[int]] = [[]]
    for member, size in zip(members, sizes, strict=True):
        if some[-1] and (sum(theirs[-1]) > BLOCK or len(some[-1]) == 64):
            some.append([])
            theirs.append([])
        some[-1].append(member)
        theirs[-1].append(size)
    return some, theirs


def _hashed(members: Sequence[Member], sizes: Sequence[int]) -> list[Row]:
    return [Row(member.name, _sha256(member.source), size)
            for member, size in zip(members, sizes, strict=True)]  # fmt: skip


def _sha256(source: bytes | Path) -> str:
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else hash_file(source)
