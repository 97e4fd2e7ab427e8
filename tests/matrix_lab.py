"""The small native project with more devices, so that a matrix has several builds."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .native import Native, make_native

DEVICES = ("Acme_X1", "Acme_X2")
DEVICE = "device: {0}\ntitle: The {0}\nvendor: Acme\nlabel: {1}\n"
ADAPTATION = """\
backend: mini
device: {device}
pin: 1.2.3
tasks: [serve, infer]
contact: nobody@example.invalid
recipe:
  defines:
    MINI_FOR: {device}
"""


def make_lab(folder: Path) -> Native:
    """The project, with the ``mini`` backend on three devices."""
    folder.mkdir(parents=True, exist_ok=True)
    native = make_native(folder)
    for name in DEVICES:
        path = native.root / "manifests" / "devices" / f"{name}.yaml"
        path.write_text(DEVICE.format(name, name[-2:].lower()), encoding="utf-8")
        adapt(native, name)
    return native


def copy_lab(native: Native, folder: Path) -> Native:
    """The same project elsewhere, with a cache of its own that has all that was built."""
    folder.mkdir(parents=True, exist_ok=True)
    root, cache = folder / "project", folder / "cache"
    shutil.copytree(native.root, root, symlinks=True, ignore=shutil.ignore_patterns("dist"))
    shutil.copytree(native.cache, cache, symlinks=True)
    return replace(native, root=root, cache=cache, env={**native.env, "UNISCALE_CACHE": str(cache)})


def adapt(native: Native, device: str, **defines: str) -> None:
    """Write the adaptation to a device, with more CMake entries."""
    path = native.root / "manifests" / "adaptations" / device / "mini.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(f"    {name}: '{text}'\n" for name, text in defines.items())
    path.write_text(ADAPTATION.format(device=device) + lines, encoding="utf-8")


def start(native: Native, *args: str) -> subprocess.Popen[str]:
    """``uniscale-build matrix ARGS`` in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "uniscale_build", "matrix", *args], cwd=native.root, env=native.env,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def record(native: Native, out: str = "dist") -> dict[str, dict[str, Any]]:
    """The builds of a run's record, by device."""
    try:
        text = (native.root / out / "matrix.json").read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return {build["device"]: build for build in json.loads(text)["builds"]}


def states(native: Native, out: str = "dist") -> dict[str, str]:
    """Device → state of its build."""
    return {name: build["state"] for name, build in record(native, out).items()}


def processes(words: str) -> list[int]:
    """The processes whose command line has ``words``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if words in line:
            found.append(int(path.parent.name))
    return found


def until(true: Callable[[], object], seconds: float = 180.0) -> None:
    """Wait until something holds; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.05)
