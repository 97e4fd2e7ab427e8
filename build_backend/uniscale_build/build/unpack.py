"""A wheel that upstream's build has made, laid out as a payload has its files.

As installers do it (binary distribution format, PEP 427): every file is what RECORD says, the
schemes of the ``.data`` folder go where they belong, entry points become scripts. The scripts start
anywhere, and are the same whichever installer this machine has.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import BinaryIO

from uniscale_build import recordfile
from uniscale_build.build.scripts import ANYWHERE
from uniscale_build.errors import UniscaleError, WheelError, raise_all, some
from uniscale_build.members import check_names
from uniscale_build.store import disk_errors

_BLOCK = 1 << 20
# Where a prefix on PYTHONPATH has what a wheel keeps in its .data folder.
_SCHEMES = {"purelib": "", "platlib": "", "data": "", "scripts": "bin/", "headers": "include/"}
_ENTRY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_][\w.]*)\s*(?:\[.*\])?")
_COMMAND = re.compile(r"[\w.+-]+")


@dataclass(frozen=True)
class _Placed:
    """A member of the wheel and its name in the prefix."""

    info: zipfile.ZipInfo
    name: str
    script: bool

    @property
    def executable(self) -> bool:
        return self.script or bool(self.info.external_attr >> 16 & 0o111)


def unpack(wheel: Path, install: Path) -> None:
    """Lay the wheel out in the folder ``install``, which holds none of its files.

    `WheelError`, all at once: no wheel, names that leave the folder or meet, an unknown scheme or
    format version, an entry point that is none; nothing is written then. Also for files that are
    not as RECORD has them, which is known only when they are there.
    """
    try:
        with zipfile.ZipFile(wheel) as archive, disk_errors(install):
            _Unpacking(wheel, archive).into(install)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise WheelError(
            f"upstream's build gave something that is no wheel: {error}",
            where=str(wheel),
            slug="bad-zip",
        ) from error


class _Unpacking:
    """One pass over one wheel."""

    def __init__(self, wheel: Path, archive: zipfile.ZipFile) -> None:
        self._wheel = wheel
        self._archive = archive
        self._errors: list[UniscaleError] = []
        self._infos = [info for info in archive.infolist() if not info.is_dir()]
        self._info = self._dist_info()

    def into(self, install: Path) -> None:
        """Decide everything, then write."""
        placed = self._place()
        scripts = self._entry_points()
        names = [one.name for one in placed]
        self._errors.extend(check_names([*names, *scripts], what="wheel"))
        self._check_format()
        raise_all(self._errors)
        for folder in {(install / name).parent for name in (*names, *scripts)}:
            folder.mkdir(parents=True, exist_ok=True)
        found = {one.info.filename: self._write(one, install / one.name) for one in placed}
        for name, text in scripts.items():
            with _create(install / name, executable=True) as out:
                out.write(text)
        self._check_record(found)
        raise_all(self._errors)

    def _wrong(self, what: str, slug: str) -> None:
        hint = "upstream's build backend made it so; the build log says which that is"
        self._errors.append(WheelError(what, where=str(self._wheel), hint=hint, slug=slug))

    def _dist_info(self) -> str:
        tops = {info.filename.split("/")[0] for info in self._infos if "/" in info.filename}
        found = sorted(name for name in tops if name.endswith(".dist-info"))
        if len(found) != 1:
            self._wrong(f"a wheel has one .dist-info folder, this has {len(found)}", "dist-info")
            raise_all(self._errors)
        return found[0]

    def _text(self, name: str) -> str:
        """A document of the dist-info; empty when there is none."""
        try:
            return self._archive.read(f"{self._info}/{name}").decode("utf-8")
        except KeyError:
            return ""

    def _check_format(self) -> None:
        version = str(HeaderParser().parsestr(self._text("WHEEL")).get("Wheel-Version", ""))
        if version.split(".")[0] != "1":
            self._wrong(f"the wheel's format is {version or 'not told'}; 1.0 is known", "bad-wheel")

    def _place(self) -> list[_Placed]:
        data = f"{self._info.removesuffix('.dist-info')}.data"
        placed = []
        for info in self._infos:
            top, _, rest = info.filename.partition("/")
            if top != data:
                placed.append(_Placed(info, info.filename, False))
                continue
            scheme, _, inner = rest.partition("/")
            if scheme not in _SCHEMES:
                self._wrong(f"{info.filename!r} is of the scheme {scheme!r}: there are "
                            f"{', '.join(_SCHEMES)}", "bad-wheel")  # fmt: skip
                continue
            placed.append(_Placed(info, _SCHEMES[scheme] + inner, scheme == "scripts"))
        return placed

    def _entry_points(self) -> dict[str, bytes]:
        """The scripts of ``entry_points.txt`` by their names in the prefix."""
        parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=False)
        parser.optionxform = str  # type: ignore[assignment, method-assign]
        try:
            parser.read_string(self._text("entry_points.txt"))
        except configparser.Error as error:
            self._wrong(f"entry_points.txt cannot be read: {error}".replace("\n", " "), "bad-wheel")
        scripts: dict[str, bytes] = {}
        for section in ("console_scripts", "gui_scripts"):
            points: Mapping[str, str] = parser[section] if parser.has_section(section) else {}
            for command, text in points.items():
                entry = _ENTRY.fullmatch(text.strip())
                if entry is None or _COMMAND.fullmatch(command) is None:
                    self._wrong(f"the entry point {command!r} = {text!r} is none", "bad-wheel")
                    continue
                scripts[f"bin/{command}"] = _script(entry[1], entry[2])
        return scripts

    def _write(self, one: _Placed, target: Path) -> tuple[str, int]:
        """The SHA-256 and size of the member, which is at ``target`` then."""
        value, size = hashlib.sha256(), 0
        with self._archive.open(one.info) as source, _create(target, one.executable) as out:
            while block := source.read(_BLOCK):
                value.update(block)
                if one.script and not size:
                    out.write(_started_anywhere(block))
                else:
                    out.write(block)
                size += len(block)
        return value.hexdigest(), size

    def _check_record(self, found: Mapping[str, tuple[str, int]]) -> None:
        """What was unpacked, compared with RECORD both ways, as PEP 427 wants it."""
        own = f"{self._info}/RECORD"
        rows, problems = recordfile.parse(self._text("RECORD"))
        for problem in problems:
            self._wrong(problem, "record")
        unhashed = {own, f"{own}.jws", f"{own}.p7s"}
        listed = {row.name: (row.sha256, row.size) for row in rows}
        wrong = [name for name in found if name not in unhashed and listed.get(name) != found[name]]
        for names, what in (
            ([name for name in wrong if name not in listed], "not listed in RECORD"),
            ([name for name in wrong if name in listed], "not what RECORD says"),
            (sorted(listed.keys() - found.keys()), "listed in RECORD and not there"),
        ):
            if names:
                self._wrong(f"{some(names, 3)}: {what}", "record")


def _create(path: Path, executable: bool) -> BinaryIO:
    """A new file to write; a payload's files get their exact modes when they are put together."""
    mode = 0o755 if executable else 0o644
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb")


def _script(module: str, attribute: str) -> bytes:
    first = attribute.split(".")[0]
    lines = ["import sys", "", f"from {module} import {first}", "",
             'if __name__ == "__main__":', f"    sys.exit({attribute}())", ""]  # fmt: skip
    return ANYWHERE + "\n".join(lines).encode()


def _started_anywhere(data: bytes) -> bytes:
    """A script's beginning with the interpreter in place of the word that stands for it."""
    if not data.startswith(b"#!python"):
        return data
    return ANYWHERE + data.partition(b"\n")[2]
