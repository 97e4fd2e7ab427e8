"""``import-flagscale``: which pin a set was made on, and the layers that the pin has already."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from uniscale_build.project import find_project
from uniscale_build.sources.obtain import obtain

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    COMMIT,
    DEVICE,
    Scale,
    Tree,
    add_device,
    add_pin,
    both_edits,
    common_edit,
    make_scale,
    quirks,
    roles,
    text,
    vendor_edit,
)
from tests.upstreams import git


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


def test_the_pin_s_own_layers_stay_below(scale: Scale) -> None:
    scale.lab.unpatch()
    (scale.lab.place() / "pkg/util.py").write_bytes(b"first\n" + text(BASE, "pkg/util.py"))
    scale.lab.new_layer("own")
    scale.store(scale.diff(BASE, vendor_edit()))
    scale.bring()
    wanted = {**vendor_edit(), "pkg/util.py": b"first\n" + text(BASE, "pkg/util.py")}
    assert scale.built_tree() == scale.tree(wanted)


def test_the_pin_s_own_layers_may_conflict(scale: Scale) -> None:
    scale.lab.unpatch()
    path = scale.lab.place() / "pkg/core.py"
    path.write_bytes(path.read_bytes().replace(b"# line 20 ", b"# ours 20 "))
    scale.lab.new_layer("own")
    scale.store(scale.diff(BASE, vendor_edit()))
    code, err = scale.refused()
    assert code == 11 and "pkg/core.py" in err and "own" in err


def test_flagscale_s_own_changes_may_be_the_pin_s_layer(scale: Scale) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(BASE, common_edit()))
    scale.bring()
    (scale.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml").unlink()
    path = scale.lab.root / "manifests/backends/demo.yaml"
    path.write_text(path.read_text().replace("layers: []", "layers: [flagscale]"))
    scale.store(scale.diff(BASE, both_edits()))
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["vendor"]
    assert scale.built_tree() == scale.tree(both_edits())


def test_the_commit_wins_over_a_version_that_disagrees(scale: Scale) -> None:
    newer = {**BASE, "pkg/core.py": b"newer\n"}
    add_pin(scale.lab, "2.0", "2" * 40, newer)
    scale.store(scale.diff(BASE, vendor_edit()), backends_version={"demo": "v2.0"})
    made = scale.bring()
    assert "the version v2.0 is read as 2.0" in quirks(made)
    assert f"says version v2.0, but its commit {COMMIT[:12]} is 1.0" in quirks(made)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_the_version_alone_is_enough(scale: Scale) -> None:
    add_pin(scale.lab, "2.0", "2" * 40, {**BASE, "pkg/core.py": b"newer\n"})
    scale.store(scale.diff(BASE, vendor_edit()), backends_version={"demo": "v1.0"},
                backends_commit=None)  # fmt: skip
    made = scale.bring()
    assert '"backends_commit" is missing' in quirks(made)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_blob_ids_tell_the_pin_when_nothing_else_does(scale: Scale) -> None:
    add_pin(scale.lab, "2.0", "2" * 40, {**BASE, "pkg/core.py": b"newer\n"})
    folder = scale.store(scale.diff(BASE, vendor_edit()))
    (folder / "diff.yaml").unlink()
    made = scale.bring()
    assert "has no diff.yaml" in quirks(made)
    assert "the blob ids in its patches are those of demo 1.0" in quirks(made)
    assert "names no contact" in quirks(made)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_blob_ids_correct_a_wrong_version(scale: Scale) -> None:
    newer = {**BASE, "pkg/core.py": b"newer\n"}
    add_pin(scale.lab, "2.0", "2" * 40, newer)
    project = find_project(scale.lab.root, {})
    for pin in project.manifests.backends["demo"].pins:
        obtain(scale.lab.db, pin)
    scale.store(scale.diff(BASE, vendor_edit()), backends_version={"demo": "2.0"},
                backends_commit={"demo": "3" * 40})  # fmt: skip
    made = scale.bring()
    assert "those of demo 1.0, not of 2.0" in quirks(made)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_a_version_that_is_not_pinned(scale: Scale) -> None:
    other = {**BASE, "pkg/core.py": b"quite another\n"}
    scale.store(scale.diff(other, {**other, "pkg/core.py": b"x\n"}),
                backends_version={"demo": "9.9"}, backends_commit={"demo": "9" * 40})  # fmt: skip
    code, err = scale.refused()
    assert code == 3 and "9.9" in err and "no-pin" in err and "pinned are: 1.0" in err
    code, err = scale.refused("--pin", "1.0")
    assert code == 5 and "patch-failed" in err and "pkg/core.py" in err
    code, err = scale.refused("--pin", "7.7")
    assert code == 3 and "no-pin" in err


# -- new pins --------------------------------------------------------------------------------------


@pytest.fixture
def gitted(make_project: MakeProject, tmp_path: Path) -> tuple[Scale, str, Tree]:
    """A project with a git upstream, and a newer commit there that is not pinned."""
    scale = make_scale(make_project(BASE, devices=(), kind="git"), tmp_path)
    newer: Tree = {**BASE, "pkg/core.py": b"newer\n" * 30}
    (scale.lab.upstream / "pkg/core.py").write_bytes(text(newer, "pkg/core.py"))
    git("commit", "-q", "-a", "-m", "newer", cwd=scale.lab.upstream)
    return scale, git("rev-parse", "HEAD", cwd=scale.lab.upstream).decode().strip(), newer


def test_what_is_not_pinned_is_fetched_and_pinned(gitted: tuple[Scale, str, Tree]) -> None:
    scale, commit, newer = gitted
    edited: Tree = {**newer, "pkg/core.py": b"newer\n" * 29 + b"acme\n", "acme.py": b"x\n"}
    scale.store(scale.diff(newer, edited), backends_commit={"demo": commit},
                backends_version={"demo": "v2.0"})  # fmt: skip
    path = scale.lab.root / "manifests/backends/demo.yaml"
    before = path.read_text()
    code, err = scale.refused("--offline")
    assert code == 3 and "no-pin" in err and commit[:12] in err
    made = scale.bring()
    assert "demo 2.0 is pinned now" in quirks(made)
    assert "manifests/backends/demo.yaml" in made["replaced"]
    assert scale.built_tree() == scale.tree(edited)
    after = path.read_text()
    assert "# The version that everybody uses." in after
    head, _, tail = before.partition("\nrecipe:")
    assert after.startswith(head) and after.endswith(tail)
    pins = find_project(scale.lab.root, {}).manifests.backends["demo"].pins
    assert [(pin.version, pin.commit) for pin in pins] == [
        ("1.0", pins[0].commit), ("2.0", commit),
    ]  # fmt: skip
    assert scale.bring()["replaced"] == []


def test_two_sets_on_one_new_pin(gitted: tuple[Scale, str, Tree]) -> None:
    scale, commit, newer = gitted
    add_device(scale.lab, "Other_Y2")
    for device in (DEVICE, "Other_Y2"):
        edited: Tree = {**newer, f"{device}.py": b"x\n"}
        scale.store(scale.diff(newer, edited), device=device, backends_commit={"demo": commit},
                    backends_version={"demo": "2.0"})  # fmt: skip
    scale.bring()
    pins = find_project(scale.lab.root, {}).manifests.backends["demo"].pins
    assert [pin.version for pin in pins] == ["1.0", "2.0"]


def test_a_manifest_that_cannot_be_edited_safely(gitted: tuple[Scale, str, Tree]) -> None:
    scale, commit, newer = gitted
    path = scale.lab.root / "manifests/backends/demo.yaml"
    data = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    path.write_text(yaml.safe_dump(data, default_flow_style=True))
    scale.store(scale.diff(newer, {**newer, "x.py": b"x\n"}), backends_commit={"demo": commit},
                backends_version={"demo": "2.0"})  # fmt: skip
    code, err = scale.refused()
    assert code == 3 and "edit-by-hand" in err and f"commit: {commit}" in err
