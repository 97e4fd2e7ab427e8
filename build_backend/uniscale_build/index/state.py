"""What an index remembers of its wheels: one line each, read no further than it is needed.

An addition to ten thousand wheels asks nearly all of them only where they are listed; their lines
are kept as bytes, and go from file to file as they are.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.index.entry import Entry

# Raise when what is read of a wheel, or how pages are written, changes.
_FORMAT = b"uniscale index state 2"
_SOURCE = b"source\t"

Stat = tuple[int, int, int]  # size, mtime in ns, inode
Source = bytes  # device, size, mtime and inode of a file elsewhere


def _head(body: bytes | memoryview) -> bytes:
    """Format and checksum: damage would go from here into the catalog."""
    return b"%b %08x" % (_FORMAT, zlib.crc32(body))


def stat_of(path: Path) -> Stat:
    """How a file looks from outside; `OSError` when it is not there."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def source_of(found: os.stat_result) -> Source:
    """How a file that is not in the index looks from outside."""
    return b"%d\t%d\t%d\t%d" % (found.st_dev, found.st_size, found.st_mtime_ns, found.st_ino)


class Known:
    """A stored wheel: how its file looked, where it is listed, and all else on demand."""

    __slots__ = ("_line", "device", "file", "project", "sha256", "stat", "upload")

    def __init__(self, line: bytes) -> None:
        _, file, size, time, inode, project, device, upload, sha256, _ = line.split(b"\t", 9)
        self.file = file.decode()
        self.stat: Stat = int(size), int(time), int(inode)
        self.project = project.decode()
        self.device = device.decode()
        self.upload = int(upload)
        self.sha256 = sha256.decode()
        self._line = line

    @staticmethod
    def of(stat: Stat, e: Entry) -> Known:
        """What was read of a wheel just now."""
        size, time, inode = stat
        return Known(
            f"wheel\t{e.file}\t{size}\t{time}\t{inode}\t{e.project}\t{e.device}\t{e.upload}\t"
            f"{e.sha256}\t{e.size}\t{e.version}\t{e.requires_python}\t{e.metadata_sha256}\t"
            f"{e.device_facts}\t{e.facts}".encode()
        )

    @property
    def line(self) -> bytes:
        """All of it, as `Known` reads it."""
        return self._line

    @property
    def facts(self) -> bytes:
        """`Entry.facts`."""
        return self._line[self._line.rindex(b"\t") + 1 :]

    @property
    def entry(self) -> Entry:
        """All that was read of the wheel."""
        texts = self._line.decode().split("\t")[9:]
        length, version, requires_python, metadata_sha256, device_facts, facts = texts
        return Entry(
            self.file, self.sha256, int(length), self.project, version, self.device, self.upload,
            requires_python, metadata_sha256, facts, device_facts,
        )  # fmt: skip


@dataclass
class State:
    """What is remembered: stored wheels, and the hashes of files that were given before."""

    wheels: dict[str, Known] = field(default_factory=dict)
    sources: dict[Source, str] = field(default_factory=dict)

    @staticmethod
    def read(data: bytes) -> State:
        """What `as_bytes` gave; nothing where it is damaged or of another version."""
        found = State()
        head, *lines = data.split(b"\n")
        if head != _head(memoryview(data)[len(head) + 1 :]):
            return found
        for line in lines:
            if line.startswith(b"wheel\t"):
                known = Known(line)
                found.wheels[known.file] = known
            elif line:
                source, _, sha256 = line.rpartition(b"\t")
                found.sources[source[len(_SOURCE) :]] = sha256.decode()
        return found

    def as_bytes(self) -> bytes:
        """For the next run, wheels in the order of their names."""
        lines: Iterable[bytes] = (self.wheels[name].line for name in sorted(self.wheels))
        sources = (
            b"%b%b\t%b" % (_SOURCE, source, sha256.encode())
            for source, sha256 in self.sources.items()
        )
        body = b"\n".join([*lines, *sources, b""])
        return _head(body) + b"\n" + body
