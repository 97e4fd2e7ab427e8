"""``import-flagscale``: which pin a set was made on, and the layers that the pin has already."""

from __future__ import annotations

from pathlib import Path

import pytest
from uniscale_build.project import find_project
from uniscale_build.sources import obtain

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    COMMIT,
    DEVICE,
    Scale,
    add_pin,
    both_edits,
    common_edit,
    make_scale,
    quirks,
    roles,
    text,
    vendor_edit,
)


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
