"""``import-flagscale`` onto real upstream source: a vendor-sized set, on a new version."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from uniscale_build.project import find_project
from uniscale_build.store import Store

from tests.flagscale_lab import Scale, per_file, quirks, roles
from tests.upstreams import Lab, git

ROOT = Path(__file__).parents[1]
DEVICE, VERSION = "MUSA_S5000", "0.9.2"


def edit_like_a_vendor(tree: Path) -> None:
    """130 upstream files changed, 60 added, some renamed and deleted; always the same."""
    chance = random.Random(VERSION)
    files = sorted(path for path in (tree / "vllm").rglob("*.py") if path.stat().st_size > 400)
    for path in chance.sample(files, 130):
        lines = path.read_bytes().split(b"\n")
        for at in sorted(chance.sample(range(len(lines)), 3), reverse=True):
            lines.insert(at, b"# changed for the device, line %d" % at)
        path.write_bytes(b"\n".join(lines))
    for number in range(60):
        path = tree / "vllm_acme" / f"part{number % 7}" / f"op_{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(b"VALUE_%d = %d\n" % (n, n * number) for n in range(300)))
    configs = sorted((tree / "vllm").rglob("*block_shape=[[]*.json"))
    configs[0].write_bytes(configs[0].read_bytes() + b"\n")
    configs[1].rename(configs[1].with_name("renamed " + configs[1].name))
    configs[2].unlink()


@pytest.mark.sources
def test_a_real_release_that_is_not_pinned_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    for folder in ("manifests", "patches"):
        shutil.copytree(ROOT / folder, project / folder)
    monkeypatch.setenv("UNISCALE_PROJECT", str(project))
    monkeypatch.setenv("UNISCALE_CACHE", str(tmp_path / "cache"))
    lab = Lab(project, Store(tmp_path / "cache"), tmp_path)
    scale = Scale(lab, tmp_path / "FlagScale", tmp_path / "scratch")
    tree = tmp_path / "tree"
    tree.mkdir()

    from uniscale_build.sources.obtain import obtain_version

    vllm = find_project(project, {}).manifests.backends["vllm"]
    base = obtain_version(lab.db, vllm, VERSION).tree
    lab.db.run("-c", "core.bare=false", f"--work-tree={tree}", "read-tree", "--reset", "-u", base,
               env={"GIT_INDEX_FILE": str(tmp_path / "index")}, cwd=tree)  # fmt: skip
    git("init", "-q", ".", cwd=tree)
    git("add", "-A", "-f", ".", cwd=tree)
    git("commit", "-q", "-m", "base", cwd=tree)
    edit_like_a_vendor(tree)
    git("add", "-A", "-f", ".", cwd=tree)
    patch = git("diff", "--cached", "--binary", cwd=tree)
    for name, part in per_file(patch).items():
        scale.put(f"hardware/{DEVICE}/vllm/{name}.patch", part)
    scale.meta(f"hardware/{DEVICE}/vllm/diff.yaml", device_type=DEVICE, backends_commit=None,
               backends_version={"vllm": f"v{VERSION}"})  # fmt: skip

    made = scale.bring()
    assert roles(made) == [("vendor", "musa-s5000")]
    assert f"vllm {VERSION} is pinned now" in quirks(made)
    found = find_project(project, {})
    pin, pair = found.resolve("vllm", DEVICE)
    (layer,) = found.layers(pin, pair)
    assert (pin.version, pin.tree) == (VERSION, base)
    assert layer.result == lab.db.import_folder(tree)
    assert len(layer.overlay) >= 60 and len(layer.patches) >= 130
