"""The recipe for native backends: our top-level CMakeLists.txt around the patched source."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uniscale_build
from uniscale_build.build.compile import OutOfMemory, fewer_jobs, run_build
from uniscale_build.build.toolchain import Toolchain
from uniscale_build.progress import Reporter
from uniscale_build.store import write_atomic


@dataclass(frozen=True)
class NativeBuild:
    """Everything that one native build needs, resolved."""

    superbuild: Path  # the folder of our CMakeLists.txt
    source: Path
    build: Path
    install: Path
    log: Path
    backend: str
    targets: tuple[str, ...]
    programs: tuple[str, ...]
    languages: tuple[str, ...]
    defines: Mapping[str, str]
    cmake_args: tuple[str, ...]
    environment: Mapping[str, str]
    launcher: str | None
    jobs: int
    strip: bool


def build(
    native: NativeBuild, toolchain: Toolchain, reporter: Reporter, keep_open: Sequence[int] = ()
) -> None:
    """Configure, compile and install into ``native.install``; halves the jobs when memory ends."""
    native.build.mkdir(parents=True, exist_ok=True)
    _forget_other_configuration(native, toolchain)
    jobs = native.jobs
    while True:
        try:
            _run(native, toolchain, jobs, reporter, keep_open)
            return
        except OutOfMemory:
            if jobs == 1:
                raise
            jobs = max(1, jobs // 2)
            reporter.note(fewer_jobs(jobs))


def _forget_other_configuration(native: NativeBuild, toolchain: Toolchain) -> None:
    """Drop CMake's cache when it remembers what this build does not say.

    CMake keeps the compiler that it first found, and entries that are given no longer. Objects
    stay: Ninja compiles again what the new commands change.
    """
    state = native.build / "uniscale-configured.json"
    compilers = [[c.language, c.command, c.version, c.target] for c in toolchain.compilers]
    now = {
        "compilers": compilers,
        "flags": dict(toolchain.flags),
        "environment": dict(native.environment),
        "cmake_args": list(native.cmake_args),
        "entries": sorted(_defines(native, toolchain)),
    }
    try:
        before = json.loads(state.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        before = None
    if before is not None:
        gone = set(before.pop("entries")) - set(now["entries"])
        if gone or before != {key: value for key, value in now.items() if key != "entries"}:
            before = None
    if before is None:
        (native.build / "CMakeCache.txt").unlink(missing_ok=True)
        shutil.rmtree(native.build / "CMakeFiles", ignore_errors=True)
    write_atomic(state, json.dumps(now).encode())


def _run(
    native: NativeBuild,
    toolchain: Toolchain,
    jobs: int,
    reporter: Reporter,
    keep_open: Sequence[int],
) -> None:
    spec = native.build / "uniscale-spec.json"
    spec.write_text(
        json.dumps(
            {
                "source": str(native.superbuild),
                "build": str(native.build),
                "install": str(native.install),
                "build_type": "Release",
                "targets": list(native.targets),
                "defines": _defines(native, toolchain),
                "cmake_args": list(native.cmake_args),
                "jobs": jobs,
                "strip": native.strip,
            }
        ),
        encoding="utf-8",
    )
    # The hooks run from a path that only this process knows.
    package = str(Path(uniscale_build.__file__).parent.parent)
    path = os.pathsep.join(word for word in (package, os.environ.get("PYTHONPATH", "")) if word)
    run_build(
        [sys.executable, "-m", "uniscale_build.build.recipes.skbuild", str(spec)],
        log=native.log,
        env={**os.environ, **toolchain.environment, **native.environment, "PYTHONPATH": path},
        cwd=native.build,
        reporter=reporter,
        keep_open=keep_open,
    )


def _defines(native: NativeBuild, toolchain: Toolchain) -> dict[str, str]:
    defines = {
        "UNISCALE_BACKEND": native.backend,
        "UNISCALE_SOURCE": str(native.source),
        "UNISCALE_LANGUAGES": ";".join(native.languages),
        "UNISCALE_PROGRAMS": ";".join(native.programs),
        **native.defines,
    }
    for compiler in toolchain.compilers:
        if native.launcher:
            defines[f"CMAKE_{compiler.language}_COMPILER_LAUNCHER"] = native.launcher
    return defines
