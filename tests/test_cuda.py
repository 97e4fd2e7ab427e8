"""CUDA sources go through the whole pipeline: probed, compiled by nvcc, packed, recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from .fatbin import chips
from .native import ROOT, Native, make_native
from .test_pipeline import make_native_from

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin") is None,
    reason="nvcc is not installed",
)
CMAKELISTS = """\
cmake_minimum_required(VERSION 3.20)
project(mini VERSION 1.2.3 LANGUAGES C CUDA)
add_library(scale SHARED scale.cu)
add_executable(mini-server main.c)
target_link_libraries(mini-server PRIVATE scale)
"""
SCALE = """\
#include <cstdio>
__global__ void scale(float* values, float by, int count) {
  const int place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place < count) values[place] *= by;
}
extern "C" int scale_all(float* values, float by, int count) {
  scale<<<(count + 255) / 256, 256>>>(values, by, count);
  const cudaError_t error = cudaGetLastError();
  std::puts(cudaGetErrorName(error));
  return error != cudaSuccess;
}
"""
MAIN = "int scale_all(float*, float, int);\nint main(void) { return scale_all(0, 2.0f, 256); }\n"
ADAPTATION = """\
backend: mini
device: nvidia
pin: 1.2.3
tasks: [serve, infer]
contact: nobody@example.invalid
recipe:
  languages: [CUDA]
  defines:
    CMAKE_CUDA_ARCHITECTURES: "{chips}"
"""


def project(tmp_path: Path, wanted: str) -> Native:
    """A backend of one CUDA source, adapted to this repository's own ``nvidia``."""
    native = make_native(tmp_path)
    for name, text in (("CMakeLists.txt", CMAKELISTS), ("scale.cu", SCALE), ("main.c", MAIN)):
        (native.upstream / name).write_text(text)
    for name in ("greet.c", "unused.c"):
        (native.upstream / name).unlink()
    make_native_from(native)
    manifests = native.root / "manifests"
    shutil.copy(ROOT / "manifests" / "devices" / "nvidia.yaml", manifests / "devices")
    adaptation = manifests / "adaptations" / "nvidia" / "mini.yaml"
    adaptation.parent.mkdir()
    adaptation.write_text(ADAPTATION.format(chips=wanted))
    return native


@pytest.mark.compile
@needs_nvcc
def test_one_cuda_source_becomes_a_wheel_with_code_for_the_chips(tmp_path: Path) -> None:
    native = project(tmp_path, "80-virtual;90-real")
    ran = native.run("wheel", "-b", "mini", "-d", "nvidia", "--json")
    assert ran.returncode == 0, ran.stderr
    made = native.root / json.loads(ran.stdout)["wheel"]
    with zipfile.ZipFile(made) as bundle:
        bundle.extractall(tmp_path / "made")
    prefix = tmp_path / "made" / "uniscale_payloads" / "mini-nvidia"
    assert set(chips(prefix / "lib" / "libscale.so")) == {"compute_80", "sm_90"}
    told = json.loads((prefix / "payload.json").read_text())
    version = told["sdk"]["version"]
    assert told["sdk"]["label"] == "cu" + "".join(version.split(".")[:2])
    assert any("CUDA" in name for name in told["toolchain"])
    # The CUDA runtime is inside; without a GPU it says so, and nothing is missing at its start.
    program = prefix / "bin" / "mini-server"
    program.chmod(0o755)
    ran = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert ran.stdout.startswith("cuda"), ran.stderr


@pytest.mark.compile
@needs_nvcc
def test_a_chip_that_nvcc_does_not_know_is_a_sentence(tmp_path: Path) -> None:
    ran = project(tmp_path, "31").run("wheel", "-b", "mini", "-d", "nvidia")
    assert ran.returncode == 7 and "error[compile]" in ran.stderr, ran.stderr
    assert (
        "Unsupported gpu architecture 'compute_31'" in ran.stderr and "Traceback" not in ran.stderr
    )


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
    native = project(tmp_path, "90")
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
