"""A wheel that upstream's build made, laid out like installers do it, or refused."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from uniscale_build.build.unpack import unpack
from uniscale_build.errors import Problems, WheelError

INFO = "thing-1.0.dist-info"
DATA = "thing-1.0.data"
RUN = (".sh", "-sh", "-run")
FILES: Mapping[str, bytes] = {
    "thing/__init__.py": b"def main():\n    print('here')\n\nclass Group:\n    other = main\n",
    "thing/tool.sh": b"#!/bin/sh\n",
    f"{DATA}/purelib/pure.py": b"",
    f"{DATA}/platlib/thing/part.py": b"x = 1\n",
    f"{DATA}/data/share/thing/words.txt": b"words",
    f"{DATA}/headers/thing.h": b"int x;\n",
    f"{DATA}/scripts/thing-run": b"#!python\nimport thing\nthing.main()\n",
    f"{DATA}/scripts/thing-sh": b"#!/bin/sh\necho here\n",
    f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n",
    f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{INFO}/entry_points.txt": b"[console_scripts]\nthing = thing:main\n"
    b"Thing-2 = thing:Group.other [more]\n"
    b"[gui_scripts]\nthing-window = thing:main\n[others]\n100% = anything\n",
}  # fmt: skip


def record(files: Mapping[str, bytes]) -> bytes:
    """The RECORD of ``files``."""
    lines = []
    for name, data in files.items():
        value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={value},{len(data)}\n")
    return "".join((*lines, f"{INFO}/RECORD,,\n")).encode()


def make(folder: Path, files: Mapping[str, bytes] = FILES, listed: bytes | None = None) -> Path:
    """A wheel of ``files``; RECORD is theirs unless another is given."""
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16 if name.endswith(RUN) else 0o100644 << 16
            archive.writestr(info, data)
        archive.writestr(f"{INFO}/RECORD", record(files) if listed is None else listed)
    return path


def test_the_files_are_where_pip_puts_them(tmp_path: Path) -> None:
    wheel, ours, theirs = make(tmp_path), tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    unpack(wheel, ours)
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile",
         "--disable-pip-version-check", "--target", str(theirs), str(wheel)], check=True,
    )  # fmt: skip
    mine, other = files_of(ours), files_of(theirs)
    pips = {f"{INFO}/INSTALLER", f"{INFO}/REQUESTED", f"{INFO}/direct_url.json"}
    # pip has its own folder for headers in a target; no payload keeps any.
    assert mine.keys() - {"include/thing.h"} == {
        name for name in other.keys() - pips if not name.startswith("include/")
    }
    same = mine.keys() & other.keys() - {f"{INFO}/RECORD"}
    assert {name: mine[name] for name in same} == {name: other[name] for name in same}


def files_of(folder: Path) -> dict[str, int]:
    """The files below ``folder`` with their modes."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.stat().st_mode & 0o777 for path in found}


@pytest.mark.parametrize("script", ["thing", "Thing-2", "thing-window", "thing-run"])
def test_scripts_start_with_the_python_that_is_first(tmp_path: Path, script: str) -> None:
    unpack(make(tmp_path), tmp_path / "in")
    path = tmp_path / "in" / "bin" / script
    assert path.read_bytes().startswith(b"#!/usr/bin/env python3\n")
    env = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(tmp_path / "in")}
    ran = subprocess.run([sys.executable, path], env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "here\n"), ran.stderr


BROKEN = {
    "names that leave": ({"../out.py": b""}, "bad-name"),
    "an absolute name": ({"/out.py": b""}, "bad-name"),
    "a scheme's way out": ({f"{DATA}/purelib/../../out.py": b""}, "bad-name"),
    "no scheme": ({f"{DATA}/stuff/x": b""}, "bad-wheel"),
    "two of a name": ({f"{DATA}/purelib/thing/__init__.py": b""}, "duplicate-name"),
    "a script twice": ({f"{DATA}/scripts/thing": b"#!python\n"}, "duplicate-name"),
    "another format": ({f"{INFO}/WHEEL": b"Wheel-Version: 2.0\n"}, "bad-wheel"),
    "no format": ({f"{INFO}/WHEEL": b""}, "bad-wheel"),
    "a command with a path": (
        {f"{INFO}/entry_points.txt": b"[console_scripts]\n../x = thing:main\n"}, "bad-wheel"),
    "code as an entry point": (
        {f"{INFO}/entry_points.txt": b"[console_scripts]\nx = os;import:y\n"}, "bad-wheel"),
    "no attribute": ({f"{INFO}/entry_points.txt": b"[console_scripts]\nx = thing\n"}, "bad-wheel"),
    "no section": ({f"{INFO}/entry_points.txt": b"x = thing:main\n"}, "bad-wheel"),
    "another distribution too": ({"other-2.dist-info/METADATA": b"x"}, "dist-info"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_what_no_installer_should_take_is_refused_before_a_byte_is_written(
    tmp_path: Path, case: str
) -> None:
    more, slug = BROKEN[case]
    install = tmp_path / "in"
    install.mkdir()
    with pytest.raises((WheelError, Problems)) as caught:
        unpack(make(tmp_path, {**FILES, **more}), install)
    assert slug in {one.slug for one in caught.value.findings()}
    assert not list(install.iterdir()) and not (tmp_path / "out.py").exists()


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (record({**FILES, "thing/__init__.py": b"else"}), "thing/__init__.py: not what RECORD"),
        (record({**FILES, "gone.py": b""}), "gone.py: listed in RECORD and not there"),
        (record(dict(list(FILES.items())[1:])), "thing/__init__.py: not listed in RECORD"),
        (b"thing/__init__.py,md5=x,3\n", "has no SHA-256"),
        (b"", "thing/__init__.py, thing/tool.sh, .* more: not listed in RECORD"),
    ],
)
def test_a_record_that_is_not_true_is_refused(tmp_path: Path, listed: bytes, words: str) -> None:
    with pytest.raises((WheelError, Problems), match=words):
        unpack(make(tmp_path, listed=listed), tmp_path / "in")


def test_what_is_no_wheel_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    path.write_bytes(b"<!doctype html>")
    with pytest.raises(WheelError, match="no wheel"):
        unpack(path, tmp_path / "in")
    whole = make(tmp_path).read_bytes()
    at = whole.index(b"def main")
    path.write_bytes(whole[:at] + b"D" + whole[at + 1 :])
    with pytest.raises(WheelError, match="no wheel: Bad CRC"):
        unpack(path, tmp_path / "in")
