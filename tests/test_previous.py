"""Copying from the previous wheel: it saves the work, and never changes the bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from uniscale_build import recordfile
from uniscale_build.recordfile import Row
from uniscale_build.wheels.deflate import Codec, codec
from uniscale_build.wheels.wheel import WheelFile, read_wheel

from .wheels import CONTENTS, FILE, INFO, Listener, noise, rewrite, tree, write


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of what was compressed since the list was last emptied."""
    sizes: list[int] = []
    block = Codec.block

    def counted(self: Codec, data: bytes, before: bytes = b"", *, last: bool = True) -> bytes:
        sizes.append(len(data))
        return block(self, data, before, last=last)

    codec("default").identity  # noqa: B018  # made of compressing a sample, once per codec
    monkeypatch.setattr(Codec, "block", counted)
    return sizes


def heavy(sizes: list[int]) -> list[int]:
    """What was compressed of members: not the small files of the dist-info, nor the sample."""
    return [size for size in sizes if size > 1000 and size not in (len(SAMPLE), len(SAMPLE) // 2)]


SAMPLE = bytes(98304)


def first(tmp_path: Path, **options: object) -> WheelFile:
    return write(tmp_path / "first", tree(tmp_path / "src", CONTENTS), **options)


def test_unchanged_members_are_not_compressed_again(tmp_path: Path, packed: list[int]) -> None:
    old = first(tmp_path)
    assert len(heavy(packed)) > 3
    packed.clear()
    again = tree(tmp_path / "src2", CONTENTS)
    made = write(tmp_path / "again", again, previous=old.path, previous_sha256=old.sha256)
    assert made.sha256 == old.sha256
    assert heavy(packed) == []
    listener = Listener()
    write(tmp_path / "again", again, previous=old.path, reporter=listener)
    assert len(heavy(packed)) > 3  # not even its own word is taken without the digest
    assert any("its digest is not known" in note for note in listener.notes)


def test_only_what_changed_is_compressed_and_a_new_name_is_no_change(
    tmp_path: Path, packed: list[int]
) -> None:
    old = first(tmp_path)
    packed.clear()
    changed = dict(CONTENTS)
    changed["pkg/renamed.bin"] = changed.pop("pkg/large.bin")
    changed["pkg/bin/tool"] = noise(31_000, 9)
    members = tree(tmp_path / "src2", changed)
    made = write(tmp_path / "out", members, previous=old.path, previous_sha256=old.sha256)
    assert heavy(packed) == [31_000]
    assert made.sha256 == write(tmp_path / "fresh", members).sha256


def test_the_wheel_that_is_replaced_can_be_the_previous_one(tmp_path: Path) -> None:
    old = first(tmp_path)
    changed = {**CONTENTS, "pkg/new.bin": noise(5000, 4)}
    members = tree(tmp_path / "src", changed)
    made = write(old.path.parent, members, previous=old.path, previous_sha256=old.sha256)
    assert made.path == old.path
    assert made.sha256 == write(tmp_path / "fresh", members).sha256


def test_a_wheel_that_stays_the_same_is_not_touched(tmp_path: Path) -> None:
    old = first(tmp_path)
    before = old.path.stat()
    made = write(old.path.parent, tree(tmp_path / "src2", CONTENTS), previous=old.path,
                 previous_sha256=old.sha256)  # fmt: skip
    assert made == old
    after = old.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [path.name for path in old.path.parent.iterdir()] == [FILE]


@pytest.mark.parametrize("name", [*CONTENTS, "last of all"])
@pytest.mark.parametrize("change", ["removed", "added", "shorter", "executable"])
def test_a_change_at_any_place(tmp_path: Path, name: str, change: str) -> None:
    old = first(tmp_path)
    contents = dict(CONTENTS)
    if change == "added":
        contents[f"{name}~"] = noise(3000, 5)
    elif change == "removed":
        contents.pop(name, None)
    elif change == "shorter":
        contents[name] = contents.get(name, b"xx")[:-1]
    members = [
        replace(member, mode=0o755) if change == "executable" and member.name == name else member
        for member in tree(tmp_path / "src2", contents)
    ]
    expected = write(tmp_path / "fresh", members).sha256
    made = write(old.path.parent, members, previous=old.path, previous_sha256=old.sha256)
    assert made.sha256 == expected == read_wheel(made.path).sha256


@pytest.mark.parametrize("level", ["store", "fast", "best"])
def test_another_level_is_not_copied_from(tmp_path: Path, level: str) -> None:
    old = first(tmp_path, compression=level)
    listener = Listener()
    made = write(tmp_path / "out", tree(tmp_path / "src", CONTENTS), previous=old.path,
                 previous_sha256=old.sha256, reporter=listener)  # fmt: skip
    assert made.sha256 == first(tmp_path).sha256
    assert any("compressed in another way" in note for note in listener.notes)


def test_another_compressors_wheel_of_the_same_name_is_not_copied_from(tmp_path: Path) -> None:
    old = first(tmp_path)
    foreign = rewrite(old.path, tmp_path / "foreign" / FILE)  # zlib's sixth level, same WHEEL
    members = tree(tmp_path / "src", CONTENTS)
    made = write(tmp_path / "out", members, previous=foreign, previous_sha256=old.sha256)
    assert made.sha256 == old.sha256


SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "a byte in the middle": lambda data: data[: len(data) // 2] + b"\xff\x00" + data[
        len(data) // 2 + 2 :],
    "cut short": lambda data: data[: len(data) // 2],
    "no archive": lambda data: b"<html>404</html>",
    "empty": lambda data: b"",
}  # fmt: skip


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", SPOIL)
def test_a_damaged_previous_wheel_does_no_harm(tmp_path: Path, kind: str, known: bool) -> None:
    old = first(tmp_path)
    old.path.write_bytes(SPOIL[kind](old.path.read_bytes()))
    listener = Listener()
    made = write(tmp_path / "out", tree(tmp_path / "src", CONTENTS), previous=old.path,
                 previous_sha256=old.sha256 if known else None, reporter=listener)  # fmt: skip
    assert read_wheel(made.path).sha256 == made.sha256
    assert made.sha256 == write(tmp_path / "fresh", tree(tmp_path / "src", CONTENTS)).sha256
    assert any("nothing is copied" in note for note in listener.notes)


@pytest.mark.parametrize("known", [True, False])
def test_a_previous_wheel_that_lies_about_its_content_does_no_harm(
    tmp_path: Path, known: bool
) -> None:
    old = first(tmp_path)
    evil = CONTENTS["pkg/bin/tool"][::-1]
    rows = [row for row in old.record if row.name not in ("pkg/bin/tool", f"{INFO}/RECORD")]
    truth = next(row for row in old.record if row.name == "pkg/bin/tool")

    def lie(files: dict[str, bytes]) -> None:
        files["pkg/bin/tool"] = evil
        rows.append(Row("pkg/bin/tool", truth.sha256, len(evil)))
        files[f"{INFO}/RECORD"] = recordfile.render(rows, f"{INFO}/RECORD").encode()

    liar = rewrite(old.path, tmp_path / "liar" / FILE, lie)
    made = write(tmp_path / "out", tree(tmp_path / "src", CONTENTS), previous=liar,
                 previous_sha256=old.sha256 if known else None)  # fmt: skip
    assert made.sha256 == write(tmp_path / "fresh", tree(tmp_path / "src", CONTENTS)).sha256


def test_a_previous_wheel_that_is_not_there_is_no_matter(tmp_path: Path) -> None:
    made = write(tmp_path, tree(tmp_path / "src", CONTENTS), previous=tmp_path / "no.whl")
    assert made.sha256 == first(tmp_path).sha256
    folder = write(tmp_path / "out", tree(tmp_path / "src", CONTENTS), previous=tmp_path)
    assert folder.sha256 == made.sha256
