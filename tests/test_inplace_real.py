"""The layers of this repository on the real upstreams, as an engineer works with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from uniscale_build.store import Store, cache_dir

from tests.upstreams import Lab, git, snapshot

pytestmark = pytest.mark.sources
ROOT = Path(__file__).parents[1]


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """This project's manifests and layers elsewhere, with the user's own cache of sources."""
    cache = cache_dir()
    for name in ("manifests", "patches"):
        shutil.copytree(ROOT / name, tmp_path / "project" / name)
    monkeypatch.setenv("UNISCALE_CACHE", str(cache))
    monkeypatch.setenv("UNISCALE_PROJECT", str(tmp_path / "project"))
    return Lab(tmp_path / "project", Store(cache), tmp_path / "none")


@pytest.mark.parametrize("backend", ["vllm", "llama.cpp"])
def test_edit_and_capture(real: Lab, backend: str) -> None:
    real.ok("unpatch", "-b", backend)
    place = real.root / "third_party" / backend
    patches = snapshot(real.root / "patches")
    assert real.ok("unpatch", "-b", backend, "--json").json["action"] == "unchanged"
    assert real.ok("patch", "-b", backend, "--json").json["layers"] == []
    assert snapshot(real.root / "patches") == patches
    readme = place / "README.md"
    readme.write_bytes(b"# Ours\n" + readme.read_bytes())
    (place / "ours.txt").write_text("ours\n")
    words = ("--title", "T", "--why", "W", "--owner", "O", "--contact", "C")
    real.ok("patch", "-b", backend, "--new-layer", "ours", *words)
    assert git("status", "--porcelain", cwd=place) == b""
    want = snapshot(place)
    shutil.rmtree(place)
    real.ok("unpatch", "-b", backend)
    assert snapshot(place) == want
    layer = real.root / "patches" / backend / "ours"
    assert sorted(p.name for p in layer.rglob("*") if p.is_file()) == [
        "README.md.patch", "layer.yaml", "ours.txt",
    ]  # fmt: skip
