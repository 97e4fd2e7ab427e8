"""``unpatch`` after ``patch`` gives back every kind of edit, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeProject
from tests.edits import EDITS, ODD_UPSTREAM
from tests.upstreams import Lab, git, snapshot


@pytest.fixture
def lab(make_project: MakeProject) -> Lab:
    """A project around an upstream with odd files, its tree in place."""
    return make_project(ODD_UPSTREAM, unpatched=True)


def times(root: Path) -> dict[str, int]:
    """When each file was last written."""
    return {str(p.relative_to(root)): p.lstat().st_mtime_ns
            for p in root.rglob("*")
            if ".git" not in p.relative_to(root).parts and not p.is_dir()}  # fmt: skip


@pytest.mark.parametrize("kind", EDITS)
def test_comes_back(kind: str, lab: Lab) -> None:
    EDITS[kind](lab.place())
    want, before, written = lab.work_tree(), snapshot(lab.place()), times(lab.place())

    lab.new_layer("mine")

    assert lab.result("mine") == want
    assert (snapshot(lab.place()), times(lab.place())) == (before, written), "files were touched"
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    lab.remove_place()
    lab.unpatch()
    assert snapshot(lab.place()) == before
    assert lab.work_tree() == want


def test_repeating_changes_nothing(lab: Lab) -> None:
    for kind in ("rename-and-edit-unstaged", "new-names", "binary-modify", "file-to-link"):
        EDITS[kind](lab.place())
    lab.new_layer("mine")
    layer, tree = times(lab.layer("mine")), times(lab.place())
    inside = times(lab.place() / ".git")
    assert lab.unpatch("--json").json["action"] == "unchanged"
    assert lab.patch("--json").json["layers"] == []
    assert (times(lab.layer("mine")), times(lab.place())) == (layer, tree)
    assert times(lab.place() / ".git") == inside
