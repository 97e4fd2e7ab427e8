"""``unpatch``: the patched tree in place, and nobody's work lost."""

from __future__ import annotations

from tests.conftest import MakeProject
from tests.upstreams import git


def test_a_tree_to_work_in(make_project: MakeProject) -> None:
    lab = make_project()
    lab.unpatch()
    (lab.place() / "pkg/util.py").write_text("other\n")
    (lab.place() / "new.py").write_text("new\n")
    lab.new_layer("first")
    lab.remove_place()
    lab.unpatch()
    assert lab.work_tree() == lab.result("first")
    subjects = git("log", "--format=%s", cwd=lab.place()).decode().splitlines()
    assert subjects == ["The layer first", "demo 1.0"]
    assert git("status", "--porcelain", cwd=lab.place()) == b""
