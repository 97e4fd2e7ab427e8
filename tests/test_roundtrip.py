"""``unpatch`` after ``patch`` gives back every kind of edit, byte for byte."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Grow, MakeProject, enter
from tests.edits import EDITS, ODD_UPSTREAM
from tests.upstreams import Lab, copy_lab, git, make_lab, snapshot


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


_COUNT = itertools.count()


def _unpatched(base: Path) -> Lab:
    lab = make_lab(base, ODD_UPSTREAM)
    lab.unpatch()
    return lab


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(kinds=st.lists(st.sampled_from(sorted(EDITS)), min_size=2, max_size=6, unique=True))
def test_any_edits_together_come_back(
    kinds: list[str], lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two captures: the second into the layer of the first."""
    lab = copy_lab(lab_templates("odd", _unpatched), tmp_path / f"lab{next(_COUNT)}")
    enter(monkeypatch, lab)
    for number, half in enumerate((kinds[:2], kinds[2:])):
        for kind in half:
            # An earlier edit may have taken away what this one changes.
            with contextlib.suppress(OSError, AssertionError):
                EDITS[kind](lab.place())
        want, changed = (
            snapshot(lab.place()),
            bool(lab.run("unpatch", "-b", "demo", "--check").code),
        )
        if changed and not number:
            lab.new_layer("mine")
        elif changed and lab.layer("mine").exists():
            lab.patch()
        else:
            return
        assert lab.result("mine") == lab.work_tree()
        lab.remove_place()
        lab.unpatch()
        assert snapshot(lab.place()) == want
