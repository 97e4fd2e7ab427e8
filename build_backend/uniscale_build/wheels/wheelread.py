"""Wheels, read back: everything that is in one is what its RECORD says, or it is refused.

Stricter than installers are: what two unpackers could understand differently is an error.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uniscale_build import recordfile
from uniscale_build.build.distinfo import expanded_tags, file_stem
from uniscale_build.errors import UniscaleError, WheelError, raise_all
from uniscale_build.members import check_names
from uniscale_build.recordfile import Row, file_sha256

_BLOCK = 1 << 20
# Documents are held in memory: METADATA, payload.json, SBOM. Ours are far below this.
_LARGEST_DOCUMENT = 16 << 20
_SIGNATURES = ("RECORD.jws", "RECORD.p7s")


@dataclass(frozen=True)
class Wheel:
    """A wheel whose every file was checked.

    ``rows`` are its RECORD's; ``documents`` the content of all files in its dist-info and of each
    payload's ``payload.json``, by name.
    """

    path: Path
    name: str
    version: str
    tags: tuple[str, ...]
    sha256: str
    size: int
    dist_info: str
    rows: tuple[Row, ...]
    documents: Mapping[str, bytes]

    def text(self, name: str) -> str:
        """The document ``name`` of the dist-info (``METADATA``); `KeyError` when it has none."""
        return self.documents[f"{self.dist_info}/{name}"].decode("utf-8")


def read_wheel(path: Path) -> Wheel:
    """Check the wheel at ``path`` whole and give what it says of itself.

    `WheelError` for a file that is no wheel; else one error for each thing that is not as RECORD,
    WHEEL, METADATA or the file name have it, all at once.
    """
    stem, tag = _parse_name(path)
    tags = expanded_tags(tag)
    try:
        with path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
            return _Reader(path, archive, stem, tags).read()
    except FileNotFoundError as error:
        raise WheelError("there is no such wheel", where=str(path), slug="no-wheel") from error
    except (zipfile.BadZipFile, struct.error, UnicodeDecodeError, NotImplementedError) as error:
        raise WheelError(
            f"not a wheel: {error}",
            where=str(path),
            hint="it is cut short, or something else was stored under that name; fetch or build "
            "it again",
            slug="bad-zip",
        ) from error


def _parse_name(path: Path) -> tuple[str, str]:
    """``name-version`` (canonical) and the tag of a wheel's file name, without a build number."""
    parts = path.name[:-4].split("-") if path.name.endswith(".whl") else []
    if len(parts) not in (5, 6) or (len(parts) == 6 and not parts[2][:1].isdigit()):
        raise WheelError(
            f"{path.name!r} is no wheel's name",
            where=str(path),
            hint="it is name-version-python-abi-platform.whl",
            slug="bad-file-name",
        )
    return file_stem(parts[0], parts[1].replace("_", "-")), "-".join(parts[-3:])


class _Reader:
    """One pass over one wheel, gathering what is wrong."""

    def __init__(
        self, path: Path, archive: zipfile.ZipFile, stem: str, tags: tuple[str, ...]
    ) -> None:
        self._path = path
        self._archive = archive
        self._stem = stem
        self._tags = tags
        self._errors: list[UniscaleError] = []
        self._documents: dict[str, bytes] = {}

    def _wrong(self, what: str, slug: str, hint: str = "build or fetch the wheel again") -> None:
        self._errors.append(WheelError(what, where=str(self._path), hint=hint, slug=slug))

    def read(self) -> Wheel:
        """The wheel, or everything that is wrong with it."""
        infos = [info for info in self._archive.infolist() if not info.is_dir()]
        names = [info.filename for info in infos]
        self._errors.extend(check_names(names, what="wheel"))
        self._check_layout(self._archive.infolist())
        info = self._dist_info(names)
        found: dict[str, tuple[str, int]] = {}
        for member in infos:
            digest = self._check_member(member, info)
            if digest is not None:
                found[member.filename] = (digest, member.file_size)
        raise_all(self._errors)
        rows = self._check_record(found, info)
        self._check_claims(info)
        raise_all(self._errors)
        name, _, version = self._stem.partition("-")
        return Wheel(
            self._path, name, version, self._tags, file_sha256(self._path),
            self._path.stat().st_size, info, tuple(rows), self._documents,
        )  # fmt: skip

    def _dist_info(self, names: list[str]) -> str:
        """The one top-level dist-info folder, which must be of the file name's distribution."""
        folders = {name.split("/")[0] for name in names if "/" in name}
        found = sorted(folder for folder in folders if folder.endswith(".dist-info"))
        if len(found) != 1:
            self._wrong(f"a wheel has one .dist-info folder, this has {len(found)}", "dist-info")
            raise_all(self._errors)
        project, _, version = found[0].removesuffix(".dist-info").partition("-")
        if not version or file_stem(project, version.replace("_", "-")) != self._stem:
            self._wrong(f"{found[0]} is not of {self._stem}", "dist-info")
        return found[0]

    def _check_layout(self, infos: list[zipfile.ZipInfo]) -> None:
        """Members follow one another from the first byte, and nothing follows the directory."""
        stream = self._archive.fp
        if stream is None:
            raise zipfile.BadZipFile("closed")
        end = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if info.header_offset < end or (end == 0 and info.header_offset != 0):
                self._wrong(f"{info.filename!r} overlaps what is before it", "zip-layout")
            stream.seek(info.header_offset)
            head = stream.read(30)
            if len(head) != 30 or head[:4] != b"PK\3\4":
                self._wrong(f"{info.filename!r} is not where the directory says", "zip-layout")
                continue
            flags, method, crc, packed, size, name_length, extra_length = struct.unpack(
                "<6x2H4x3L2H", head
            )
            raw = stream.read(name_length)
            described = bool(flags & 8)
            same = raw == _raw_name(info) and method == info.compress_type
            if not described and size != 0xFFFFFFFF:
                same = same and (crc, packed, size) == (
                    info.CRC, info.compress_size, info.file_size
                )  # fmt: skip
            if not same:
                self._wrong(f"{info.filename!r} has two headers that disagree", "zip-layout")
            end = info.header_offset + 30 + name_length + extra_length + info.compress_size
        if end > self._archive.start_dir:
            self._wrong("the last member runs into the directory", "zip-layout")
        self._check_end(stream.seek(0, 2))

    def _check_end(self, size: int) -> None:
        stream = self._archive.fp
        comment = len(self._archive.comment)
        if stream is None:
            raise zipfile.BadZipFile("closed")
        stream.seek(max(0, size - comment - 22))
        end = stream.read(22)
        if end[:4] != b"PK\5\6" or int.from_bytes(end[20:], "little") != comment:
            self._wrong("something follows the end of the archive", "zip-layout")

    def _check_member(self, info: zipfile.ZipInfo, dist_info: str) -> str | None:
        """The SHA-256 of a member's content; None and an error when it cannot be had."""
        kind = info.external_attr >> 28
        if info.create_system == 3 and kind not in (0, 8):
            self._wrong(f"{info.filename!r} is a link or device", "not-a-file")
            return None
        if info.flag_bits & 0x41:
            self._wrong(f"{info.filename!r} is encrypted", "bad-zip")
            return None
        document = info.filename.startswith(f"{dist_info}/") or re.fullmatch(
            r"uniscale_payloads/[^/]+/payload\.json", info.filename
        )
        if document and info.file_size > _LARGEST_DOCUMENT:
            self._wrong(f"{info.filename!r} is {info.file_size} bytes long", "document-size")
            return None
        value, kept = hashlib.sha256(), []
        try:
            with self._archive.open(info) as stream:
                while data := stream.read(_BLOCK):
                    value.update(data)
                    if document:
                        kept.append(data)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self._wrong(f"{info.filename!r} is damaged: {error}", "bad-zip")
            return None
        if document:
            self._documents[info.filename] = b"".join(kept)
        return value.hexdigest()

    def _check_record(self, found: Mapping[str, tuple[str, int]], info: str) -> list[Row]:
        """RECORD's rows, compared with what is there both ways."""
        own = f"{info}/RECORD"
        if own not in self._documents:
            self._wrong("it has no RECORD", "record")
            return []
        rows, problems = recordfile.parse(self._documents[own].decode("utf-8"))
        for problem in problems:
            self._wrong(problem, "record")
        unhashed = {own, *(f"{info}/{name}" for name in _SIGNATURES)}
        for row in rows:
            if row.name not in found:
                self._wrong(f"RECORD lists {row.name!r}, which is missing", "record")
            elif row.sha256 is None and row.name not in unhashed:
                self._wrong(f"RECORD has no hash for {row.name!r}", "record")
            elif row.sha256 is not None and (row.sha256, row.size) != found[row.name]:
                self._wrong(f"{row.name!r} is not what RECORD says", "record",
                            "it was changed after it was built: do not install it")  # fmt: skip
        listed = {row.name for row in rows} | (unhashed - {own})
        for name in sorted(found.keys() - listed):
            self._wrong(f"{name!r} is not in RECORD", "record",
                        "it was added after the wheel was built: do not install it")  # fmt: skip
        return rows

    def _check_claims(self, info: str) -> None:
        """WHEEL's tags and METADATA's name and version, compared with the file name."""
        from email.parser import HeaderParser

        claims = {}
        for name in ("WHEEL", "METADATA"):
            text = self._documents.get(f"{info}/{name}", b"").decode("utf-8")
            if not text:
                self._wrong(f"it has no {name}", "dist-info")
            claims[name] = HeaderParser().parsestr(text)
        tags = tuple(sorted(claims["WHEEL"].get_all("Tag", [])))
        if tags != self._tags:
            said = ", ".join(tags) or "no tag"
            self._wrong(f"WHEEL says {said}; the file name, {', '.join(self._tags)}", "bad-tag")
        name, version = claims["METADATA"].get("Name", ""), claims["METADATA"].get("Version", "")
        try:
            same = file_stem(name, version) == self._stem
        except WheelError:
            same = False
        if not same:
            self._wrong(f"METADATA is of {name!r} {version!r}", "bad-metadata")


def _raw_name(info: zipfile.ZipInfo) -> bytes:
    return info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
