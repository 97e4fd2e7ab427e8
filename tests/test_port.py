"""Moving layers to a new upstream: classification, conflicts, memory, and what is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.manifests.model import Origin
from uniscale_build.project import Project
from uniscale_build.sources.obtain import obtain_version

from tests.conftest import MakeProject
from tests.upstreams import LINES, UPSTREAM, Lab, git, snapshot, write_files

NEW = "2" * 40


def changed(text: bytes, line: int, new: bytes) -> bytes:
    lines = text.split(b"\n")
    lines[line - 1] = new
    return b"\n".join(lines)


def next_upstream(lab: Lab, edits: Mapping[str, Any], name: str = "next") -> Path:
    """The upstream with other content: bytes replace a file, None removes it."""
    files = {**UPSTREAM, **{path: data for path, data in edits.items() if data is not None}}
    for path, data in edits.items():
        if data is None:
            files.pop(path, None)
    root = lab.root.parent / name
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    return write_files(root, files)


def edit(
    lab: Lab, files: Mapping[str, Any], layer: str = "chip", device: str | None = "acme"
) -> None:
    """A layer that makes these changes to the in-place tree."""
    lab.unpatch(device=device)
    place = lab.place(device)
    for path, data in files.items():
        if data is None:
            (place / path).unlink()
        else:
            (place / path).parent.mkdir(parents=True, exist_ok=True)
            (place / path).write_bytes(data)
    lab.new_layer(layer, device=device)


def port(lab: Lab, *more: str, device: str | None = "acme") -> Any:
    chosen = ("--device", device) if device else ()
    return lab.run("port", "--backend", "demo", *chosen, "--json", *more)


def kinds(report: Any, layer: int = 0) -> dict[str, str]:
    return {file["path"]: file["kind"] for file in report["layers"][layer]["files"]}


def state(lab: Lab) -> dict[str, Any]:
    """Everything in the project but in-place trees and work trees."""
    return snapshot(lab.root, skip=(".git", "build", "third_party"))


CORE = b"".join([b'"""Core."""\n\nimport os\n\n\n', LINES.replace(b"line", b"# line")])
assert UPSTREAM["pkg/core.py"] == CORE


def test_every_kind_is_named(make_project: MakeProject) -> None:
    files: dict[str, Any] = {**UPSTREAM, "gone.py": b"x = 1\n" * 9, "ren.py": LINES,
             "drop.py": b"y\n" * 9, "drop2.py": b"z\n" * 9, "taken.py": b"a\nb\nc\nd\n",
             "moved.py": LINES + b"end\n", "imp.py": b"import os\n\nx = 1\n"}  # fmt: skip
    lab = make_project(files)
    lab.unpatch(device="acme")
    place = lab.place("acme")
    edits = {
        "pkg/util.py": changed(LINES, 5, b"ours five"),
        "pkg/deep/er/leaf.txt": b"leaf\n" * 30 + b"last\n",
        "README.md": b"# demo for acme\n\nAn upstream.\n",
        "gone.py": b"x = 1\n" * 8 + b"x = 2\n",
        "taken.py": b"a\nB\nc\nd\n",
        "moved.py": changed(LINES, 30, b"ours thirty") + b"end\n",
        "imp.py": b"import os\nimport chip\n\nx = 1\n",
        "pkg/core.py": changed(CORE, 40, b"# ours"),
        "new.py": b"ours\n",
        "plain.py": b"ours alone\n",
        "data/logo.bin": bytes(range(255)) * 8,
    }
    for path, data in edits.items():
        (place / path).write_bytes(data)
    (place / "ren.py").rename(place / "renamed.py")
    (place / "drop.py").unlink()
    (place / "drop2.py").unlink()
    lab.new_layer("chip", device="acme")
    after = {**files, "pkg/util.py": changed(LINES, 5, b"their five"),
             "pkg/deep/er/leaf.txt": b"first\n" + b"leaf\n" * 30,
             "drop.py": b"y\n" * 8 + b"w\n", "taken.py": b"a\nB\nc\nd\n",
             "other/moved.py": LINES + b"end\n", "imp.py": b"import os\nimport re\n\nx = 1\n",
             "pkg/core.py": b"# first\n# second\n" + CORE, "new.py": b"theirs\n",
             "data/logo.bin": bytes(range(254)) * 8}  # fmt: skip
    for path in ("gone.py", "ren.py", "moved.py", "drop2.py"):
        del after[path]
    root = lab.root.parent / "next"
    root.mkdir()
    write_files(root, after)
    before = state(lab)
    ran = port(lab, "--to", str(root), "--dry-run")
    assert ran.code == 11, ran
    assert state(lab) == before
    assert not (lab.root / "build" / "port").exists()
    assert ran.json["status"] == "conflicts"
    assert kinds(ran.json) == {
        "README.md": "clean",
        "data/logo.bin": "content conflict",
        "drop.py": "modify/delete",
        "drop2.py": "already upstream",
        "gone.py": "modify/delete",
        "imp.py": "structural merge",
        "moved.py": "clean",
        "new.py": "add/add",
        "pkg/core.py": "clean with offset",
        "pkg/deep/er/leaf.txt": "clean with offset",
        "pkg/util.py": "content conflict",
        "plain.py": "clean",
        "renamed.py": "missing",
        "taken.py": "already upstream",
    }
    files_of = {file["path"]: file for file in ran.json["layers"][0]["files"]}
    assert files_of["moved.py"]["moved_to"] == "other/moved.py"
    assert files_of["pkg/core.py"]["hunks"] == [
        {"kind": "clean with offset", "old_line": 40, "new_line": 42, "heading": "import os"}
    ]
    assert [h["kind"] for h in files_of["pkg/util.py"]["hunks"]] == ["content conflict"]
    assert "lines 5-" in files_of["pkg/util.py"]["detail"]
    told = lab.run("port", "-b", "demo", "-d", "acme", "--to", str(root), "--dry-run")
    assert "missing                renamed.py: upstream removed ren.py" in told.out
    assert "clean with offset: line 40 -> line 42 (+2)" in told.out


def test_clean_port_moves_layers_pin_and_adaptation(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 30, b"ours"), "chip.py": b"chip\n"})
    root = next_upstream(lab, {"pkg/util.py": b"top\n" + LINES, "extra.txt": b"x\n"})
    want = changed(b"top\n" + LINES, 31, b"ours")
    ran = port(lab, "--to", str(root), "--commit", NEW, "--name", "2.0")
    assert ran.code == 0, ran
    assert ran.json["status"] == "done"
    text = (lab.root / "manifests/backends/demo.yaml").read_text()
    assert "# The version that everybody uses." in text
    assert "layers: []  # common to all devices" in text
    adaptation = (lab.root / "manifests/adaptations/acme/demo.yaml").read_text()
    assert 'pin: "2.0"   # as everywhere' in adaptation.replace("'", '"')
    pin, moved = lab.project.resolve("demo", "acme")
    assert (pin.version, pin.commit, pin.origins[0].url) == ("2.0", NEW, str(root))
    assert moved is not None
    assert moved.layers == ("chip",)
    lab.remove_place("acme")
    lab.unpatch(device="acme")
    assert (lab.place("acme") / "pkg/util.py").read_bytes() == want
    assert (lab.place("acme") / "chip.py").read_bytes() == b"chip\n"
    assert (lab.place("acme") / "extra.txt").is_file()
    again = port(lab, "--to", "2.0")
    assert (again.code, again.json["status"]) == (0, "nothing")


def test_onto_the_same_source_changes_nothing(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 30, b"ours"), "README.md": None})
    before = state(lab)
    times = {p: p.stat().st_mtime_ns for p in lab.layer("chip").rglob("*") if p.is_file()}
    assert port(lab, "--to", "1.0").json["status"] == "nothing"
    assert port(lab).json["status"] == "nothing"
    assert state(lab) == before
    assert {p: p.stat().st_mtime_ns for p in times} == times


def test_there_and_back_gives_the_same_layer(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 30, b"ours"), "a/b.py": b"b\n"})
    before = snapshot(lab.layer("chip"))
    root = next_upstream(lab, {"pkg/util.py": b"top\n" + LINES})
    assert port(lab, "--to", str(root), "--commit", NEW, "--name", "2.0").code == 0
    assert snapshot(lab.layer("chip")) != before
    assert port(lab, "--to", str(lab.upstream), "--commit", "1" * 40, "--name", "1.0").code == 0
    assert snapshot(lab.layer("chip")) == before


def conflict_lab(make_project: MakeProject) -> tuple[Lab, Path]:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"ours five"), "chip.py": b"chip\n",
               "README.md": None})  # fmt: skip
    root = next_upstream(
        lab, {"pkg/util.py": changed(LINES, 5, b"their five"), "README.md": b"# new\n"}
    )
    return lab, root


TO = ("--commit", NEW, "--name", "2.0")


def test_conflicts_open_a_work_tree_and_continue_finishes(make_project: MakeProject) -> None:
    lab, root = conflict_lab(make_project)
    before = state(lab)
    ran = port(lab, "--to", str(root), *TO)
    assert (ran.code, ran.json["status"]) == (11, "open")
    assert state(lab) == before
    place = lab.root / ran.json["work_tree"]
    assert place == lab.root / "build/port/demo-acme"
    text = (place / "pkg/util.py").read_bytes()
    for part in (b"<<<<<<< demo 2.0\n", b"||||||| demo 1.0\n", b">>>>>>> layer chip\n"):
        assert part in text
    status = git("status", "--porcelain", cwd=place).decode()
    assert "UU pkg/util.py" in status
    assert "UD README.md" in status
    assert git("show", "layer:pkg/util.py", cwd=place) == changed(LINES, 5, b"ours five")

    # Nothing is taken before everything is decided, and all that is open is told at once.
    early = port(lab, "--continue", device=None)
    assert early.code == 11
    slugs = {error["slug"] for error in early.json["errors"]}
    assert slugs == {"markers", "undecided"}
    assert state(lab) == before
    busy = port(lab, "--to", str(root), *TO)
    assert (busy.code, busy.json["errors"][0]["slug"]) == (11, "port-in-progress")

    (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"both five"))
    git("rm", "-q", "--", "README.md", cwd=place)
    done = port(lab, "--continue", device=None)
    assert (done.code, done.json["status"]) == (0, "done"), done
    assert not place.exists()
    lab.remove_place("acme")
    lab.unpatch(device="acme")
    assert (lab.place("acme") / "pkg/util.py").read_bytes() == changed(LINES, 5, b"both five")
    assert not (lab.place("acme") / "README.md").exists()
    assert lab.run("check").code == 0


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_the_source_is_the_one_that_the_port_began_with(
    make_project: MakeProject, what: str
) -> None:
    lab, root = conflict_lab(make_project)
    port(lab, "--to", str(root), *TO)
    place = lab.root / "build/port/demo-acme"
    (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"both five"))
    git("rm", "-q", "--", "README.md", cwd=place)
    was = lab.db.import_folder(root)
    (root / "later.txt").write_text("pulled in the meantime\n")
    if what == "gone":
        shutil.rmtree(root)
    done = port(lab, "--continue", device=None)
    assert (done.code, done.json["status"]) == (0, "done"), done
    assert lab.project.resolve("demo", "acme")[0].tree == was


def test_abort_leaves_everything_as_it_was(make_project: MakeProject) -> None:
    lab, root = conflict_lab(make_project)
    before = state(lab)
    port(lab, "--to", str(root), *TO)
    aborted = port(lab, "--abort", device=None)
    assert (aborted.code, aborted.json["kept"]) == (0, None)
    assert not (lab.root / "build/port/demo-acme").exists()
    port(lab, "--to", str(root), *TO)
    place = lab.root / "build/port/demo-acme"
    (place / "pkg/util.py").write_bytes(b"an hour of work\n")
    aborted = port(lab, "--abort", device=None)
    kept = lab.root / aborted.json["kept"]
    assert (kept / "pkg/util.py").read_bytes() == b"an hour of work\n"
    assert state(lab) == before
    assert port(lab, "--abort", device=None).json["errors"][0]["slug"] == "no-port"
    assert port(lab, "--continue", device=None).code == 2


def test_resolutions_are_remembered_for_other_projects(
    make_project: MakeProject, tmp_path: Path
) -> None:
    lab, root = conflict_lab(make_project)
    copy = tmp_path / "elsewhere"
    shutil.copytree(lab.root, copy, symlinks=True)
    port(lab, "--to", str(root), *TO)
    place = lab.root / "build/port/demo-acme"
    (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"both five"))
    git("rm", "-q", "--", "README.md", cwd=place)
    assert port(lab, "--continue", device=None).code == 0

    other = Lab(copy, lab.store, lab.upstream)
    os.environ["UNISCALE_PROJECT"] = str(copy)  # make_project's monkeypatch puts it back
    # Another change elsewhere in the file: not the same blobs, but the same conflict.
    shifted = next_upstream(other, {"pkg/util.py": b"top\n" + changed(LINES, 5, b"their five"),
                                    "README.md": b"# new\n"}, "shifted")  # fmt: skip
    fresh = port(other, "--to", str(shifted), *TO, "--dry-run", "--fresh")
    assert kinds(fresh.json)["pkg/util.py"] == "content conflict"
    ran = port(other, "--to", str(shifted), *TO)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    known = "remembered resolution"
    assert kinds(ran.json) == {"README.md": known, "pkg/util.py": known, "chip.py": "clean"}
    assert other.project.resolve("demo", "acme")[0].version == "2.0"
    other.unpatch(device="acme")
    got = (other.place("acme") / "pkg/util.py").read_bytes()
    assert got == b"top\n" + changed(LINES, 5, b"both five")


def test_a_newer_resolution_replaces_the_older(make_project: MakeProject) -> None:
    lab, root = conflict_lab(make_project)
    for answer in (b"first answer", b"second answer"):
        assert port(lab, "--to", str(root), *TO, "--fresh").json["status"] == "open"
        place = lab.root / "build/port/demo-acme"
        (place / "pkg/util.py").write_bytes(changed(LINES, 5, answer))
        git("rm", "-q", "--", "README.md", cwd=place)
        assert port(lab, "--continue", device=None).code == 0
        back = port(
            lab, "--to", str(lab.upstream), "--commit", "1" * 40, "--name", "1.0", "--fresh"
        )
        if back.json["status"] == "open":
            place = lab.root / back.json["work_tree"]
            (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"ours five"))
            git("add", "-A", cwd=place)
            (place / "README.md").unlink(missing_ok=True)
            git("rm", "-q", "--cached", "--ignore-unmatch", "README.md", cwd=place)
            assert port(lab, "--continue", device=None).code == 0
    shifted = next_upstream(
        lab, {"pkg/util.py": b"top\n" + changed(LINES, 5, b"their five"), "README.md": b"# new\n"}
    )
    assert port(lab, "--to", str(shifted), *TO).json["status"] == "done"
    lab.remove_place("acme")
    lab.unpatch(device="acme")
    got = (lab.place("acme") / "pkg/util.py").read_bytes()
    assert got == b"top\n" + changed(LINES, 5, b"second answer")


def test_resolution_must_compile_where_both_sides_did(make_project: MakeProject) -> None:
    lab = make_project({**UPSTREAM, "m.py": b"x = 1\n"})
    edit(lab, {"m.py": b"x = 2\n"})
    root = next_upstream(lab, {"m.py": b"x = 3\n"})
    port(lab, "--to", str(root), *TO)
    place = lab.root / "build/port/demo-acme"
    (place / "m.py").write_bytes(b"x = (2\n")
    ran = port(lab, "--continue", device=None)
    assert (ran.code, ran.json["errors"][0]["slug"]) == (11, "does-not-compile")
    half = b"<<<<<<< demo 2.0\nx = 4\n"
    (place / "m.py").write_bytes(half)
    ran = port(lab, "--continue", device=None)
    assert ran.json["errors"][0]["slug"] == "markers"
    assert ran.json["errors"][0]["where"].endswith("m.py:1")
    (place / "m.py").write_bytes(b"x = 4\n")
    assert port(lab, "--continue", device=None).code == 0


def two_layers(make_project: MakeProject) -> tuple[Lab, Path]:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"common five")}, "common", None)
    edit(lab, {"notes.txt": b"one\n2\nthree", "chip.py": b"chip\n"}, "chip", "acme")
    root = next_upstream(lab, {"pkg/util.py": changed(LINES, 5, b"their five"),
                               "notes.txt": b"one\nII\nthree"})  # fmt: skip
    return lab, root


def test_layer_after_layer_in_one_work_tree(make_project: MakeProject) -> None:
    lab, root = two_layers(make_project)
    ran = port(lab, "--to", str(root), *TO, device=None)
    assert ran.json["status"] == "open"
    place = lab.root / "build/port/demo"
    assert [layer["layer"] for layer in ran.json["layers"]] == ["common"]
    (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"both five"))
    (place / "added-while-resolving.txt").write_bytes(b"x\n")
    ran = port(lab, "--continue", device=None)
    assert (ran.code, ran.json["status"]) == (11, "open"), ran
    assert b"<<<<<<< demo 2.0 + common" in (place / "notes.txt").read_bytes()
    assert (place / "pkg/util.py").read_bytes() == changed(LINES, 5, b"both five")
    # Saying it again without deciding changes nothing.
    assert port(lab, "--continue", device=None).json["errors"][0]["slug"] == "markers"
    (place / "notes.txt").write_bytes(b"one\n2 II\nthree")
    ran = port(lab, "--continue", device=None)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    assert set(ran.json["written"]) == {"common", "chip"}
    lab.remove_place("acme")
    lab.unpatch(device="acme")
    assert (lab.place("acme") / "notes.txt").read_bytes() == b"one\n2 II\nthree"
    assert (lab.layer("common") / "overlay/added-while-resolving.txt").is_file()


def test_a_lost_cache_does_not_lose_a_port(make_project: MakeProject) -> None:
    lab, root = two_layers(make_project)
    port(lab, "--to", str(root), *TO, device=None)
    place = lab.root / "build/port/demo"
    (place / "pkg/util.py").write_bytes(changed(LINES, 5, b"both five"))
    shutil.rmtree(lab.store.root)
    assert port(lab, "--continue", device=None).json["status"] == "open"
    shutil.rmtree(lab.store.root)
    (place / "notes.txt").write_bytes(b"one\n2 II\nthree")
    ran = port(lab, "--continue", device=None)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    lab.remove_place("acme")
    lab.unpatch(device="acme")
    assert (lab.place("acme") / "pkg/util.py").read_bytes() == changed(LINES, 5, b"both five")


def test_layers_changed_under_an_open_port(make_project: MakeProject) -> None:
    lab, root = conflict_lab(make_project)
    port(lab, "--to", str(root), *TO)
    lab.unpatch(device="acme")
    (lab.place("acme") / "chip.py").write_bytes(b"chip 2\n")
    lab.patch(device="acme")
    ran = port(lab, "--continue", device=None)
    assert (ran.code, ran.json["errors"][0]["slug"]) == (11, "plan-changed")
    assert (lab.root / "build/port/demo-acme/pkg/util.py").is_file()


def test_device_alone_leaves_the_others_on_the_old_pin(make_project: MakeProject) -> None:
    lab = make_project(devices=("acme", "other"))
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"common five")}, "common", None)
    edit(lab, {"chip.py": b"chip\n"}, "chip", "acme")
    edit(lab, {"other.py": b"other\n"}, "other", "other")
    root = next_upstream(lab, {"pkg/util.py": b"top\n" + LINES})
    before = snapshot(lab.layer("common"))
    ran = port(lab, "--to", str(root), *TO)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    assert snapshot(lab.layer("common")) == before
    project = lab.project
    pins = project.manifests.backend("demo").pins
    assert [(pin.version, pin.layers) for pin in pins] == [
        ("1.0", ("common",)), ("2.0", ("common-2.0",)),
    ]  # fmt: skip
    assert project.resolve("demo", "acme")[0].version == "2.0"
    assert project.resolve("demo", "other")[0].version == "1.0"
    for device in ("acme", "other"):
        shutil.rmtree(lab.place(device), ignore_errors=True)
        lab.unpatch(device=device)
    # The other one follows onto the pin that is there now.
    ran = port(lab, "--to", "2.0", device="other")
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    assert [layer["layer"] for layer in ran.json["layers"]] == ["other"]
    assert lab.project.resolve("demo", "other")[0].version == "2.0"
    lab.unpatch(device="other")
    assert (lab.place("other") / "pkg/util.py").read_bytes().startswith(b"top\n")


def test_common_alone_prepares_a_pin(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"common five")}, "common", None)
    edit(lab, {"chip.py": b"chip\n"}, "chip", "acme")
    root = next_upstream(lab, {"pkg/util.py": b"top\n" + LINES})
    ran = port(lab, "--to", str(root), *TO, "--common", device=None)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    assert lab.project.resolve("demo", "acme")[0].version == "1.0"
    assert (lab.layer("common-2.0") / "layer.yaml").is_file()
    again = port(lab, "--to", str(root), "--commit", NEW, "--name", "2.0", "--common", device=None)
    assert again.code == 5
    assert again.json["errors"][0]["slug"] == "layer-exists"


def test_without_to_layers_go_back_on_what_changed_below(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"common five")}, "common", None)
    edit(lab, {"pkg/util.py": changed(changed(LINES, 5, b"common five"), 30, b"chip")})
    # Someone else changes the common layer in a checkout that does not know the device's.
    manifest = lab.root / "manifests/adaptations/acme/demo.yaml"
    text = manifest.read_text()
    manifest.write_text(text.replace("layers: [chip]", "layers: []"))
    lab.unpatch()
    (lab.place() / "pkg/util.py").write_bytes(changed(LINES, 5, b"other five"))
    lab.patch()
    manifest.write_text(text)
    broken = lab.run("unpatch", "--backend", "demo", "--device", "acme")
    assert broken.code == 5
    ran = port(lab)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    lab.unpatch(device="acme")
    want = changed(changed(LINES, 5, b"other five"), 30, b"chip")
    assert (lab.place("acme") / "pkg/util.py").read_bytes() == want


def test_upstream_took_the_whole_layer(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"five"), "a.py": b"a\n"})
    root = next_upstream(lab, {"pkg/util.py": changed(LINES, 5, b"five"), "a.py": b"a\n"})
    ran = port(lab, "--to", str(root), *TO)
    assert ran.code == 0
    assert set(kinds(ran.json).values()) == {"already upstream"}
    assert "is empty now" in ran.json["notes"][0]
    assert not list(lab.layer("chip").rglob("*.patch"))
    lab.remove_place("acme")
    lab.unpatch(device="acme")


def test_what_cannot_be_asked(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"chip.py": b"chip\n"})
    root = next_upstream(lab, {"extra": b"x\n"})
    before = state(lab)
    cases = {
        ("--to", str(root)): (2, "no-commit"),
        ("--to", str(root), "--commit", "abc"): (2, "bad-commit"),
        ("--to", str(root / "none")): (4, "no-file"),
        ("--to", "9.9"): (4, "no-project"),
        ("--to", "f" * 40): (4, "no-source"),
        ("--to", str(root), "--pin", "1.0"): (2, "settings"),
        ("--to", str(root), "--abort"): (2, "settings"),
        ("--continue",): (2, "no-port"),
        ("--to", str(root), "--commit", NEW, "--name", "../x", "--common"): (2, "settings"),
    }
    for argv, (code, slug) in cases.items():
        ran = port(lab, *argv)
        assert (ran.code, ran.json["errors"][0]["slug"]) == (code, slug), argv
    ran = port(lab, "--pin", "7", device=None)
    assert (ran.code, ran.json["errors"][0]["slug"]) == (2, "unknown-pin")
    assert state(lab) == before


def test_a_broken_layer_is_told_before_anything_moves(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"five")})
    patch = lab.layer("chip") / "diff/pkg/util.py.patch"
    patch.write_bytes(patch.read_bytes().replace(b"+five", b"+fife"))
    root = next_upstream(lab, {"extra": b"x\n"})
    before = state(lab)
    ran = port(lab, "--to", str(root), *TO)
    assert ran.code == 5
    assert state(lab) == before


def test_manifest_that_cannot_be_edited_is_told(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"chip.py": b"chip\n"})
    path = lab.root / "manifests/backends/demo.yaml"
    text = path.read_text()
    head, rest = text.split("pins:\n")
    body, tail = rest.split("\nrecipe:")
    pin = Project(lab.root, True).manifests.backend("demo").pins[0]
    flow = (f'pins: [{{version: "1.0", commit: "{pin.commit}", tree: {pin.tree}, layers: [], '
            f"origins: [{{folder: {pin.origins[0].url}}}]}}]\n")  # fmt: skip
    path.write_text(head + flow + "\nrecipe:" + tail)
    del body
    root = next_upstream(lab, {"extra": b"x\n"})
    ran = port(lab, "--to", str(root), *TO, "--common", device=None)
    assert ran.code == 0, ran
    assert "version: '2.0'" in ran.json["todo"][0] or 'version: "2.0"' in ran.json["todo"][0]


def test_to_a_commit(make_project: MakeProject) -> None:
    lab = make_project(UPSTREAM, kind="git")
    edit(lab, {"pkg/util.py": changed(LINES, 30, b"ours")})
    path = lab.root / "manifests/backends/demo.yaml"
    sdist = (
        "      # The same as an archive.\n      - sdist: demo-1.0.tar.gz\n        project: demo\n"
        f"        sha256: {'ab' * 32}\n"
    )
    path.write_text(path.read_text().replace("\nrecipe:", f"{sdist}\nrecipe:"))
    (lab.upstream / "pkg/util.py").write_bytes(b"top\n" + LINES)
    git("commit", "-q", "-a", "-m", "next", cwd=lab.upstream)
    commit, tree = git("rev-parse", "HEAD", "HEAD^{tree}", cwd=lab.upstream).decode().split()
    ran = port(lab, "--to", commit)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    (pin,) = lab.project.manifests.backend("demo").pins
    assert (pin.version, pin.commit, pin.tree) == (commit[:12], commit, tree)
    # The archive is of the old version: it goes, and nothing else does.
    assert [origin.kind for origin in pin.origins] == ["git"]
    text = path.read_text()
    assert "sdist" not in text
    assert "# The version that everybody uses." in text
    assert text.endswith("recipe:\n  kind: cmake\n")
    checkout = port(lab, "--to", str(lab.upstream), "--dry-run")
    assert checkout.json["to"]["commit"] == commit


def test_a_wrong_manifest_is_never_written(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"chip.py": b"chip\n"})
    path = lab.root / "manifests/backends/demo.yaml"
    text = path.read_text().replace(f"    commit: {'1' * 40}\n", "    note: no commit\n")
    path.write_text(text)
    root = next_upstream(lab, {"extra": b"x\n"})
    before = state(lab)
    ran = port(lab, "--to", str(root), "--name", "2.0\n- evil")
    assert (ran.code, ran.json["errors"][0]["slug"]) == (2, "bad-name")
    sdist = f"      - sdist: x-1.0.tar.gz\n        project: x\n        sha256: {'ab' * 32}\n"
    path.write_text(text.replace("\nrecipe:", f"{sdist}\nrecipe:"))
    assert port(lab, "--to", str(root), "--name", "2.0", "--dry-run").code == 0
    path.write_text(text)
    assert state(lab) == before
    assert port(lab, "--to", str(root), "--name", "2.0").code == 0
    assert lab.project.resolve("demo", "acme")[0].note == "no commit"


@pytest.mark.sources
def test_between_releases_of_the_package_index(make_project: MakeProject) -> None:
    lab = make_project()
    backend = lab.project.manifests.backend("demo")
    path = lab.root / "manifests/backends/demo.yaml"
    model = Origin("sdist", project="vllm", file="vllm-0.8.3.tar.gz", sha256="0" * 64)
    known = replace(backend, pins=(replace(backend.pins[0], origins=(model,)),))
    found = obtain_version(lab.db, known, "0.8.3")
    assert found.origin is not None
    head, tail = path.read_text().split("pins:\n")
    pin = (
        f"pins:\n  - version: '0.8.3'  # ours\n    tree: {found.tree}\n    note: no commit\n"
        f"    origins:\n      - sdist: {found.origin.file}\n        project: vllm\n"
        f"        sha256: {found.origin.sha256}\n\nrecipe:{tail.split('recipe:')[1]}"
    )
    path.write_text(head + pin)
    other = lab.root / "manifests/adaptations/acme/demo.yaml"
    other.write_text(other.read_text().replace('"1.0"', '"0.8.3"'))
    lab.unpatch(device="acme")
    envs = lab.place("acme") / "vllm/envs.py"
    envs.write_bytes(envs.read_bytes().replace(b"import os\n", b"import os\nimport chip\n", 1))
    (lab.place("acme") / "vllm/chip.py").write_bytes(b"CHIP = 1\n")
    lab.new_layer("chip", device="acme")
    ran = port(lab, "--to", "0.8.5")
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    (new,) = lab.project.manifests.backend("demo").pins
    assert (new.version, new.origins[0].file) == ("0.8.5", "vllm-0.8.5.tar.gz")
    assert len(new.origins[0].sha256) == 64
    assert "# ours" in path.read_text()
    assert lab.run("check", "--offline").code == 0
