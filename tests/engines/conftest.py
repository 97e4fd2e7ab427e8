"""Builds each engine's wheel once a session and installs it into an environment of its own.

``UNISCALE_TEST_ENGINES`` names a folder where the environments stay: PyTorch and an engine's
requirements are a gigabyte, and the next session finds them there.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_PATIENCE = 900.0  # seconds for one program: no engine here needs a third of it
TORCH = "torch==2.13.0"  # exactly: other versions of the package index are CUDA builds


@dataclass(frozen=True)
class Installed:
    """An engine's wheel in an environment."""

    wheel: Path
    venv: Path
    env: dict[str, str]

    def program(self, name: str) -> str:
        """A program of the environment."""
        return str(self.venv / "bin" / name)

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment; asserts nothing."""
        return subprocess.run(
            [self.program(argv[0]), *argv[1:]], env={**self.env, **env}, capture_output=True,
            text=True, check=False, timeout=_PATIENCE, stdin=subprocess.DEVNULL, cwd=self.venv,
        )  # fmt: skip

    def ok(self, *argv: str, **env: str) -> str:
        """Its standard output; the test fails when the program does."""
        ran = self.run(*argv, **env)
        assert ran.returncode == 0, f"{argv}: {ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
        return ran.stdout

    @property
    def prefix(self) -> Path:
        """The payload's folder."""
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        site = Path(self.ok("python", "-c", code).strip())
        (found,) = site.glob("uniscale_payloads/*/payload.json")
        return found.parent


Install = Callable[[str], Installed]


@pytest.fixture(scope="session")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    """Gives the environment with the CPU wheel of a backend, made when it is first asked for."""
    kept = os.environ.get("UNISCALE_TEST_ENGINES")
    home = Path(kept) if kept else tmp_path_factory.mktemp("engines")
    env = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    # No two engines at a time, and no download of models by accident.
    env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}

    @functools.cache
    def make(backend: str) -> Installed:
        out = tmp_path_factory.mktemp("wheel")
        wheel = build_wheel(backend, out)
        made = Installed(wheel, home / backend, env)
        if not (made.venv / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", str(made.venv)], check=True)
            made.ok("pip", "install", "-q", TORCH)
        made.ok("pip", "install", "-q", TORCH, str(wheel))
        # The same version again is no update for pip: put these very files there.
        made.ok("pip", "install", "-q", "--force-reinstall", "--no-deps", str(wheel))
        return made

    return make


def build_wheel(backend: str, out: Path, device: str = "cpu") -> Path:
    """The wheel of a backend for a device, made by the command that people use."""
    path = os.pathsep.join(str(ROOT / name) for name in ("build_backend", "launchers"))
    ran = subprocess.run(
        [sys.executable, "-m", "uniscale_build", "wheel", "-b", backend, "-d", device, "-o",
         str(out), "--json"],
        env={**os.environ, "PYTHONPATH": path, "CI": "1"}, cwd=ROOT, capture_output=True,
        text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    (wheel,) = out.glob("*.whl")
    assert told["sha256"]
    return wheel


def check_flags(engine: Installed, code: str) -> None:
    """The flags in the payload's record are those of the ``parser`` that ``code`` makes."""
    code += (
        "import json\n"
        "flags = {one for action in parser._actions for one in action.option_strings}\n"
        "print('flags:' + json.dumps(sorted(flags)))\n"
    )
    told = engine.ok("python", "-c", code, PYTHONPATH=str(engine.prefix))
    (line,) = (line for line in told.splitlines() if line.startswith("flags:"))
    info = json.loads((engine.prefix / "payload.json").read_text(encoding="utf-8"))
    assert info["launch"]["serve"]["flags"] == json.loads(line.removeprefix("flags:"))
