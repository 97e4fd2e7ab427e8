"""The wheel writer: right content, equal bytes in every circumstance, nothing half written."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uniscale_build.errors import Problems, SettingsError, UniscaleError, WheelError
from uniscale_build.members import check_names
from uniscale_build.wheels import zipfmt
from uniscale_build.wheels.deflate import BLOCK, LEVELS
from uniscale_build.wheels.wheel import Member, read_wheel, source_date_epoch

from .wheels import CONTENTS, FILE, INFO, METADATA, noise, tree, write


def refused(out: Path, members: list[Member], **options: object) -> list[UniscaleError]:
    """What the wheel is refused for; the folder stays as it was."""
    before = sorted(out.iterdir()) if out.exists() else []
    with pytest.raises((WheelError, SettingsError, Problems)) as caught:
        write(out, members, **options)
    assert (sorted(out.iterdir()) if out.exists() else []) == before
    return list(caught.value.findings())


def names_of(path: Path) -> list[str]:
    with ZipFile(path) as archive:
        return archive.namelist()


# What is in it ------------------------------------------------------------------------------


def test_content_modes_dates_and_order(tmp_path: Path) -> None:
    made = write(tmp_path, tree(tmp_path / "src", CONTENTS), epoch=1_700_000_001,
                 entry_points="[console_scripts]\nprobe = pkg:main\n",
                 dist_info_extra=[Member("sboms/a.json", b"{}")])  # fmt: skip
    assert made.path == tmp_path / FILE
    assert made.size == made.path.stat().st_size
    with ZipFile(made.path) as archive:
        assert archive.testzip() is None
        infos = archive.infolist()
        assert {i.filename: archive.read(i) for i in infos if i.filename in CONTENTS} == CONTENTS
        own = [f"{INFO}/{n}" for n in ("METADATA", "WHEEL", "entry_points.txt", "sboms/a.json")]
        assert [info.filename for info in infos] == [*sorted(CONTENTS), *own, f"{INFO}/RECORD"]
        assert {info.date_time for info in infos} == {(2023, 11, 14, 22, 13, 20)}
        for info in infos:
            mode = 0o755 if info.filename == "pkg/bin/tool" else 0o644
            assert info.external_attr >> 16 == stat.S_IFREG | mode
            assert info.create_system == 3 and not info.extra and not info.flag_bits & 8
    assert made.path.stat().st_mode & 0o777 == 0o644


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    tag = "cp311.py3-none-manylinux_2_17_x86_64.linux_x86_64"
    made = write(tmp_path, tree(tmp_path / "src", CONTENTS), tag=tag)
    found = read_wheel(made.path)
    assert found.text("METADATA") == METADATA
    lines = found.text("WHEEL").splitlines()
    assert lines[0] == "Wheel-Version: 1.0"
    assert lines[1].startswith("Generator: uniscale ")
    assert lines[2] == "Root-Is-Purelib: false"
    assert [line.removeprefix("Tag: ") for line in lines[3:]] == list(found.tags) == sorted(
        f"{p}-none-{x}" for p in ("cp311", "py3") for x in ("manylinux_2_17_x86_64", "linux_x86_64")
    )  # fmt: skip
    assert set(found.rows) == set(made.record)
    assert {row.name for row in made.record} == set(names_of(made.path))
    pure = read_wheel(write(tmp_path, [Member("a.py", b"")]).path)
    assert "Root-Is-Purelib: true\nTag: py3-none-any\n" in pure.text("WHEEL")


NAMES = st.lists(
    st.text(
        st.characters(
            exclude_categories=("Cc", "Cf", "Cs", "Co", "Cn"), exclude_characters="/\\"
        ),
        min_size=1, max_size=12,
    ).filter(lambda part: part not in (".", "..")),
    min_size=1, max_size=4,
).map("/".join)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(NAMES, st.tuples(st.binary(max_size=3000), st.booleans()), max_size=8),
    level=st.sampled_from(LEVELS),
    threads=st.integers(1, 4),
)
def test_any_files_come_back_as_they_were(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, tuple[bytes, bool]],
    level: str,
    threads: int,
) -> None:
    out = tmp_path_factory.mktemp("any")
    members = [Member(name, data, 0o755 if run else 0o644) for name, (data, run) in files.items()]
    if check_names([*files, f"{INFO}/METADATA"], what="wheel"):
        assert refused(out, members)
        return
    made = write(out, members, compression=level, threads=threads)
    found = read_wheel(made.path)
    assert {row.name for row in found.rows} == set(names_of(made.path)) >= set(files)
    with ZipFile(made.path) as archive:
        for name, (data, run) in files.items():
            assert archive.read(name) == data
            assert bool(archive.getinfo(name).external_attr >> 16 & 0o100) == run


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("size", [BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1])
def test_files_around_the_size_of_a_block(tmp_path: Path, size: int, level: str) -> None:
    data = noise(size)
    members = tree(tmp_path / "src", {"a.bin": data})
    made = write(tmp_path, members, compression=level, threads=3)
    with ZipFile(made.path) as archive:
        assert archive.read("a.bin") == data
        info = archive.getinfo("a.bin")
        assert (info.compress_type == 0) == (level == "store")
        assert info.compress_size == size if level == "store" else info.compress_size < size
    assert read_wheel(made.path).sha256 == made.sha256


def test_what_does_not_shrink_is_stored(tmp_path: Path) -> None:
    made = write(tmp_path, [Member("r", random.Random(1).randbytes(999)), Member("e", b"")])
    with ZipFile(made.path) as archive:
        assert [archive.getinfo(name).compress_type for name in ("r", "e")] == [0, 0]


def test_zip64_where_numbers_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {f"d/{number}": noise(3000 + number, number) for number in range(12)}
    contents["large"] = noise(BLOCK + 5)
    plain = write(tmp_path / "plain", tree(tmp_path / "src", contents))
    monkeypatch.setattr(zipfmt, "LIMIT32", 9000)
    monkeypatch.setattr(zipfmt, "LIMIT16", 10)
    made = write(tmp_path, tree(tmp_path / "src", contents))
    assert made.sha256 != plain.sha256
    with ZipFile(made.path) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in contents} == contents
    assert read_wheel(made.path).rows == read_wheel(plain.path).rows
    again = write(tmp_path / "again", tree(tmp_path / "src", contents), previous=made.path)
    assert again.sha256 == made.sha256


# The same bytes every time ------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_but_content_decides_the_bytes(tmp_path: Path, level: str) -> None:
    first = write(tmp_path / "one", tree(tmp_path / "src", CONTENTS), compression=level, threads=1)
    other = tmp_path / "else where 别处"
    old = os.umask(0o077)
    try:
        members = tree(other / "deep", dict(reversed(CONTENTS.items())))
        for member in members:
            assert isinstance(member.source, Path)
            os.utime(member.source, (1, 1))
        again = write(other, members, compression=level, threads=5)
    finally:
        os.umask(old)
    held = [Member(name, data, 0o755 if "bin/" in name else 0o644)
            for name, data in CONTENTS.items() if len(data) <= BLOCK]  # fmt: skip
    held += [member for member in members if member.name == "pkg/large.bin"]
    mixed = write(tmp_path / "three", held, compression=level)
    assert first.sha256 == again.sha256 == mixed.sha256
    assert first.path.read_bytes() == again.path.read_bytes() == mixed.path.read_bytes()
    assert again.path.stat().st_mode & 0o777 == 0o644


def test_another_process_time_zone_and_locale_make_the_same(tmp_path: Path) -> None:
    first = write(tmp_path, tree(tmp_path / "src", CONTENTS))
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.wheels import CONTENTS, tree, write\n"
        "out = Path(sys.argv[1]); print(write(out, tree(out / 's', CONTENTS)).sha256)"
    )
    root = Path(__file__).resolve().parent.parent
    env = {**os.environ, "TZ": "Asia/Shanghai", "LC_ALL": "C", "PYTHONHASHSEED": "7",
           "PYTHONPATH": os.pathsep.join([str(root), str(root / "build_backend")])}  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", script, str(tmp_path / "other")],
                         env=env, capture_output=True, text=True, check=True)  # fmt: skip
    assert ran.stdout.strip() == first.sha256


# What is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "../up", "a/../../b", "a/./b", "./a", "a//b", "a/", "a\\b", "C:/x", "c:x",
     "a\nb", "a\0b", "a\x7fb", "a\x85b", "\u202eexe.txt", "\udcff", "x" * 256, "d/" * 2100 + "x"],
)  # fmt: skip
def test_names_that_some_unpacker_would_put_elsewhere(tmp_path: Path, name: str) -> None:
    for given_as in ("members", "dist_info_extra"):
        members = [Member(name, b"")]
        extra = {"dist_info_extra": members} if given_as == "dist_info_extra" else {}
        if given_as == "dist_info_extra" and name in ("/etc/passwd", "C:/x", "c:x"):
            continue  # within the folder, some of these are ordinary names
        found = refused(tmp_path, [] if extra else members, **extra)
        assert [error.slug for error in found] == ["bad-name"]


@pytest.mark.parametrize(
    "names",
    [("a", "a"), ("pkg/Data", "pkg/data"), ("pkg/\u00e9", "pkg/e\u0301"), ("a", "a/b"),
     ("A/b", "a"), ("straße", "STRASSE"), (f"{INFO}", "x")],
)  # fmt: skip
def test_names_that_would_overwrite_each_other(tmp_path: Path, names: tuple[str, ...]) -> None:
    found = refused(tmp_path, [Member(name, b"") for name in names])
    assert [error.slug for error in found] == ["duplicate-name"]


def test_every_bad_member_is_told_at_once(tmp_path: Path) -> None:
    members = [
        Member("../a", b""), Member("b", b"", 0o600), Member(f"{INFO}/RECORD", b""),
        Member(f"{INFO}/other", b""), Member("c", b""), Member("C", b""),
    ]  # fmt: skip
    extra = [Member("WHEEL", b""), Member("fine.txt", b"")]
    found = refused(tmp_path, members, dist_info_extra=extra, metadata="Name: x\n",
                    entry_points="[a]\nb = not an entry!\n")  # fmt: skip
    assert sorted({error.slug for error in found}) == [
        "bad-entry-points", "bad-metadata", "bad-mode", "bad-name", "duplicate-name",
        "reserved-name",
    ]  # fmt: skip
    assert len([error for error in found if error.slug == "reserved-name"]) == 3


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "missing", "dangling"])
def test_only_regular_files_are_shipped(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "src" / "thing"
    path.parent.mkdir()
    make: dict[str, Callable[[], object]] = {
        "link": lambda: path.symlink_to("/etc/passwd"), "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path), "missing": lambda: None,
        "dangling": lambda: path.symlink_to("nowhere"),
    }  # fmt: skip
    make[kind]()
    found = refused(tmp_path / "out", [Member("thing", path)])
    assert found[0].slug == ("unreadable-member" if kind == "missing" else "not-a-file")
    assert found[0].where == str(path)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"version": "1.0.0-nonsense!"}, "version"),
        ({"name": "../evil"}, "name"),
        ({"tag": "py3-none"}, "tag"),
        ({"tag": "py3-none-../x"}, "tag"),
        ({"tag": "py3--any"}, "tag"),
        ({"version": "2.0"}, "the metadata is of probe-1.0"),
        ({"metadata": METADATA.replace("probe", "other")}, "the metadata is of other-1.0"),
        ({"metadata": "Metadata-Version: 2.1\nName: probe\n"}, "version"),
        ({"metadata": METADATA + "Requires-Dist: ???\n"}, "???"),
        ({"entry_points": "[console_scripts\nx = y:z\n"}, "entry point"),
        ({"compression": "bset"}, "compression"),
        ({"epoch": 5_000_000_000}, "2128"),
    ],
)
def test_facts_that_cannot_be(tmp_path: Path, options: dict[str, object], word: str) -> None:
    found = refused(tmp_path, [Member("a", b"")], **options)
    assert any(word in error.render() for error in found)


def test_equal_spellings_of_name_and_version_are_one(tmp_path: Path) -> None:
    made = write(
        tmp_path,
        [],
        name="Pro.Be",
        version="1.0.0-post1+CPU-2",
        metadata="Metadata-Version: 2.1\nName: pro-be\nVersion: 1.0.0.post1+cpu.2\n",
    )
    assert made.path.name == "pro_be-1.0.0.post1+cpu.2-py3-none-any.whl"


def test_source_date_epoch() -> None:
    assert source_date_epoch({}) == source_date_epoch({"SOURCE_DATE_EPOCH": ""}) == 315532800
    assert source_date_epoch({"SOURCE_DATE_EPOCH": "1700000000"}) == 1700000000
    for text in ("soon", "-1", "1e9", "99999999999", "١٢"):
        with pytest.raises(SettingsError):
            source_date_epoch({"SOURCE_DATE_EPOCH": text})
