"""A small Python upstream with a build backend of its own, and a whole project around it."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.git.db import GitDb
from uniscale_build.store import Store

from .native import DEVICE, ROOT

# A PEP 517 backend in the tree: it needs nothing from an index, and refuses to run where the
# builder's own packages can be seen.
BACKEND_PY = """\
import base64, hashlib, os, zipfile
NAME, VERSION = "pyengine", os.environ.get("PYENGINE_VERSION", "1.2.3")
REQUIRES = {requires!r}
def _metadata():
    lines = ["Metadata-Version: 2.1", f"Name: {{NAME}}", f"Version: {{VERSION}}", "Summary: small"]
    lines += [f"Requires-Dist: {{text}}" for text in REQUIRES]
    lines += ["Provides-Extra: more"]
    return "\\n".join(lines) + "\\n\\nRequires-Dist: in the description, not a field\\n"
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    os.makedirs(os.path.join(folder, info), exist_ok=True)
    with open(os.path.join(folder, info, "METADATA"), "w") as out:
        out.write(_metadata())
    return info
def build_wheel(folder, config_settings=None, metadata_directory=None):
    if "PYTHONPATH" in os.environ and "uniscale" in os.environ["PYTHONPATH"]:
        raise SystemExit("error: the build is not isolated")
    if os.environ.get("PYENGINE_FAIL"):
        raise SystemExit("error: the engine does not like it here")
    info = f"{{NAME}}-{{VERSION}}.dist-info"
    name = f"{{NAME}}-{{VERSION}}-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as out:
        for file in sorted(os.listdir("pyengine")):
            if file.endswith(".py") and not os.environ.get("PYENGINE_EMPTY"):
                out.write(f"pyengine/{{file}}")
        if os.environ.get("PYENGINE_MATH"):
            with open(os.path.join(os.environ["PYENGINE_MATH"], "math.c")) as source:
                out.writestr("pyengine/_math.bin", source.read())
        if os.environ.get("PYENGINE_COMPILES"):
            out.writestr("pyengine/_kernels.so", b"compiled here")
        out.writestr(f"{{info}}/METADATA", _metadata())
        out.writestr(f"{{info}}/WHEEL", "Wheel-Version: 1.0\\nGenerator: x\\n"
                     "Root-Is-Purelib: true\\nTag: py3-none-any\\n")
        out.writestr(f"{{info}}/entry_points.txt", "[console_scripts]\\n"
                     "pyengine = pyengine:main\\n")
        rows = [(n, hashlib.sha256(out.read(n)).digest(), out.getinfo(n).file_size)
                for n in out.namelist()]
        rows = [f"{{n}},sha256={{base64.urlsafe_b64encode(h).rstrip(b'=').decode()}},{{size}}\\n"
                for n, h, size in rows]
        out.writestr(f"{{info}}/RECORD", "".join(rows) + f"{{info}}/RECORD,,\\n")
    return name
"""
ENGINE = 'import os\n\ndef main():\n    print("engine", os.listdir(os.path.dirname(__file__)))\n'
PYPROJECT = """\
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
REQUIRES = (
    "numpy>=1.20", "torch==2.13.0+cpu", "triton @ https://example.invalid/t.whl",
    'vendor-runtime>=3; python_version > "3.8"', 'pandas; extra == "more"',
)  # fmt: skip
# A native part: one library to ship, and one that is only there to link with.
OPERATORS = """\
cmake_minimum_required(VERSION 3.20)
project(operators LANGUAGES C)
add_library(twice MODULE twice.c)
file(CONFIGURE OUTPUT nothing.c CONTENT "")
add_library(host SHARED nothing.c)
set_target_properties(host PROPERTIES UNISCALE_BUILD_ONLY ON)
target_link_libraries(twice PRIVATE -Wl,--no-as-needed host -Wl,--as-needed)
"""
BACKEND = """\
backend: pyengine
title: A small Python engine
label: pyengine
distribution: pyengine
homepage: https://example.invalid/pyengine
license: MIT
purl: pkg:pypi/pyengine
tasks: [serve, infer]
pins:
  - version: 1.2.3
    tree: {tree}
    note: made by a test, of no commit
    layers: []
    origins:
      - folder: {upstream}
recipe:
  kind: pep517
launch:
  serve:
    argv: [python, -m, pyengine]
    model: ""
    formats: [hf]
"""
REQUIREMENTS = ("numpy>=1.20", "torch==2.13.0")
RULES = """\
requirement_rules:
  - replace: torch
    with: torch==2.13.0
    why: no local label
  - drop: triton
    why: an address
  - provided: vendor-runtime
    why: the image has it
"""
KERNELS = b"compiled elsewhere"
MATH = b"int one(void) { return 1; }\n"


@dataclass(frozen=True)
class PyEngine:
    """The project, its upstream, its cache and the environment that commands run in."""

    root: Path
    upstream: Path
    cache: Path
    env: dict[str, str]

    def run(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """``uniscale-build ARGS`` in the project, with more in the environment."""
        return subprocess.run(
            [sys.executable, "-m", "uniscale_build", *args],
            cwd=self.root, env={**self.env, **env}, capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def wheel(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Build the wheel into ``out``."""
        return self.run("wheel", "-b", "pyengine", "-d", "cpu", "-o", "out", *args, **env)

    @property
    def payload(self) -> Path:
        """The one payload that was built."""
        (found,) = (self.cache / "payloads").glob("*/pyengine-cpu")
        return found

    def adapt(
        self,
        requirements: tuple[str, ...] = REQUIREMENTS,
        rules: str = RULES,
        recipe: str = "",
    ) -> None:
        """Write the adaptation."""
        lines = ["requirements:", *(f"  - {text}" for text in requirements)]
        text = (
            "backend: pyengine\ndevice: cpu\npin: 1.2.3\ntasks: [serve, infer]\n"
            "contact: nobody@example.invalid\n" + recipe + "\n".join(lines) + "\n" + rules
        )
        path = self.root / "manifests" / "adaptations" / "cpu" / "pyengine.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def pin_wheel(self, *names: str, machine: str = os.uname().machine) -> str:
        """Put a wheel with ``names`` into the cache; gives the ``recipe`` text that pins it."""
        path = self.cache / "made.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, KERNELS)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        folder = self.cache / "downloads" / sha256
        folder.mkdir(parents=True)
        path.rename(folder / "pyengine_cpu-1.2.3-py3-none-any.whl")
        return (
            "recipe:\n  precompiled:\n    project: pyengine-cpu\n    members: ['pyengine/*.bin']\n"
            "    files:\n"
            f"      - machine: {machine}\n"
            "        file: pyengine_cpu-1.2.3-py3-none-any.whl\n"
            f"        sha256: {sha256}\n"
            "    environment:\n      PYENGINE_PRECOMPILED: '1'\n"
        )


def debian_mirror(tmp_path: Path) -> tuple[Path, str]:
    """A mirror with one source package, as Debian lays it out; gives its recipe text too."""
    mirror = tmp_path / "mirror"
    file = mirror / "pool/main/libm/libmath/libmath_2.0+ds.orig.tar.xz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:xz") as archive:
        member = tarfile.TarInfo("libmath-2.0/math.c")
        member.size = len(MATH)
        archive.addfile(member, io.BytesIO(MATH))
    upstream = tmp_path / "math"
    upstream.mkdir()
    (upstream / "math.c").write_bytes(MATH)
    tree = GitDb(Store(tmp_path / "cache")).open().import_folder(upstream)
    recipe = (
        "recipe:\n  from_source:\n    sources:\n      - name: libmath\n        version: 2.0\n"
        f"        tree: {tree}\n        note: an archive tells no commit\n        origins:\n"
        f"          - debian: {file.name}\n            project: libmath\n"
        f"            sha256: {hashlib.sha256(file.read_bytes()).hexdigest()}\n"
        "    environment:\n      PYENGINE_MATH: '{libmath}'\n"
    )
    return mirror, recipe


def make_engine(tmp_path: Path, cache: str = "cache") -> PyEngine:
    """A project with the ``pyengine`` backend."""
    root, upstream, store = tmp_path / "project", tmp_path / "upstream", tmp_path / cache
    files = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND_PY.format(requires=list(REQUIRES)),
        "pyengine/__init__.py": ENGINE,
        "pyengine/__main__.py": "from pyengine import main\n\nmain()\n",
        "operators/CMakeLists.txt": OPERATORS,
        "operators/twice.c": "int twice(int n) { return 2 * n; }\n",
    }
    for name, text in files.items():
        (upstream / name).parent.mkdir(parents=True, exist_ok=True)
        (upstream / name).write_text(text, encoding="utf-8")
    tree = GitDb(Store(store)).open().import_folder(upstream)
    manifests = {
        "backends/pyengine.yaml": BACKEND.format(tree=tree, upstream=upstream),
        "devices/cpu.yaml": DEVICE,
    }
    for name, text in manifests.items():
        path = root / "manifests" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (root / "patches").mkdir(exist_ok=True)
    for name in ("CMakeLists.txt", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, root / name)
    for name in ("build_backend", "launchers"):
        if not (root / name).exists():
            (root / name).symlink_to(ROOT / name)
    env = {key: text for key, text in os.environ.items() if not key.startswith("UNISCALE_")}
    env |= {
        "UNISCALE_CACHE": str(store),
        "PYTHONPATH": os.pathsep.join([str(ROOT / "build_backend"), str(ROOT / "launchers")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "CI": "1",
    }
    engine = PyEngine(root, upstream, store, env)
    engine.adapt()
    return engine
