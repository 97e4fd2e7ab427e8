"""Outputs: nothing is written while it is what was there, and all is when it is not."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniscale_build.errors import WheelError
from uniscale_build.progress import Silent
from uniscale_build.wheels.output import copy_range, replacing

OLD = bytes(range(256)) * 20


@pytest.fixture
def old(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "old").write_bytes(OLD)
    handle = os.open(tmp_path / "old", os.O_RDONLY)
    yield handle
    os.close(handle)


@settings(max_examples=40, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    cuts=st.lists(st.integers(0, len(OLD)), max_size=5),
    change=st.none() | st.integers(0, len(OLD) - 1),
    length=st.integers(0, len(OLD) + 50),
    back=st.none() | st.integers(0, 100),
)
def test_the_file_is_what_was_written_whatever_the_old_one_is(
    tmp_path: Path, old: int, cuts: list[int], change: int | None, length: int, back: int | None
) -> None:
    data = bytearray((OLD + bytes(50))[:length])
    if change is not None and change < length:
        data[change] ^= 1
    target = tmp_path / "target"
    with replacing(target, old, Silent()) as output:
        places = sorted({0, *(min(cut, length) for cut in cuts), length})
        for start, end in pairwise(places):
            output.write(bytes(data[start:end]))
        if back is not None and back + 3 <= length:
            output.seek(back)
            output.write(b"new")
            data[back : back + 3] = b"new"
            output.seek(length)
        output.complete()
        assert output.is_old == (bytes(data) == OLD and back is None)
    assert target.read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old", "target"]


def test_the_old_file_itself_is_left_alone(tmp_path: Path, old: int) -> None:
    before = os.fstat(old)
    with replacing(tmp_path / "old", old, Silent()) as output:
        output.write(OLD)
        output.complete()
    assert (tmp_path / "old").stat() == before
    with replacing(tmp_path / "old", old, Silent()) as output:
        output.write(OLD[:-1])
        output.complete()
    assert (tmp_path / "old").read_bytes() == OLD[:-1]


def test_starting_again_forgets_everything(tmp_path: Path, old: int) -> None:
    with replacing(tmp_path / "target", old, Silent()) as output:
        output.write(OLD)
        output.restart()
        output.write(b"fresh")
        output.complete()
    assert (tmp_path / "target").read_bytes() == b"fresh"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.ENOSYS, errno.ENOSPC])
def test_copying_where_the_kernel_cannot(
    tmp_path: Path, old: int, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(*args: int) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", fails)
    with (tmp_path / "copy").open("w+b") as stream:
        if code == errno.ENOSPC:
            with pytest.raises(OSError, match="space"):
                copy_range(old, stream.fileno(), len(OLD))
            return
        copy_range(old, stream.fileno(), len(OLD) - 7)
    assert (tmp_path / "copy").read_bytes() == OLD[:-7]


def test_an_old_file_that_shrinks_meanwhile_is_an_error(tmp_path: Path, old: int) -> None:
    with (
        pytest.raises(WheelError, match="became shorter"),
        replacing(tmp_path / "target", old, Silent()) as output,
    ):
        output.write(OLD)
        (tmp_path / "old").write_bytes(b"")
        output.keep()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
