"""What `elf.read` says, compared with readelf's word; damaged files are errors, never crashes."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniscale_build.build import elf
from uniscale_build.errors import WheelError

from .elfs import build, library, needs_cc

MACHINE = platform.machine()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small library that needs libm and libc, with a search path."""
    return library(
        tmp_path_factory.mktemp("elf") / "libsample.so.3", "libsample.so.3", "-lm",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN:$ORIGIN/../lib",
        source="#include <math.h>\n#include <stdio.h>\n"
        "double f(double x){puts(\"f\"); return pow(x, x);}",
    )  # fmt: skip


@needs_cc
def test_a_library(sample: Path) -> None:
    found = elf.read(sample)
    assert found is not None
    assert found.path == sample
    assert found.soname == "libsample.so.3"
    assert found.needed == ("libm.so.6", "libc.so.6")
    assert found.rpath == ("$ORIGIN", "$ORIGIN/../lib")
    assert found.is_shared_library
    assert not found.is_executable
    assert found.machine == MACHINE
    assert not found.python_module
    assert any(word.startswith("GLIBC_2.") for word in found.versions["libm.so.6"])


@needs_cc
@pytest.mark.parametrize("flags", [("-pie", "-fPIE"), ("-no-pie",), ("-static",)])
def test_programs_of_every_kind_are_executable(tmp_path: Path, flags: tuple[str, ...]) -> None:
    found = elf.read(build(tmp_path / "program", "int main(void){return 0;}", *flags))
    assert found is not None
    assert found.is_executable
    assert not found.is_shared_library
    assert ("libc.so.6" in found.needed) == (flags != ("-static",))


@needs_cc
def test_runpath_wins_over_rpath_and_empty_entries_stay(tmp_path: Path) -> None:
    old = library(tmp_path / "a.so", None, "-Wl,--disable-new-dtags,-rpath,/opt/x:")
    found = elf.read(old)
    assert found is not None
    assert found.rpath == ("/opt/x", "")
    assert found.soname is None


@needs_cc
def test_a_python_module_is_known_by_its_init_function(tmp_path: Path) -> None:
    source = "void *PyInit_fast(void){return 0;}"
    module = elf.read(library(tmp_path / "fast.so", None, source=source))
    other = elf.read(library(tmp_path / "slow.so", None, source=source))
    assert module is not None and module.python_module
    assert other is not None and not other.python_module


@needs_cc
@pytest.mark.skipif(MACHINE != "x86_64", reason="the steps are x86-64's")
def test_the_declared_step_of_x86_64(tmp_path: Path) -> None:
    plain = elf.read(library(tmp_path / "plain.so", None))
    newer = elf.read(library(tmp_path / "newer.so", None, "-Wl,-z,x86-64-v3"))
    assert plain is not None and plain.isa_level == 1
    assert newer is not None and newer.isa_level == 3


@needs_cc
def test_section_headers_are_not_needed(sample: Path, tmp_path: Path) -> None:
    data = bytearray(sample.read_bytes())
    data[0x28:0x30] = bytes(8)  # e_shoff
    data[0x3C:0x40] = bytes(4)  # e_shnum, e_shstrndx
    bare = tmp_path / sample.name
    bare.write_bytes(data)
    whole, found = elf.read(sample), elf.read(bare)
    assert whole is not None and found is not None
    assert (found.soname, found.needed, dict(found.versions)) == (
        whole.soname, whole.needed, dict(whole.versions)
    )  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x7fEL", b"#!/bin/sh\n", b"\0" * 64, b"MZ"])
def test_other_files_are_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    assert elf.read(path) is None


@needs_cc
def test_a_truncated_file_is_an_error_that_names_it(sample: Path, tmp_path: Path) -> None:
    cut = tmp_path / "libcut.so"
    cut.write_bytes(sample.read_bytes()[:700])
    with pytest.raises(WheelError, match=r"libcut\.so begins like an ELF file") as caught:
        elf.read(cut)
    assert caught.value.slug == "bad-elf"
    assert str(cut) in caught.value.render()


@needs_cc
@settings(max_examples=100, deadline=None, suppress_health_check=[
    HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    changes=st.lists(st.tuples(st.integers(4, 4000), st.integers(0, 255)), min_size=1, max_size=8),
    length=st.integers(4, 20000),
)
def test_damage_of_any_kind_is_a_wheel_error_or_nothing(
    sample: Path, tmp_path: Path, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(sample.read_bytes()[:length])
    for place, value in changes:
        if place < len(data):
            data[place] = value
    path = tmp_path / "damaged.so"
    path.write_bytes(data)
    try:
        found = elf.read(path)
    except WheelError as error:
        assert error.slug == "bad-elf"
    else:
        assert found is not None


@pytest.mark.skipif(shutil.which("readelf") is None, reason="no readelf to compare with")
def test_it_agrees_with_readelf_on_the_libraries_of_this_machine() -> None:
    folders = [path for path in Path("/usr/lib").glob("*-linux-gnu") if path.is_dir()]
    paths = sorted(path for folder in folders for path in folder.glob("*.so.*")
                   if not path.is_symlink())  # fmt: skip
    compared = 0
    for path in paths[:: max(1, len(paths) // 40)]:
        found = elf.read(path)
        if found is None:
            continue
        text = subprocess.run(["readelf", "-dVW", path], capture_output=True, text=True,
                              check=True).stdout  # fmt: skip
        assert list(found.needed) == re.findall(r"\(NEEDED\).*\[(.*)\]", text), path
        assert [found.soname] == (re.findall(r"\(SONAME\).*\[(.*)\]", text) or [None]), path
        needs = text.partition("Version needs section")[2]
        wanted = {word for words in found.versions.values() for word in words}
        assert wanted == set(re.findall(r"Name: (\S+)  Flags", needs)), path
        compared += 1
    if not compared:
        pytest.skip("no shared libraries in /usr/lib/*-linux-gnu")
