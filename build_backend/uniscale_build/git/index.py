"""Temporary indexes: git applies patches to the files in one; no work tree is touched."""

from __future__ import annotations

import contextlib
import hashlib
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.git.entry import Entry
from uniscale_build.git.process import Ran, Running

if TYPE_CHECKING:
    from uniscale_build.git.db import GitDb


def _index_file(entries: Mapping[bytes, Entry]) -> bytes:
    """An index file of these entries: git's index-format, version 2.

    What it tells of files in a work tree (their times, device, inode, owner, size) is zero.
    """
    parts = [struct.pack(">4sLL", b"DIRC", 2, len(entries))]
    for path, entry in sorted(entries.items()):
        rest = bytes.fromhex(entry.oid) + struct.pack(">H", min(len(path), 0xFFF)) + path
        about = struct.pack(">24xL12x", int(entry.mode, 8)) + rest
        parts.append(about + bytes(8 - len(about) % 8))
    data = b"".join(parts)
    return data + hashlib.sha1(data, usedforsecurity=False).digest()


def _read_entries(index: bytes) -> dict[bytes, Entry]:
    """The entries of an index file, in a fourth of the time that ``ls-files`` takes.

    The format is git's index-format, version 2; an entry is 62 bytes (mode at 24, blob at 40, the
    path's length in the last 12 bits), the path, and 1 to 8 zeros up to a multiple of 8.
    """
    signature, version, count = struct.unpack_from(">4sLL", index)
    if (signature, version) != (b"DIRC", 2):
        raise ValueError(f"an index of version {version}")
    entries = {}
    at = 12
    for _ in range(count):
        length = (index[at + 60] << 8 | index[at + 61]) & 0xFFF
        if length == 0xFFF:  # or more
            length = index.index(b"\0", at + 62) - at - 62
        mode = int.from_bytes(index[at + 24 : at + 28], "big")
        path = index[at + 62 : at + 62 + length]
        entries[path] = Entry(f"{mode:o}", index[at + 40 : at + 60].hex())
        at += (62 + length + 8) & ~7
    return entries


class Index:
    """A temporary index in the store; made by `GitDb.index`."""

    def __init__(self, db: GitDb, path: Path) -> None:
        self._db = db
        self._path = path
        self._env = {"GIT_INDEX_FILE": str(path)}

    def read(self, tree: str) -> None:
        """Fill the index with ``tree``."""
        self._db.run("-c", "index.version=2", "read-tree", tree, env=self._env)

    def fill(self, entries: Mapping[bytes, Entry]) -> None:
        """Let the index hold exactly these files."""
        self._path.write_bytes(_index_file(entries))

    def entries(self) -> dict[bytes, Entry]:
        """Every file that the index holds."""
        return _read_entries(self._path.read_bytes())

    def apply(
        self,
        patch: bytes | Path,
        *,
        check: bool = True,
        reverse: bool = False,
        include: str | None = None,
        dry: bool = False,
    ) -> Ran:
        """Apply a whole patch, all of it or nothing; the caller reads ``Ran.err`` on failure.

        ``include`` limits it to paths that match the pattern. ``dry`` only asks.
        """
        args = ["apply", "--cached", "--whitespace=nowarn", "--verbose"]
        if dry:
            args.append("--check")
        if reverse:
            args.append("--reverse")
        if include is not None:
            args.append(f"--include={include}")
        return self._db.run(*args, "-", stdin=patch, env=self._env, check=check)

    @contextlib.contextmanager
    def applying(self, patch: bytes) -> Iterator[Running]:
        """`apply` without waiting; the output is ``--numstat -z``: the files that git found."""
        args = ("apply", "--cached", "--whitespace=nowarn", "--apply", "--numstat", "-z", "-")
        with self._db.start(*args, stdin=patch, env=self._env) as running:
            yield running

    def write_tree(self) -> str:
        """The tree that the index holds, written to the store."""
        return self._db.run("write-tree", env=self._env).text
