"""A file that appears whole under its name, and is not written at all while it stays the same."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from uniscale_build.progress import Reporter
from uniscale_build.recordfile import file_sha256
from uniscale_build.wheels.previous import shrunk

_BLOCK = 1 << 20


class Output:
    """What is written to a new file, beside an old one (a descriptor) that it may turn out to be.

    As long as every byte is the old file's, none is written; at the first that is not, what came
    before is copied over and writing begins.
    """

    def __init__(self, part: IO[bytes], old: int | None) -> None:
        self._part = part
        self._old = old
        self._at = 0

    @property
    def is_old(self) -> bool:
        """True while everything that was written is what the old file begins with."""
        return self._old is not None

    def write(self, data: bytes) -> None:
        """``data`` at the present place."""
        if self._old is not None:
            if os.pread(self._old, len(data), self._at) == data:
                self._at += len(data)
                return
            self._part_ways()
        self._part.write(data)

    def seek(self, place: int) -> None:
        """Go on at ``place``."""
        if self._old is not None:
            self._part_ways()
        self._part.seek(place)

    def repeat(self) -> None:
        """The whole of the old file, as it is."""
        assert self._old is not None
        self._at = os.fstat(self._old).st_size

    def restart(self) -> None:
        """Forget all that was written, and the old file."""
        self._old = None
        self._part.seek(0)
        self._part.truncate()

    def complete(self) -> None:
        """All is written: the file is the old one when it ends here too, else a file of its own."""
        if self._old is not None and os.fstat(self._old).st_size != self._at:
            self._part_ways()
        self._part.flush()

    def sha256(self) -> str:
        """SHA-256 of a file of its own, once it is `complete`."""
        return file_sha256(Path(f"/proc/self/fd/{self._part.fileno()}"))

    def keep(self) -> None:
        """On disk and readable by all, as a file of its own."""
        if self._old is not None:
            self._part_ways()
        self._part.flush()
        os.fchmod(self._part.fileno(), 0o644)
        os.fsync(self._part.fileno())

    def is_at(self, target: Path) -> bool:
        """True when the old file, which this one is, is ``target``."""
        if self._old is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._old), target.lstat())
        except FileNotFoundError:
            return False

    def _part_ways(self) -> None:
        old, self._old = self._old, None
        assert old is not None
        copy_range(old, self._part.fileno(), self._at)
        self._part.seek(self._at)


def copy_range(source: int, target: int, size: int) -> None:
    """The first ``size`` bytes of one descriptor's file at the start of another's, in the kernel
    where it can."""
    done = 0
    while done < size:
        try:
            copied = os.copy_file_range(source, target, size - done, done, done)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            copied = os.pwrite(target, os.pread(source, min(_BLOCK, size - done), done), done)
        if not copied:
            raise shrunk()
        done += copied


@contextlib.contextmanager
def replacing(target: Path, old: int | None, reporter: Reporter) -> Iterator[Output]:
    """An `Output` that becomes ``target`` when all goes well, and vanishes otherwise.

    It grows under the target's own name with a dot before and ``.part`` behind it, so what a killed
    run left is overwritten and never piles up; a lock on it makes a second writer of the same
    wheel wait. When the output is the old file and that is the target, nothing is touched.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f".{target.name}.part")
    with _locked(path, reporter) as part:
        try:
            output = Output(part, old)
            yield output
            if output.is_at(target):
                path.unlink()
                return
            output.keep()
            path.replace(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def _locked(path: Path, reporter: Reporter) -> Iterator[IO[bytes]]:
    """``path`` open, empty and ours alone."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w+b", buffering=1 << 18) as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reporter.note(f"waiting for another process, which writes {path.name[1:-5]}")
                fcntl.flock(stream, fcntl.LOCK_EX)
            # The other one may have finished: then the name is gone, or a third one's already.
            try:
                ours = os.path.samestat(os.fstat(handle), path.lstat())
            except FileNotFoundError:
                ours = False
            if ours:
                stream.truncate(0)
                yield stream
                return
