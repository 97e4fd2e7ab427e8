"""Which version patches were made against, told from blob ids."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from uniscale_build.porting.identify import Candidate, PreImage, rank, read_patches, version_key
from uniscale_build.sources.obtain import obtain_version

from tests.conftest import MakeProject
from tests.test_port import changed, edit
from tests.upstreams import LINES, UPSTREAM, Lab, git, write_files

PIN = """
  - version: "{version}"
    tree: {tree}
    note: made for the test
    origins:
      - folder: {url}
"""


@pytest.fixture
def lab(make_project: MakeProject, tmp_path: Path) -> Lab:
    """A project with three versions of one upstream in its store."""
    made = make_project()
    edit(made, {"pkg/util.py": changed(LINES, 5, b"five"), "notes.txt": b"one\n", "new": b"n\n"})
    path = made.root / "manifests/backends/demo.yaml"
    text = path.read_text()
    for version, files in (("1.1", {"pkg/util.py": b"top\n" + LINES}),
                           ("1.2", {"notes.txt": b"other\n", "pkg/util.py": b"x\n"})):  # fmt: skip
        root = tmp_path / version
        root.mkdir()
        write_files(root, {**UPSTREAM, **files})
        tree = made.db.import_folder(root)
        made.db.keep(f"pins/{tree}", tree)
        block = PIN.format(version=version, tree=tree, url=root)
        text = text.replace("\nrecipe:", f"{block}\nrecipe:")
    path.write_text(text)
    return made


def identify(lab: Lab, *argv: object) -> Any:
    return lab.run("identify", "--json", *map(str, argv))


def test_the_version_of_a_layer_is_named(lab: Lab) -> None:
    ran = identify(lab, lab.layer("chip"))
    assert (ran.code, ran.json["exact"]) == (0, ["1.0"])
    assert (ran.json["patches"], ran.json["blobs"]) == (2, 2)
    ranked = [(m["version"], m["matched"], m["total"]) for m in ran.json["ranked"]]
    assert ranked == [("1.0", 2, 2), ("1.1", 1, 2), ("1.2", 0, 2)]
    said = lab.run("identify", str(lab.layer("chip"))).out
    assert "made against demo 1.0: all 2 fit" in said


def test_single_files_and_short_ids(lab: Lab, tmp_path: Path) -> None:
    lab.unpatch(device="acme")
    short = git("diff", "HEAD~1", "HEAD", cwd=lab.place("acme"))
    assert b"index " in short
    file = tmp_path / "all.diff"
    file.write_bytes(short)
    ran = identify(lab, file)
    assert (ran.code, ran.json["exact"], ran.json["blobs"]) == (0, ["1.0"], 2)
    one = lab.layer("chip") / "diff/notes.txt.patch"
    ran = identify(lab, one, "--backend", "demonstration")
    assert ran.json["exact"] == ["1.1", "1.0"]


def test_nothing_fits_exactly(lab: Lab, tmp_path: Path) -> None:
    patch = lab.layer("chip") / "diff/pkg/util.py.patch"
    data = patch.read_bytes()
    at = data.index(b"index ") + 6
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.patch").write_bytes(data[:at] + b"12345678" + data[at + 8 :])
    (tmp_path / "set/b.patch").write_bytes(
        (lab.layer("chip") / "diff/notes.txt.patch").read_bytes()
    )
    (tmp_path / "set/page.patch").write_bytes(b"<html>not found</html>\n")
    ran = identify(lab, tmp_path / "set")
    assert (ran.code, ran.json["exact"]) == (11, [])
    best = ran.json["ranked"][0]
    assert (best["matched"], best["other_content"]) == (1, ["pkg/util.py"])
    assert "page.patch: is a web page" in ran.json["unreadable"][0]
    said = lab.run("identify", str(tmp_path / "set"))
    assert "1 of 2 fit (50 %)" in said.out
    assert "--fetch" in said.out


def test_what_cannot_be_told(lab: Lab, tmp_path: Path) -> None:
    ran = identify(lab, tmp_path / "none")
    assert (ran.code, ran.json["errors"][0]["slug"]) == (5, "no-file")
    (tmp_path / "empty").mkdir()
    assert identify(lab, tmp_path / "empty").json["errors"][0]["slug"] == "no-blob-ids"
    new = tmp_path / "new.patch"
    new.write_bytes(
        b"diff --git a/n b/n\nnew file mode 100644\nindex "
        + b"0" * 40
        + b".."
        + b"1" * 40
        + b"\n--- /dev/null\n+++ b/n\n@@ -0,0 +1 @@\n+n\n"
    )
    assert identify(lab, new).json["errors"][0]["slug"] == "no-blob-ids"
    assert identify(lab, new, "--fetch").code == 2
    unknown = identify(lab, lab.layer("chip"), "--backend", "demo", "--version", "9")
    assert (unknown.code, unknown.json["errors"][0]["slug"]) == (4, "no-project")


def test_of_stacked_patches_the_first_counts(tmp_path: Path, lab: Lab) -> None:
    head = b"diff --git a/f b/f\nindex 1111111..2222222 100644\n--- a/f\n+++ b/f\n"
    one = head + b"@@ -1 +1 @@\n-a\n+b\n"
    two = one.replace(b"1111111", b"3333333").replace(b"2222222..", b"3333333..")
    (tmp_path / "1.patch").write_bytes(one)
    (tmp_path / "2.patch").write_bytes(two)
    found = read_patches([tmp_path / "1.patch", tmp_path / "2.patch"])
    assert found.images == (PreImage(b"f", "1111111"),)
    assert rank(lab.db, found.images, []) == []
    tree = lab.db.import_folder(lab.upstream)
    (match,) = rank(lab.db, found.images, [Candidate("demo", "1", tree)])
    assert (match.exact, match.missing) == (False, ("f",))


def test_versions_sort_as_packages_do() -> None:
    words = ["0.10.0", "0.9.2", "main", "0.10.0rc1", "0.9.2.post1"]
    ordered = ["main", "0.9.2", "0.9.2.post1", "0.10.0rc1", "0.10.0"]
    assert sorted(words, key=version_key) == ordered


@pytest.mark.sources
def test_releases_on_the_package_index(make_project: MakeProject, tmp_path: Path) -> None:
    lab = make_project()
    path = lab.root / "manifests/backends/demo.yaml"
    origin = (
        f"\n      - sdist: vllm-1.0.tar.gz\n        project: vllm\n        sha256: '{'0' * 64}'\n"
    )
    path.write_text(path.read_text().replace("\n\nrecipe:", f"{origin}\nrecipe:"))
    backend = lab.project.manifests.backend("demo")
    tree = obtain_version(lab.db, backend, "0.8.3").tree
    blob = lab.db.list_tree(tree)[b"vllm/envs.py"].oid.encode()
    patch = tmp_path / "a.patch"
    patch.write_bytes(b"diff --git a/vllm/envs.py b/vllm/envs.py\nindex " + blob[:12] + b".."
                      + b"1" * 12 + b" 100644\n--- a/vllm/envs.py\n+++ b/vllm/envs.py\n"
                      b"@@ -1 +1 @@\n-a\n+b\n")  # fmt: skip
    offline = identify(lab, patch, "--backend", "demo", "--version", "0.8.5")
    assert (offline.code, offline.json["errors"][0]["slug"]) == (4, "no-source")
    ran = identify(lab, patch, "--backend", "demo", "--version", "0.8.5", "--fetch")
    assert (ran.code, ran.json["exact"]) == (0, ["0.8.3"])
    matched = {m["version"]: m["matched"] for m in ran.json["ranked"]}
    assert (matched["0.8.3"], matched["0.8.5"]) == (1, 0)
    # What a release came from is known on the next run too: a port needs it for the new pin.
    found = obtain_version(lab.db, backend, "0.8.5", offline=True)
    assert found.origin is not None
    assert found.origin.file == "vllm-0.8.5.tar.gz"
