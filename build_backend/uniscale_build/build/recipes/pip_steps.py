"""Drives pip through a Python build, in a process of its own.

Run as ``python -m uniscale_build.build.recipes.pip_steps SPEC.json``; its output is the build's
log. A line ``uniscale-step: NAME`` comes before each step, and the exit code is 1 when one fails.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

_PIP = ("--disable-pip-version-check", "--no-input", "--no-color")


def main(spec_file: str) -> int:
    """Make the environment and build the wheel; see `recipes.pep517`."""
    spec = json.loads(Path(spec_file).read_text(encoding="utf-8"))
    env = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    bin_folder = Path(spec["env"], "bin")
    env |= {"VIRTUAL_ENV": spec["env"], "PATH": f"{bin_folder}{os.pathsep}{env.get('PATH', '')}"}
    wheels, python = Path(spec["wheels"]), str(bin_folder / "python")
    pip = [python, spec["pip"]]
    try:
        step("requirements")
        _prepare(spec, pip, env)
        step("build")
        shutil.rmtree(wheels, ignore_errors=True)
        # In isolation from the index too: what the build needs is there by now.
        _run([*pip, "wheel", *_PIP, "--no-deps", "--no-index", "--no-build-isolation",
              "--wheel-dir", str(wheels), spec["source"]], env)  # fmt: skip
    except subprocess.CalledProcessError as error:
        print(f"uniscale-failed: exit code {error.returncode}", flush=True)
        return 1
    return 0


def _prepare(spec: dict[str, Any], pip: list[str], env: dict[str, str]) -> None:
    """The environment with what the build needs; one that is complete and fits is kept."""
    folder = Path(spec["env"])
    mark = folder / "uniscale-requires.json"
    wanted = json.dumps([sys.version, spec["python"], spec["requires"]])
    if mark.is_file() and mark.read_text(encoding="utf-8") == wanted:
        print(f"kept: {folder}", flush=True)
        return
    shutil.rmtree(folder, ignore_errors=True)
    _run([spec["python"], "-m", "venv", "--without-pip", str(folder)], env)
    if spec["requires"]:
        index = ["--no-index"] if spec["offline"] else []
        _run([*pip, "install", *_PIP, *index, "--no-compile", *spec["requires"]], env)
    mark.write_text(wanted, encoding="utf-8")


def _run(command: list[str], env: dict[str, str]) -> None:
    print("$", *command, flush=True)
    subprocess.run(command, env=env, check=True, stdin=subprocess.DEVNULL)


def step(name: str) -> None:
    """Mark the log: the step ``name`` begins."""
    print(f"uniscale-step: {name}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
