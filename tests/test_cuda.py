"""A build for CUDA where the SDK is not what it should be; tests/test_ops.py has one that works."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from uniscale_build.build import elf

from .musa_stand_in import cuda_home
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


CALLS_THE_DRIVER = {
    "CMakeLists.txt": """\
cmake_minimum_required(VERSION 3.26)
project(chip LANGUAGES CXX)
find_package(CUDAToolkit REQUIRED)
add_library(chip SHARED chip.cpp)
target_link_libraries(chip PRIVATE CUDA::cuda_driver)
add_executable(ask main.cpp)
target_link_libraries(ask PRIVATE chip)
""",
    "chip.cpp": 'extern "C" int cuInit(unsigned);\nint chip() { return cuInit(0); }\n',
    "main.cpp": "int chip();\nint main() { return chip(); }\n",
}


@pytest.mark.compile
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_drivers_library_is_linked_where_the_toolkit_has_no_stub_of_it(tmp_path: Path) -> None:
    source, build = tmp_path / "chip", tmp_path / "build"
    source.mkdir()
    for name, text in CALLS_THE_DRIVER.items():
        (source / name).write_text(text)
    commands = [
        ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build), "-DUNISCALE_BACKEND=chip",
         f"-DUNISCALE_SOURCE={source}", "-DUNISCALE_LANGUAGES=CXX;CUDA",
         "-DUNISCALE_PROGRAMS=ask", "-DCMAKE_CUDA_ARCHITECTURES=90"],
        ["cmake", "--build", str(build), "--target", "ask"],
        ["cmake", "--install", str(build), "--component", "payload",
         "--prefix", str(tmp_path / "installed")],
    ]  # fmt: skip
    env = {**os.environ, "CUDACXX": str(cuda_home() / "bin" / "nvcc")}
    for command in commands:
        ran = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    library = tmp_path / "installed" / "lib" / "libchip.so"
    found = elf.read(library)
    assert found is not None and "libcuda.so.1" in found.needed
    # The machine that runs it brings the library; an empty one would hide the driver's.
    assert not [path for path in (tmp_path / "installed").rglob("*") if "libcuda" in path.name]
