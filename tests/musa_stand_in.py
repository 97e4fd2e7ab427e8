"""Lays out a folder like Moore Threads' SDK whose compiler hands MUSA sources to CUDA's front end.

What it is good for: CMake configures llama.cpp for MUSA as it would with the SDK, and every source
is read with MUSA's names and flags. What it is not: MUSA. Nothing that it makes runs on the chip,
and that the SDK has a name is known only by the rule that its names are CUDA's with ``mu`` for
``cu``.

By hand: ``python -m tests.musa_stand_in FOLDER [CUBLAS_ROOT]``, then ``MUSA_HOME=FOLDER``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "0.0.0"  # what its mcc says, so that no record takes it for an SDK
ARCHITECTURES = ("21", "22", "31")  # that the SDK's documentation names

# CUDA's headers, and the name that the SDK gives each of its own.
_HEADERS = {
    "musa_runtime.h": ("cuda_runtime.h", "cuda_runtime_api.h", "driver_types.h", "library_types.h",
                       "surface_types.h", "texture_types.h", "cuda_device_runtime_api.h"),
    "musa.h": ("cuda.h",),
    "musa_fp16.h": ("cuda_fp16.h",),
    "musa_bf16.h": ("cuda_bf16.h",),
}  # fmt: skip
_NAME = re.compile(r"\b(?:make_)?(?:cublas|cuda|CUBLAS_|CUDA_|cu(?=[A-Z])|CU(?=[a-z_]))\w+")
_MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(cu\w+)[ \t]+([^\s/][^\n/]*)", re.MULTILINE)
_ENUMERATOR = re.compile(r"^[ \t]*(cuda\w+|CU\w+)[ \t]*=[ \t]*[-\w(]", re.MULTILINE)
# Where the SDK's word is not CUDA's with other letters (llama.cpp's vendors/musa.h).
_OTHERS = {
    "MUBLAS_COMPUTE_32F_FAST_16F": "CUBLAS_COMPUTE_32F_FAST_16F",
    "MUBLAS_TENSOR_OP_MATH": "CUBLAS_TF32_TENSOR_OP_MATH",
    "MU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED":
        "CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED",
    "__mt_bfloat16": "__nv_bfloat16",
    "__mt_bfloat162": "__nv_bfloat162",
}  # fmt: skip
# The SDK's compiler names the chip in __MUSA_ARCH__, and has neither CUDA's word nor its version.
_COMPILER = """\
#undef CUDART_VERSION
#define MUSART_VERSION 40300
#define MUSA_VERSION 40300
#ifdef __CUDA_ARCH__
#undef __CUDA_ARCH__
#define __MUSA_ARCH__ 310
#endif
"""
# CUDA's own templates are to see the chip that nvcc compiles for.
_CUB = """\
#pragma once
#pragma push_macro("__CUDA_ARCH__")
#undef __CUDA_ARCH__
#ifdef __MUSA_ARCH__
#define __CUDA_ARCH__ {arch}0
#endif
#define CUDART_VERSION {cudart}
#include_next <cub/cub.cuh>
#undef CUDART_VERSION
#pragma pop_macro("__CUDA_ARCH__")
"""
# What ggml-musa's common header asks of muBLAS, for a machine without cuBLAS.
_MUBLAS = """\
#pragma once
struct mublasContext;
using mublasHandle_t = mublasContext*;
enum mublasStatus_t { MUBLAS_STATUS_SUCCESS };
enum mublasMath_t { MUBLAS_DEFAULT_MATH, MUBLAS_TENSOR_OP_MATH };
extern "C" {
mublasStatus_t mublasCreate(mublasHandle_t*);
mublasStatus_t mublasDestroy(mublasHandle_t);
mublasStatus_t mublasSetMathMode(mublasHandle_t, mublasMath_t);
mublasStatus_t mublasSetStream(mublasHandle_t, cudaStream_t);
const char* mublasGetStatusString(mublasStatus_t);
}
"""
_FIND = """\
# The targets of the SDK's own module, with CUDA's libraries behind them.
foreach(pair "musart=cudart" "mublas=cublas" "musa_driver=musa")
  string(REGEX REPLACE "=.*" "" target "${pair}")
  string(REGEX REPLACE ".*=" "" name "${pair}")
  find_library(MUSA_${target} NAMES ${name} REQUIRED NO_DEFAULT_PATH
               PATHS "${CMAKE_CURRENT_LIST_DIR}/../lib")
  if(NOT TARGET MUSA::${target})
    add_library(MUSA::${target} UNKNOWN IMPORTED)
    set_target_properties(MUSA::${target} PROPERTIES
      IMPORTED_LOCATION "${MUSA_${target}}"
      INTERFACE_INCLUDE_DIRECTORIES "${CMAKE_CURRENT_LIST_DIR}/../include")
  endif()
endforeach()
set(MUSAToolkit_FOUND TRUE)
"""
_DRIVER = """\
#!{python}
# clang of the stand-in: sources marked "-x musa" go to nvcc, all else to the host's compiler.
import os
import sys

HOST, NVCC, ARCH, KNOWN = {host!r}, {nvcc!r}, {arch!r}, {known!r}
args, out = sys.argv[1:], []
languages = [word for mark, word in zip(args, args[1:]) if mark == "-x"]
if languages[-1:] != ["musa"]:  # CMake says "-x c++" first; the last one counts
    os.execvp(HOST, [HOST, *args])
arches, place = [], 0
while place < len(args):
    word = args[place]
    if word == "-x":
        place += 1
    elif word in ("-MT", "-MF", "-o", "-isystem", "-I", "-D"):
        out += [word, args[place + 1]]
        place += 1
    elif word.startswith("--cuda-gpu-arch=mp_"):
        arches.append(word.removeprefix("--cuda-gpu-arch=mp_"))
    elif word in ("-mtgpu", "-Od3", "-musa"):
        pass
    elif word == "-fmusa-flush-denormals-to-zero":
        out.append("-ftz=true")
    elif word == "-ffast-math":
        out.append("-use_fast_math")
    elif word.startswith(("-I", "-D", "-U", "-std=", "-O", "-MD", "-MMD", "-c")) or word == "-g":
        out.append(word.replace("-std=gnu++", "-std=c++"))
    elif word.startswith("-W"):
        pass  # the host's warnings, which nvcc would give for its own code
    elif word.startswith(("-f", "-m", "-pthread")):
        out.append("-Xcompiler=" + word.replace(",", "\\\\,"))
    elif word.startswith("-"):
        sys.exit(f"stand-in clang: the SDK's compiler is not known to take {{word}}")
    else:
        out.append(word)
    place += 1
if not arches or set(arches) - set(KNOWN):
    sys.exit(f"stand-in clang: no MUSA chip is called {{' '.join(arches) or 'nothing'}}")
os.execv(NVCC, [NVCC, "-x", "cu", f"-arch=sm_{{ARCH}}", "-extended-lambda", "-w", *out])
"""


def lay_out(root: Path, *, cuda: Path, cublas: Path | None = None, arch: str = "90") -> Path:
    """Fill ``root``; ``cuda`` holds bin/nvcc, ``cublas`` the headers and libraries of cuBLAS.

    Without ``cublas`` sources that multiply matrices by it do not compile. ``arch`` is the NVIDIA
    chip that stands in.
    """
    for folder in ("bin", "include/cub", "lib", "cmake"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    _compilers(root / "bin", cuda / "bin" / "nvcc", arch)
    include = cuda / "include"
    for name, wraps in _HEADERS.items():
        (root / "include" / name).write_text(_header(include, wraps, name), encoding="utf-8")
    text = _MUBLAS
    if cublas is not None:
        text = _header(cublas / "include", ("cublas_v2.h", "cublas_api.h"), "mublas.h")
        for header in (cublas / "include").glob("cublas*.h"):
            _link(root / "include" / header.name, header)
    (root / "include" / "mublas.h").write_text(text, encoding="utf-8")
    found = re.search(
        r"#define CUDART_VERSION\s+(\d+)", (include / "cuda_runtime_api.h").read_text()
    )
    cub = _CUB.format(arch=arch, cudart=found[1] if found else "0")
    (root / "include" / "cub" / "cub.cuh").write_text(cub, encoding="utf-8")
    _link(root / "lib" / "libcudart.so", (cuda / "lib64" / "libcudart.so").resolve())
    _link(root / "lib" / "libmusart.so", root / "lib" / "libcudart.so")
    blas = root / "lib" / "libcublas.so"
    if cublas is None:
        _library(blas, re.findall(r"\b(mublas[A-Z]\w+)\(", _MUBLAS))
    else:
        _link(blas, (cublas / "lib" / "libcublas.so").resolve())
    declared = (include / "cuda.h").read_text(errors="replace")
    _library(root / "lib" / "libmusa.so", re.findall(r"\bCUresult CUDAAPI (cu\w+)\(", declared))
    (root / "cmake" / "FindMUSAToolkit.cmake").write_text(_FIND, encoding="utf-8")
    return root


def _compilers(folder: Path, nvcc: Path, arch: str) -> None:
    for name, host in (("clang", "cc"), ("clang++", "c++")):
        text = _DRIVER.format(python=sys.executable, host=shutil.which(host), nvcc=str(nvcc),
                              arch=arch, known=ARCHITECTURES)  # fmt: skip
        (folder / name).write_text(text, encoding="utf-8")
        (folder / name).chmod(0o755)
    mcc = folder / "mcc"
    mcc.write_text(f"#!/bin/sh\necho 'mcc version {VERSION}: a stand-in, no MUSA compiler'\n")
    mcc.chmod(0o755)


def _library(path: Path, names: list[str]) -> None:
    """A library to link with where the real one is not; no function of it does anything."""
    source = path.with_suffix(".c")
    source.write_text("\n".join(f"int {name}(void) {{ return 999; }}" for name in sorted({*names})))
    command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{path.name}", "-o", str(path), str(source)]
    subprocess.run(command, check=True)


def _header(folder: Path, wraps: tuple[str, ...], name: str) -> str:
    """A header of the SDK: CUDA's, and behind it MUSA's name for each name that it declares."""
    text = "\n".join((folder / one).read_text(errors="replace") for one in wraps)
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    macros = {one: value.strip() for one, value in _MACRO.findall(text)}
    numbers = set(_ENUMERATOR.findall(text)) - set(macros)
    names = {one: macros.get(one, one) for one in set(_NAME.findall(text)) - numbers}
    # llama.cpp gives CUDA's names the meaning of MUSA's, so that a macro here comes back to where
    # it started: right for functions and types, wrong for what was a macro or has two names.
    pairs = {musa(one): target for one, target in names.items()}
    known = names | dict.fromkeys(numbers) | dict.fromkeys(re.findall(r"\b__nv_bfloat162?\b", text))
    pairs |= {word: other for word, other in _OTHERS.items() if other in known}
    lines = ["#pragma once", f"#include <{wraps[0]}>"]
    lines += [f"constexpr auto {musa(one)} = {one};" for one in sorted(numbers)]
    lines += [f"#define {word} {target}" for word, target in sorted(pairs.items())]
    return "\n".join(lines) + "\n" + (_COMPILER if name == "musa_runtime.h" else "")


def musa(name: str) -> str:
    """MUSA's name for a name of CUDA's: ``cudaMalloc`` → ``musaMalloc``, ``CU_X`` → ``MU_X``."""
    made = re.sub(r"^(make_)?cu(?=blas|[A-Z])", r"\1mu", name)
    made = re.sub(r"^(make_)?cuda", r"\1musa", made)
    made = re.sub(r"^CUDA_", "MUSA_", made)
    return re.sub(r"^CU(?=BLAS_|_|[a-z])", "MU", made)


def _link(path: Path, target: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def cuda_home() -> Path:
    """Where nvcc and its headers are; `UniscaleError` when they are nowhere."""
    from uniscale_build.manifests.load import load_manifests
    from uniscale_build.manifests.sdk import find_sdk

    manifests = load_manifests([Path(__file__).resolve().parents[1] / "manifests"])
    return Path(find_sdk(manifests.devices["nvidia"]).roots["CUDA_HOME"])


if __name__ == "__main__":
    home = cuda_home()
    blas = Path(sys.argv[2]).absolute() if len(sys.argv) > 2 else None
    lay_out(Path(sys.argv[1]).absolute(), cuda=home, cublas=blas)
