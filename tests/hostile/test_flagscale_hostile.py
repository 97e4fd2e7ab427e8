"""``import-flagscale``: patches that must be refused, and a checkout that is only read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeProject
from tests.flagscale_lab import BASE, DEVICE, Scale, make_scale
from tests.upstreams import git, snapshot

SMALL = {**BASE, "notes.txt": b"one\ntwo\n3"}


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


def _new(path: str, mode: str = "100644", line: str = "evil") -> bytes:
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\nindex 0000000..1111111\n"
        f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+{line}\n"
    ).encode()


HOSTILE = {
    "a web page": b"<!DOCTYPE html>\n<html>404</html>\n",
    "nothing": b"",
    "garbage": b"\0\1\2 no patch\n",
    "up": _new("../evil"),
    "up inside": _new("sub/../../evil"),
    "absolute": _new("/tmp/evil"),
    "a hook": _new(".git/hooks/post-checkout", "100755"),
    "a hook in capitals": _new("sub/.GIT/hooks/post-checkout", "100755"),
    "submodules": _new(".gitmodules"),
    "a gitlink": _new("sub", "160000"),
    "a link out": _new("passwd", "120000", "/etc/passwd") + b"\\ No newline at end of file\n",
    "a device": _new("null", "020666"),
    "cut off": _new("notes2.txt").replace(b"+1 @@", b"+1,9 @@"),
    "no prefix": _new("x").replace(b"a/x b/x", b"x x").replace(b"+++ b/x", b"+++ x"),
    "two names": _new("x").replace(b"a/x b/x", b"a/x b/y"),
    "no index": _new("x").replace(b"index 0000000..1111111\n", b""),
    "binary without data": b"diff --git a/data/logo.bin b/data/logo.bin\nindex 1111111..2222222 "
    b"100644\nBinary files a/data/logo.bin and b/data/logo.bin differ\n",
    "a control character": _new('x\\ny').replace(b"a/x\\ny b/x\\ny", b'"a/x\\ny" "b/x\\ny"')
    .replace(b"+++ b/x\\ny", b'+++ "b/x\\ny"'),
}  # fmt: skip


@pytest.mark.parametrize("layout", ["files", "backend"])
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_patches_write_nothing(scale: Scale, what: str, layout: str) -> None:
    name = "diff" if layout == "backend" else "x"
    scale.put(f"hardware/{DEVICE}/demo/{name}.patch", HOSTILE[what])
    scale.meta(f"hardware/{DEVICE}/demo/diff.yaml")
    code, err = scale.refused()
    assert code == 5, err
    assert not Path("/tmp/evil").exists()


def test_every_patch_that_does_not_fit_is_told(scale: Scale) -> None:
    other = {**BASE, "pkg/core.py": b"1\n", "pkg/util.py": b"1\n"}
    changed = {**other, "pkg/core.py": b"2\n", "pkg/util.py": b"2\n", "ok.txt": b"ok\n"}
    scale.store(scale.diff(other, changed))
    code, err = scale.refused()
    assert code == 5
    assert "core.py.patch" in err and "util.py.patch" in err and "ok.txt.patch" not in err


def test_the_checkout_is_only_read(scale: Scale) -> None:
    scale.store(scale.diff(BASE, SMALL))
    scale.commit("all")
    git("config", "core.fsmonitor", "touch /tmp/evil; true", cwd=scale.root)
    before = snapshot(scale.root, skip=())
    scale.bring()
    assert snapshot(scale.root, skip=()) == before
    assert not Path("/tmp/evil").exists()
