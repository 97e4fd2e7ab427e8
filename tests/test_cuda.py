"""A build for CUDA where the SDK is not what it should be; tests/test_ops.py has one that works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .native import ROOT, Native, make_native

ADAPTATION = """\
backend: mini
device: nvidia
pin: 1.2.3
tasks: [serve, infer]
contact: nobody@example.invalid
recipe:
  languages: [CUDA]
"""


def project(tmp_path: Path) -> Native:
    """A small backend, adapted to this repository's own ``nvidia``."""
    native = make_native(tmp_path)
    manifests = native.root / "manifests"
    shutil.copy(ROOT / "manifests" / "devices" / "nvidia.yaml", manifests / "devices")
    adaptation = manifests / "adaptations" / "nvidia" / "mini.yaml"
    adaptation.parent.mkdir()
    adaptation.write_text(ADAPTATION)
    return native


# What is wrong with the SDK → what the command says of it.
TROUBLES = {
    "empty": ("", "error[empty-sdk]"),
    "no compiler": ("lib/", "error[partial-sdk]"),
    "silent": ("exit 1", "error[bad-compiler]"),
    "broken": ("case $1 in --version) echo V13.0.88;; *) echo 'x: error: no cicc'; exit 1;; esac",
               "cannot compile an empty function: x: error: no cicc"),
    "host": ("case $1 in --version) echo V13.0.88;; *) echo 'error: -- unsupported GNU version! gcc"
             " versions later than 15 are not supported!'; exit 1;; esac", "error[host-compiler]"),
}  # fmt: skip


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_with_the_sdk_ends_a_build_before_it_begins(tmp_path: Path, trouble: str) -> None:
    native = project(tmp_path)
    script, said = TROUBLES[trouble]
    home = tmp_path / "cuda"
    home.mkdir()
    if script.endswith("/"):
        (home / script).mkdir()
    elif script:
        nvcc = home / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text(f"#!/bin/sh\n{script}\n")
        nvcc.chmod(0o755)
    env = {**native.env, "CUDA_HOME": str(home)}
    ran = native.run("wheel", "-b", "mini", "-d", "nvidia", env=env)
    assert ran.returncode == 6, ran.stderr
    assert said in ran.stderr and "hint: " in ran.stderr and "Traceback" not in ran.stderr
    assert "manifests/devices/nvidia.yaml:" in ran.stderr
    assert not list(native.cache.glob("work/*")), "something was built"
