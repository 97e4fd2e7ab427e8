#!/usr/bin/env python3
"""How far vLLM's own CUDA code goes on a machine without a GPU and without a CUDA build of torch.

``ci/vllm_cuda.py [FILE.cu ...]`` takes the patched source of vLLM for nvidia from our pipeline,
lets upstream's CMake configure it for one architecture and compiles the named files of csrc (none:
it lists them), each timed. Wants nvcc 13, cmake, ninja, and any build of torch 2.13.0 in this
Python.

What a machine lacks comes from pinned wheels: the CUDA build of torch (its CMake package, headers
and libraries), NVRTC, cuBLAS's headers, and CUTLASS's as FlashInfer carries them (4.5; vLLM asks
for 4.7.1).
Left out is what upstream takes from git in the middle of configuring: the nine projects of
cmake/external_projects (FlashAttention, FlashMLA, DeepGEMM, ...). Libraries that the toolkit has
not (cuBLAS, the driver, ...) are named for CMake and linked with nothing: nothing is linked here.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "build_backend")]

from uniscale_build.build.pipeline import Context, prepare_source  # noqa: E402
from uniscale_build.errors import UniscaleError  # noqa: E402
from uniscale_build.plans.plan import make_plan  # noqa: E402
from uniscale_build.progress import Silent  # noqa: E402
from uniscale_build.project import find_project  # noqa: E402
from uniscale_build.settings import Settings  # noqa: E402
from uniscale_build.sources import pypi  # noqa: E402
from uniscale_build.sources.download import download  # noqa: E402
from uniscale_build.store import Store  # noqa: E402


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel, the folders to take from it, and what it is laid out as."""

    project: str
    file: str
    sha256: str
    wanted: tuple[str, ...]
    place: str


WHEELS = (
    Wheel(
        "torch",
        "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7",
        ("torch/share/", "torch/include/", "torch/lib/"),
        "torch",
    ),
    Wheel(
        "nvidia-cuda-nvrtc",
        "nvidia_cuda_nvrtc-13.0.88-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
        "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
        ("nvidia/cu13/",),
        "nvrtc",
    ),
    Wheel(
        "nvidia-cublas",
        "nvidia_cublas-13.0.2.14-py3-none-manylinux_2_27_x86_64.whl",
        "0cf238ffdbe46c00cb9aa98e7bca745c223a5ca5a53e686ac8b3e5a08fe80d6c",
        ("nvidia/cu13/include/",),
        "cublas",
    ),
    Wheel(
        "flashinfer-python",
        "flashinfer_python-0.7.0.post1-py3-none-any.whl",
        "c7adf826568d61fc1b7d3aadd4cae387a35a138bfc08e2deca2f34ecfa280716",
        ("flashinfer/data/cutlass/",),
        "cutlass",
    ),
)
NAMED_ONLY = """\
find_package(CUDAToolkit REQUIRED)
foreach(name cuda_driver cublas cublasLt curand cufft cusparse cusolver nvToolsExt)
  if(NOT TARGET CUDA::${name})
    message(STATUS "named only, nothing is linked with it: ${name}")
    add_library(CUDA::${name} INTERFACE IMPORTED GLOBAL)
  endif()
endforeach()
"""
EXTERNAL = "# For CUDA and HIP builds also build the triton_kernels external package."


def lay_out(store: Store, work: Path) -> None:
    """Unpack what is wanted of the pinned wheels; folders that are there are kept."""
    for wheel in WHEELS:
        target = work / wheel.place
        if target.exists():
            continue
        kept = store.downloads / wheel.sha256 / wheel.file
        url = "" if kept.is_file() else pypi.find_file(wheel.project, wheel.file).url
        path = download(store, url, wheel.sha256, wheel.file, Silent())
        part = work / f"{wheel.place}.part"
        shutil.rmtree(part, ignore_errors=True)
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.startswith(wheel.wanted)]
            archive.extractall(part, names)
        part.rename(target)


def toolkit(nvcc: str, work: Path) -> Path:
    """The toolkit of ``nvcc`` with NVRTC beside it, as one root of links."""
    root = work / "toolkit"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    # What is on PATH may be a script: nvcc itself says where its toolkit is.
    told = subprocess.run([nvcc, "--dryrun", "-E", "x.cu"], capture_output=True, text=True,
                          check=False).stderr  # fmt: skip
    found = re.search(r"^#\$ TOP=(.+)$", told, re.MULTILINE)
    if found is None:
        raise SystemExit(f"{nvcc} does not say where its toolkit is")
    home = Path(found[1]).resolve()
    for folder in (item for item in home.iterdir() if item.is_dir() and item.name != "lib64"):
        (root / folder.name).symlink_to(folder)
    libraries = root / "lib64"
    libraries.mkdir()
    nvrtc = work / "nvrtc" / "nvidia" / "cu13" / "lib"
    for library in [*(home / "lib64").iterdir(), *nvrtc.iterdir()]:
        if not (libraries / library.name).exists():
            (libraries / library.name).symlink_to(library.resolve())
    if not (libraries / "libnvrtc.so").exists():
        (libraries / "libnvrtc.so").symlink_to("libnvrtc.so.13")
    return root


def configure(source: Path, build: Path, work: Path, nvcc: str, arch: str) -> None:
    """Run upstream's CMake up to where it takes other projects from git."""
    listing = source / "CMakeLists.txt"
    text = listing.read_text(encoding="utf-8")
    if EXTERNAL not in text:
        raise SystemExit(f"{listing} no longer says where the external projects begin")
    listing.write_text(text.partition(EXTERNAL)[0], encoding="utf-8")
    named = work / "named.cmake"
    named.write_text(NAMED_ONLY, encoding="utf-8")
    root, cutlass = toolkit(nvcc, work), work / "cutlass" / "flashinfer" / "data" / "cutlass"
    packages = work / "torch" / "torch" / "share" / "cmake"
    command = [
        "cmake", "-G", "Ninja", str(source), f"-DVLLM_PYTHON_EXECUTABLE={sys.executable}",
        "-DVLLM_TARGET_DEVICE=cuda", "-DCMAKE_BUILD_TYPE=Release",
        f"-DCMAKE_CUDA_COMPILER={root / 'bin' / 'nvcc'}", f"-DCUDA_TOOLKIT_ROOT_DIR={root}",
        f"-DCUDAToolkit_ROOT={root}", f"-DTorch_DIR={packages / 'Torch'}",
        f"-DCaffe2_DIR={packages / 'Caffe2'}", f"-DCUTLASS_DIR={cutlass}",
        f"-DCMAKE_PROJECT_vllm_extensions_INCLUDE={named}",
        f"-DFETCHCONTENT_BASE_DIR={work / 'deps'}",
        f"-DCUTLASS_INCLUDE_DIR={cutlass / 'include'}",
        f"-DCUTLASS_TOOLS_UTIL_INCLUDE_DIR={cutlass / 'tools' / 'util' / 'include'}",
        f"-DCMAKE_CUDA_FLAGS=-isystem {work / 'cublas' / 'nvidia' / 'cu13' / 'include'}",
    ]  # fmt: skip
    env = {**os.environ, "TORCH_CUDA_ARCH_LIST": arch, "CUDA_HOME": str(root),
           "VLLM_CUTLASS_SRC_DIR": str(cutlass)}  # fmt: skip
    build.mkdir(exist_ok=True)
    # Upstream generates sources once for each cache, and the source is a clean one every time.
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    log = work / "configure.log"
    with log.open("w") as out:
        ran = subprocess.run(command, cwd=build, env=env, stdout=out, stderr=subprocess.STDOUT,
                             check=False, stdin=subprocess.DEVNULL)  # fmt: skip
    if ran.returncode:
        raise SystemExit(f"CMake did not configure; see {log}")
    print(log.read_text(encoding="utf-8").splitlines()[-3])


def objects(build: Path) -> list[str]:
    """The CUDA object files of the configured build."""
    told = subprocess.run(["ninja", "-t", "targets", "all"], cwd=build, text=True, check=True,
                          capture_output=True).stdout  # fmt: skip
    names = (line.partition(":")[0] for line in told.splitlines())
    return [name for name in names if name.endswith(".cu.o")]


def compile_one(build: Path, name: str) -> bool:
    """Compile one object file; says its processor time and memory."""
    process = subprocess.Popen(["ninja", name], cwd=build, stdin=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    what = "compiled" if status == 0 else "FAILED"
    print(f"{name.partition('.dir/')[2]}: {what}, {used.ru_utime + used.ru_stime:.0f} s of "
          f"processor time, {used.ru_maxrss / 2**20:.1f} GiB", flush=True)  # fmt: skip
    return status == 0


def main() -> int:
    """Configure, then compile what is asked for; 1 when a file does not compile."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="*", help="ends of names below csrc, like activation.cu")
    parser.add_argument("--arch", default="9.0a", help="as TORCH_CUDA_ARCH_LIST names it")
    parser.add_argument("--work", type=Path, help="folder to work in (default: in the cache)")
    asked = parser.parse_args()
    found = shutil.which("nvcc")
    if found is None:
        raise SystemExit("there is no nvcc on PATH")
    project, store = find_project(ROOT), Store()
    plan = make_plan(project, Settings(backends=("vllm",), device="nvidia"))
    work = (asked.work or store.work / "vllm-cuda-probe").resolve()
    work.mkdir(parents=True, exist_ok=True)
    source, build = work / "src", work / "build"
    try:
        prepare_source(Context(project, store), plan, plan.backends[0], source)
        lay_out(store, work)
    except UniscaleError as error:
        raise SystemExit(error.render()) from error
    configure(source, build, work, found, asked.arch)
    known = objects(build)
    print(f"configured for {asked.arch}: {len(known)} CUDA files")
    wanted = [one for one in known if any(one.endswith(f"/{file}.o") for file in asked.files)]
    if not asked.files:
        print("\n".join(name.partition(".dir/")[2].removesuffix(".o") for name in known))
    done = [compile_one(build, name) for name in wanted]
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
