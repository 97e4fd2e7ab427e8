"""Trees: every name in one, and a tree made of another with some files changed."""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from uniscale_build.errors import StoreError
from uniscale_build.git.entry import GITLINK, SYMLINK, Entry

if TYPE_CHECKING:
    from uniscale_build.git.db import GitDb

_FOLDER = b"040000 tree "


class Listing:
    """Every name in a tree, read no further than it is needed: an index of files by folder.

    ``texts``: each folder's path (the root's is empty), and its entries as ``git mktree -z`` reads
    them.
    """

    def __init__(self, texts: Mapping[bytes, bytes]) -> None:
        self._texts = texts
        self._read: dict[bytes, dict[bytes, bytes]] = {}

    @classmethod
    def parse(cls, raw: bytes) -> Listing:
        """What ``git ls-tree -r -t -z`` printed."""
        texts: dict[bytes, list[bytes]] = {b"": []}
        for line in raw.split(b"\0")[:-1]:
            head, _, path = line.partition(b"\t")
            folder, _, name = path.rpartition(b"/")
            texts.setdefault(folder, []).append(head + b"\t" + name + b"\0")
        return cls({folder: b"".join(entries) for folder, entries in texts.items()})

    @classmethod
    def from_bytes(cls, data: bytes) -> Listing | None:
        """What `as_bytes` gave; None where that is damaged."""
        head, _, body = data.partition(b"\n")
        if head != _sum(body):
            return None
        parts = [part.partition(b"\0") for part in body.split(b"\0\0")[:-1]]
        return cls({folder[1:]: text + b"\0" if text else b"" for folder, _, text in parts})

    def as_bytes(self) -> bytes:
        """All of it, to be kept."""
        body = b"".join(
            [b"/%b\0%b\0" % (folder, text or b"\0") for folder, text in self._texts.items()]
        )
        return _sum(body) + b"\n" + body

    def inside(self, folder: bytes) -> Mapping[bytes, bytes]:
        """What lies in a folder: name → mode, type and id; nothing where there is no such."""
        if (known := self._read.get(folder)) is None:
            lines = self._texts.get(folder, b"").split(b"\0")[:-1]
            pairs = [line.partition(b"\t") for line in lines]
            known = self._read[folder] = {name: head for head, _, name in pairs}
        return known

    def _head(self, path: bytes) -> bytes | None:
        folder, _, name = path.rpartition(b"/")
        return self.inside(folder).get(name)

    def file(self, path: bytes) -> Entry | None:
        """A file's entry; None for a folder, and where there is nothing."""
        head = self._head(path)
        if head is None or head.startswith(_FOLDER):
            return None
        mode, _, oid = head.decode().split(" ")
        return Entry(mode, oid)

    def is_folder(self, path: bytes) -> bool:
        """True for a folder."""
        return path in self._texts

    def below(self, folder: bytes) -> Iterator[bytes]:
        """The files in a folder and in its folders; all there are for the root (empty)."""
        lead = folder + b"/" if folder else b""
        for name, head in self.inside(folder).items():
            if head.startswith(_FOLDER):
                yield from self.below(lead + name)
            else:
                yield lead + name

    def prepare(self, paths: Iterable[bytes]) -> None:
        """Do what `changed_tree` needs for changes to these files, when there is time for it."""
        for folder in (b"", *folders(paths)):
            _id(self.inside(folder))

    @functools.cached_property
    def links(self) -> Mapping[bytes, str]:
        """The symbolic links, and the blobs that hold their targets."""
        lead = f"{SYMLINK} ".encode()
        return {
            folder + b"/" + name if folder else name: head[-40:].decode()
            for folder, text in self._texts.items()
            if lead in text
            for name, head in self.inside(folder).items()
            if head.startswith(lead)
        }


def _sum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


EMPTY = Listing({})


def above(path: bytes) -> Iterator[bytes]:
    """The folders that a path lies in, the nearest first; not the root."""
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)


def folders(paths: Iterable[bytes]) -> set[bytes]:
    """Every folder that one of the paths lies in; not the root."""
    found = {path[: path.rfind(b"/")] for path in paths if b"/" in path}
    for folder in list(found):
        for higher in above(folder):
            if higher in found:
                break  # and so is all above it
            found.add(higher)
    return found


def changed_tree(db: GitDb, below: Listing, changes: Mapping[bytes, Entry | None]) -> str:
    """The tree of ``below`` with these files added, replaced or (None) taken out; gives its id.

    One call of git writes every folder that differs. A folder that nothing is left in goes.
    `StoreError` where a name would be a file and a folder at once.
    """
    made = {folder: dict(below.inside(folder)) for folder in (b"", *folders(changes))}
    for path, entry in changes.items():
        folder, _, name = path.rpartition(b"/")
        inside = made[folder]
        if entry is not None:
            if inside.get(name, b"").startswith(_FOLDER) and path not in made:
                raise _both(path)
            inside[name] = _head(entry)
        elif not inside.get(name, _FOLDER).startswith(_FOLDER):
            del inside[name]
    return _write(db, made)


def _head(entry: Entry) -> bytes:
    kind = "commit" if entry.mode == GITLINK else "blob"
    return f"{entry.mode} {kind} {entry.oid}".encode()


def _both(path: bytes) -> StoreError:
    shown = path.decode("utf-8", "backslashreplace")
    return StoreError(f"{shown} would be a file and a folder at once", slug="file-and-folder")


def _write(db: GitDb, made: Mapping[bytes, dict[bytes, bytes]]) -> str:
    """Write folders (path → name → mode, type and id), the deepest first; the root's id."""
    new: dict[str, bytes] = {}  # what the store has not: id → entries
    tree = ""
    for folder in sorted(made, key=lambda path: path.count(b"/") + bool(path), reverse=True):
        inside = made[folder]
        parent, _, name = folder.rpartition(b"/")
        if folder and not inside:
            if made[parent].get(name, b"").startswith(_FOLDER):
                del made[parent][name]
            continue
        tree = _id(inside)
        if not db.has_loose(tree):
            new[tree] = b"".join([head + b"\t" + n + b"\0" for n, head in inside.items()]) + b"\0"
        if folder:
            if not made[parent].get(name, _FOLDER).startswith(_FOLDER):
                raise _both(folder)
            made[parent][name] = _FOLDER + tree.encode()
    if new:
        # --missing: the ids are of objects that are in the store, or of folders that come before.
        ran = db.run("mktree", "--batch", "-z", "--missing", stdin=b"".join(new.values()))
        if ran.text.split() != list(new):
            raise StoreError("git made other trees than were asked for", where=str(db.path))
    return tree


def _id(inside: Mapping[bytes, bytes]) -> str:
    """The id of a folder, whose names are in git's order: there a folder's ends in a slash."""
    data = b"".join([row for _, row in sorted(map(_row, inside.items()))])
    return hashlib.sha1(b"tree %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@functools.lru_cache(maxsize=1 << 14)
def _row(entry: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """What a name is sorted by, and its part of a tree object."""
    name, head = entry
    mode = head[: head.index(b" ")].lstrip(b"0")
    row = b"%b %b\0%b" % (mode, name, bytes.fromhex(head[-40:].decode()))
    return (name + b"/" if head.startswith(_FOLDER) else name), row
