"""Every hostile layer is refused with its own error, before anything has changed anywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeProject
from tests.hostile.patches import GOOD, ROWS, Row, diff
from tests.upstreams import UPSTREAM, Lab, Link, snapshot

FILES = {**UPSTREAM, "pkg/deep/top": Link("../../README.md")}

_YAML = """\
title: Evil
why: To see whether it is refused.
owner: {{name: Mallory, contact: mallory@example.org}}
upstream: inappropriate
base: {base}
result: {result}
"""


def plant(lab: Lab, row: Row, result: str = "2" * 40) -> None:
    """Put a hostile layer on the demo backend, as if it came with a git pull."""
    folder = lab.layer("evil")
    folder.mkdir(parents=True)
    manifest = lab.root / "manifests/backends/demo.yaml"
    text = manifest.read_text()
    base = text.split("tree: ")[1].split()[0]
    (folder / "layer.yaml").write_text(_YAML.format(base=base, result=result))
    row.fill(folder)
    manifest.write_text(text.replace("layers: []", "layers: [evil]"))


def refs(lab: Lab) -> bytes:
    """What the store keeps."""
    return lab.db.run("for-each-ref").out


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A folder around the project that no layer may reach."""
    (tmp_path / "evil").write_text("mine\n")
    (tmp_path / "secret").write_text("mine\n")
    (tmp_path / "etc").mkdir()
    return tmp_path


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_refused(row: Row, make_project: MakeProject, sentinel: Path) -> None:
    lab = make_project(FILES, unpatched=True)
    plant(lab, row)
    before = snapshot(sentinel, skip=("cache", ".git"))
    kept = refs(lab)

    ran = lab.run("unpatch", "--backend", "demo")

    assert ran.code == 5, ran
    assert f"error[{row.slug}]: " in ran.err, ran
    assert "patches/demo/evil" in ran.err
    assert "Traceback" not in ran.err
    assert snapshot(sentinel, skip=("cache", ".git")) == before
    assert refs(lab) == kept


def test_a_good_patch_with_the_same_frame_applies(make_project: MakeProject) -> None:
    """The rows fail for what is wrong with them, not for their frame."""
    lab = make_project(unpatched=True)
    (lab.place() / "notes.txt").write_bytes(b"one\nzwei\nthree")
    want = lab.work_tree()
    lab.unpatch("--discard")
    plant(lab, Row("good", "", diff("notes.txt", GOOD)), want)
    lab.unpatch()
    assert lab.work_tree() == want
