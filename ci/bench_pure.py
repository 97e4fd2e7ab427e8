"""Wheels of Python payloads from warm sources: what is ours, and what is upstream's own build.

``ci/bench pure`` makes each wheel twice in a fresh cache that has the sources and prints, for
every stage, seconds of wall and of processor time. Upstream's own step is the environment that its
build asks for (``requirements``) and the build itself (``build``); the rest is ours. Beside it:
plans of all backends on all devices, in one command.

Needs the sources in the cache (``UNISCALE_CACHE``): build each pair once before.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from benchlib import ROOT, Took, machine, run, save

PAIRS = (("vllm", "Cambricon_MLU"), ("Megatron-LM", "Cambricon_MLU"), ("sglang", "cpu"))
UPSTREAM = ("requirements", "build")
LIMIT = 5.0  # seconds of wall beside upstream's own step
PLANS_LIMIT = 1.0
_TICK = os.sysconf("SC_CLK_TCK")


def spent(pid: int) -> float:
    """Processor seconds of a process, its waited-for children, and its living children's."""
    total = 0.0
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(") ")[2].split()
        except OSError:
            continue
        if int(folder.name) == pid or int(fields[1]) == pid:
            total += sum(int(word) for word in fields[11:15]) / _TICK
    return total


def stages(command: list[str], env: Mapping[str, str]) -> dict[str, Took]:
    """Run ``command`` and time what is between its stage lines; the first is called ``start``."""
    told: dict[str, Took] = {}
    name = "start"
    wall, cpu = time.perf_counter(), 0.0
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **env}, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        text = ""
        for line in process.stdout:
            text += line
            now, used = time.perf_counter(), spent(process.pid)
            before = told.get(name, Took(0, 0))
            told[name] = Took(before.wall + now - wall, before.cpu + max(used - cpu, 0.0))
            wall, cpu = now, used
            if line.startswith("uniscale: "):
                name = line.split()[1].rstrip(":")
        code = process.wait()
    if code:
        raise SystemExit(f"{command} failed with {code}:\n{text[-3000:]}")
    return told


def measure(backend: str, device: str, folder: Path, sources: Path) -> dict[str, object]:
    """One wheel from warm sources, nothing else in the cache; then the same with its tools kept."""
    cache = folder / f"{backend}-{device}"
    cache.mkdir()
    for name in ("git", "downloads"):
        (cache / name).symlink_to(sources / name)
    env = {"UNISCALE_CACHE": str(cache), "CI": "1", "UNISCALE_OFFLINE": "",
           "PYTHONPATH": f"{ROOT / 'build_backend'}{os.pathsep}{ROOT / 'launchers'}"}  # fmt: skip
    command = [sys.executable, "-u", "-m", "uniscale_build", "wheel", "-b", backend, "-d", device,
               "-o", str(folder / "out")]  # fmt: skip
    told = stages(command, env)
    ours = [took for name, took in told.items() if name not in UPSTREAM]
    theirs = [took for name, took in told.items() if name in UPSTREAM]
    return {
        "stages": {name: [round(took.wall, 2), round(took.cpu, 2)] for name, took in told.items()},
        "ours": [round(sum(one.wall for one in ours), 2), round(sum(one.cpu for one in ours), 2)],
        "upstream": [round(sum(one.wall for one in theirs), 2),
                           round(sum(one.cpu for one in theirs), 2)],
    }  # fmt: skip


def plans() -> dict[str, object]:
    """All backends on all devices: the command, and the work in it without Python's start."""
    words = [sys.executable, "-m", "uniscale_build", "matrix", "--json"]
    path = {"PYTHONPATH": f"{ROOT / 'build_backend'}{os.pathsep}{ROOT / 'launchers'}"}
    best = min((run(words, cwd=ROOT, env=path) for _ in range(3)), key=lambda took: took.wall)
    from uniscale_build.plans.pairs import all_pairs
    from uniscale_build.project import find_project

    started, before = time.perf_counter(), time.process_time()
    pairs = all_pairs(find_project(ROOT))
    inside = Took(time.perf_counter() - started, time.process_time() - before)
    return {"pairs": len(pairs), "command": [round(best.wall, 2), round(best.cpu, 2)],
            "resolving": [round(inside.wall, 2), round(inside.cpu, 2)]}  # fmt: skip


def main() -> None:
    """Measure, print, keep the results."""
    home = Path.home() / ".cache" / "uniscale"
    sources = Path(os.environ.get("UNISCALE_CACHE") or home).resolve()
    on = machine()
    facts: dict[str, object] = {}
    for backend, device in PAIRS:
        with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as name:
            took = measure(backend, device, Path(name), sources)
        facts[f"{backend} for {device}"] = took
        print(f"{backend} for {device}: ours {took['ours']} s wall, CPU (limit {LIMIT}), "
              f"upstream's own {took['upstream']}")  # fmt: skip
        print(f"  {took['stages']}")
    resolved = plans()
    print(f"plans of all pairs: {resolved} s wall, CPU (limit {PLANS_LIMIT})")
    limits = {"a wheel, ours, wall": LIMIT, "plans, wall": PLANS_LIMIT}
    save("pure", {"machine": on, "seconds_wall_cpu": facts, "plans": resolved, "limits": limits})


if __name__ == "__main__":
    main()
