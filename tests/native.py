"""A small native upstream and a whole project around it: real CMake, real compiler, seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.git.db import Entry, GitDb, changed_tree
from uniscale_build.store import Store

ROOT = Path(__file__).resolve().parent.parent

CMAKELISTS = """\
cmake_minimum_required(VERSION 3.20)
project(mini VERSION 1.2.3 LANGUAGES C)
if(MINI_FAIL)
  message(FATAL_ERROR "${MINI_FAIL}")
endif()
if(MINI_SLEEP)
  execute_process(COMMAND sleep ${MINI_SLEEP})
endif()
add_library(greet SHARED greet.c)
set_target_properties(greet PROPERTIES VERSION 1.2.3 SOVERSION 1)
add_library(unused SHARED unused.c)
add_executable(mini-server main.c)
target_link_libraries(mini-server PRIVATE greet)
"""
GREET = '#include <stdio.h>\nvoid greet(void) { puts("hello from " __FILE__); }\n'
MAIN = "void greet(void);\nint main(void) { greet(); return 0; }\n"
UNUSED = "int unused(void) { return 1; }\n"

BACKEND = """\
backend: mini
title: A small native engine
aliases: [mini_engine]
label: mini
distribution: uniscale-mini
homepage: https://example.invalid/mini
license: MIT
purl: pkg:generic/mini
tasks: [serve, infer]
pins:
  - version: 1.2.3
    commit: {commit}
    tree: {tree}
    layers: [polite]
    origins:
      - folder: {upstream}
recipe:
  kind: cmake
  targets: [mini-server]
  programs: [mini-server]
  languages: [C]
launch:
  serve:
    argv: [bin/mini-server]
    model: --model
    formats: [gguf]
"""
DEVICE = """\
device: cpu
title: Any processor
vendor: any
label: cpu
"""
ADAPTATION = """\
backend: mini
device: cpu
pin: 1.2.3
tasks: [serve, infer]
contact: nobody@example.invalid
"""
LAYER = """\
title: Says please
why: Manners.
owner:
  name: tests
  contact: nobody@example.invalid
upstream: inappropriate
base: {base}
result: {result}
"""


@dataclass(frozen=True)
class Native:
    """The project, its upstream, its cache and the environment that commands run in."""

    root: Path
    upstream: Path
    cache: Path
    env: dict[str, str]

    def run(self, *args: str, **kwargs: object) -> subprocess.CompletedProcess[str]:
        """``uniscale-build ARGS`` in the project."""
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            [sys.executable, "-m", "uniscale_build", *args],
            **{"cwd": self.root, "env": self.env, "capture_output": True, "text": True,
               "check": False, "stdin": subprocess.DEVNULL, **kwargs},
        )  # fmt: skip


def write_upstream(folder: Path) -> None:
    """The upstream's files."""
    folder.mkdir(parents=True)
    files = {"CMakeLists.txt": CMAKELISTS, "greet.c": GREET, "main.c": MAIN, "unused.c": UNUSED}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


def set_layer(native: Native, greeting: str) -> None:
    """Make the project's layer change the greeting to ``greeting``."""
    db = GitDb(Store(native.cache)).open()
    base = db.import_folder(native.upstream)
    changed = GREET.replace("hello", greeting)
    change = {b"greet.c": Entry("100644", db.write_blob(changed.encode()))}
    result = changed_tree(db, db.listing(base), change)
    patch = db.run("diff", "--binary", "--full-index", base, result).out
    folder = native.root / "patches" / "mini" / "polite"
    (folder / "diff").mkdir(parents=True, exist_ok=True)
    (folder / "diff" / "greet.c.patch").write_bytes(patch)
    (folder / "layer.yaml").write_text(LAYER.format(base=base, result=result), encoding="utf-8")


def make_native(tmp_path: Path, *, packages: bool = False) -> Native:
    """A project with the ``mini`` backend; with ``packages`` it can be pip-installed too."""
    root, upstream, cache = tmp_path / "project", tmp_path / "upstream", tmp_path / "cache"
    write_upstream(upstream)
    root.mkdir()
    tree = GitDb(Store(cache)).open().import_folder(upstream)
    files = {
        "manifests/backends/mini.yaml": BACKEND.format(commit="0" * 40, tree=tree,
                                                       upstream=upstream),
        "manifests/devices/cpu.yaml": DEVICE,
        "manifests/adaptations/cpu/mini.yaml": ADAPTATION,
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    (root / "patches").mkdir()
    for name in ("CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, root / name)
    if packages:
        skip = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / "build_backend", root / "build_backend", ignore=skip)
        shutil.copytree(ROOT / "launchers", root / "launchers", ignore=skip)
    else:
        for name in ("build_backend", "launchers"):
            (root / name).symlink_to(ROOT / name)
    env = {key: value for key, value in os.environ.items() if not key.startswith("UNISCALE_")}
    env |= {
        "UNISCALE_CACHE": str(cache),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "build_backend"), str(ROOT / "launchers")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": "1",
    }
    native = Native(root, upstream, cache, env)
    set_layer(native, "please, hello")
    return native
