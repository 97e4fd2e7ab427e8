"""Reading wheels back: good ones are told, spoilt ones are refused with every reason."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import pytest
from uniscale_build.errors import Problems, UniscaleError, WheelError
from uniscale_build.wheels.wheel import Member, read_wheel

from .wheels import CONTENTS, FILE, INFO, METADATA, rewrite, tree, write

Files = dict[str, bytes]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("good")
    record = Member("uniscale_payloads/a-cpu/payload.json", b'{"schema": 1}')
    return write(out, [*tree(out / "src", CONTENTS), record]).path


def problems(path: Path) -> dict[str, list[UniscaleError]]:
    """What reading ``path`` is refused for, by slug; every error names the file."""
    with pytest.raises((WheelError, Problems)) as caught:
        read_wheel(path)
    told: dict[str, list[UniscaleError]] = {}
    for error in caught.value.findings():
        told.setdefault(error.slug, []).append(error)
    return told


def test_a_good_wheel(good: Path) -> None:
    found = read_wheel(good)
    assert (found.name, found.version, found.tags) == ("probe", "1.0", ("py3-none-any",))
    assert found.size == good.stat().st_size
    assert found.dist_info == INFO
    assert found.text("METADATA") == METADATA
    assert found.documents["uniscale_payloads/a-cpu/payload.json"] == b'{"schema": 1}'
    assert set(CONTENTS) <= {row.name for row in found.rows}
    assert not set(CONTENTS) & set(found.documents)


def test_other_tools_wheels_are_read_too(good: Path, tmp_path: Path) -> None:
    copied = rewrite(good, tmp_path / FILE)
    with ZipFile(copied, "a") as archive:  # folders of their own are allowed
        archive.writestr(ZipInfo("pkg/sub/"), b"")
    assert read_wheel(copied).rows == read_wheel(good).rows


CHANGES: dict[str, tuple[Callable[[Files], object], str, str]] = {
    "changed": (lambda f: f.update({"pkg/__init__.py": b"evil = 1\n"}), "record",
                "'pkg/__init__.py' is not what RECORD says"),
    "added": (lambda f: f.update({"pkg/evil.py": b""}), "record", "'pkg/evil.py' is not in RECORD"),
    "removed": (lambda f: f.pop("pkg/empty"), "record", "which is missing"),
    "no record": (lambda f: f.pop(f"{INFO}/RECORD"), "record", "no RECORD"),
    "weak hash": (lambda f: f.update({f"{INFO}/RECORD": b"pkg/empty,md5=abc,0\n"}), "record",
                  "no SHA-256 and size"),
    "not csv": (lambda f: f.update({f"{INFO}/RECORD": b'"open\n'}), "record", "not CSV"),
    "twice": (lambda f: f.update({f"{INFO}/RECORD": b"pkg/empty,,\npkg/empty,,\n"}), "record",
              "listed twice"),
    "no hash": (lambda f: f.update({f"{INFO}/RECORD": b"pkg/empty,,\n"}), "record",
                "no hash for 'pkg/empty'"),
    "no WHEEL": (lambda f: f.pop(f"{INFO}/WHEEL"), "dist-info", "no WHEEL"),
    "other tags": (lambda f: f.update({f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nTag: cp39-abi3-any\n"
                                       }), "bad-tag", "WHEEL says cp39-abi3-any"),
    "other name": (lambda f: f.update({f"{INFO}/METADATA": b"Name: other\nVersion: 1.0\n"}),
                   "bad-metadata", "METADATA is of 'other'"),
    "nonsense version": (lambda f: f.update({f"{INFO}/METADATA": b"Name: probe\nVersion: ?\n"}),
                         "bad-metadata", "METADATA is of 'probe'"),
    "two dist-infos": (lambda f: f.update({"other-1.dist-info/METADATA": b""}), "dist-info",
                       "this has 2"),
    "no dist-info": (lambda f: [f.pop(n) for n in list(f) if n.startswith(INFO)], "dist-info",
                     "this has 0"),
    "not UTF-8": (lambda f: f.update({f"{INFO}/WHEEL": b"\xff\xfe"}), "bad-zip", "not a wheel"),
    "traversal": (lambda f: f.update({"../evil": b""}), "bad-name", "'..'"),
    "by case": (lambda f: f.update({"PKG/EMPTY": b""}), "duplicate-name", "by case only"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_a_changed_wheel(good: Path, tmp_path: Path, kind: str) -> None:
    change, slug, words = CHANGES[kind]
    found = problems(rewrite(good, tmp_path / FILE, change))
    assert any(words in error.what for error in found[slug])
    assert all(str(tmp_path / FILE) == error.where for error in found[slug]
               if slug not in ("bad-name", "duplicate-name"))  # fmt: skip


def test_every_problem_is_told_at_once(good: Path, tmp_path: Path) -> None:
    def spoil(files: Files) -> None:
        files["pkg/__init__.py"] = b"evil"
        files["pkg/evil.py"] = b""
        del files["pkg/empty"]
        files[f"{INFO}/METADATA"] = METADATA.replace("1.0", "2.0").encode()

    found = problems(rewrite(good, tmp_path / FILE, spoil))
    assert len(found["record"]) == 4
    assert len(found["bad-metadata"]) == 1


BYTES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut short": (lambda data: data[:-200], "bad-zip"),
    "half": (lambda data: data[: len(data) // 2], "bad-zip"),
    "empty": (lambda data: b"", "bad-zip"),
    "a page": (lambda data: b"<!doctype html><title>404</title>", "bad-zip"),
    "something after": (lambda data: data + b"more", "zip-layout"),
    "something before": (lambda data: b"#!/bin/sh\n" + data, "zip-layout"),
    "another name inside": (lambda data: data.replace(b"pkg/empty", b"pkg/emptY", 1), "zip-layout"),
    "another size inside": (lambda data: data[:18] + b"\x01" + data[19:], "zip-layout"),
    "a comment that is not there": (lambda data: data[:-1] + b"\1", "zip-layout"),
    "damaged content": (lambda data: data[:60] + b"\xff\xff\xff" + data[63:], "bad-zip"),
}


@pytest.mark.parametrize("kind", BYTES)
def test_a_damaged_archive(good: Path, tmp_path: Path, kind: str) -> None:
    change, slug = BYTES[kind]
    spoilt = tmp_path / FILE
    spoilt.write_bytes(change(good.read_bytes()))
    assert slug in problems(spoilt)


def test_a_bit_flipped_anywhere_is_noticed(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    ignored = []
    for place in range(0, len(data), len(data) // 60):
        spoilt = tmp_path / FILE
        spoilt.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            read_wheel(spoilt)
        except (WheelError, Problems):
            continue
        ignored.append(place)
    # A date or a version field of a header may differ without any file differing.
    assert len(ignored) <= 3


def special(target: Path, good: Path, name: str, attributes: int = 0, flags: int = 0) -> Path:
    """``good`` with one more member that has those attributes and flags."""
    rewrite(good, target)
    with ZipFile(target, "a") as archive:
        info = ZipInfo(name)
        info.create_system, info.external_attr = 3, attributes
        archive.writestr(info, b"/etc/passwd", ZIP_STORED)
    data = bytearray(target.read_bytes())
    if flags:
        at = data.rindex(b"PK\1\2")
        struct.pack_into("<H", data, at + 8, flags)
        target.write_bytes(data)
    return target


def test_links_devices_and_secrets_are_refused(good: Path, tmp_path: Path) -> None:
    link = special(tmp_path / "l" / FILE, good, "link", 0o120777 << 16)
    assert "'link' is a link or device" in problems(link)["not-a-file"][0].what
    device = special(tmp_path / "d" / FILE, good, "device", 0o020644 << 16)
    assert "not-a-file" in problems(device)
    secret = special(tmp_path / "s" / FILE, good, "secret", 0o100644 << 16, flags=1)
    assert "'secret' is encrypted" in problems(secret)["bad-zip"][0].what


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(good: Path, tmp_path: Path) -> None:
    twice = special(tmp_path / FILE, good, "pkg/empty", 0o100644 << 16)
    assert "twice" in problems(twice)["duplicate-name"][0].what


@pytest.mark.parametrize(
    "name",
    ["probe.whl", "probe-1.0.whl", "probe-1.0-py3-none-any.zip", "probe-1.0-x-py3-none-any.whl",
     "probe-?-py3-none-any.whl", "-1.0-py3-none-any.whl", "probe-1.0-py3--any.whl"],
)  # fmt: skip
def test_a_file_name_that_is_no_wheels(good: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(good.read_bytes())
    assert problems(tmp_path / name)


def test_the_file_name_must_be_that_of_what_is_inside(good: Path, tmp_path: Path) -> None:
    for name in ("other-1.0-py3-none-any.whl", "probe-2.0-py3-none-any.whl"):
        (tmp_path / name).write_bytes(good.read_bytes())
        assert {"dist-info", "bad-metadata"} & set(problems(tmp_path / name))
    (tmp_path / "probe-1.0-cp311-none-any.whl").write_bytes(good.read_bytes())
    assert "bad-tag" in problems(tmp_path / "probe-1.0-cp311-none-any.whl")
    built = tmp_path / "probe-1.0-1-py3-none-any.whl"
    built.write_bytes(good.read_bytes())
    assert read_wheel(built).version == "1.0"


def test_no_wheel_at_all(tmp_path: Path) -> None:
    assert "no-wheel" in problems(tmp_path / FILE)
