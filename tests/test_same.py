"""A wheel that would come out as it is already is not packed again; anything else is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from uniscale_build import recordfile
from uniscale_build.errors import WheelError
from uniscale_build.members import Member
from uniscale_build.wheels import wheel
from uniscale_build.wheels.previous import stamp
from uniscale_build.wheels.wheel import WheelFile

from .wheels import CONTENTS, METADATA, tree, write


@pytest.fixture
def members(tmp_path: Path) -> list[Member]:
    return tree(tmp_path / "payload", CONTENTS)


@pytest.fixture
def made(tmp_path: Path, members: list[Member]) -> WheelFile:
    return write(tmp_path / "dist", members)


class Packed(Exception):
    """Something was packed."""


@pytest.fixture
def unpacked(made: WheelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on packing is told."""

    def pack(*args: object, **more: object) -> None:
        raise Packed

    monkeypatch.setattr(wheel, "pack", pack)


def again(made: WheelFile, out: Path, members: list[Member], **options: object) -> WheelFile:
    told = {"previous": made.path, "previous_sha256": made.sha256, **options}
    return write(out, members, **told)


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize("threads", [1, 3])
def test_the_same_again_is_not_touched(
    threads: int, made: WheelFile, members: list[Member]
) -> None:
    before = made.path.stat()
    assert again(made, made.path.parent, members, threads=threads) == made
    after = made.path.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert [path.name for path in made.path.parent.iterdir()] == [made.path.name]


@pytest.mark.usefixtures("unpacked")
def test_it_is_copied_elsewhere(made: WheelFile, members: list[Member], tmp_path: Path) -> None:
    other = again(made, tmp_path / "other", members)
    assert other == replace(made, path=other.path) and other.path.parent.name == "other"
    assert other.path.read_bytes() == made.path.read_bytes()
    assert other.path.stat().st_mode & 0o777 == 0o644


def _longer(members: list[Member]) -> list[Member]:
    return [*members, Member("pkg/more.py", b"y = 2\n")]


def _renamed(members: list[Member]) -> list[Member]:
    return [replace(members[0], name="pkg/aaa.py"), *members[1:]]


def _other_mode(members: list[Member]) -> list[Member]:
    return [replace(members[0], mode=0o755), *members[1:]]


def _other_content(members: list[Member]) -> list[Member]:
    path = members[0].source
    assert isinstance(path, Path)
    data = path.read_bytes()
    path.write_bytes(data[:-1] + b"#")
    return members


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize("change", [_longer, _renamed, _other_mode, _other_content])
def test_what_differs_is_packed(
    change: Callable[[list[Member]], list[Member]], made: WheelFile, members: list[Member]
) -> None:
    with pytest.raises(Packed):
        again(made, made.path.parent, change(members))


@pytest.mark.usefixtures("unpacked")
@pytest.mark.parametrize(
    "options",
    [{"epoch": 1700000000}, {"compression": "best"}, {"metadata": f"{METADATA}Summary: new\n"}],
)
def test_other_options_are_packed(
    options: dict[str, object], made: WheelFile, members: list[Member]
) -> None:
    with pytest.raises(Packed):
        again(made, made.path.parent, members, **options)


@pytest.mark.usefixtures("unpacked")
def test_a_wheel_with_its_stamp_is_not_read_again(
    made: WheelFile, members: list[Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = stamp(made.path)

    def read(path: Path) -> str:
        raise Packed

    monkeypatch.setattr(recordfile, "file_sha256", read)
    with pytest.raises(Packed):
        again(made, made.path.parent, members)
    assert again(made, made.path.parent, members, previous_stamp=told) == made


def test_a_stamp_is_not_believed_after_any_change(made: WheelFile, members: list[Member]) -> None:
    """Not even after one that leaves size and time of change as they were."""
    whole, told, times = made.path.read_bytes(), stamp(made.path), made.path.stat()
    with made.path.open("r+b") as file:
        file.seek(200)
        file.write(bytes([whole[200] ^ 1]))
    os.utime(made.path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert stamp(made.path)[:3] == told[:3]
    out = again(made, made.path.parent, members, previous_stamp=told)
    assert out.path.read_bytes() == whole


@pytest.mark.parametrize("at", [200, -30])
def test_a_wheel_that_was_changed_is_written_anew(
    at: int, made: WheelFile, members: list[Member], tmp_path: Path
) -> None:
    """Content, and what is only in the archive's directory."""
    whole = made.path.read_bytes()
    spoilt = bytearray(whole)
    spoilt[at] ^= 1
    kept = tmp_path / "kept" / made.path.name
    kept.parent.mkdir()
    kept.write_bytes(spoilt)
    out = write(kept.parent, members, previous=kept, previous_sha256=made.sha256)
    assert out.path.read_bytes() == whole


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_previous_wheel_that_cannot_be_read(made: WheelFile, members: list[Member]) -> None:
    made.path.chmod(0)
    assert again(made, made.path.parent, members).sha256 == made.sha256


def test_a_previous_wheel_that_is_a_folder(made: WheelFile, members: list[Member]) -> None:
    folder = made.path.with_name("folder.whl")
    folder.mkdir()
    out = write(made.path.parent, members, previous=folder, previous_sha256=made.sha256)
    assert out.sha256 == made.sha256


def test_a_member_that_is_gone(made: WheelFile, members: list[Member], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "payload")
    with pytest.raises(WheelError):
        again(made, made.path.parent, members)
    assert made.path.is_file()
