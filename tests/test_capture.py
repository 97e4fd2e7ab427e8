"""``patch``: which layer gets what, what is refused, and that nothing else changes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from uniscale_build.layers.layer import read_layer

from tests.conftest import Grow, MakeProject
from tests.upstreams import LINES, UPSTREAM, Lab, git, make_lab, snapshot


def edit(lab: Lab, name: str, data: bytes, device: str | None = None) -> None:
    """Write one file in place."""
    path = lab.place(device) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def replace_line(lab: Lab, number: int, text: bytes, device: str | None = None) -> None:
    """Change one line of the long file in place."""
    path = lab.place(device) / "pkg/util.py"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[number - 1] = text + b"\n"
    path.write_bytes(b"".join(lines))


def _stacked(base: Path) -> Lab:
    lab = make_lab(base, UPSTREAM, devices=("acme", "bolt"))
    lab.unpatch()
    replace_line(lab, 3, b"common")
    edit(lab, "common.py", b"common = 1\n")
    lab.new_layer("common")
    lab.unpatch(device="acme")
    replace_line(lab, 20, b"acme", "acme")
    edit(lab, "acme.py", b"acme = 1\n", "acme")
    lab.new_layer("acme-kernels", device="acme")
    return lab


@pytest.fixture
def stacked(grow: Grow) -> Lab:
    """A common layer (line 3, common.py), a device's layer (line 20, acme.py) on top."""
    return grow("stacked", _stacked)


def names(folder: Path) -> list[str]:
    """The files of a layer."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_layout(stacked: Lab) -> None:
    assert names(stacked.layer("acme-kernels")) == [
        "diff/pkg/util.py.patch", "layer.yaml", "overlay/acme.py",
    ]  # fmt: skip
    layer = read_layer(stacked.layer("acme-kernels"), "demo")
    assert layer.base == stacked.result("common")
    assert (layer.title, layer.why, layer.owner) == ("The layer acme-kernels", "A test.", "Dev")
    patch = (stacked.layer("acme-kernels") / "diff/pkg/util.py.patch").read_text()
    assert patch.startswith("diff --git a/pkg/util.py b/pkg/util.py\nindex ")
    assert "+acme\n" in patch and "common" not in patch
    manifest = (stacked.root / "manifests/adaptations/acme/demo.yaml").read_text()
    assert manifest.startswith("# How demo runs there.\nbackend: demo\n")
    assert 'pin: "1.0"   # as everywhere\nlayers: [acme-kernels]\n' in manifest


def test_topmost_is_the_default(stacked: Lab) -> None:
    edit(stacked, "acme.py", b"acme = 2\n", "acme")
    common = snapshot(stacked.layer("common"))
    done = stacked.patch("--json", device="acme").json
    assert [item["layer"] for item in done["layers"]] == ["acme-kernels"]
    assert done["layers"][0]["changed"] == ["layer.yaml", "overlay/acme.py"]
    assert snapshot(stacked.layer("common")) == common


def test_untouched_patches_keep_bytes_and_time(stacked: Lab) -> None:
    patch = stacked.layer("acme-kernels") / "diff/pkg/util.py.patch"
    before = (patch.read_bytes(), patch.stat().st_mtime_ns, patch.stat().st_ino)
    edit(stacked, "acme.py", b"acme = 2\n", "acme")
    stacked.patch(device="acme")
    assert (patch.read_bytes(), patch.stat().st_mtime_ns, patch.stat().st_ino) == before


def test_a_lower_layer(stacked: Lab) -> None:
    """The change applies at the level of the layer; those above are moved onto it."""
    replace_line(stacked, 35, b"more common", "acme")
    edit(stacked, "common.py", b"common = 2\n", "acme")
    want = stacked.work_tree("acme")
    stacked.patch("--layer", "common", device="acme")
    assert (stacked.layer("common") / "overlay/common.py").read_bytes() == b"common = 2\n"
    common = (stacked.layer("common") / "diff/pkg/util.py.patch").read_bytes()
    assert b"+more common" in common and b"acme" not in common
    assert b"more common" not in (
        stacked.layer("acme-kernels") / "diff/pkg/util.py.patch"
    ).read_bytes().replace(b" more common", b"")
    assert stacked.result("acme-kernels") == want
    assert git("status", "--porcelain", cwd=stacked.place("acme")) == b""
    stacked.remove_place("acme")
    stacked.unpatch(device="acme")
    assert stacked.work_tree("acme") == want


def test_a_lower_layer_that_cannot_have_it(stacked: Lab) -> None:
    """What a layer above brought cannot be changed below it."""
    replace_line(stacked, 20, b"other", "acme")
    before = snapshot(stacked.root, skip=())
    ran = stacked.run("patch", "-b", "demo", "-d", "acme", "--layer", "common")
    assert ran.code == 11
    assert 'pkg/util.py is changed by layer "acme-kernels"' in ran.err
    assert snapshot(stacked.root, skip=()) == before


def test_other_devices_follow(stacked: Lab) -> None:
    """A common layer that changes takes every device's layers with it."""
    stacked.unpatch(device="bolt")
    replace_line(stacked, 30, b"bolt", "bolt")
    stacked.new_layer("bolt-kernels", device="bolt")
    stacked.unpatch()
    replace_line(stacked, 10, b"for all")
    done = stacked.patch("--json").json
    assert [item["layer"] for item in done["layers"]] == ["common", "acme-kernels", "bolt-kernels"]
    for device, own in (("acme", b"acme"), ("bolt", b"bolt")):
        stacked.unpatch(device=device)
        text = (stacked.place(device) / "pkg/util.py").read_bytes()
        assert b"for all" in text and own in text


def test_other_devices_that_cannot_follow(stacked: Lab) -> None:
    """A conflict on another device is told, and its layer stays for ``port``."""
    stacked.unpatch()
    replace_line(stacked, 20, b"for all")
    before = snapshot(stacked.layer("acme-kernels"))
    done = stacked.patch("--json").json
    assert [item["layer"] for item in done["layers"]] == ["common"]
    (warning,) = done["warnings"]
    assert (warning["slug"], warning["where"]) == ("left-behind", "patches/demo/acme-kernels")
    assert "on acme: " in warning["what"] and "--device acme" in warning["hint"]
    assert snapshot(stacked.layer("acme-kernels")) == before
    assert stacked.run("unpatch", "-b", "demo", "-d", "acme").code == 5


def test_a_new_common_layer_goes_below_the_devices(stacked: Lab) -> None:
    stacked.unpatch()
    edit(stacked, "second.py", b"2\n")
    done = stacked.new_layer("second")
    assert "patches/demo/acme-kernels: captured" in done.out
    stacked.unpatch(device="acme")
    assert {p.name for p in stacked.place("acme").glob("*.py")} >= {"second.py", "acme.py"}


def test_device_without_a_layer_of_its_own(stacked: Lab) -> None:
    stacked.unpatch(device="bolt")
    edit(stacked, "new.py", b"x\n", "bolt")
    ran = stacked.run("patch", "-b", "demo", "-d", "bolt")
    assert ran.code == 2
    assert "demo on bolt has no layer of its own" in ran.err
    assert "--new-layer" in ran.err and "--layer common" in ran.err


NEW = ("--new-layer", "n", "--title", "T", "--why", "W", "--owner", "O", "--contact", "C")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("--layer", "nope"), 2, '"nope" is not one of the layers'),
        (("--layer", "commn"), 2, 'did you mean "common"?'),
        (("--layer", "common", "--new-layer", "x"), 2, "exclude one another"),
        (("--title", "x"), 2, "describe a new layer"),
        (("--new-layer", "n"), 2, "a new layer needs --title, --why, --owner, --contact"),
        (("--new-layer", "common", *NEW[2:]), 2, 'there is a layer "common" already'),
        (("--new-layer", "../x", *NEW[2:]), 2, "cannot be the name of a layer"),
        (("--new-layer", ".x", *NEW[2:]), 2, "cannot be the name of a layer"),
        ((*NEW, "--upstream", "pendin"), 2, 'did you mean "pending"?'),
        ((*NEW[:3], "a\nb", *NEW[4:]), 2, "--title must be one line"),
        (("--include-ignored", "pkg/util.py"), 2, "names no ignored file"),
        (("--include-ignored", "../x"), 2, "names no ignored file"),
        (("--include-ignored", "/etc/passwd"), 2, "not in the in-place tree"),
        (("--device", "nope"), 2, 'there is no device "nope"'),
    ],
)
def test_bad_requests(stacked: Lab, argv: tuple[str, ...], code: int, said: str) -> None:
    edit(stacked, "new.py", b"x\n", "acme")
    before = snapshot(stacked.root, skip=())
    device = () if "--device" in argv else ("-d", "acme")
    ran = stacked.run("patch", "-b", "demo", *device, *argv)
    assert (ran.code, said in ran.err) == (code, True), ran
    assert snapshot(stacked.root, skip=()) == before


def test_owner_is_the_one_who_commits(stacked: Lab) -> None:
    Path(os.environ["HOME"], ".gitconfig").write_text("[user]\nname = Ada\nemail = a@example.org\n")
    edit(stacked, "new.py", b"x\n", "acme")
    why = "Because of: this\n\n  and that.\n"
    stacked.patch("--new-layer", "n", "--title", "0.10", "--why", why, device="acme")
    layer = read_layer(stacked.layer("n"), "demo")
    assert (layer.owner, layer.contact, layer.title) == ("Ada", "a@example.org", "0.10")
    assert layer.why == "Because of: this\n\n  and that."


def _nested(root: Path) -> None:
    git("init", "-q", str(root / "vendor"), cwd=root)
    (root / "vendor/x").write_text("x\n")


def _gitlink(root: Path) -> None:
    oid = git("rev-parse", "HEAD", cwd=root).decode().strip()
    git("update-index", "--add", "--cacheinfo", f"160000,{oid},sub", cwd=root)


def _conflict(root: Path) -> None:
    for branch, text in (("a", "x"), ("b", "y")):
        git("checkout", "-q", "-b", branch, "uniscale", cwd=root)
        (root / "README.md").write_text(text)
        git("commit", "-q", "-a", "-m", branch, cwd=root)
    with pytest.raises(AssertionError):
        git("merge", "-q", "a", cwd=root)


def _unmerged(root: Path) -> None:
    _conflict(root)
    (root / ".git/MERGE_HEAD").unlink()


def _fifo(root: Path) -> None:
    (root / "notes.txt").unlink()
    os.mkfifo(root / "notes.txt")


def _steps(root: Path) -> None:
    (root / "pkg/up").symlink_to("..")
    (root / "l").symlink_to("pkg/up/../x")


def _git_below(root: Path) -> None:
    (root / "sub/.git").mkdir(parents=True)
    (root / "sub/.git/x").write_text("x")


CANNOT: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "nested-repository": (_nested, 5, "vendor/ is a git repository of its own"),
    "gitlink": (_gitlink, 5, "sub is a git repository of its own (a gitlink)"),
    "merge-not-finished": (_conflict, 10, "a git merge is not finished"),
    "unmerged": (_unmerged, 5, "README.md has a conflict that is not resolved"),
    "fifo": (_fifo, 5, "neither"),
    "gitmodules": (lambda r: (r / ".gitmodules").write_text("x\n"), 5, "redirects submodules"),
    "control-character": (lambda r: (r / "a\nb").write_text("x"), 5, "control character"),
    "escape-in-name": (lambda r: (r / "a\x1b[2Jb").write_text("x"), 5, "control character"),
    "link-out": (lambda r: (r / "l").symlink_to("../.."), 5, "points out of the tree"),
    "link-absolute": (lambda r: (r / "l").symlink_to("/etc/passwd"), 5, "absolute path"),
    "link-by-steps": (_steps, 5, "leads out of the tree"),
    "marker": (lambda r: (r / "x.py").write_text("# uniscale: begin n\n"), 5, "without its end"),
    "git-below": (_git_below, 5, "sub/.git"),
    "git-in-disguise": (lambda r: (r / "git~1").write_text("x"), 5, "git~1"),
}


@pytest.mark.parametrize("kind", CANNOT)
def test_what_a_layer_cannot_keep(kind: str, make_project: MakeProject) -> None:
    lab = make_project(unpatched=True)
    make, code, said = CANNOT[kind]
    make(lab.place())
    before = snapshot(lab.root, skip=("objects",))
    ran = lab.run("patch", "-b", "demo", *NEW)
    assert (ran.code, said in ran.err) == (code, True), ran
    assert snapshot(lab.root, skip=("objects",)) == before


def test_ignored_files_are_named_and_can_be_forced(make_project: MakeProject) -> None:
    lab = make_project({**UPSTREAM, ".gitignore": b"*.o\n/out/\n"})
    lab.unpatch()
    for name in ("a.o", "out/x/y.txt", "out/z", "pkg/b.o"):
        edit(lab, name, b"ignored\n")
    edit(lab, "new.py", b"x\n")
    done = lab.new_layer("first")
    assert "ignored by .gitignore: 3 (a.o, out/, pkg/b.o)" in done.out
    assert "--include-ignored PATH" in done.out
    assert names(lab.layer("first")) == ["layer.yaml", "overlay/new.py"]
    lab.patch("--include-ignored", "out", "--include-ignored", str(lab.place() / "a.o"))
    assert names(lab.layer("first"))[1:] == [
        "overlay/a.o", "overlay/new.py", "overlay/out/x/y.txt", "overlay/out/z",
    ]  # fmt: skip
    # Once in the layer they are tracked, and an edit is captured like any other.
    edit(lab, "a.o", b"again\n")
    assert lab.patch("--json").json["layers"][0]["changed"] == ["layer.yaml", "overlay/a.o"]


def test_what_the_users_git_ignores_is_ignored(make_project: MakeProject) -> None:
    lab = make_project(unpatched=True)
    Path(os.environ["HOME"], ".config/git").mkdir(parents=True)
    Path(os.environ["HOME"], ".config/git/ignore").write_text(".idea/\n")
    edit(lab, ".idea/workspace.xml", b"x\n")
    edit(lab, "new.py", b"x\n")
    assert "(.idea/)" in lab.new_layer("first").out


def test_dry_run(stacked: Lab) -> None:
    edit(stacked, "acme.py", b"acme = 2\n", "acme")
    before = snapshot(stacked.root, skip=())
    done = stacked.patch("--dry-run", device="acme")
    assert "would be captured" in done.out and "~ overlay/acme.py" in done.out
    assert snapshot(stacked.root, skip=()) == before


def test_build_time_code_is_marked_for_review(stacked: Lab) -> None:
    edit(stacked, "setup.py", b"import subprocess\n", "acme")
    edit(stacked, "install.sh", b"echo\n", "acme")
    done = stacked.patch("--json", device="acme").json
    slugs = {item["where"]: item["slug"] for item in done["warnings"]}
    assert slugs == {
        "patches/demo/acme-kernels/diff/setup.py.patch:1": "build-time",
        "patches/demo/acme-kernels/overlay/install.sh": "build-time",
    }


def test_without_unpatch(make_project: MakeProject) -> None:
    lab = make_project()
    ran = lab.run("patch", "-b", "demo", *NEW)
    assert ran.code == 9 and "uniscale-build unpatch --backend demo" in ran.err


def test_a_layer_can_become_empty(stacked: Lab) -> None:
    """Undoing everything leaves a layer without files; it still applies."""
    replace_line(stacked, 20, b"line 20 of this file", "acme")
    (stacked.place("acme") / "acme.py").unlink()
    stacked.patch(device="acme")
    assert names(stacked.layer("acme-kernels")) == ["layer.yaml"]
    assert stacked.result("acme-kernels") == stacked.result("common")
    stacked.unpatch("--check", device="acme")


def test_readme_of_a_layer_stays(stacked: Lab) -> None:
    (stacked.layer("acme-kernels") / "README.md").write_text("About.\n")
    edit(stacked, "acme.py", b"acme = 2\n", "acme")
    stacked.patch(device="acme")
    assert (stacked.layer("acme-kernels") / "README.md").read_text() == "About.\n"


def test_comments_in_layer_yaml_stay(stacked: Lab) -> None:
    yaml = stacked.layer("acme-kernels") / "layer.yaml"
    text = "# Mine.\n" + yaml.read_text().replace("upstream: pending", "upstream: pending  # soon")
    yaml.write_text(text)
    old = stacked.result("acme-kernels")
    edit(stacked, "acme.py", b"acme = 2\n", "acme")
    stacked.patch(device="acme")
    assert yaml.read_text() == text.replace(old, stacked.result("acme-kernels"))


def test_manifest_that_cannot_be_edited_safely(make_project: MakeProject) -> None:
    """The layer is written, and a sentence says what to add where."""
    lab = make_project(unpatched=True)
    edit(lab, "a.py", b"x\n")
    lab.new_layer("a")
    edit(lab, "n.py", b"x\n")
    manifest = lab.root / "manifests/backends/demo.yaml"
    odd = manifest.read_text().replace("layers: [a] ", "layers:\n      - >-\n        a\n     ")
    manifest.write_text(odd)
    done = lab.patch(*NEW)
    assert "manifests/backends/demo.yaml: at pins.0.layers: add n to that list" in done.out
    assert manifest.read_text() == odd
    manifest.write_text(odd.replace("        a\n", "        a\n      - n\n"))
    assert lab.patch("--json").json["layers"] == []
    assert git("status", "--porcelain", cwd=lab.place()) == b""
    assert lab.unpatch("--json").json["action"] == "unchanged"


def test_list_of_layers_made_in_the_manifest(make_project: MakeProject) -> None:
    """Without a list, with an empty one, in blocks or in brackets."""
    lab = make_project(unpatched=True)
    manifest = lab.root / "manifests/backends/demo.yaml"
    forms = (
        ("    layers: []  # common to all devices\n", "", "\n    layers: [n0]\n"),
        ("    layers: [n0]\n", "    layers:  # ours\n      - n0  # a\n", "  # a\n      - n1\n"),
        ("      - n0  # a\n      - n1\n", "      [n0,\n       n1]\n", "n1, n2]\n"),
    )
    for number, (old, new, want) in enumerate(forms):
        text = manifest.read_text()
        assert old in text
        manifest.write_text(text.replace(old, new))
        edit(lab, f"{number}.py", b"x\n")
        lab.patch("--new-layer", f"n{number}", *NEW[2:])
        assert want in manifest.read_text()
        assert [layer.name for layer in lab.project.layers(*lab.project.resolve("demo", None))] == [
            f"n{at}" for at in range(number + 1)
        ]


def test_large_change_to_one_file(make_project: MakeProject) -> None:
    """Patches hold what changed, not the file."""
    lab = make_project({**UPSTREAM, "big.py": LINES * 500})
    lab.unpatch()
    edit(lab, "big.py", (LINES * 500).replace(b"line 7 ", b"LINE 7 ", 3))
    lab.new_layer("first")
    assert (lab.layer("first") / "diff/big.py.patch").stat().st_size < 4000
