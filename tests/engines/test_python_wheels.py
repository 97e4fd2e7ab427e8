"""Wheels of the backends that are pure Python, each asked what its manifest calls its test."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from .conftest import Install, build_wheel

pytestmark = [pytest.mark.engine, pytest.mark.sources]

BACKENDS = ("DeepSpeed", "LeRobot", "Megatron-Energon", "verl")
# Of what they require, what importing them asks for; torch is there.
PACKAGES = (
    "braceexpand", "click", "einops", "filetype", "hjson", "mfusepy", "msgpack",
    "multi-storage-client", "ninja", "numpy", "packaging", "pillow", "psutil", "py-cpuinfo",
    "pydantic", "rapidyaml", "s3fs", "tqdm", "webdataset",
    # verl's: half a minute of packages more.
    "hydra-core", "ray>=2.41.0", "tensordict!=0.9.0,<=0.10.0,>=0.8.0",
    "transformers!=5.6.0,<5.11,>=5.5.3",
)  # fmt: skip


def test_python_backends_start(install: Install, tmp_path: Path) -> None:
    engine = install("Megatron-LM")  # its environment has torch
    engine.ok("pip", "install", "-q", *PACKAGES)
    for backend in BACKENDS:
        wheel = build_wheel(backend, tmp_path / backend)
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith("uniscale_payloads/")]
            archive.extractall(tmp_path / "all", names)
    folder = str(tmp_path / "all" / "uniscale_payloads")
    told = json.loads(
        engine.ok("uniscale", "test", *BACKENDS, "--quick", "--json", UNISCALE_PAYLOADS=folder)
    )
    states = {one["payload"].split()[0]: one["state"] for one in told["trials"]}
    assert states == dict.fromkeys(BACKENDS, "passed"), told
