"""Killed at any moment, then run again: nothing is lost, nothing stands in the way."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.conftest import Grow, enter
from tests.edits import EDITS
from tests.killing import fork, moments
from tests.upstreams import UPSTREAM, Lab, copy_lab, git, make_lab, snapshot

KILLS = int(os.environ.get("UNISCALE_TEST_KILLS", "5"))  # moments in each test
EDIT = ("rename-and-edit-unstaged", "binary-modify", "file-to-folder", "modes")


def _fresh(base: Path) -> Lab:
    return make_lab(base, UPSTREAM)


def _outdated(base: Path) -> Lab:
    """An in-place tree below layers that have changed, with an ignored file in it."""
    lab = make_lab(base, {**UPSTREAM, ".gitignore": b"*.o\n"})
    lab.unpatch()
    (lab.place() / "first.py").write_text("1\n")
    lab.new_layer("first")
    away = lab.place().with_name("away")
    shutil.copytree(lab.place(), away, symlinks=True)
    for kind in EDIT:
        EDITS[kind](lab.place())
    lab.patch()
    lab.remove_place()
    away.rename(lab.place())
    (lab.place() / "x.o").write_text("an object\n")
    return lab


def _edited(base: Path) -> Lab:
    """Two layers, and edits of many kinds that are not captured."""
    lab = make_lab(base, UPSTREAM)
    lab.unpatch()
    (lab.place() / "first.py").write_text("1\n")
    lab.new_layer("first")
    (lab.place() / "second.py").write_text("2\n")
    lab.new_layer("second")
    for kind in EDIT:
        EDITS[kind](lab.place())
    return lab


def leftovers(lab: Lab) -> list[str]:
    """What a run may have left that does not belong to a project."""
    patches, place = lab.root / "patches/demo", lab.place()
    found = (
        [p.name for p in patches.iterdir() if p.name.startswith(".")] if patches.is_dir() else []
    )
    found += [p.name for p in place.parent.iterdir() if p != place]
    return found + [p.name for p in (place / ".git").iterdir()
                    if p.name.startswith(("uniscale-index", "uniscale-pending"))]  # fmt: skip


def kill_everywhere(
    template: Lab, base: Path, patch: pytest.MonkeyPatch, argv: tuple[str, ...]
) -> list[Lab]:
    """Copies of a lab, in each of which the command was killed at another step."""
    lab = copy_lab(template, base / "count")
    enter(patch, lab)
    _, total = fork(lab, argv, 0)
    assert total > 20
    labs = []
    for step in moments(total, KILLS):
        lab = copy_lab(template, base / f"step{step}")
        enter(patch, lab)
        killed, _ = fork(lab, argv, step)
        assert killed, f"step {step} of {total} was not reached"
        labs.append(lab)
    return labs


def test_unpatch_of_nothing(
    lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = lab_templates("killed-fresh", _fresh)
    for lab in kill_everywhere(template, tmp_path, monkeypatch, ("unpatch", "-b", "demo")):
        enter(monkeypatch, lab)
        lab.unpatch()
        assert snapshot(lab.place()) == snapshot(lab.upstream)
        assert git("status", "--porcelain", cwd=lab.place()) == b""
        assert leftovers(lab) == []


def test_unpatch_of_other_layers(
    lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = lab_templates("killed-outdated", _outdated)
    for lab in kill_everywhere(template, tmp_path, monkeypatch, ("unpatch", "-b", "demo")):
        enter(monkeypatch, lab)
        lab.unpatch()
        assert (lab.place() / "x.o").read_text() == "an object\n"
        (lab.place() / "x.o").unlink()
        assert lab.work_tree() == lab.result("first")
        assert git("status", "--porcelain", cwd=lab.place()) == b""
        assert leftovers(lab) == []


def test_discard(lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = lab_templates("killed-edited", _edited)
    edited = snapshot(template.place())
    argv = ("unpatch", "-b", "demo", "--discard")
    for lab in kill_everywhere(template, tmp_path, monkeypatch, argv):
        enter(monkeypatch, lab)
        lab.unpatch("--discard")
        assert lab.work_tree() == lab.result("second")
        refs = git(
            "for-each-ref", "--format=%(refname)", "refs/uniscale/discarded", cwd=lab.place()
        )
        for ref in refs.decode().split()[:1]:
            git("cherry-pick", "--no-commit", ref, cwd=lab.place())
        assert snapshot(lab.place()) == edited


@pytest.mark.parametrize("layer", ["second", "first", "third"])
def test_patch(
    layer: str, lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = lab_templates("killed-edited", _edited)
    edited = snapshot(template.place())
    new = ("--new-layer", layer, "--title", "T", "--why", "W", "--owner", "O", "--contact", "C")
    argv = ("patch", "-b", "demo", *(new if layer == "third" else ("--layer", layer)))
    for lab in kill_everywhere(template, tmp_path, monkeypatch, argv):
        enter(monkeypatch, lab)
        assert snapshot(lab.place()) == edited
        lab.ok(*argv)
        top = "third" if layer == "third" else "second"
        assert snapshot(lab.place()) == edited
        assert lab.result(top) == lab.work_tree()
        assert git("status", "--porcelain", cwd=lab.place()) == b""
        assert leftovers(lab) == []
        names = [item.name for item in lab.project.layers(*lab.project.resolve("demo", None))]
        assert names == ["first", "second", "third"][: 3 if layer == "third" else 2]
        lab.remove_place()
        lab.unpatch()
        assert snapshot(lab.place()) == edited


def test_other_commands_after_a_kill(
    lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the same command again, but the one that puts things in place."""
    template = lab_templates("killed-edited", _edited)
    edited = snapshot(template.place())
    argv = ("patch", "-b", "demo", "--layer", "first")
    for lab in kill_everywhere(template, tmp_path, monkeypatch, argv):
        enter(monkeypatch, lab)
        ran = lab.run("unpatch", "-b", "demo")
        assert ran.code in (0, 10), ran  # captured already, or still unsaved: never lost
        assert snapshot(lab.place()) == edited
