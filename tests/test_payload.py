"""Payloads from install trees: what is kept, what is dropped, what is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from uniscale_build.build.payload import Alias, Assembled, assemble
from uniscale_build.errors import Problems, UniscaleError, WheelError

from .elfs import build, library, needs_cc, tree


def make(root: Path, prefix: Path, *allowed: str, **options: object) -> Assembled:
    return assemble(root, prefix, allowed_external=frozenset(allowed), **options)  # type: ignore[arg-type]


def refused(root: Path, prefix: Path, *allowed: str, **options: object) -> dict[str, UniscaleError]:
    """What assembling is refused for, by slug; nothing was copied."""
    with pytest.raises((WheelError, Problems)) as caught:
        make(root, prefix, *allowed, **options)
    assert not prefix.exists() or not any(prefix.iterdir())
    return {error.slug: error for error in caught.value.findings()}


def data(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@needs_cc
def test_a_native_payload_holds_each_library_once_and_runs_anywhere(tmp_path: Path) -> None:
    made = make(tree(tmp_path / "installed"), tmp_path / "first")
    assert made.files == ("bin/hello", "lib/libgreet.so.1")
    assert "libc.so.6" in made.external
    assert made.vendor == ()
    assert made.aliases == (
        Alias("lib/libgreet.so", "lib/libgreet.so.1", ()),
        Alias("lib/libgreet.so.1.2.3", "lib/libgreet.so.1", ()),
    )
    assert [str(elf.path) for elf in made.elfs] == list(made.files)
    shutil.move(tmp_path / "first", tmp_path / "moved 到 here")
    shutil.rmtree(tmp_path / "installed")
    moved = tmp_path / "moved 到 here"
    assert not any(path.is_symlink() for path in moved.rglob("*"))
    assert subprocess.run([moved / "bin" / "hello"], check=False).returncode == 0


@needs_cc
def test_a_library_that_lies_there_in_copies_is_kept_once_too(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    for name in ("libgreet.so", "libgreet.so.1"):
        (root / "lib" / name).unlink()
        shutil.copy(root / "lib" / "libgreet.so.1.2.3", root / "lib" / name)
    made = make(root, tmp_path / "prefix")
    assert made.files == ("bin/hello", "lib/libgreet.so.1")
    assert len(made.aliases) == 2


@needs_cc
def test_a_library_is_kept_under_the_soname_that_is_needed(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    for name in ("libgreet.so", "libgreet.so.1"):
        (root / "lib" / name).unlink()
    made = make(root, tmp_path / "prefix")
    assert made.files == ("bin/hello", "lib/libgreet.so.1")
    assert subprocess.run([tmp_path / "prefix" / "bin" / "hello"], check=False).returncode == 0


@needs_cc
def test_a_plugin_that_nothing_needs_keeps_its_own_name(tmp_path: Path) -> None:
    root = tmp_path / "installed"
    library(root / "lib" / "backend-avx2.so", "whatever.so.7")
    library(root / "lib" / "nameless.so.2", None)
    (root / "lib" / "nameless.so").symlink_to("nameless.so.2")
    made = make(root, tmp_path / "prefix")
    assert made.files == ("lib/backend-avx2.so", "lib/nameless.so.2")


@needs_cc
def test_a_name_that_is_opened_at_run_time_can_be_kept(tmp_path: Path) -> None:
    root = tmp_path / "installed"
    library(root / "lib" / "libplug.so.1", "libplug.so.1")
    (root / "lib" / "libplug.so").symlink_to("libplug.so.1")
    made = make(root, tmp_path / "prefix", dlopen=frozenset({"libplug.so"}))
    assert made.files == ("lib/libplug.so",)
    whole = make(root, tmp_path / "other", dlopen=frozenset({"lib/libplug.so"}))
    assert whole.files == ("lib/libplug.so",)


@needs_cc
def test_python_modules_are_never_taken_for_each_other(tmp_path: Path) -> None:
    root = tmp_path / "installed"
    for name in ("a.abi3.so", "pkg/one.cpython-311-x86_64-linux-gnu.so", "libplain.so"):
        library(root / name, None)
    shutil.copy(root / "a.abi3.so", root / "b.abi3.so")
    shutil.copy(root / "libplain.so", root / "libother.so")
    (root / "c.abi3.so").symlink_to("a.abi3.so")
    library(root / "fast.so", "fast.so", source="void *PyInit_fast(void){return 0;}")
    (root / "faster.so").symlink_to("fast.so")
    made = make(root, tmp_path / "prefix")
    assert made.files == ("a.abi3.so", "b.abi3.so", "c.abi3.so", "fast.so", "faster.so",
                          "libother.so", "libplain.so",
                          "pkg/one.cpython-311-x86_64-linux-gnu.so")  # fmt: skip
    assert made.aliases == ()


@needs_cc
def test_a_link_of_another_name_is_an_alias_too(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    (root / "lib/libhello.so.3").symlink_to("libgreet.so.1.2.3")
    made = make(root, tmp_path / "prefix")
    assert made.files == ("bin/hello", "lib/libgreet.so.1")
    assert "lib/libhello.so.3" in {alias.name for alias in made.aliases}


@needs_cc
def test_two_builds_of_one_library_side_by_side_are_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    for name in ("libgreet.so", "libgreet.so.1"):
        (root / "lib" / name).unlink()
    library(root / "lib/libgreet.so.1.1.0", "libgreet.so.1", source="int greet(void){return 1;}")
    found = refused(root, tmp_path / "prefix")
    assert "several libraries have the SONAME" in found["library-names"].what


@needs_cc
def test_one_library_wanted_under_two_names_is_refused(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    found = refused(root, tmp_path / "prefix", dlopen=frozenset({"libgreet.so"}))
    assert "libgreet.so, libgreet.so.1" in found["library-names"].what


@needs_cc
def test_a_program_that_mentions_a_dropped_name_is_told(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    build(root / "bin" / "opener", '#include <stdio.h>\nint main(void){puts("libgreet.so");}')
    made = make(root, tmp_path / "prefix")
    assert {alias.name: alias.mentioned_in for alias in made.aliases} == {
        "lib/libgreet.so": ("bin/opener",),
        "lib/libgreet.so.1.2.3": (),
    }


@needs_cc
@pytest.mark.parametrize(
    ("rpath", "word"),
    [
        ("/opt/build/lib", "'/opt/build/lib'"),
        ("$ORIGIN/../lib:/usr/local/lib", "'/usr/local/lib'"),
        ("$ORIGIN/../lib:", "the current folder"),
        ("lib", "'lib'"),
        ("$ORIGIN/../lib:$ORIGIN/../$LIB", r"$LIB"),
        ("$ORIGIN/../lib64", "does not reach libgreet.so.1"),
        ("", "does not reach libgreet.so.1"),
    ],
)
def test_search_paths_are_relative_and_reach_what_is_needed(
    tmp_path: Path, rpath: str, word: str
) -> None:
    found = refused(tree(tmp_path / "installed", rpath=rpath), tmp_path / "prefix")
    assert set(found) == {"rpath"}
    assert word in found["rpath"].what
    assert found["rpath"].where == "bin/hello"
    assert "$ORIGIN/../lib" in (found["rpath"].hint or "")


@needs_cc
def test_rpath_is_inherited_and_runpath_is_not(tmp_path: Path) -> None:
    inner = library(tmp_path / "a/lib/libinner.so.1", "libinner.so.1")
    outer = library(tmp_path / "a/lib/libouter.so.1", "libouter.so.1", str(inner),
                    source="int f(void); int g(void){return f();}")  # fmt: skip
    for name, tags in (("old", "--disable-new-dtags"), ("new", "--enable-new-dtags")):
        root = tmp_path / name
        shutil.copytree(tmp_path / "a", root)
        build(root / "bin/tool", "int g(void); int main(void){return g() - 1;}", str(outer),
              f"-Wl,{tags},-rpath,$ORIGIN/../lib,-rpath-link,{outer.parent}")  # fmt: skip
    made = make(tmp_path / "old", tmp_path / "prefix")
    assert subprocess.run([tmp_path / "prefix/bin/tool"], check=False).returncode == 0
    assert len(made.files) == 3
    found = refused(tmp_path / "new", tmp_path / "other")
    assert "libouter.so.1 does not reach libinner.so.1" in found["rpath"].what


@needs_cc
def test_what_others_built_may_name_their_folders(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed", rpath="/opt/theirs:$ORIGIN/../lib")
    assert "rpath" in refused(root, tmp_path / "prefix")
    assert "rpath" in refused(root, tmp_path / "prefix", prebuilt=("lib/**",))
    assert make(root, tmp_path / "prefix", prebuilt=("bin/*",)).files[0] == "bin/hello"


@needs_cc
def test_a_library_from_nowhere_is_named_with_its_user(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    shutil.rmtree(root / "lib")
    found = refused(root, tmp_path / "prefix")
    assert "libgreet.so.1 is needed and nothing provides it" in found["unknown-library"].what
    assert found["unknown-library"].where == "bin/hello"
    made = make(root, tmp_path / "prefix", "libgreet.so.1")
    assert made.vendor == ("libgreet.so.1",)


def test_what_only_building_needs_is_left_out(tmp_path: Path) -> None:
    names = ("pkg/__init__.py", "pkg/include/kept.h", "include/a/b.h", "lib/cmake/x/y.cmake",
             "lib/pkgconfig/x.pc", "lib/libx.a", "deep/er/liby.a", "share/man/man1/x.1",
             "pkg/__pycache__/m.cpython-311.pyc", "pkg/old.pyc", "share/doc/x.txt")  # fmt: skip
    made = make(data(tmp_path / "installed", *names), tmp_path / "prefix")
    assert made.files == ("pkg/__init__.py", "pkg/include/kept.h", "share/doc/x.txt")
    chosen = make(tmp_path / "installed", tmp_path / "other", drop=("pkg/**", "share/*/x.?xt"))
    assert "include/a/b.h" in chosen.files
    assert not any(name.startswith(("pkg/", "share/doc")) for name in chosen.files)


def test_modes_are_two_whatever_the_umask_was(tmp_path: Path) -> None:
    root = data(tmp_path / "installed", "bin/tool", "a.txt", "secret.txt")
    (root / "bin/tool").chmod(0o4710)
    (root / "secret.txt").chmod(0o600)
    make(root, tmp_path / "prefix")
    modes = {path.name: path.stat().st_mode & 0o7777
             for path in (tmp_path / "prefix").rglob("*.*") if path.is_file()}  # fmt: skip
    assert modes == {"a.txt": 0o644, "secret.txt": 0o644}
    assert (tmp_path / "prefix/bin/tool").stat().st_mode & 0o7777 == 0o755


def test_links_inside_the_tree_become_what_they_lead_to(tmp_path: Path) -> None:
    root = data(tmp_path / "installed", "data/real.txt")
    (root / "data/link.txt").symlink_to("real.txt")
    (root / "again").symlink_to("data")
    made = make(root, tmp_path / "prefix")
    assert made.files == ("again/link.txt", "again/real.txt", "data/link.txt", "data/real.txt")
    assert (tmp_path / "prefix/again/link.txt").read_text() == "data/real.txt"
    assert not (tmp_path / "prefix/again").is_symlink()


def test_nothing_outside_the_tree_is_ever_copied(tmp_path: Path) -> None:
    root = data(tmp_path / "installed", "ok.txt")
    outside = data(tmp_path / "outside", "secret.txt")
    (root / "passwd").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../outside/secret.txt")
    (root / "folder").symlink_to(outside, target_is_directory=True)
    (root / "loop").symlink_to("loop")
    (root / "round").symlink_to(".")
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    with pytest.raises(Problems) as caught:
        make(root, tmp_path / "prefix")
    told = "\n".join(error.what for error in caught.value.findings())
    for name in ("passwd", "up", "folder"):
        assert f"the link '{name}' leads out of the install tree" in told
    for name in ("loop", "gone"):
        assert f"the link '{name}' leads nowhere" in told
    assert "the link 'round' leads back" in told
    assert "'pipe' is neither a file nor a folder" in told
    assert len(caught.value.findings()) == 7
    assert not (tmp_path / "prefix").exists()


def test_a_link_out_of_the_tree_does_not_matter_where_it_is_dropped(tmp_path: Path) -> None:
    root = data(tmp_path / "installed", "ok.txt")
    (root / "include").symlink_to("/usr/include", target_is_directory=True)
    (root / "lib").mkdir()
    (root / "lib/libx.a").symlink_to("/nowhere/libx.a")
    assert make(root, tmp_path / "prefix").files == ("ok.txt",)


@pytest.mark.parametrize("name", ["a\nb", "back\\slash", "tab\there", "rtl\u202eexe", b"\xff\xfe"])
def test_names_that_no_wheel_may_hold_are_refused(tmp_path: Path, name: str | bytes) -> None:
    root = data(tmp_path / "installed", "ok.txt")
    (root / os.fsdecode(name)).write_text("x")
    assert "bad-name" in refused(root, tmp_path / "prefix")


def test_names_that_differ_by_case_only_are_refused(tmp_path: Path) -> None:
    root = data(tmp_path / "installed", "pkg/Readme", "pkg/README")
    assert "by case only" in refused(root, tmp_path / "prefix")["duplicate-name"].what


def test_an_empty_tree_and_a_used_prefix_are_refused(tmp_path: Path) -> None:
    (tmp_path / "installed").mkdir()
    assert "empty-payload" in refused(tmp_path / "installed", tmp_path / "prefix")
    data(tmp_path / "installed", "a.txt")
    data(tmp_path / "used", "old.txt")
    with pytest.raises(WheelError, match="not empty"):
        make(tmp_path / "installed", tmp_path / "used")


@needs_cc
def test_a_damaged_library_is_told_with_the_rest(tmp_path: Path) -> None:
    root = tree(tmp_path / "installed")
    (root / "lib/broken.so").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(40))
    (root / "gone").symlink_to("nowhere")
    assert set(refused(root, tmp_path / "prefix")) == {"bad-elf", "bad-link"}


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"#!/tmp/build/env/bin/python3.11\nprint()\n", b"#!/usr/bin/env python3\nprint()\n"),
        (b"#!/tmp/x/bin/python -E\nprint()\n", b"#!/usr/bin/env python3\nprint()\n"),
        (b"#!/bin/sh\n'''exec' \"/tmp/a b/bin/python3\" \"$0\" \"$@\"\n' '''\nimport x\n",
         b"#!/usr/bin/env python3\nimport x\n"),
        (b"#!/bin/sh\nexec real\n", b"#!/bin/sh\nexec real\n"),
        (b"#!/usr/bin/env python3\n", b"#!/usr/bin/env python3\n"),
        (b"#!/usr/bin/perl\n", b"#!/usr/bin/perl\n"),
    ],
)  # fmt: skip
def test_scripts_do_not_name_the_interpreter_that_built_them(
    tmp_path: Path, first: bytes, expected: bytes
) -> None:
    root = data(tmp_path / "installed", "bin/tool", "pkg/data.py")
    for name in ("bin/tool", "pkg/data.py"):
        (root / name).write_bytes(first)
    make(root, tmp_path / "prefix")
    assert (tmp_path / "prefix/bin/tool").read_bytes() == expected
    assert (tmp_path / "prefix/pkg/data.py").read_bytes() == first
