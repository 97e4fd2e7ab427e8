"""``check``: every kind of finding, told at its file with a cure, and nothing else touched."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.project import find_project
from uniscale_build.review.gitlinks import gitlink_findings, read_links

from tests.conftest import MakeProject
from tests.native import ROOT
from tests.test_port import changed, edit, next_upstream, port, state
from tests.upstreams import LINES, UPSTREAM, Lab, git


def check(lab: Lab, *more: str) -> Any:
    return lab.run("check", "--json", *more)


def told(ran: Any, kind: str = "errors") -> list[tuple[str, str]]:
    return sorted((item["slug"], item["where"]) for item in ran.json[kind])


@pytest.fixture
def lab(make_project: MakeProject) -> Lab:
    made = make_project()
    edit(made, {"pkg/util.py": changed(LINES, 5, b"common")}, "common", None)
    edit(made, {"pkg/util.py": changed(changed(LINES, 5, b"common"), 30, b"chip"),
                "chip.py": b"chip\n", "README.md": None})  # fmt: skip
    return made


def test_all_is_well(lab: Lab) -> None:
    before = state(lab)
    ran = check(lab)
    assert (ran.code, told(ran), told(ran, "warnings")) == (0, [], [])
    assert (ran.json["layers"], ran.json["patches"], ran.json["overlay_files"]) == (2, 3, 1)
    assert state(lab) == before
    one = check(lab, "--backend", "demo", "--device", "acme")
    assert (one.code, one.json["stacks"]) == (0, 1)
    said = lab.run("check").out
    assert "checked 2 layers (3 patches, 1 added files" in said
    assert lab.run("check", "--device", "acme").code == 2


def test_works_offline_once_sources_are_cached(lab: Lab) -> None:
    shutil.rmtree(lab.upstream)
    assert check(lab, "--offline").code == 0
    assert check(lab).code == 0
    shutil.rmtree(lab.store.root)
    ran = check(lab)
    assert (ran.code, ran.json["errors"][0]["slug"]) == (4, "no-source")


def test_a_patch_edited_by_hand(lab: Lab) -> None:
    patch = lab.layer("chip") / "diff/pkg/util.py.patch"
    patch.write_bytes(patch.read_bytes().replace(b"+chip", b"+chap"))
    ran = check(lab)
    assert ran.code == 5
    assert told(ran) == [("edited", "patches/demo/chip/diff/pkg/util.py.patch"),
                         ("result-differs", "patches/demo/chip/layer.yaml")]  # fmt: skip
    assert "they differ in pkg/util.py" in str(ran.json["errors"])
    fixed = check(lab, "--fix")
    assert (fixed.code, fixed.json["fixed"]) == (0, ["patches/demo/chip"])
    assert b"+chap" in patch.read_bytes()
    shutil.rmtree(lab.place("acme"))
    lab.unpatch(device="acme")
    assert b"chap" in (lab.place("acme") / "pkg/util.py").read_bytes()


def test_an_overlay_file_edited_by_hand(lab: Lab) -> None:
    (lab.layer("chip") / "overlay/chip.py").write_bytes(b"other\n")
    ran = check(lab)
    assert told(ran) == [("result-differs", "patches/demo/chip/layer.yaml")]
    assert "chip.py" in ran.json["errors"][0]["what"]
    assert check(lab, "--fix").code == 0


def test_a_patch_in_another_form(lab: Lab) -> None:
    path = lab.layer("chip") / "diff/pkg/util.py.patch"
    canonical = path.read_bytes()
    lab.unpatch(device="acme")
    more = git("-C", str(lab.place("acme")), "diff", "-U6", "--full-index", "HEAD~1", "HEAD", "--",
               "pkg/util.py", cwd=lab.root)  # fmt: skip
    assert more != canonical
    path.write_bytes(more)
    ran = check(lab)
    assert told(ran) == [("form", "patches/demo/chip/diff/pkg/util.py.patch")]
    assert "--fix" in ran.json["errors"][0]["hint"]
    assert check(lab, "--fix").code == 0
    assert path.read_bytes() == canonical


def test_a_patch_for_another_base(lab: Lab) -> None:
    path = lab.layer("chip") / "diff/pkg/util.py.patch"
    data = path.read_bytes()
    at = data.index(b"index ") + 6
    path.write_bytes(data[:at] + b"1234567890" * 4 + data[at + 40 :])
    ran = check(lab)
    assert told(ran) == [("stale", "patches/demo/chip/diff/pkg/util.py.patch")]
    assert "port --backend demo" in ran.json["errors"][0]["hint"]


def test_changes_that_the_tree_below_has(lab: Lab) -> None:
    layer = lab.layer("chip")
    common = (lab.layer("common") / "diff/pkg/util.py.patch").read_bytes()
    (layer / "diff/pkg/util.py.patch").write_bytes(common)
    (layer / "overlay/notes.txt").write_bytes(b"one\ntwo\nthree")
    (layer / "overlay/setup.py").write_bytes(b"other\n")
    ran = check(lab)
    assert told(ran) == [("overlay-exists", "patches/demo/chip/overlay/setup.py"),
                         ("redundant", "patches/demo/chip/diff/pkg/util.py.patch"),
                         ("redundant", "patches/demo/chip/overlay/notes.txt")]  # fmt: skip


def test_a_file_that_is_not_below(lab: Lab) -> None:
    path = lab.layer("chip") / "diff/pkg/util.py.patch"
    other = lab.layer("chip") / "diff/pkg/gone.py.patch"
    other.write_bytes(path.read_bytes().replace(b"pkg/util.py", b"pkg/gone.py"))
    path.unlink()
    ran = check(lab)
    assert told(ran) == [("missing", "patches/demo/chip/diff/pkg/gone.py.patch")]


def test_lint_errors_of_several_layers_come_at_once(lab: Lab) -> None:
    (lab.layer("common") / "diff/bad.patch").write_bytes(b"<html>404</html>\n")
    (lab.layer("chip") / "diff/stray.txt").write_bytes(b"x\n")
    (lab.layer("chip") / "diff/README.md.patch").unlink()
    (lab.layer("chip") / "diff/README.md.patch").write_bytes(b"")
    ran = check(lab)
    slugs = [slug for slug, _ in told(ran)]
    assert {"html", "stray", "empty"} <= set(slugs)
    assert len({where.split("/")[2] for _, where in told(ran)}) == 2


def test_build_time_changes_are_for_review(make_project: MakeProject) -> None:
    lab = make_project()
    edit(lab, {"setup.py": b"import os\n"})
    ran = check(lab)
    assert (ran.code, told(ran, "warnings")[0][0]) == (0, "build-time")
    assert "warning[build-time]" in lab.run("check").out


def test_a_chain_that_does_not_fit(lab: Lab) -> None:
    path = lab.root / "manifests/adaptations/acme/demo.yaml"
    backend = lab.root / "manifests/backends/demo.yaml"
    backend.write_text(backend.read_text().replace("layers: [common]", "layers: []"))
    path.write_text(path.read_text().replace("layers: [chip]", "layers: [chip, common]"))
    assert told(check(lab)) == [("base-differs", "patches/demo/chip/layer.yaml"),
                                ("base-differs", "patches/demo/common/layer.yaml")]  # fmt: skip
    path.write_text(path.read_text().replace("common]", "none]"))
    assert [slug for slug, _ in told(check(lab))] == ["no-layer"]


def test_orphans_and_leftovers(lab: Lab) -> None:
    shutil.copytree(lab.layer("chip"), lab.layer("forgotten"))
    (lab.root / "patches/demo/.chip.new").mkdir()
    ran = check(lab)
    assert ran.code == 0
    assert told(ran, "warnings") == [("orphan", "patches/demo/forgotten"),
                                     ("unfinished", "patches/demo")]  # fmt: skip


def test_checks_after_a_port(lab: Lab) -> None:
    root = next_upstream(lab, {"pkg/util.py": b"top\n" + LINES})
    ran = port(lab, "--to", str(root), "--commit", "2" * 40, "--name", "2.0", device=None)
    assert ran.code == 0, ran
    assert (check(lab).code, told(check(lab))) == (0, [])


def test_nothing_that_check_does_depends_on_where_it_runs(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "index"))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.chdir(tmp_path)
    assert check(lab).code == 0


def superproject(make_project: MakeProject) -> tuple[Lab, str]:
    """A project that is a git repository with its upstream as a submodule."""
    lab = make_project(UPSTREAM, kind="git")
    commit = git("rev-parse", "HEAD", cwd=lab.upstream).decode().strip()
    git("init", "-q", "-b", "main", ".", cwd=lab.root)
    (lab.root / ".gitmodules").write_text(
        '[submodule "demo"]\n\tpath = third_party/demo\n'
        f"\turl = {lab.upstream.as_uri()}\n\tignore = all\n"
    )
    git("update-index", "--add", "--cacheinfo", f"160000,{commit},third_party/demo", cwd=lab.root)
    git("add", "manifests", ".gitmodules", cwd=lab.root)
    git("commit", "-q", "-m", "project", cwd=lab.root)
    return lab, commit


def test_gitlinks_agree_with_pins(make_project: MakeProject) -> None:
    lab, commit = superproject(make_project)
    links = read_links(lab.root)
    assert links is not None
    assert links.commits == {"third_party/demo": commit}
    ran = check(lab)
    assert (ran.code, told(ran), told(ran, "warnings")) == (0, [], [])

    other = "3" * 40
    git("update-index", "--cacheinfo", f"160000,{other},third_party/demo", cwd=lab.root)
    ran = check(lab)
    assert (ran.code, told(ran)) == (3, [("gitlink", "manifests/backends/demo.yaml:13")])
    assert other[:12] in ran.json["errors"][0]["what"]
    assert commit in ran.json["errors"][0]["hint"]
    assert check(lab, "--backend", "demo", "--device", "acme").code == 0

    # A newer index format, which GitPython does not read: HEAD counts then.
    git("update-index", "--index-version", "4", cwd=lab.root)
    assert read_links(lab.root) == links


def test_a_gitlink_of_no_backend(make_project: MakeProject) -> None:
    lab, _ = superproject(make_project)
    link = f"160000,{'4' * 40},third_party/demmo"
    git("update-index", "--add", "--cacheinfo", link, cwd=lab.root)
    ran = check(lab)
    assert told(ran) == [("unknown-backend", "third_party/demmo")]
    assert ran.json["errors"][0]["hint"] == 'did you mean "demo"?'
    doctor = lab.run("doctor")
    assert 'there is no backend "demmo"' in doctor.out


def test_the_projects_own_submodules_agree_with_its_pins() -> None:
    assert gitlink_findings(find_project(ROOT)) == ([], [])


def test_gitmodules_agree_with_pins(make_project: MakeProject) -> None:
    lab, commit = superproject(make_project)
    modules = lab.root / ".gitmodules"
    text = modules.read_text()
    modules.write_text(text.replace("\tignore = all\n", "").replace("upstream", "elsewhere"))
    ran = check(lab)
    assert [slug for slug, _ in told(ran)] == ["gitmodules"]
    assert [slug for slug, _ in told(ran, "warnings")] == ["gitmodules"]
    modules.unlink()
    assert "without a section" in check(lab).json["errors"][0]["what"]
    modules.write_text(text)
    git("update-index", "--force-remove", "third_party/demo", cwd=lab.root)
    assert "no gitlink" in check(lab).json["errors"][0]["what"]
    modules.write_text("[submodule\n")
    assert check(lab).json["errors"][0]["where"] == ".gitmodules"
    assert commit


def test_a_project_below_the_top_of_its_repository(make_project: MakeProject) -> None:
    lab = make_project()
    git("init", "-q", ".", cwd=lab.root.parent)
    assert read_links(lab.root) is not None
    commit = "4" * 40
    path = os.path.relpath(lab.root, lab.root.parent) + "/third_party/demo"
    git("update-index", "--add", "--cacheinfo", f"160000,{commit},{path}", cwd=lab.root.parent)
    links = read_links(lab.root)
    assert links is not None
    assert links.commits == {"third_party/demo": commit}
    ran = check(lab)
    assert {slug for slug, _ in told(ran)} == {"gitlink", "gitmodules"}
