"""``import-flagscale``: sets in every layout become layers that make the vendor's own tree."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from uniscale_build.project import find_project

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    DEVICE,
    Scale,
    add_device,
    both_edits,
    common_edit,
    make_scale,
    per_file,
    quirks,
    roles,
    text,
    vendor_edit,
)
from tests.upstreams import git, snapshot


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


@pytest.mark.parametrize("layout", ["files", "backend", "short"])
def test_every_kind_of_edit_comes_through(scale: Scale, layout: str) -> None:
    edited = vendor_edit()
    scale.store(scale.diff(BASE, edited), layout)
    made = scale.bring()
    assert scale.built_tree() == scale.tree(edited)
    assert [role for role, _ in roles(made)] == ["vendor"]
    assert "another name" not in quirks(made)
    folder = scale.lab.layer("acme-x1")
    assert (folder / "overlay/acme/t b/\xfc.py").read_bytes() == b"print('acme')\n"
    assert (folder / "overlay/acme/run.sh").stat().st_mode & 0o100
    assert (folder / "diff/cfg/E=257,N=128,block_shape=[128, 128].json.patch").is_file()
    assert not (folder / "overlay/current").exists()
    assert (folder / "diff/current.patch").is_file()


def test_what_is_written(scale: Scale) -> None:
    scale.store(scale.diff(BASE, vendor_edit()))
    made = scale.bring()
    assert made["written"] == ["patches/demo/acme-x1", f"manifests/adaptations/{DEVICE}/demo.yaml"]
    layer = scale.layer()
    assert (layer.owner, layer.contact) == ("Acme", "li@acme.example")
    assert f"hardware/{DEVICE}/demo" in layer.why and "qwen3" in layer.why
    pair = find_project(scale.lab.root, {}).manifests.adaptations["demo", DEVICE]
    assert (pair.pin, pair.layers, pair.tasks) == ("1.0", ("acme-x1",), ("infer",))
    assert (pair.models, pair.contact) == (("qwen3",), "li@acme.example")
    ran = scale.lab.ok("import-flagscale", str(scale.root))
    assert "next: uniscale-build check --backend demo" in ran.out


def test_a_second_import_changes_nothing(scale: Scale) -> None:
    scale.store(scale.diff(BASE, vendor_edit()))
    scale.bring()
    before = snapshot(scale.lab.root)
    made = scale.bring()
    assert snapshot(scale.lab.root) == before
    assert made["written"] == made["replaced"] == []
    assert len(made["present"]) == 2


def test_dry_run_proves_and_writes_nothing(scale: Scale) -> None:
    scale.store(scale.diff(BASE, vendor_edit()))
    before = snapshot(scale.lab.root)
    made = scale.bring("--dry-run")
    assert snapshot(scale.lab.root) == before
    assert made["dry_run"] is True and len(made["written"]) == 2
    ran = scale.lab.ok("import-flagscale", str(scale.root), "--dry-run")
    assert "would write: patches/demo/acme-x1" in ran.out


@pytest.mark.parametrize("place", ["", "hardware", f"hardware/{DEVICE}", f"hardware/{DEVICE}/demo"])
def test_any_folder_of_the_checkout_names_it(scale: Scale, place: str) -> None:
    scale.store(scale.diff(BASE, vendor_edit()))
    scale.bring(folder=scale.root / place)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_a_folder_without_its_checkout(scale: Scale, tmp_path: Path) -> None:
    scale.store(scale.diff(BASE, vendor_edit()))
    shutil.copytree(scale.root / "hardware" / DEVICE, tmp_path / DEVICE)
    scale.bring(folder=tmp_path / DEVICE / "demo")
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_exported_layers_can_be_imported_again(scale: Scale) -> None:
    """Importing what we export is the identity on trees."""
    scale.store(scale.diff(BASE, vendor_edit()), "backend")
    scale.bring()
    first = scale.layer()
    patch = scale.lab.db.run("diff-tree", "-r", "-p", "--binary", first.base, first.result).out
    shutil.rmtree(scale.root / "hardware")
    shutil.rmtree(scale.lab.layer("acme-x1"))
    (scale.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml").unlink()
    scale.store(patch, "files")
    scale.bring()
    assert scale.layer().result == first.result


# -- FlagScale's own changes -----------------------------------------------------------------------


def test_split_at_flagscale_s_own_changes(scale: Scale) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(BASE, both_edits()))
    made = scale.bring()
    assert roles(made) == [
        ("common", "flagscale"), ("vendor", "acme-x1"),
    ]  # fmt: skip
    common = scale.layer("flagscale")
    assert common.result == scale.tree(common_edit())
    assert common.owner == "FlagScale"
    assert scale.built_tree() == scale.tree(both_edits())
    own = scale.lab.layer("acme-x1") / "diff/pkg/flag.py.patch"
    assert own.read_bytes().count(b"\n-FLAG") == 1


def test_the_commit_counts_not_the_work_tree(scale: Scale) -> None:
    scale.common(common_edit())
    commit = scale.commit("with its own changes")
    shutil.rmtree(scale.root / "flagscale")
    scale.put("flagscale/backends/demo/pkg/other.py.patch", b"not a patch of that time\n")
    scale.store(scale.diff(BASE, both_edits()), commit=commit)
    scale.commit("later")
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["common", "vendor"]
    assert "does not have" not in quirks(made)


def test_whole_files_and_deletions_of_older_checkouts(scale: Scale) -> None:
    common = common_edit()
    del common["README.md"]
    for name in ("pkg/core.py", "pkg/flag.py"):
        scale.put(f"flagscale/backends/demo/{name}", text(common, name))
    scale.put("flagscale/backends/demo/deleted_files.txt", b"README.md\n")
    edited = both_edits()
    del edited["README.md"]
    scale.store(scale.diff(BASE, edited), commit="f" * 40)
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["common", "vendor"]
    assert scale.layer("flagscale").result == scale.tree(common)
    assert scale.built_tree() == scale.tree(edited)


def test_own_changes_that_do_not_fit_are_left_out(scale: Scale) -> None:
    other = {**BASE, "pkg/core.py": b"quite another file\n"}
    for name, part in per_file(scale.diff(other, {**other, "pkg/core.py": b"x\n"})).items():
        scale.put(f"flagscale/backends/demo/{name}.patch", part)
    scale.store(scale.diff(BASE, vendor_edit()))
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["vendor"]
    assert "do not fit demo 1.0" in quirks(made)


def test_a_set_without_flagscale_s_own_changes_is_one_layer(scale: Scale) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(BASE, {**BASE, "pkg/acme.py": b"x\n"}))
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["vendor"]
    assert "does not contain FlagScale's own changes" in quirks(made)


def test_a_set_made_on_top_of_flagscale_s_own_changes(scale: Scale) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(common_edit(), both_edits()))
    made = scale.bring()
    assert "on top of FlagScale's own changes" in quirks(made)
    assert [role for role, _ in roles(made)] == ["common", "vendor"]
    assert scale.built_tree() == scale.tree(both_edits())


def test_a_set_that_is_nothing_but_flagscale_s_own_changes(scale: Scale) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(BASE, common_edit()))
    made = scale.bring()
    assert [role for role, _ in roles(made)] == ["common"]
    assert "nothing beyond" in quirks(made)


def test_two_devices_share_the_common_layer(scale: Scale) -> None:
    add_device(scale.lab, "Other_Y2")
    scale.common(common_edit())
    scale.store(scale.diff(BASE, both_edits()))
    scale.store(scale.diff(BASE, {**common_edit(), "y2.py": b"2\n"}), device="Other_Y2")
    made = scale.bring()
    assert [name for _, name in roles(made)] == ["flagscale", "acme-x1", "flagscale", "other-y2"]
    assert made["written"].count("patches/demo/flagscale") == 1


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.3, 0.5, 0.7, 0.9, 1.2])
def test_killed_at_any_moment(scale: Scale, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    scale.common(common_edit())
    scale.store(scale.diff(BASE, both_edits()))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "build_backend"))
    argv = [sys.executable, "-m", "uniscale_build", "import-flagscale", str(scale.root)]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    scale.bring()
    assert scale.built_tree() == scale.tree(both_edits())
    names = sorted(path.name for path in (scale.lab.root / "patches/demo").iterdir())
    assert names == ["acme-x1", "flagscale"]


def test_the_upstream_git_says_the_same(scale: Scale, tmp_path: Path) -> None:
    """Plain ``git apply`` of the stored set in a work tree gives the tree that we made."""
    from tests.upstreams import write_files

    folder = scale.store(scale.diff(BASE, vendor_edit()))
    place = write_files(tmp_path / "plain", BASE)
    git("init", "-q", ".", cwd=place)
    for path in sorted(folder.rglob("*.patch")):
        git("apply", "--whitespace=nowarn", str(path), cwd=place)
    scale.bring()
    assert scale.lab.db.import_folder(place) == scale.built_tree()
