"""The archive inside a sealed layer: a layer's folder as one deterministic ``tar.gz``.

What is read was written by somebody else: names that leave the folder, links, devices, a name
twice and bombs are refused, although only the layer's owner can have signed them.
"""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LayerError

# A layer is source text; the largest adaptation that we know has 80 MB.
MAX_BYTES = 1 << 30
MAX_MEMBERS = 100_000


@dataclass(frozen=True)
class Member:
    """One file of a layer: path below the layer's folder, execute bit, content."""

    path: str
    executable: bool
    data: bytes


def read_folder(folder: Path, where: str) -> tuple[Member, ...]:
    """Every file below ``folder``, sorted by path; a link or device is a `LayerError`."""
    found = []
    for base, folders, names in os.walk(folder):
        for name in names + folders:
            path = Path(base, name)
            mode = path.lstat().st_mode
            shown = path.relative_to(folder).as_posix()
            if stat.S_ISREG(mode):
                found.append(Member(shown, bool(mode & stat.S_IXUSR), path.read_bytes()))
            elif not stat.S_ISDIR(mode):
                raise LayerError(
                    f"{shown} is neither a file nor a folder",
                    where=f"{where}/{shown}",
                    hint="a layer holds plain files; a link is kept as a patch in diff/",
                    slug="bad-layer",
                )
    return tuple(sorted(found, key=lambda member: os.fsencode(member.path)))


def pack(members: Iterable[Member]) -> bytes:
    """The archive of ``members``; the same members give the same bytes."""
    plain = io.BytesIO()
    with tarfile.open(
        fileobj=plain, mode="w", format=tarfile.PAX_FORMAT, encoding="utf-8",
        errors="surrogateescape",
    ) as tar:  # fmt: skip
        for member in sorted(members, key=lambda member: os.fsencode(member.path)):
            info = tarfile.TarInfo(member.path)
            info.size = len(member.data)
            info.mode = 0o755 if member.executable else 0o644
            tar.addfile(info, io.BytesIO(member.data))
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=0)


def unpack(data: bytes, where: str) -> tuple[Member, ...]:
    """The members of an archive that `pack` wrote; `LayerError` for anything unsafe in it."""
    found: dict[str, Member] = {}
    try:
        plain = _bounded_gunzip(data, where)
        with tarfile.open(
            fileobj=io.BytesIO(plain), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for info in tar:
                _check(info, found, where)
                stream = tar.extractfile(info)
                content = stream.read() if stream is not None else b""
                found[info.name] = Member(info.name, bool(info.mode & 0o100), content)
    except (tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise _bad(f"is not an archive that can be read: {error}", where) from error
    for path in found:
        # A file where another member needs a folder could not be written back.
        for above in Path(path).parents:
            if above.as_posix() in found:
                raise _bad(f"holds {path!r} below the file {above.as_posix()!r}", where)
    return tuple(found.values())


def _bounded_gunzip(data: bytes, where: str) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        plain = stream.read(MAX_BYTES + 1)
    if len(plain) > MAX_BYTES:
        raise _bad(f"unpacks to more than {MAX_BYTES} bytes", where, "archive-bomb")
    return plain


def _check(info: tarfile.TarInfo, found: dict[str, Member], where: str) -> None:
    parts = info.name.split("/")
    if (
        info.name.startswith("/")
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
        or any(ord(char) < 32 or ord(char) == 127 for char in info.name)
    ):
        raise _bad(f"holds a name that is not safe: {info.name!r}", where, "path-escape")
    if not info.isreg():
        raise _bad(f"holds {info.name!r}, which is not a plain file", where, "path-escape")
    if info.name in found:
        raise _bad(f"holds {info.name!r} twice", where)
    if len(found) >= MAX_MEMBERS:
        raise _bad(f"holds more than {MAX_MEMBERS} files", where, "archive-bomb")


def _bad(what: str, where: str, slug: str = "bad-archive") -> LayerError:
    return LayerError(what, where=where, slug=slug)


def write_folder(folder: Path, members: Iterable[Member]) -> None:
    """Write ``members`` below ``folder``, which exists and is empty."""
    for member in members:
        path = folder / member.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member.data)
        path.chmod(0o755 if member.executable else 0o644)
