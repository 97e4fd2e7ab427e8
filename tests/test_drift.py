"""How far layers can go: the table, the answers, and the report."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from uniscale_build.porting.drift import APPLIES, CONFLICT, MERGES, TAKEN, Column, Drift, File
from uniscale_build.porting.drift_report import page, picture, table

from tests.conftest import MakeProject
from tests.test_identify import PIN
from tests.test_port import changed, edit, state
from tests.upstreams import LINES, UPSTREAM, Lab, write_files

# What each version does to the layer's files: util (line 5), notes (line 2), README, imports.
VERSIONS = {
    "1.1": {"pkg/util.py": b"top\n" + LINES},
    "1.2": {"pkg/util.py": b"top\n" + LINES, "imp.py": b"import os\nimport re\n\nx = 1\n"},
    "1.3": {"pkg/util.py": changed(LINES, 7, b"near"), "imp.py": b"import os\n\nx = 1\n"},
    "1.10": {
        "pkg/util.py": changed(LINES, 5, b"their"),
        "imp.py": b"import os\nimport chip\n\nx = 1\n",
    },
}
BASE = {**UPSTREAM, "imp.py": b"import os\n\nx = 1\n"}


@pytest.fixture
def lab(make_project: MakeProject, tmp_path: Path) -> Lab:
    """A layer, and a manifest that knows later versions."""
    made = make_project(BASE)
    edit(made, {"pkg/util.py": changed(LINES, 5, b"ours"), "chip.py": b"chip\n",
                "imp.py": b"import os\nimport chip\n\nx = 1\n"})  # fmt: skip
    path = made.root / "manifests/backends/demo.yaml"
    text = path.read_text()
    for version, files in VERSIONS.items():
        root = tmp_path / version
        root.mkdir()
        write_files(root, {**BASE, **files})
        tree = made.db.import_folder(root)
        block = PIN.format(version=version, tree=tree, url=root)
        text = text.replace("\nrecipe:", f"{block}\nrecipe:")
    path.write_text(text)
    return made


def drift(lab: Lab, *argv: str) -> Any:
    return lab.run("drift", "--backend", "demo", "--device", "acme", "--json", *argv)


def test_every_version_has_its_counts(lab: Lab) -> None:
    before = state(lab)
    ran = drift(lab)
    assert ran.code == 0, ran
    assert state(lab) == before
    counts = {v["version"]: list(v["counts"].values()) for v in ran.json["versions"]}
    assert counts == {
        "1.0": [3, 0, 0, 0],
        "1.1": [3, 0, 0, 0],
        "1.2": [2, 1, 0, 0],  # the imports merge by structure
        "1.3": [2, 1, 0, 0],  # a context line changed: git apply refuses, a merge does not
        "1.10": [1, 0, 1, 1],
    }
    assert ran.json["newest_that_applies"] == "1.1"
    assert ran.json["newest_without_conflict"] == "1.3"


def test_since_and_named_versions(lab: Lab) -> None:
    def versions(*argv: str) -> list[str]:
        return [v["version"] for v in drift(lab, *argv).json["versions"]]

    assert versions("--since", "1.2") == ["1.2", "1.3", "1.10"]
    assert versions("--version", "1.10", "--version", "1.1") == ["1.10", "1.1"]
    none = drift(lab, "--since", "7")
    assert (none.code, none.json["errors"][0]["slug"]) == (2, "no-versions")


def test_a_version_that_cannot_be_had_does_not_hide_the_others(lab: Lab) -> None:
    ran = drift(lab, "--version", "1.1", "--version", "8.8", "--version", "1.3")
    assert ran.code == 0
    columns = {v["version"]: v for v in ran.json["versions"]}
    assert columns["8.8"]["error"]["slug"] == "no-project"
    assert columns["1.3"]["counts"]["merges"] == 1
    said = lab.run("drift", "-b", "demo", "-d", "acme", "--version", "8.8", "--version", "1.1")
    assert "no pin of demo comes from the package index" in said.out


def test_the_common_layers_alone(lab: Lab) -> None:
    ran = lab.run("drift", "--backend", "demo", "--version", "1.1", "--json")
    assert ran.json["layers"] == ["chip"]
    text = lab.run("drift", "-b", "demo", "-d", "acme").out
    assert "the newest version where everything applies as it is: 1.1" in text
    assert re.search(r"^1\.10 +1 +0 +1 +1", text, re.M)


class _Page(HTMLParser):
    """Collects what would load something, and checks that tags close."""

    void = frozenset(("meta", "br", "img", "link", "input", "hr"))

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{tag} {k}={v}" for k, v in attrs if k in ("src", "href")]
        if tag in ("script", "iframe", "link", "img"):
            self.loads.append(tag)
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_report_is_one_file_that_loads_nothing(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    assert drift(lab, "--html", str(out)).code == 0
    found = _Page()
    text = out.read_text(encoding="utf-8")
    found.feed(text)
    found.close()
    assert (found.loads, found.open) == ([], [])
    assert "url(" not in text
    for word in ("1.10", "pkg/util.py", "content conflict", "Conflicts with 1.10"):
        assert word in found.text
    (svg,) = re.findall(r"<svg.*?</svg>", text, re.S)
    bars = ElementTree.fromstring(svg).findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 1 + 2 + 2 + 3


def test_names_cannot_break_the_report() -> None:
    evil = '<script>alert(1)</script>"&'
    file = File(evil, evil, CONFLICT, "content conflict", evil)
    found = _Page()
    found.feed(page(Drift(evil, evil, evil, (evil,), (Column(evil, "0" * 40, (file,)),))))
    assert found.loads == []
    assert found.text.count(evil) > 5


def test_pictures_of_nothing_and_of_much() -> None:
    ElementTree.fromstring(picture(()))
    ElementTree.fromstring(picture((Column("1", "0" * 40),)))
    many = tuple(File("l", str(n), (APPLIES, MERGES, TAKEN, CONFLICT)[n % 4], "", "")
                 for n in range(4321))  # fmt: skip
    svg = ElementTree.fromstring(picture((Column("1", "0" * 40, many),)))
    rects = svg.findall("{http://www.w3.org/2000/svg}rect")
    assert sum(float(r.get("width", "0")) for r in rects) == pytest.approx(760, abs=1)
    lines = table(Drift("b", "", "1", (), (Column("1", "0" * 40, many),)))
    assert len(lines) == 2
    assert all(len(line) < 100 for line in lines)
