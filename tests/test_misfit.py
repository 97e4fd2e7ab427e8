"""Every hunk that does not fit is told, with its place in the patch and in the file."""

from __future__ import annotations

from pathlib import Path

import pytest
from uniscale_build.layers.misfit import misfits

from tests.conftest import MakeProject
from tests.upstreams import LINES, git, write_files


def patch_of(base: Path, old: bytes, new: bytes) -> bytes:
    """git's own patch."""
    write_files(base, {"old/f": old, "new/f": new})
    git("init", "-q", ".", cwd=base / "old")
    git("add", "f", cwd=base / "old")
    (base / "old/f").write_bytes(new)
    return git("diff", "--full-index", cwd=base / "old")


def changed(text: bytes, *numbers: int) -> bytes:
    """Lines with another word."""
    for number in numbers:
        text = text.replace(b"line %d of" % number, b"LINE %d of" % number)
    return text


def test_all_hunks_are_told(tmp_path: Path) -> None:
    patch = patch_of(tmp_path, LINES, changed(LINES, 5, 20, 35))
    there = changed(LINES, 4, 36).replace(b"line 1 of", b"line 0\nline 1 of")
    found, total = misfits(patch, there)
    assert total == 3
    assert [(item.wanted, item.found) for item in found] == [
        ("line 2 of this file", "line 1 of this file"),
        ("line 32 of this file", "line 31 of this file"),
    ]
    assert [item.line for item in found] == [2, 32]
    lines = patch.split(b"\n")
    assert [lines[item.place - 1] for item in found] == [
        b" line 2 of this file", b" line 32 of this file",
    ]  # fmt: skip


def test_what_fits_elsewhere_is_no_misfit(tmp_path: Path) -> None:
    patch = patch_of(tmp_path, LINES, changed(LINES, 5))
    assert misfits(patch, b"more\n" * 50 + LINES) == ([], 1)


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (b"line 1 of this file\nline 2 of this file\n", 'ends before "line 3 of this file"'),
        (LINES.replace(b"line 6 of", b"\xe9\x1b[2J of"), r'the file "\xe9\x1b[2J of this file"'),
        (LINES.replace(b"\n", b"\r\n"), r'the file "line 2 of this file\r"'),
        (b"", 'the file ends before "line 2 of this file"'),
    ],
)
def test_sentences(tmp_path: Path, there: bytes, said: str) -> None:
    found, _ = misfits(patch_of(tmp_path, LINES, changed(LINES, 5)), there)
    assert found[0].sentence().endswith(said)


def test_form_feeds_and_carriage_returns_split_nothing(tmp_path: Path) -> None:
    old = b"a\rb\x0cc\x1cd\x85e\nf\ng\n"
    patch = patch_of(tmp_path, old, old.replace(b"f", b"F"))
    assert misfits(patch, old) == ([], 1)
    (found,), _ = misfits(patch, old.replace(b"d", b"D"))
    assert found.line == 1


def test_in_an_error(make_project: MakeProject) -> None:
    """As an engineer sees it, when a layer meets another upstream."""
    lab = make_project({"f": LINES}, unpatched=True)
    (lab.place() / "f").write_bytes(changed(LINES, 5, 20, 35))
    lab.new_layer("mine")
    patch = lab.layer("mine") / "diff/f.patch"
    text = patch.read_bytes().replace(b"\n line 7 ", b"\n line 77 ")
    text = text.replace(b"\n line 37 ", b"\n line 7 ")
    patch.write_bytes(text)
    ran = lab.run("unpatch", "-b", "demo")
    assert ran.code == 5
    assert "does not apply: 2 of 3 hunks: line 7 (line 1 of this file): the patch has " in ran.err
    assert '"line 77 of this file", the file "line 7 of this file"; line 37 ' in ran.err
    assert "patches/demo/mine/diff/f.patch:12\n" in ran.err
