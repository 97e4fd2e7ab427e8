"""``unpatch`` after ``patch`` gives back every kind of edit, byte for byte."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.store import Store

from tests.edits import EDITS, ODD_UPSTREAM
from tests.upstreams import Lab, git, make_lab, snapshot


@pytest.fixture(scope="module")
def unpatched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose tree is in place; tests work on copies."""
    base = tmp_path_factory.mktemp("unpatched")
    with pytest.MonkeyPatch.context() as patch:
        lab = make_lab(base, ODD_UPSTREAM)
        enter(patch, base)
        lab.unpatch()
    yield base


def enter(patch: pytest.MonkeyPatch, base: Path) -> None:
    """Work in the project below ``base``, with a home folder of its own."""
    for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "UNISCALE_MANIFESTS"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(base))
    patch.setenv("UNISCALE_PROJECT", str(base / "project"))
    patch.setenv("UNISCALE_CACHE", str(base / "cache"))
    patch.chdir(base / "project")


@pytest.fixture
def lab(unpatched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A copy of the project, with its tree in place."""
    base = tmp_path / "copy"
    shutil.copytree(unpatched, base, symlinks=True)
    enter(monkeypatch, base)
    return Lab(base / "project", Store(base / "cache"), base / "upstream")


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
