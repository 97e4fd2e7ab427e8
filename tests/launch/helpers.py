"""What the launchers' tests share: payload folders, GGUF files, and the command as a process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ENGINE = Path(__file__).with_name("engine.py")
PATIENCE = 30.0  # seconds before a test gives up waiting; nothing is asserted about speed
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def record(backend: str = "llama.cpp", device: str = "cpu", **changes: Any) -> dict[str, Any]:
    """A payload.json (schema 1) for the test engine; ``changes`` replace top-level keys."""
    return {
        "schema": 1,
        "backend": backend,
        "device": device,
        "distribution": "uniscale-llama-cpp",
        "version": "0.5.0.dev0",
        "tasks": ["serve", "infer"],
        "upstream": {"version": "0.5.0", "commit": COMMIT, "origin": "https://example.org/up"},
        "layers": [{"name": "build-record", "title": "says what was built"}],
        "launch": {"serve": launch()},
        "device_environment": {"visible": None, "set": {}},
        "verified": {"built": True, "ran": True, "note": ""},
        **changes,
    }


def launch(**changes: Any) -> dict[str, Any]:
    """``launch.serve`` of the test engine; ``changes`` replace keys."""
    return {
        "argv": ["bin/engine"],
        "model": "--model",
        "arguments": {
            "host": "--host",
            "port": "--port",
            "served_model_name": "--alias",
            "max_model_len": "--ctx-size",
        },
        "fixed": ["--no-webui"],
        "formats": ["gguf"],
        "probe": "/health",
        "metrics": "/metrics",
        **changes,
    }


def lay_payload(folder: Path, told: Mapping[str, Any] | str | bytes | None = None) -> Path:
    """A payload in ``folder`` with the test engine as a program and as a module; its prefix."""
    told = record() if told is None else told
    name = f"{told['backend']}-{told['device']}" if isinstance(told, Mapping) else "broken-cpu"
    prefix = folder / name
    (prefix / "bin").mkdir(parents=True)
    program = prefix / "bin" / "engine"
    # The shell comes first to note what Python changes at its start: which signals are ignored.
    program.write_text(
        "#!/bin/sh\n"
        "export IGNORED=$(grep SigIgn /proc/$$/status)\n"
        f"exec '{sys.executable}' '{prefix}/engine_module.py' \"$@\"\n"
    )
    program.chmod(0o755)
    shutil.copy(ENGINE, prefix / "engine_module.py")
    if isinstance(told, Mapping):
        told = json.dumps(told)
    if isinstance(told, str):
        told = told.encode()
    (prefix / "payload.json").write_bytes(told)
    return prefix


def lay_gguf(path: Path) -> Path:
    """A file that begins as a GGUF does; the test engine asks for no more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    return path


@dataclass(frozen=True)
class Result:
    """A finished command."""

    code: int
    out: str
    err: str

    def ok(self) -> Result:
        assert self.code == 0, self
        return self

    def refused(self, slug: str, code: int = 13) -> str:
        """The error's text, after checking its slug and exit code and that no traceback came."""
        assert f"error[{slug}]" in self.err, self
        assert self.code == code, self
        assert "Traceback" not in self.err + self.out, self
        return self.err


@dataclass
class Bench:
    """A folder to work in, payloads and a model in it, and ``uniscale`` as a real process."""

    root: Path
    site: Path  # stands for site-packages, without any payload of this machine
    environ: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        repository = Path(__file__).parents[2]
        sources = [repository / "launchers", repository / "build_backend", self.site]
        (self.root / "tmp").mkdir(parents=True)
        self.payloads.mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "TMPDIR": str(self.root / "tmp"),
            "PYTHONPATH": os.pathsep.join(map(str, sources)),
            "UNISCALE_PAYLOADS": str(self.payloads),
            "UNISCALE_STATE": str(self.root / "state"),
        }

    @property
    def payloads(self) -> Path:
        return self.root / "payloads"

    @property
    def logs(self) -> list[Path]:
        """Engine logs that were left behind."""
        return list((self.root / "tmp").iterdir())

    def words(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-S", "-m", "uniscale", *map(str, words)]

    def start(self, *words: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        """Start ``uniscale words…``; killed with its engine at the end of the test."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "cwd": self.root}
        options = {"env": self.environ, **pipes, **more}
        process: subprocess.Popen[bytes] = subprocess.Popen(self.words(*words), **options)
        self.started.append(process)
        return process

    def run(self, *words: str | Path, stdin: bytes = b"", **more: Any) -> Result:
        """Run ``uniscale words…`` to its end."""
        process = self.start(*words, stdin=subprocess.PIPE, **more)
        out, err = process.communicate(stdin, timeout=PATIENCE)
        return Result(process.returncode, out.decode(), err.decode())

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def until(
    condition: Callable[[], Any], what: str, patience: float = PATIENCE, pause: float = 0.02
) -> Any:
    """The first true value of ``condition``; fails with ``what`` after ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(pause)
    raise AssertionError(f"waited {patience:g} s in vain: {what}")


def recorded(path: Path) -> dict[str, Any]:
    """What the engine that was told ``--record path`` was given."""
    until(path.exists, f"{path.name} is written")
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def alive(pid: int) -> bool:
    """True while ``pid`` runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def flag(argv: Sequence[str], name: str) -> str:
    """The value behind ``name``, which must stand in ``argv`` exactly once."""
    assert list(argv).count(name) == 1, argv
    return argv[list(argv).index(name) + 1]
