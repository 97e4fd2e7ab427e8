"""A port that is killed at any moment: nothing is lost, and the same command goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.inplace.stack import find_target
from uniscale_build.swap import finish

from tests.conftest import enter
from tests.killing import fork, moments
from tests.test_port import NEW, changed, edit, next_upstream, state
from tests.upstreams import LINES, UPSTREAM, Lab, copy_lab, make_lab

KILLS = int(os.environ.get("UNISCALE_TEST_KILLS", "3"))
BOTH = changed(LINES, 5, b"both five")
CONTINUE = ("port", "--backend", "demo", "--continue", "--json")


def begin(root: Path) -> tuple[str, ...]:
    return ("port", "--backend", "demo", "--to", str(root), "--commit", NEW, "--name", "2.0",
            "--json")  # fmt: skip


def two_layers(base: Path, patch: pytest.MonkeyPatch) -> tuple[Lab, tuple[str, ...]]:
    """Two layers, each with a conflict with the next upstream."""
    lab = make_lab(base, UPSTREAM)
    enter(patch, lab)
    edit(lab, {"pkg/util.py": changed(LINES, 5, b"common five")}, "common", None)
    edit(lab, {"notes.txt": b"one\n2\nthree", "chip.py": b"chip\n"}, "chip", "acme")
    root = next_upstream(lab, {"pkg/util.py": changed(LINES, 5, b"their five"),
                               "notes.txt": b"one\nII\nthree"})  # fmt: skip
    lab.remove_place()
    lab.remove_place("acme")
    return lab, begin(root)


def killed(
    template: Lab, base: Path, patch: pytest.MonkeyPatch, argv: tuple[str, ...], code: int
) -> Iterator[Lab]:
    """Copies of a lab, in each of which the command was killed at another step."""
    lab = copy_lab(template, base / "count")
    enter(patch, lab)
    _, total = fork(lab, argv, 0, code)
    assert total > 20
    for step in moments(total, KILLS):
        lab = copy_lab(template, base / f"step{step}")
        enter(patch, lab)
        was, _ = fork(lab, argv, step, code)
        assert was, f"step {step} of {total} was not reached"
        yield lab


def place(lab: Lab) -> Path:
    return lab.root / "build/port/demo"


def goes_to_the_end(lab: Lab) -> None:
    """From an open work tree of the first layer, or of the second, to the ported layers."""
    text = place(lab) / "pkg/util.py"
    if b"<<<<<<<" in text.read_bytes():
        text.write_bytes(BOTH)
        ran = lab.run(*CONTINUE)
        assert (ran.code, ran.json.get("status")) == (11, "open"), ran
    (place(lab) / "notes.txt").write_bytes(b"one\n2 II\nthree")
    ran = lab.run(*CONTINUE)
    assert (ran.code, ran.json["status"]) == (0, "done"), ran
    is_ported(lab)


def is_ported(lab: Lab) -> None:
    assert not place(lab).exists()
    assert not [p for p in (lab.root / "patches/demo").iterdir() if p.name.startswith(".")]
    assert lab.project.resolve("demo", "acme")[0].version == "2.0"
    lab.unpatch(device="acme")
    assert (lab.place("acme") / "pkg/util.py").read_bytes() == BOTH
    assert (lab.place("acme") / "notes.txt").read_bytes() == b"one\n2 II\nthree"
    assert lab.run("check").code == 0


def test_while_the_work_tree_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, argv = two_layers(tmp_path, monkeypatch)
    before = state(template)
    for lab in killed(template, tmp_path, monkeypatch, argv, 11):
        assert {k: v for k, v in state(lab).items() if "backends" not in k} == {
            k: v for k, v in before.items() if "backends" not in k
        }
        ran = lab.run(*argv)
        assert ran.code == 11
        assert "errors" not in ran.json or ran.json["errors"][0]["slug"] == "port-in-progress"
        goes_to_the_end(lab)


def test_between_two_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, argv = two_layers(tmp_path, monkeypatch)
    assert template.run(*argv).code == 11
    (place(template) / "pkg/util.py").write_bytes(BOTH)
    for lab in killed(template, tmp_path, monkeypatch, CONTINUE, 11):
        ran = lab.run(*CONTINUE)
        assert ran.code == 11
        assert "errors" not in ran.json or {e["slug"] for e in ran.json["errors"]} == {"markers"}
        assert b"<<<<<<<" in (place(lab) / "notes.txt").read_bytes()
        goes_to_the_end(lab)


def test_while_the_layers_are_put_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, argv = two_layers(tmp_path, monkeypatch)
    assert template.run(*argv).code == 11
    (place(template) / "pkg/util.py").write_bytes(BOTH)
    assert template.run(*CONTINUE).code == 11
    (place(template) / "notes.txt").write_bytes(b"one\n2 II\nthree")
    for lab in killed(template, tmp_path, monkeypatch, CONTINUE, 0):
        ran = lab.run(*CONTINUE)
        if ran.code != 0:  # it had come to the very end
            assert ran.json["errors"][0]["slug"] == "no-port"
            finish(find_target(lab.project, "demo", None).home)
        is_ported(lab)


def test_without_conflicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template = make_lab(tmp_path, UPSTREAM)
    enter(monkeypatch, template)
    edit(template, {"pkg/util.py": changed(LINES, 30, b"common")}, "common", None)
    edit(template, {"chip.py": b"chip\n"})
    root = next_upstream(template, {"pkg/util.py": b"top\n" + LINES})
    template.remove_place()
    template.remove_place("acme")
    argv = begin(root)
    for lab in killed(template, tmp_path, monkeypatch, argv, 0):
        ran = lab.run(*argv)
        assert (ran.code, ran.json["status"] in ("done", "nothing")) == (0, True), ran
        assert lab.run("check").code == 0
        assert lab.project.resolve("demo", "acme")[0].version == "2.0"
        lab.unpatch(device="acme")
        want = changed(b"top\n" + LINES, 31, b"common")
        assert (lab.place("acme") / "pkg/util.py").read_bytes() == want
