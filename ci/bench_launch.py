"""Measures what the launcher costs: ``python ci/bench_launch.py`` writes ci/results/launch.json.

Interleaved runs, medians. CPU is user + system time of the process, which exec does not reset: an
engine that does nothing, started through ``uniscale serve``, has used what the launcher used.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchlib import ROOT, machine, save

RUNS = 9
BARE = """
import typer
app = typer.Typer({options})
@app.command()
def one(name: str, port: int = 8080): ...
@app.command()
def two(name: str): ...
@app.command()
def three(name: str): ...
app()
"""
LIMITS = {"help_over_bare": 2.0, "serve_cpu_ms": 60.0, "serve_arg_cpu_ms": 60.0,
          "serve_config_cpu_ms": 60.0}  # fmt: skip


def once(command: Sequence[str], environ: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU time (s) of one run, which must succeed."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode}: {' '.join(command)}")
    return wall, usage.ru_utime + usage.ru_stime


def measure(
    commands: Mapping[str, Sequence[str]], environ: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Medians (ms) of `RUNS` interleaved runs of each command, after one that warms the caches."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for turn in range(RUNS + 1):
        for name, command in commands.items():
            result = once(command, environ)
            if turn:
                taken[name].append(result)
    return {
        name: {
            "wall_ms": round(1000 * statistics.median(wall for wall, _ in runs), 1),
            "cpu_ms": round(1000 * statistics.median(cpu for _, cpu in runs), 1),
        }
        for name, runs in taken.items()
    }


def lay(folder: Path) -> dict[str, Sequence[str]]:
    """The commands to compare, with the payload, model and programs that they need."""
    prefix = folder / "payloads" / "llama.cpp-cpu"  # an engine that does nothing, by its words
    (prefix / "bin").mkdir(parents=True)
    engine = str(prefix / "bin" / "engine")
    shutil.copy(shutil.which("true") or "/bin/true", engine)
    known = ("--model", "--host", "--port", "--alias", "--ctx-size")
    serve = {
        "argv": ["bin/engine"],
        "model": "--model",
        "arguments": {"host": "--host", "port": "--port", "served_model_name": "--alias"},
        "formats": ["gguf"],
        "flags": [*known, *(f"--flag-{n}" for n in range(400))],
    }
    told = {"schema": 1, "backend": "llama.cpp", "device": "cpu", "version": "1",
            "tasks": ["serve"]}  # fmt: skip
    (prefix / "payload.json").write_text(json.dumps({**told, "launch": {"serve": serve}}))
    model = folder / "model.gguf"
    model.write_bytes(b"GGUF" + bytes(20))
    config = folder / "serve.yaml"
    config.write_text(f"serve:\n  model: {model}\n  args: {{max_model_len: 8K}}\n")
    (folder / "bare_plain.py").write_text(BARE.format(options="rich_markup_mode=None"))
    (folder / "bare_rich.py").write_text(BARE.format(options=""))
    uniscale = [sys.executable, "-m", "uniscale"]
    return {
        "python": [sys.executable, "-c", "pass"],
        "bare typer --help": [sys.executable, str(folder / "bare_plain.py"), "--help"],
        "bare typer (rich) --help": [sys.executable, str(folder / "bare_rich.py"), "--help"],
        "uniscale --help": [*uniscale, "--help"],
        "engine": [engine, "--model", str(model)],
        "uniscale serve engine": [*uniscale, "serve", str(model)],
        "uniscale serve --arg": [*uniscale, "serve", str(model), "--arg", "max_model_len=8K"],
        "uniscale serve config": [*uniscale, "serve", str(config)],
    }


def main() -> None:
    """Measure, print, write the results; exit code 1 when a limit is passed."""
    import typer

    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as name:
        commands = lay(Path(name))
        environ = {
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'launchers'}:{ROOT / 'build_backend'}",
            "UNISCALE_PAYLOADS": str(Path(name) / "payloads"),
            "UNISCALE_STATE": str(Path(name) / "state"),
            "UNISCALE_CACHE": str(Path(name) / "cache"),
            # As an installed wheel has it: the first run, which is not counted, writes bytecode.
            "PYTHONPYCACHEPREFIX": str(Path(name) / "bytecode"),
        }
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        load = machine()["load"]  # before ours adds to it
        times = measure(commands, environ)
    bare, help_ = times["bare typer --help"], times["uniscale --help"]
    engine = times["engine"]["cpu_ms"]
    figures = {
        "help_over_bare": round(help_["cpu_ms"] / bare["cpu_ms"], 2),
        "serve_cpu_ms": round(times["uniscale serve engine"]["cpu_ms"] - engine, 1),
        "serve_arg_cpu_ms": round(times["uniscale serve --arg"]["cpu_ms"] - engine, 1),
        "serve_config_cpu_ms": round(times["uniscale serve config"]["cpu_ms"] - engine, 1),
    }
    save(
        "launch",
        {
            "machine": {**machine(), "load": load},
            "typer": typer.__version__,
            "runs": RUNS,
            "times": times,
            "figures": figures,
            "limits": LIMITS,
        },
    )
    for key, row in times.items():
        print(f"{key:26} wall {row['wall_ms']:7.1f} ms   cpu {row['cpu_ms']:7.1f} ms")
    passed = {key: value for key, value in figures.items() if value > LIMITS[key]}
    for key, value in figures.items():
        print(f"{key:26} {value} (limit {LIMITS[key]})")
    sys.exit(1 if passed else 0)


if __name__ == "__main__":
    main()
