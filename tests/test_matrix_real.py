"""The matrix of this project: real Python backends from their source distributions, to an index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .native import ROOT

pytestmark = pytest.mark.sources


def run(cache: Path, *args: str) -> subprocess.CompletedProcess[str]:
    env = {key: text for key, text in os.environ.items() if not key.startswith("UNISCALE_")}
    env |= {"PYTHONPATH": f"{ROOT / 'build_backend'}:{ROOT / 'launchers'}", "CI": "1",
            "UNISCALE_CACHE": str(cache), "UNISCALE_PROJECT": str(ROOT)}  # fmt: skip
    return subprocess.run([sys.executable, "-m", "uniscale_build", *args], env=env, check=False,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)  # fmt: skip


def test_python_backends_from_their_manifests_to_an_index(tmp_path: Path) -> None:
    cache, dist = tmp_path / "cache", tmp_path / "dist"
    only = "{Megatron-Energon,verl}-cpu-*-linux_" + os.uname().machine
    ran = run(cache, "matrix", "--run", "--only", only, "-o", str(dist), "--json")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    builds = json.loads(ran.stdout)["builds"]
    assert [build["state"] for build in builds] == ["done", "done"]
    for build in builds:
        (wheel,) = build["wheels"]
        assert wheel["name"].endswith("-py3-none-any.whl")
        with zipfile.ZipFile(dist / wheel["name"]) as archive:
            (record,) = [n for n in archive.namelist() if n.endswith("/payload.json")]
            assert json.loads(archive.read(record))["backend"] == build["backend"]
    ran = run(cache, "index", str(dist), "--out", str(tmp_path / "site"))
    assert ran.returncode == 0, ran.stderr
    catalog = json.loads((tmp_path / "site" / "catalog.json").read_text(encoding="utf-8"))
    found = {item["backend"] for wheel in catalog["wheels"] for item in wheel["payloads"]}
    assert found == {"Megatron-Energon", "verl"} and len(catalog["wheels"]) == 3
