"""The sources of our fused operators: ported for MUSA, compiled for CUDA; their place in a recipe.

Their numbers are checked where PyTorch is: tests/engines/test_ops.py.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from uniscale_build.errors import UniscaleError
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.model import Native

from .native import ROOT

SOURCES = ROOT / "patches" / "vllm" / "uniscale-ops" / "overlay" / "uniscale_ops"
# What MUSA's runtime has under its own names, in CUDA's words: a front end can read the port so.
MUSA_RUNTIME = """\
#include <cuda_runtime.h>
using musaError_t = cudaError_t;
using musaStream_t = cudaStream_t;
constexpr musaError_t musaSuccess = cudaSuccess;
inline musaError_t musaGetLastError() { return cudaGetLastError(); }
inline const char* musaGetErrorString(musaError_t error) { return cudaGetErrorString(error); }
"""


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


@pytest.mark.compile
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_the_cuda_kernels_compile_and_link_beside_the_processors(tmp_path: Path) -> None:
    configure = ["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(tmp_path),
                 "-DCMAKE_BUILD_TYPE=Release", "-DUNISCALE_BACKEND=vllm",
                 f"-DUNISCALE_SOURCE={SOURCES}", "-DUNISCALE_LANGUAGES=CXX;CUDA",
                 "-DCMAKE_CUDA_ARCHITECTURES=90"]  # fmt: skip
    for command in (configure, ["cmake", "--build", str(tmp_path), "--target", "uniscale_ops"]):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-1000:]
    (library,) = tmp_path.rglob("libuniscale_ops.so")
    # Every type in both kernels is in the machine code for the chip.
    kernels = subprocess.run(["nm", "-C", str(library)], capture_output=True, text=True, check=True)
    for kind in ("Float32", "Float16", "BFloat16"):
        assert re.search(rf"norm_kernel<uniscale_ops::baseline::{kind}, ", kernels.stdout)
        assert re.search(rf"silu_kernel<uniscale_ops::baseline::{kind}>", kernels.stdout)


@pytest.mark.compile
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc")
def test_a_front_end_reads_the_musa_port(tmp_path: Path) -> None:
    """Front end only: there is no mcc here; nvcc stands in, with MUSA's names for CUDA's."""
    ported = tmp_path / "device.mu"
    assert port(SOURCES / "device.cu", ported).returncode == 0
    (tmp_path / "musa_runtime.h").write_text(MUSA_RUNTIME)
    command = ["nvcc", "-std=c++17", "-x", "cu", "-arch=sm_90", "-DUNISCALE_OPS_GPU",
               f"-I{tmp_path}", f"-I{SOURCES}", "-c", str(ported),
               "-o", str(tmp_path / "x.o")]  # fmt: skip
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_vllm_for_processors_builds_them() -> None:
    manifests = load_manifests([ROOT / "manifests"])
    recipe = manifests.adaptations["vllm", "cpu"].recipe
    assert recipe.native == Native("uniscale_ops", ("uniscale_ops",), ("CXX",))
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
