"""``status``: pins, layers, owners and unsaved edits, without a source."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from uniscale_build.inplace.status import age

from tests.conftest import Grow
from tests.upstreams import UPSTREAM, Lab, git, make_lab


def _two_devices(base: Path) -> Lab:
    lab = make_lab(base, UPSTREAM, devices=("acme", "bolt"))
    lab.unpatch()
    (lab.place() / "setup.py").write_text("# ours\n# and more\n")
    (lab.place() / "common.py").write_text("1\n2\n3\n")
    lab.new_layer("common")
    lab.unpatch(device="acme")
    (lab.place("acme") / "common.py").write_text("1\n2\n4\n")
    (lab.place("acme") / "notes.txt").rename(lab.place("acme") / "notes.md")
    lab.new_layer("kernels", device="acme")
    return lab


@pytest.fixture
def lab(grow: Grow) -> Lab:
    """A common layer, and one of the device acme; bolt has none."""
    return grow("two-devices", _two_devices)


def test_rows(lab: Lab) -> None:
    rows = lab.ok("status", "--json").json["rows"]
    assert [(row["device"], [item["name"] for item in row["layers"]]) for row in rows] == [
        (None, ["common"]), ("acme", ["common", "kernels"]), ("bolt", ["common"]),
    ]  # fmt: skip
    common = rows[0]["layers"][0]
    numbers = {key: common[key] for key in ("patches", "files", "added", "removed", "problems")}
    assert numbers == {"patches": 1, "files": 1, "added": 5, "removed": 3, "problems": 0}
    assert (common["owner"], common["upstream"]) == ("Dev", "pending")
    assert rows[0]["version"] == "1.0" and len(rows[0]["tree"]) == 40


def test_owners(lab: Lab) -> None:
    (row,) = lab.ok("status", "-b", "demo", "-d", "acme", "--json").json["rows"]
    assert row["owners"] == {
        "common.py": ["common", "kernels"],
        "notes.md": ["kernels"],
        "notes.txt": ["kernels"],
        "setup.py": ["common"],
    }
    out = lab.ok("status", "-d", "acme", "--files").out
    assert "    common.py  common + kernels\n" in out


def test_states_of_in_place_trees(lab: Lab) -> None:
    def states() -> list[str]:
        rows = lab.ok("status", "--json").json["rows"]
        return [row["in_place"]["state"] for row in rows]

    assert states() == ["clean", "clean", "absent"]
    (lab.place("acme") / "new.py").write_text("x\n")
    (lab.place("acme") / "setup.py").unlink()
    assert states() == ["clean", "edited", "absent"]
    out = lab.ok("status").out
    assert "build/acme/demo: edited\n    A new.py\n    D setup.py\n" in out
    lab.patch(device="acme")
    (lab.place() / "x.py").write_text("x\n")
    lab.patch()
    assert states() == ["clean", "outdated", "absent"]
    (lab.place("bolt")).mkdir(parents=True)
    (lab.place("bolt") / "stray").touch()
    assert states() == ["clean", "outdated", "foreign"]


def test_needs_neither_source_nor_cache(lab: Lab) -> None:
    shutil.rmtree(lab.upstream)
    shutil.rmtree(lab.store.root)
    (lab.place() / "new.py").write_text("x\n")
    (row, *_) = lab.ok("status", "--json").json["rows"]
    assert row["in_place"] == {"path": "third_party/demo", "state": "edited", "edits": ["A new.py"]}


def test_one_broken_layer_does_not_hide_the_others(lab: Lab) -> None:
    (lab.layer("kernels") / "layer.yaml").write_text("title: x\n")
    ran = lab.ok("status", "--json")
    rows = ran.json["rows"]
    assert rows[1]["errors"] and not rows[0]["errors"]
    assert "missing-key" in lab.ok("status").out


def test_problems_are_counted(lab: Lab) -> None:
    (lab.layer("kernels") / "diff/x.rej").touch()
    assert "1 problem: uniscale-build check -b demo" in lab.ok("status", "-d", "acme").out


@pytest.mark.parametrize(
    ("argv", "said"),
    [(("-b", "demmo"), 'did you mean "demo"?'), (("-d", "nope"), 'there is no device "nope"')],
)
def test_unknown_names(lab: Lab, argv: tuple[str, ...], said: str) -> None:
    ran = lab.run("status", *argv)
    assert (ran.code, said in ran.err) == (2, True)


def test_age_is_that_of_the_commit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_COMMITTER_DATE", "2020-02-02T00:00:00Z")
    git("init", "-q", ".", cwd=lab.root)
    git("add", "-A", "patches", cwd=lab.root)
    git("commit", "-q", "-m", "layers", cwd=lab.root)
    (row, *_) = lab.ok("status", "--json").json["rows"]
    assert row["layers"][0]["changed"] == 1580601600
    assert "years" in age(1580601600)


def test_after_a_kill(lab: Lab) -> None:
    """What a killed run has decided is finished first."""
    staged = lab.root / "patches/demo/.common.new"
    shutil.copytree(lab.layer("common"), staged)
    lab.ok("status")
    assert not staged.exists()
