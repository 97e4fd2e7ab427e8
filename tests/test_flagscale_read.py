"""``import-flagscale``: what people typed and left lying about, and what must be refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from uniscale_build.project import find_project

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    DEVICE,
    Scale,
    add_device,
    make_scale,
    per_file,
    quirks,
)
from tests.upstreams import snapshot

SMALL = {**BASE, "notes.txt": b"one\ntwo\n3"}


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


@pytest.fixture
def small(scale: Scale) -> Scale:
    """A checkout with the smallest set."""
    scale.store(scale.diff(BASE, SMALL))
    return scale


META_QUIRKS: dict[str, tuple[dict[str, Any], str]] = {
    "a model as the task": ({"task": ["llama3"]}, '"llama3" is not a task'),
    "a task that is no list": ({"task": "inference", "models": "qwen3"}, ""),
    "no task": ({"task": None}, '"task" is missing'),
    "post_train": ({"task": ["post_train"]}, ""),
    "v in the version": ({"backends_version": {"demo": "v1.0"}}, "the version v1.0 is read as 1.0"),
    "a branch as the version": (
        {"backends_version": {"demo": "main"}}, "says version main, but its commit",
    ),
    "no version": ({"backends_version": None}, '"backends_version" is missing'),
    "no commit": ({"backends_commit": None}, '"backends_commit" is missing'),
    "an unknown backend": (
        {"backends_commit": {"demo": "1" * 40, "omni": "2" * 40}}, 'unknown backend "omni"',
    ),
    "another spelling": ({"backends_commit": {"Demonstration": "1" * 40}}, ""),
    "a commit that is not pinned": (
        {"backends_commit": {"demo": "5" * 40}}, "its commit 555555555555 is not pinned",
    ),
    "a short commit": ({"backends_commit": {"demo": "1" * 8}}, ""),
    "a commit that is none": (
        {"backends_commit": {"demo": "HEAD~2"}}, "'HEAD~2', is not a commit id",
    ),
    "no contact": ({"contact": ""}, "names no contact"),
    "a contact that is no address": ({"contact": "ll"}, 'the contact "ll" is no address'),
    "an unknown key": ({"reviewer": "me"}, 'unknown key "reviewer" is ignored'),
    "another device": ({"device_type": "Other_Y2"}, 'device_type is "Other_Y2"'),
    "the same device in lower case": ({"device_type": "acme_x1"}, ""),
    "a list where a mapping belongs": (
        {"backends_version": ["1.0"]}, '"backends_version" must be a mapping',
    ),
    "FlagScale's own commit is none": ({"commit": "main"}, "'main', is not a commit id"),
}  # fmt: skip


@pytest.mark.parametrize("what", META_QUIRKS)
def test_oddities_are_told_and_worked_around(scale: Scale, what: str) -> None:
    changes, told = META_QUIRKS[what]
    scale.store(scale.diff(BASE, SMALL), **changes)
    made = scale.bring()
    assert scale.built_tree() == scale.tree(SMALL)
    found = quirks(made)
    assert told in found
    if not told:
        assert found == ""


def test_a_diff_yaml_that_cannot_be_read(scale: Scale) -> None:
    folder = scale.store(scale.diff(BASE, SMALL))
    (folder / "diff.yaml").write_bytes(b"device_type: [\n")
    code, err = scale.refused()
    assert code == 3 and f"hardware/{DEVICE}/demo/diff.yaml:" in err


def test_the_history_knows_the_task(scale: Scale) -> None:
    scale.store(scale.diff(BASE, SMALL), task=["llama3-70b finetune"])
    scale.history({DEVICE: {"train": {"FlagScale+demo": ["a" * 40], "demo": ["a" * 40]}}})
    made = scale.bring()
    assert "taken from patch_history.yaml: train" in quirks(made)
    assert made["sets"][0]["tasks"] == ["train"]


def test_a_damaged_history_is_told(small: Scale) -> None:
    small.history({DEVICE: {"train": ["demo"], "inference": {"demo": ["nonsense"]}}, "X": 3})
    found = quirks(small.bring())
    assert "'nonsense' is not a commit id" in found and "a mapping is expected" in found


def test_a_history_that_names_another_set(small: Scale) -> None:
    first = small.commit("first")
    small.store(small.diff(BASE, {**SMALL, "more.txt": b"more\n"}))
    small.history({DEVICE: {"inference": {"FlagScale+demo": ["c" * 40, first]}}})
    small.commit("second")
    assert f"names commit {first[:12]} as the newest" in quirks(small.bring())
    small.history({DEVICE: {"inference": {"FlagScale+demo": ["c" * 40]}}})
    assert "newest commit cccccccccccc is not in this checkout" in quirks(small.bring("--dry-run"))


# -- names -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["acme_x1", "ACME-X1", "acme_old"])
def test_devices_go_by_their_aliases(scale: Scale, word: str) -> None:
    scale.store(scale.diff(BASE, SMALL), device=word)
    scale.bring()
    assert scale.built_tree() == scale.tree(SMALL)


def test_an_unknown_device(scale: Scale) -> None:
    scale.store(scale.diff(BASE, SMALL), device="Acme_X2")
    code, err = scale.refused()
    assert code == 2 and f'did you mean "{DEVICE}"' in err and "--as-device" in err
    assert "hardware/Acme_X2/demo" in err
    scale.bring("--as-device", DEVICE)
    assert scale.built_tree() == scale.tree(SMALL)


def test_an_unknown_backend(scale: Scale) -> None:
    scale.store(scale.diff(BASE, SMALL), backend="omniinfer")
    code, err = scale.refused()
    assert code == 2 and "unknown-backend" in err and f"hardware/{DEVICE}/omniinfer" in err


def test_only_what_is_asked_for(small: Scale) -> None:
    add_device(small.lab, "Other_Y2")
    small.store(small.diff(BASE, {**BASE, "y.txt": b"y\n"}), device="Other_Y2")
    small.store(small.diff(BASE, SMALL), backend="omniinfer")
    made = small.bring("--device", "other-y2", "--backend", "demonstration")
    assert [item["device"] for item in made["sets"]] == ["Other_Y2"]
    code, err = small.refused("--device", DEVICE, "--backend", "absent")
    assert code == 2 and "absent" in err
    ran = small.lab.run("import-flagscale", str(small.root), "--device", "Nobody_Z")
    assert ran.code == 2 and f"{DEVICE}/demo" in ran.err


def test_what_holds_is_imported_when_asked_so(small: Scale) -> None:
    small.store(small.diff(BASE, SMALL), backend="omniinfer")
    code, _ = small.refused()
    assert code == 2
    ran = small.lab.run("import-flagscale", str(small.root), "--skip-failing", "--json")
    assert ran.code == 2
    assert [error["slug"] for error in ran.json["errors"]] == ["unknown-backend"]
    assert small.built_tree() == small.tree(SMALL)
    ran = small.lab.run("import-flagscale", str(small.root), "--skip-failing")
    assert ran.code == 2 and "unknown-backend" in ran.err and "there already" in ran.out


def test_two_sets_for_one_pair(small: Scale) -> None:
    small.store(small.diff(BASE, SMALL), device="acme_old")
    code, err = small.refused()
    assert code == 2 and "are both for demo on Acme_X1" in err
    small.bring("--skip-failing", folder=small.root / "hardware" / DEVICE)


# -- what lies about -------------------------------------------------------------------------------


def test_changes_of_flagscale_itself_are_told(small: Scale) -> None:
    own = small.diff({"run.py": b"1\n"}, {"run.py": b"2\n"})
    small.store(own, backend="FlagScale")
    part = per_file(own)["run.py"]
    small.put(f"hardware/{DEVICE}/FlagScale/flagscale/backends/demo/x.py.patch.patch", part)
    found = quirks(small.bring())
    assert "2 patches of FlagScale itself are not imported" in found
    assert "1 of them change its own patches of backends" in found


def test_stray_files_are_told(small: Scale) -> None:
    small.put("hardware/metax/scripts/train.py", b"print()\n")
    small.put(f"hardware/{DEVICE}/demo/pkg/notes.md", b"notes\n")
    (small.root / f"hardware/{DEVICE}/demo/x.patch").symlink_to("/etc/passwd")
    found = quirks(small.bring())
    assert "hardware/metax: holds no patches" in found
    assert f"hardware/{DEVICE}/demo/pkg/notes.md: is no patch" in found
    assert f"hardware/{DEVICE}/demo/x.patch: is a link" in found


def test_a_task_folder_in_between(scale: Scale) -> None:
    scale.put(f"hardware/{DEVICE}/train/demo/d080c1b.patch", scale.diff(BASE, SMALL))
    scale.bring()
    assert scale.built_tree() == scale.tree(SMALL)


def test_a_file_called_diff_is_no_whole_set(scale: Scale) -> None:
    edited = {**SMALL, "diff": b"a file\n"}
    scale.store(scale.diff(BASE, edited))
    made = scale.bring()
    assert made["sets"][0]["layout"] == "files"
    assert scale.built_tree() == scale.tree(edited)


def test_a_patch_under_another_name(scale: Scale) -> None:
    part = per_file(scale.diff(BASE, {**BASE, "t b/x.py": b"x\n"}))["t b/x.py"]
    scale.put(f"hardware/{DEVICE}/demo/x.py.patch", part)
    scale.meta(f"hardware/{DEVICE}/demo/diff.yaml")
    assert "the patch of t b/x.py is stored under another name" in quirks(scale.bring())
    assert scale.built_tree() == scale.tree({**BASE, "t b/x.py": b"x\n"})


def test_a_patch_edited_by_hand(small: Scale) -> None:
    path = small.root / f"hardware/{DEVICE}/demo/notes.txt.patch"
    path.write_bytes(path.read_bytes().replace(b"+3", b"+4"))
    assert "edited by hand" in quirks(small.bring())


def test_two_layouts_at_once(small: Scale) -> None:
    small.store(small.diff(BASE, SMALL), "backend")
    code, err = small.refused()
    assert code == 2 and "two-layouts" in err


def test_nothing_there(scale: Scale, tmp_path: Path) -> None:
    code, err = scale.refused()
    assert code == 2 and "no-patches" in err
    code, err = scale.refused(folder=tmp_path / "absent")
    assert code == 2 and "no-folder" in err


# -- never overwritten -----------------------------------------------------------------------------


def test_another_layer_of_that_name_stays(small: Scale) -> None:
    small.lab.unpatch()
    (small.lab.place() / "mine.txt").write_text("mine\n")
    small.lab.new_layer("acme-x1")
    before = snapshot(small.lab.root)
    code, err = small.refused()
    assert code == 5 and "layer-exists" in err and "--layer" in err
    assert snapshot(small.lab.root) == before
    small.bring("--layer", "acme-from-flagscale")
    assert snapshot(small.lab.layer("acme-x1")) == {
        name.removeprefix("patches/demo/acme-x1/"): value
        for name, value in before.items() if name.startswith("patches/demo/acme-x1/")
    }  # fmt: skip


def test_an_adaptation_that_says_something_else_stays(small: Scale) -> None:
    path = small.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f'backend: demo\ndevice: {DEVICE}\npin: "1.0"\ntasks: [infer]\ncontact: me\n')
    code, err = small.refused()
    assert code == 3 and "adaptation-exists" in err and "acme-x1 on pin 1.0" in err


WAITING = f"""\
# How it will run.
backend: demo
device: {DEVICE}
status: needs-layers  # for now
missing: |
  The vendor's changes.
  FlagScale has them.
commit: 1111111
pin: "0.9"
tasks: [infer]
# Whom to ask.
contact: me@acme.example
environment:
  ACME: "1"
"""


def test_an_adaptation_that_waits_for_layers_gets_them(small: Scale) -> None:
    path = small.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(WAITING)
    made = small.bring()
    assert made["replaced"] == [f"manifests/adaptations/{DEVICE}/demo.yaml"]
    text = path.read_text()
    assert "# How it will run." in text and "# Whom to ask." in text
    pair = find_project(small.lab.root, {}).manifests.adaptations["demo", DEVICE]
    assert pair.ready and pair.layers == ("acme-x1",) and pair.pin == "1.0"
    assert (pair.contact, dict(pair.environment)) == ("me@acme.example", {"ACME": "1"})
    assert small.built_tree() == small.tree(SMALL)
    assert small.bring()["replaced"] == []


def test_an_adaptation_that_cannot_be_edited_safely(small: Scale) -> None:
    path = small.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"{{backend: demo, device: {DEVICE}, status: needs-layers, missing: all, pin: '1.0', "
        "tasks: [infer], contact: me}\n"
    )
    code, err = small.refused()
    assert code == 3 and "edit-by-hand" in err and "- acme-x1" in err
