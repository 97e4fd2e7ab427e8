"""How the end of a compile is read from its log, and a build that goes on when memory ends."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from uniscale_build.build.compile import OutOfMemory, run_build
from uniscale_build.errors import CompileError
from uniscale_build.progress import Silent

from .native import Native, make_native

# Word for word what the programs print; the paths are shortened.
OUT_OF_MEMORY = [
    "g++: fatal error: Killed signal terminated program cc1plus",
    "c++: internal compiler error: Killed (program cc1plus)",
    "cc1plus: out of memory allocating 65536 bytes after a total of 1146880 bytes",
    "virtual memory exhausted: Cannot allocate memory",
    "collect2: fatal error: ld terminated with signal 9 [Killed]",
    "nvcc error   : 'cicc' died due to signal 9 (Kill signal)",
    "ptxas fatal   : Memory allocation failure",
    "clang++: error: unable to execute command: Killed",
    "LLVM ERROR: out of memory",
    "/usr/bin/ld: final link failed: memory exhausted",
    "terminate called after throwing an instance of 'std::bad_alloc'",
    "memory allocation of 1048576 bytes failed",
    "ninja: fatal: posix_spawn: Cannot allocate memory",
    "FAILED: [code=137] greet.c.o",
    "/bin/sh: line 1: 12345 Killed                  cc -c greet.c",
    "Killed",
]
OTHER = [
    "greet.c:3:7: error: 'Killed' undeclared (first use in this function)",
    '   12 |   throw Error("clang++: out of memory allocating");',
    "      |   fails with std::bad_alloc",
    "greet.c:3:7: error: expected ';' before 'signal9'",
    "CMake Error at CMakeLists.txt:4 (message): Killed by a test",
    "FAILED: [code=1] greet.c.o",
]


def ended(tmp_path: Path, line: str) -> CompileError:
    """What `run_build` raises when a build prints ``line`` and fails."""
    with pytest.raises(CompileError) as told:
        run_build(
            [sys.executable, "-c", "import sys; print(sys.argv[1]); sys.exit(1)", line],
            log=tmp_path / "build.log", env=os.environ, cwd=tmp_path, reporter=Silent(),
        )  # fmt: skip
    return told.value


@pytest.mark.parametrize("line", OUT_OF_MEMORY)
def test_the_end_of_memory_is_known_by_what_the_programs_say(tmp_path: Path, line: str) -> None:
    error = ended(tmp_path, line)
    assert isinstance(error, OutOfMemory) and "jobs=1" in (error.hint or "")


@pytest.mark.parametrize("line", OTHER)
def test_another_failure_is_not_taken_for_it(tmp_path: Path, line: str) -> None:
    error = ended(tmp_path, line)
    assert not isinstance(error, OutOfMemory) and line.strip() in error.what


# How CMake tells of a compiler that failed its test, in part.
BROKEN = """\
CMake Error at Modules/CMakeTestCUDACompiler.cmake:70 (message):
  The CUDA compiler

    "/usr/local/cuda/bin/nvcc"

  is not able to compile a simple test program.

  It fails with the following output:

    Run Build Command(s): ninja -v cmTC_f7c1d
    [1/2] nvcc --generate-code=arch=compute_31,code=[compute_31,sm_31] -x cu -c main.cu
    FAILED: [code=1] CMakeFiles/cmTC_f7c1d.dir/main.cu.o
    nvcc fatal   : Unsupported gpu architecture 'compute_31'
    ninja: build stopped: subcommand failed.
"""


def test_a_compiler_that_fails_cmakes_test_says_why_itself(tmp_path: Path) -> None:
    what = ended(tmp_path, BROKEN).what
    assert "The CUDA compiler" in what
    assert what.endswith("nvcc fatal   : Unsupported gpu architecture 'compute_31'")


# gcc runs cc1 through this: one that finds another at work is killed, as the kernel would do. The
# first waits for a second once, so that the two do meet.
ONE_AT_A_TIME = """\
#!/bin/sh
case "$1" in
  *cc1)
    [ {fits} = none ] && kill -9 $$
    mkdir "{folder}/lock" 2>/dev/null || {{ touch "{folder}/met"; kill -9 $$; }}
    for _ in $(seq 300); do [ -e "{folder}/met" ] && break; sleep 0.1; done
    "$@"; code=$?; rmdir "{folder}/lock"; exit $code ;;
esac
exec "$@"
"""


def build_where_memory_ends(tmp_path: Path, fits: str) -> tuple[int, str, Native]:
    """`wheel` with two jobs under a compiler for which memory ``fits`` one at a time, or none."""
    native = make_native(tmp_path)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(ONE_AT_A_TIME.format(folder=tmp_path, fits=fits))
    wrapper.chmod(0o755)
    # Only of the sources: CMake's own tests of the compiler are to pass.
    manifest = native.root / "manifests" / "backends" / "mini.yaml"
    text = manifest.read_text().replace(
        "  languages: [C]\n",
        f"  languages: [C]\n  defines:\n    CMAKE_C_FLAGS_RELEASE: -O1 -wrapper {wrapper}\n",
    )
    manifest.write_text(text)
    ran = native.run("wheel", "-b", "mini", "-C", "jobs=2", "-C", "compiler-cache=none",
                     env={**native.env, "CC": "gcc"})  # fmt: skip
    return ran.returncode, ran.stderr, native


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_a_build_that_runs_out_of_memory_goes_on_with_fewer_jobs(tmp_path: Path) -> None:
    code, said, native = build_where_memory_ends(tmp_path, "one")
    assert code == 0, said
    assert "memory ran out; going on with 1 compile job" in said
    assert list(native.root.rglob("uniscale-*.whl"))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_memory_that_is_too_small_for_one_job_is_a_sentence(tmp_path: Path) -> None:
    code, said, _ = build_where_memory_ends(tmp_path, "none")
    assert code == 7 and "error[out-of-memory]" in said and "Traceback" not in said
    assert said.count("memory ran out; going on with") == 1 and "jobs=1" in said
