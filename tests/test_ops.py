"""The sources of our fused operators: ported for MUSA, compiled for CUDA; their place in a recipe.

Their numbers are checked where PyTorch is: tests/engines/test_ops.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from uniscale_build.errors import UniscaleError
from uniscale_build.git.db import GitDb
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.model import Native as NativePart
from uniscale_build.store import Store

from .fatbin import chips
from .musa_stand_in import cuda_home, lay_out
from .native import ROOT, Native, make_native

SOURCES = ROOT / "patches" / "vllm" / "uniscale-ops" / "overlay" / "uniscale_ops"


def port(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = ["cmake", f"-DFROM={source}", f"-DTO={target}", "-P", str(SOURCES / "port.cmake")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_musa_port_differs_from_the_cuda_source_in_names_alone(tmp_path: Path) -> None:
    ported = tmp_path / "device.mu"
    assert port(SOURCES / "device.cu", ported).returncode == 0
    text, original = ported.read_text(), (SOURCES / "device.cu").read_text()
    code = re.sub(r"//.*", "", text)
    assert "cuda" not in code.lower()
    assert "#include <musa_runtime.h>" in text and "musaStream_t" in text
    # Back again it is the same text, to the last semicolon and bracket.
    assert re.sub(r"\bmusa(?=[A-Z_])", "cuda", text) == original


def test_a_name_without_counterpart_is_refused_and_named(tmp_path: Path) -> None:
    source, ported = tmp_path / "x.cu", tmp_path / "x.mu"
    source.write_text("void f() { cudaGraphLaunch(a, b); cudaGetLastError(); }\n")
    ran = port(source, ported)
    assert ran.returncode != 0 and "cudaGraphLaunch" in ran.stderr
    assert not ported.exists()


OPERATORS = """\
backend: mini
title: Our operators alone
label: mini
distribution: uniscale-mini
homepage: https://example.invalid/mini
license: MIT
purl: pkg:generic/mini
tasks: [serve]
pins:
  - version: 1.2.3
    tree: {tree}
    note: it lies in a layer of this repository
    origins:
      - folder: {upstream}
recipe:
  kind: cmake
  targets: [uniscale_ops]
  languages: [CXX]
launch:
  serve:
    argv: [bin/mini-server]
    model: --model
    formats: [hf]
"""
FOR_NVIDIA = """\
backend: mini
device: nvidia
pin: 1.2.3
tasks: [serve]
contact: nobody@example.invalid
recipe:
  languages: [CUDA]
  defines: {CMAKE_CUDA_ARCHITECTURES: 90-real}
  allowed_external: [libtorch_cpu.so]
"""


def operators_for_nvidia(tmp_path: Path) -> Native:
    """A project whose backend is the operators' own CMake project, adapted to ``nvidia``."""
    native = make_native(tmp_path)
    shutil.rmtree(native.upstream)
    shutil.copytree(SOURCES, native.upstream)
    tree = GitDb(Store(native.cache)).open().import_folder(native.upstream)
    manifests = native.root / "manifests"
    text = OPERATORS.format(tree=tree, upstream=native.upstream)
    (manifests / "backends" / "mini.yaml").write_text(text)
    shutil.rmtree(manifests / "adaptations")
    shutil.rmtree(native.root / "patches" / "mini")
    (manifests / "adaptations" / "nvidia").mkdir(parents=True)
    (manifests / "adaptations" / "nvidia" / "mini.yaml").write_text(FOR_NVIDIA)
    shutil.copy(ROOT / "manifests" / "devices" / "nvidia.yaml", manifests / "devices")
    return native


@pytest.mark.compile
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_cuda_kernels_go_through_the_pipeline_beside_the_processors(tmp_path: Path) -> None:
    native = operators_for_nvidia(tmp_path)
    ran = native.run("wheel", "-b", "mini", "-d", "nvidia", "-C", "strip=false", "--json")
    assert ran.returncode == 0, ran.stderr
    with zipfile.ZipFile(native.root / json.loads(ran.stdout)["wheel"]) as bundle:
        bundle.extractall(tmp_path / "made")
    (library,) = tmp_path.glob("made/uniscale_payloads/mini-nvidia/lib/*.so")
    assert set(chips(library)) == {"sm_90"}
    told = json.loads((library.parents[1] / "payload.json").read_text())
    version = told["sdk"]["version"]
    assert told["sdk"]["label"] == "cu" + "".join(version.split(".")[:2])
    assert version in told["toolchain"]["sdk"]
    # Every type in both kernels is in the machine code for the chip.
    kernels = subprocess.run(["nm", "-C", str(library)], capture_output=True, text=True, check=True)
    for kind in ("Float32", "Float16", "BFloat16"):
        assert re.search(rf"norm_kernel<uniscale_ops::baseline::{kind}, ", kernels.stdout)
        assert re.search(rf"silu_kernel<uniscale_ops::baseline::{kind}>", kernels.stdout)


@pytest.mark.compile
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_cmake_compiles_the_musa_port_with_a_stand_in_for_its_sdk(tmp_path: Path) -> None:
    """CMake's own way for MUSA: ported and compiled; a front end only, as in tests/test_musa.py."""
    sdk = lay_out(tmp_path / "musa", cuda=cuda_home())
    ported = "upstream/CMakeFiles/uniscale_ops.dir/device.mu.o"
    configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(tmp_path / "build"),
                 "-DUNISCALE_BACKEND=vllm", f"-DUNISCALE_SOURCE={SOURCES}",
                 "-DUNISCALE_LANGUAGES=CXX", "-DUNISCALE_OPS_MUSA=22;31",
                 f"-DCMAKE_CXX_COMPILER={sdk / 'bin' / 'clang++'}"]  # fmt: skip
    for command in (configure, ["ninja", "-C", str(tmp_path / "build"), ported]):
        ran = subprocess.run(command, capture_output=True, text=True, check=False,
                             env={**os.environ, "MUSA_PATH": str(sdk)})  # fmt: skip
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    assert chips(tmp_path / "build" / ported)


def test_vllm_for_processors_builds_them() -> None:
    manifests = load_manifests([ROOT / "manifests"])
    recipe = manifests.adaptations["vllm", "cpu"].recipe
    assert recipe.native == NativePart("uniscale_ops", ("uniscale_ops",), ("CXX",))
    assert recipe.compiled == ("CXX",)


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        ("source: ../x\n    targets: [x]", "path-escape"),
        ("source: /x\n    targets: [x]", "path-escape"),
        ("source: x", "missing-key"),
        ("targets: [x]", "missing-key"),
        ("source: x\n    targets: [x]\n    target: y", "unknown-key"),
    ],
)
def test_a_bad_native_part_is_refused(tmp_path: Path, words: str, slug: str) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    shutil.copytree(ROOT / "patches", tmp_path / "patches")
    path = tmp_path / "manifests" / "adaptations" / "cpu" / "vllm.yaml"
    text = path.read_text()
    old = "source: uniscale_ops\n    targets: [uniscale_ops]"
    assert old in text
    path.write_text(text.replace(old, words))
    with pytest.raises(UniscaleError) as told:
        load_manifests([tmp_path / "manifests"])
    assert slug in {error.slug for error in told.value.findings()}
