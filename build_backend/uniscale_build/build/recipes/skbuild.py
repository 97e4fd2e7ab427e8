"""Drives CMake and Ninja through scikit-build-core, in a process of its own.

Run as ``python -m uniscale_build.build.recipes.skbuild SPEC.json``; its output is the build's log.
A line ``uniscale-step: NAME`` comes before each step, and the exit code is 1 when one fails.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main(spec_file: str) -> int:
    """Configure, build and install what the spec says; see `uniscale_build.build.recipes.cmake`."""
    from packaging.specifiers import SpecifierSet
    from scikit_build_core.cmake import CMake, CMaker
    from scikit_build_core.errors import CMakeNotFoundError, FailedLiveProcessError
    from scikit_build_core.program_search import best_program, get_ninja_programs

    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    try:
        cmake = CMake.default_search(version=SpecifierSet(">=3.26"))
    except CMakeNotFoundError:
        print("uniscale-missing: cmake", flush=True)
        return 1
    ninja = best_program(get_ninja_programs(), version=SpecifierSet(">=1.10"))
    if ninja is None:
        print("uniscale-missing: ninja", flush=True)
        return 1
    try:
        maker = CMaker(cmake, Path(spec["source"]), Path(spec["build"]), spec["build_type"])
        step("configure")
        maker.configure(
            defines={**spec["defines"], "CMAKE_MAKE_PROGRAM": str(ninja.path)},
            cmake_args=["-GNinja", *spec["cmake_args"]],
        )
        step("build")
        maker.build([f"-j{spec['jobs']}"], targets=spec["targets"])
        step("install")
        maker.install(Path(spec["install"]), strip=spec["strip"], components=["payload"])
    except FailedLiveProcessError as error:
        print(f"uniscale-failed: {error}", flush=True)
        return 1
    return 0


def step(name: str) -> None:
    """Mark the log: the step ``name`` begins."""
    print(f"uniscale-step: {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
