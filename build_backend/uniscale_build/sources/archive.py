"""Reads source archives member by member, straight into the object store; nothing is unpacked.

Names that leave their root, links out of the tree, devices and bombs are refused before a byte of
them is used.
"""

from __future__ import annotations

import fnmatch
import lzma
import posixpath
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import SourceError

# RuntimeError: a zip with a password; NotImplementedError: one that is packed in a rarer way.
_UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError,
               RuntimeError, NotImplementedError)  # fmt: skip
# Generous: the largest upstream source distribution that we know unpacks to 0.5 GB.
MAX_BYTES = 8 << 30
MAX_MEMBERS = 500_000
# Of an installer's or a signer's making (binary distribution format).
_OF_WHEEL = ("*.dist-info/RECORD", "*.dist-info/RECORD.jws", "*.dist-info/RECORD.p7s")


@dataclass(frozen=True)
class Member:
    """One file: path in the upstream tree as bytes, git mode, content (the target of a link)."""

    path: bytes
    mode: str
    data: bytes


def members(archive: Path, inner: str = "", drop: Sequence[str] = ()) -> Iterator[Member]:
    """The files below ``inner`` of a tar or zip archive, its one top folder taken off.

    A wheel has no top folder; its RECORD is left out, which lists what is true of the wheel alone.
    ``drop`` are glob patterns (on paths below ``inner``) of files that upstream does not have.
    """
    prefix = inner.strip("/") + "/" if inner.strip("/") else ""
    wheel = archive.suffix == ".whl"
    drop = (*drop, *_OF_WHEEL) if wheel else drop
    total = 0
    for count, (name, mode, data) in enumerate(_raw(archive), 1):
        total += len(data)
        if count > MAX_MEMBERS or total > MAX_BYTES:
            raise SourceError("unpacks to more than any source does", where=str(archive),
                              slug="archive-bomb")  # fmt: skip
        below = name if wheel else name.partition("/")[2]
        if not below.startswith(prefix):
            continue
        path = below[len(prefix) :]
        if not path or ".git" in path.split("/"):
            continue
        if any(fnmatch.fnmatchcase(path, pattern) for pattern in drop):
            continue
        if mode == "120000":
            _check_link(path, data.decode("utf-8", "surrogateescape"), archive)
        yield Member(path.encode("utf-8", "surrogateescape"), mode, data)


def _raw(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    try:
        if zipfile.is_zipfile(archive):
            yield from _zip(archive)
        else:
            yield from _tar(archive)
    except _UNREADABLE as error:
        if isinstance(error, FileNotFoundError):
            raise SourceError("is not there", where=str(archive), slug="no-file") from error
        raise SourceError(
            f"is not an archive that can be read: {error}",
            where=str(archive),
            hint="tar (gz, bz2, xz) and zip are read",
            slug="bad-archive",
        ) from error


def _tar(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(archive, "r|*") as tar:
        for info in tar:
            name = _safe(info.name, archive)
            if info.isfile():
                stream = tar.extractfile(info)
                data = stream.read() if stream is not None else b""
                yield name, "100755" if info.mode & 0o100 else "100644", data
            elif info.issym():
                yield name, "120000", info.linkname.encode("utf-8", "surrogateescape")
            elif not info.isdir():
                raise SourceError(
                    f"holds {info.name!r}, which is neither file, link nor folder",
                    where=str(archive),
                    slug="bad-archive",
                )


def _zip(archive: Path) -> Iterator[tuple[str, str, bytes]]:
    with zipfile.ZipFile(archive) as bundle:
        for info in bundle.infolist():
            name = _safe(info.filename, archive)
            if info.is_dir():
                continue
            if info.file_size > MAX_BYTES:
                raise SourceError("unpacks to more than any source does", where=str(archive),
                                  slug="archive-bomb")  # fmt: skip
            unix = info.external_attr >> 16
            kind = "120000" if unix & 0o170000 == 0o120000 else ""
            yield name, kind or ("100755" if unix & 0o100 else "100644"), bundle.read(info)


def _safe(name: str, archive: Path) -> str:
    clean = posixpath.normpath(name)
    if clean.startswith(("/", "../")) or clean == ".." or "\\" in name or "\0" in name:
        raise SourceError(
            f"holds a member outside its root: {name!r}", where=str(archive), slug="path-escape"
        )
    return clean


def _check_link(path: str, target: str, archive: Path) -> None:
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    if target.startswith("/") or reached == ".." or reached.startswith("../"):
        raise SourceError(
            f"holds a link that leaves the tree: {path} -> {target}",
            where=str(archive),
            slug="path-escape",
        )
