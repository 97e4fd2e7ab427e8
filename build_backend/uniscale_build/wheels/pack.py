"""Files into an archive: read, hashed and compressed in one pass, written in order.

The reading thread hashes large files and hands their blocks to a pool, which also takes small
files whole. What is in flight is bounded in bytes, so a payload may be larger than memory.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import WheelError
from uniscale_build.members import Member
from uniscale_build.progress import Reporter
from uniscale_build.recordfile import Row
from uniscale_build.wheels.deflate import BLOCK, Codec
from uniscale_build.wheels.previous import Packed, Previous
from uniscale_build.wheels.zipfmt import DEFLATED, STORED, Archive, Entry

_IN_FLIGHT = 16 << 20
# Small files go to the pool many at a time: one by one, handing over costs more than the work.
_BATCH_BYTES = 1 << 19
_BATCH_FILES = 64


@dataclass(frozen=True)
class _Small:
    """A file that fits one block, done: its facts and its packed bytes."""

    member: Member
    sha256: str
    crc: int
    size: int
    method: int
    data: bytes


@dataclass(frozen=True)
class _Piece:
    """The next thing to write, perhaps still being made; ``cost`` is its size unpacked.

    A batch of small files is one piece, and so is a large file that is ``copied`` from the previous
    wheel. One that is compressed is many: the first has its ``entry``, the last its ``totals``
    (SHA-256, CRC-32, size).
    """

    cost: int
    batch: Future[list[_Small]] | None = None
    copied: tuple[Member, Packed] | None = None
    block: Future[bytes] | bytes = b""
    entry: Entry | None = None
    totals: tuple[str, int, int] | None = None
    expected: int = 0


def pack(
    archive: Archive,
    members: Sequence[Member],
    codec: Codec,
    *,
    threads: int,
    previous: Previous | None,
    reporter: Reporter,
) -> list[Row]:
    """Write ``members`` to ``archive`` in the order given; their RECORD rows.

    A member whose content ``previous`` holds is copied from there without compressing it again.
    `WheelError` for a member that is no regular file or cannot be read.
    """
    sized = [(member, size_of(member)) for member in members]
    total = sum(size for _, size in sized)
    rows: list[Row] = []
    queue: deque[_Piece] = deque()
    waiting = done = 0
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pack")
    try:
        for piece in _pieces(sized, codec, pool, previous):
            queue.append(piece)
            waiting += piece.cost
            while waiting > _IN_FLIGHT:
                first = queue.popleft()
                _write(archive, first, rows)
                waiting -= first.cost
                done += first.cost
                reporter.advance(done, total, "bytes")
        for piece in queue:
            _write(archive, piece, rows)
            done += piece.cost
            reporter.advance(done, total, "bytes")
    finally:
        pool.shutdown(cancel_futures=True)
    return rows


def _write(archive: Archive, piece: _Piece, rows: list[Row]) -> None:
    """Write one piece, waiting until it is ready."""
    if piece.batch is not None:
        for item in piece.batch.result():
            entry = Entry(item.member.name, item.member.mode, item.method, item.crc,
                          len(item.data), item.size)  # fmt: skip
            archive.begin(entry, item.size)
            archive.write(item.data)
            archive.finish(item.crc, item.size)
            rows.append(Row(entry.name, item.sha256, item.size))
        return
    if piece.copied is not None:
        member, packed = piece.copied
        archive.begin(Entry(member.name, member.mode, packed.method, packed.crc, packed.packed,
                            packed.size), packed.size)  # fmt: skip
        for chunk in packed.chunks():
            archive.write(chunk)
        archive.finish(packed.crc, packed.size)
        rows.append(Row(member.name, packed.sha256, packed.size))
        return
    if piece.entry is not None:
        archive.begin(piece.entry, piece.expected)
    archive.write(piece.block if isinstance(piece.block, bytes) else piece.block.result())
    if piece.totals is not None:
        sha256, crc, size = piece.totals
        entry = archive.finish(crc, size)
        rows.append(Row(entry.name, sha256, size))


def _pieces(
    sized: Sequence[tuple[Member, int]],
    codec: Codec,
    pool: ThreadPoolExecutor,
    previous: Previous | None,
) -> Iterator[_Piece]:
    """The pieces of all members, in order; work on them starts as they are asked for."""
    batch: list[Member] = []
    held = 0

    def submit() -> _Piece:
        return _Piece(held, batch=pool.submit(_batch, batch, codec, previous))

    for member, size in sized:
        small = isinstance(member.source, bytes) or size <= BLOCK
        if batch and (not small or held + size > _BATCH_BYTES or len(batch) == _BATCH_FILES):
            yield submit()
            batch, held = [], 0
        if small:
            batch.append(member)
            held += size
        else:
            yield from _large(member, size, codec, pool, previous)
    if batch:
        yield submit()


def _large(
    member: Member, size: int, codec: Codec, pool: ThreadPoolExecutor, previous: Previous | None
) -> Iterator[_Piece]:
    """The pieces of a file that is more than one block."""
    assert isinstance(member.source, Path)
    if previous is not None and previous.may_have(size):
        packed = previous.find(hash_file(member.source), size)
        if packed is not None:
            yield _Piece(size, copied=(member, packed))
            return
    yield from _blocks(member, member.source, size, codec, pool)


def _batch(members: list[Member], codec: Codec, previous: Previous | None) -> list[_Small]:
    return [_small(member, codec, previous) for member in members]


def _small(member: Member, codec: Codec, previous: Previous | None) -> _Small:
    """A file of at most one block, read, hashed and packed."""
    if isinstance(member.source, bytes):
        data = member.source
    else:
        # It may have grown since it was measured: what is read now is what is shipped.
        with open_member(member.source) as handle:
            data = b"".join(_reads(handle, member.source))
    sha256 = hashlib.sha256(data).hexdigest()
    if previous is not None and previous.may_have(len(data)):
        packed = previous.find(sha256, len(data))
        if packed is not None:
            return _Small(member, sha256, packed.crc, len(data), packed.method, packed.read())
    crc = zlib.crc32(data)
    deflated = codec.block(data) if codec.start is not None and data else data
    if len(deflated) >= len(data):
        return _Small(member, sha256, crc, len(data), STORED, data)
    return _Small(member, sha256, crc, len(data), DEFLATED, deflated)


def _blocks(
    member: Member, path: Path, size: int, codec: Codec, pool: ThreadPoolExecutor
) -> Iterator[_Piece]:
    """A large file, block by block; one block is read ahead, so that the last is known as such."""
    method = STORED if codec.start is None else DEFLATED
    first: Entry | None = Entry(member.name, member.mode, method)
    sha256, crc, length, before = hashlib.sha256(), 0, 0, b""
    with open_member(path) as handle:
        reads = _reads(handle, path)
        data = next(reads, b"")
        while True:
            following = next(reads, b"")
            sha256.update(data)
            crc = zlib.crc32(data, crc)
            length += len(data)
            last = not following
            block: Future[bytes] | bytes = data
            if codec.start is not None:
                block = pool.submit(codec.block, data, before, last=last)
            totals = (sha256.hexdigest(), crc, length) if last else None
            yield _Piece(len(data), block=block, entry=first, expected=size, totals=totals)
            first, before, data = None, data, following
            if last:
                return


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content; `WheelError` when it is no regular file or cannot be read."""
    sha256 = hashlib.sha256()
    buffer = memoryview(bytearray(BLOCK))
    with open_member(path) as handle:
        try:
            while read := os.readv(handle, [buffer]):
                sha256.update(buffer[:read])
        except OSError as error:
            raise _unreadable(path, error) from error
    return sha256.hexdigest()


def _reads(handle: int, path: Path) -> Iterator[bytes]:
    """The content in blocks of full size, the last one shorter."""
    while True:
        try:
            data = os.read(handle, BLOCK)
            while data and len(data) < BLOCK and (more := os.read(handle, BLOCK - len(data))):
                data += more
        except OSError as error:
            raise _unreadable(path, error) from error
        if not data:
            return
        yield data


@contextlib.contextmanager
def open_member(path: Path) -> Iterator[int]:
    """A descriptor to read the regular file ``path``; a link, folder or device is refused."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise _not_regular(path)
        yield handle
    finally:
        os.close(handle)


def size_of(member: Member) -> int:
    """Bytes of its content; `WheelError` when it is no regular file."""
    if isinstance(member.source, bytes):
        return len(member.source)
    try:
        found = member.source.lstat()
    except OSError as error:
        raise _unreadable(member.source, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise _not_regular(member.source)
    return found.st_size


def _unreadable(path: Path, error: OSError) -> WheelError:
    if error.errno == errno.ELOOP:
        return _not_regular(path)
    return WheelError(
        f"a file of the wheel cannot be read: {os.strerror(error.errno or 0).lower()}",
        where=str(path),
        hint="was the payload changed while the wheel was written? Build again",
        slug="unreadable-member",
    )


def _not_regular(path: Path) -> WheelError:
    return WheelError(
        "only regular files can be in a wheel",
        where=str(path),
        hint="it is a link, a folder or a device; links are never followed",
        slug="not-a-file",
    )
