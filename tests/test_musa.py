"""llama.cpp for MUSA without its SDK: configured, and read by a front end.

No mcc is here. A stand-in for the SDK's folders (`tests.musa_stand_in`) hands the sources to nvcc
under MUSA's names: what is checked is CMake's logic, the flags, the list of files and the sources'
use of the interface. It is no MUSA build.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from uniscale_build.build.pipeline import Context, prepare_source
from uniscale_build.build.toolchain import probe
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.sdk import find_sdk
from uniscale_build.plans.plan import BackendPlan, make_plan
from uniscale_build.project import find_project
from uniscale_build.records.record import partly
from uniscale_build.settings import Settings
from uniscale_build.store import Store

from .musa_stand_in import ARCHITECTURES, VERSION, cuda_home, lay_out, musa
from .native import ROOT

needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin") is None,
    reason="nvcc is not installed",
)
DEVICE = load_manifests([ROOT / "manifests"]).devices["MUSA_S5000"]


@pytest.mark.parametrize(
    ("cuda", "its"),
    [
        ("cudaMalloc", "musaMalloc"),
        ("cudaStream_t", "musaStream_t"),
        ("CUDA_R_16F", "MUSA_R_16F"),
        ("cuMemCreate", "muMemCreate"),
        ("CUresult", "MUresult"),
        ("CU_MEM_LOCATION_TYPE_DEVICE", "MU_MEM_LOCATION_TYPE_DEVICE"),
        ("cublasGemmEx", "mublasGemmEx"),
        ("CUBLAS_OP_N", "MUBLAS_OP_N"),
        ("make_cudaExtent", "make_musaExtent"),
        ("current", "current"),
    ],
)
def test_the_rule_for_names(cuda: str, its: str) -> None:
    assert musa(cuda) == its


@pytest.fixture(scope="module")
def sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return lay_out(tmp_path_factory.mktemp("musa"), cuda=cuda_home())


def environment(sdk: Path) -> dict[str, str]:
    """A process environment in which only ``MUSA_HOME`` tells where the SDK is."""
    env = {name: text for name, text in os.environ.items() if not name.startswith("MUSA_")}
    return env | {"MUSA_HOME": str(sdk)}


@needs_nvcc
def test_the_stand_in_is_found_as_the_sdk_is_and_never_taken_for_one(sdk: Path) -> None:
    found = find_sdk(DEVICE, environment(sdk))
    # llama.cpp looks for the second variable; the manifest knows that both are one folder.
    assert found.environment["MUSA_PATH"] == found.environment["MUSA_HOME"] == str(sdk)
    assert (found.version, found.label) == (VERSION, "musa00")


@needs_nvcc
def test_its_compiler_refuses_what_the_sdk_is_not_known_to_take(sdk: Path, tmp_path: Path) -> None:
    (tmp_path / "x.cu").write_text("int f() { return 0; }\n")
    for words, told in ((["--cuda-gpu-arch=mp_99"], "mp_99"), ([], "nothing"),
                        (["--cuda-gpu-arch=mp_31", "--offload"], "--offload")):  # fmt: skip
        command = [str(sdk / "bin" / "clang++"), "-x", "musa", *words, "-c", "x.cu"]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode != 0 and told.removeprefix("mp_") in ran.stderr


def prepared(tmp_path: Path) -> tuple[BackendPlan, Path]:
    """The plan of llama.cpp for MUSA and its patched source."""
    project = find_project(ROOT)
    plan = make_plan(project, Settings(backends=("llama.cpp",), device="MUSA_S5000"))
    (item,) = plan.backends
    source = tmp_path / "src"
    prepare_source(Context(project, Store()), plan, item, source)
    return item, source


def test_its_wheel_says_that_it_is_no_musa_build() -> None:
    found = load_manifests([ROOT / "manifests"]).adaptations["llama.cpp", "MUSA_S5000"]
    (told,) = partly(found.verified)
    assert "front end only, stand-in SDK, not a MUSA build" in told
    assert not {"built", "ran"} & set(found.verified)


# One of arithmetic, one of shared memory and warps, one that MUSA takes another way than CUDA.
UNITS = ("clamp", "norm", "allreduce")


@pytest.mark.compile
@pytest.mark.sources
@needs_nvcc
def test_llama_cpp_is_configured_for_musa_and_a_front_end_reads_its_units(
    sdk: Path, tmp_path: Path
) -> None:
    item, source = prepared(tmp_path)
    assert item.recipe.defines["GGML_MUSA"] == "ON"
    toolchain = probe(item.recipe.compiled, environment(sdk), device=DEVICE)
    env = {**environment(sdk), **toolchain.environment}
    build = tmp_path / "build"
    defines = {"UNISCALE_BACKEND": "llama.cpp", "UNISCALE_SOURCE": str(source),
               "UNISCALE_LANGUAGES": ";".join(item.recipe.compiled),
               "CMAKE_BUILD_TYPE": "Release", **item.recipe.defines}  # fmt: skip
    told = ok(["cmake", "-G", "Ninja", "-S", str(ROOT), "-B", str(build),
               *(f"-D{name}={text}" for name, text in defines.items())], env)  # fmt: skip
    assert "Including MUSA backend" in told
    assert "MUSA architectures: " + ";".join(ARCHITECTURES) in told
    listed = ok(["ninja", "-C", str(build), "-t", "targets", "all"], env).splitlines()
    objects = [line.partition(":")[0] for line in listed if "ggml-musa.dir" in line]
    units = [name for name in objects if name.endswith(".cu.o")]
    assert len(units) > 100
    chosen = [one for name in UNITS for one in units if one.endswith(f"/{name}.cu.o")]
    assert len(chosen) == len(UNITS)
    command = ok(["ninja", "-C", str(build), "-t", "commands", chosen[0]], env)
    assert "-x musa -mtgpu" in command and "--cuda-gpu-arch=mp_31" in command
    assert str(sdk / "bin" / "clang++") in command and "-DGGML_USE_MUSA" in command
    ok(["ninja", "-C", str(build), "-j2", *chosen], env)


def ok(command: list[str], env: Mapping[str, str]) -> str:
    ran = subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    return ran.stdout
