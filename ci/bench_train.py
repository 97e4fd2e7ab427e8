"""From nothing to served: ``ci/bench train`` writes ci/results/train.json.

README's example as a user types it: the demo model learns ten questions (LoRA), is exported, served
by llama.cpp and asked. It needs a Python with requirements-train.txt and a llama.cpp payload:
``UNISCALE_PAYLOADS=FOLDER ci/bench train``. Exit code 1 when it takes longer than the limit, or
when an answer is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from benchlib import ROOT, Took, machine, run, save

EXAMPLE = ROOT / "examples" / "train"
LIMIT = 60.0  # seconds, on two cores
UNISCALE = (sys.executable, "-m", "uniscale")


@contextmanager
def server(model: Path, port: str, environ: dict[str, str]) -> Iterator[None]:
    """``uniscale serve`` of what was trained, ready."""
    from uniscale.serving import client

    command = [*UNISCALE, "serve", str(model), "--backend", "llama.cpp", "--port", port]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environ, stdout=quiet, stderr=quiet) as process:
        try:
            while not client.ready("127.0.0.1", int(port), "/health", 1):
                if process.poll() is not None:
                    sys.exit(f"uniscale serve ended with {process.returncode}")
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)


def wrong(port: str) -> int:
    """How many of the questions that were taught are not answered as they were."""
    from uniscale.serving import client

    count = 0
    for line in (EXAMPLE / "teahouse.jsonl").read_text(encoding="utf-8").splitlines():
        asked, answer = json.loads(line)["messages"]
        body = {"model": "teahouse", "messages": [asked]}
        said = "".join(piece.text for piece in client.chat("127.0.0.1", int(port), body))
        count += said.strip() != answer["content"]
    return count


def once(folder: Path) -> tuple[dict[str, Took], int]:
    """The steps of one way from nothing to an answer, and how many answers were wrong."""
    from uniscale import ports

    out = folder / "teahouse"
    environ = {
        "PYTHONPATH": f"{ROOT / 'launchers'}{os.pathsep}{ROOT / 'build_backend'}",
        "UNISCALE_STATE": str(folder / "state"),
        "UNISCALE_CACHE": str(folder / "cache"),
    }
    words = ("train", EXAMPLE / "teahouse.yaml", "--data", EXAMPLE / "teahouse.jsonl", "--out", out)
    steps = {"train": run([*UNISCALE, *words], cwd=folder, env=environ)}
    steps["export"] = run([*UNISCALE, "export", out], cwd=folder, env=environ)
    begin, port = time.perf_counter(), str(ports.free_port())
    with server(out, port, {**os.environ, **environ}):
        ready = time.perf_counter()
        mistakes = wrong(port)
        asked = time.perf_counter()
    steps["serve"], steps["ask"] = Took(ready - begin, 0.0), Took(asked - ready, 0.0)
    return steps, mistakes


def main() -> None:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=3, help="the median of them counts")
    runs = parser.parse_args().runs
    sys.path.insert(0, str(ROOT / "launchers"))
    before, taken, mistakes = machine(), [], 0
    for number in range(runs):
        with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as name:
            steps, bad = once(Path(name))
        wall, mistakes = sum(one.wall for one in steps.values()), mistakes + bad
        taken.append((wall, steps))
        told = "  ".join(f"{step} {one.wall:.1f} s" for step, one in steps.items())
        print(f"run {number + 1}: {wall:.1f} s  ({told})", flush=True)
    wall, steps = sorted(taken, key=lambda one: one[0])[len(taken) // 2]
    rounded = {
        step: {key: round(value, 2) for key, value in asdict(one).items()}
        for step, one in steps.items()
    }
    facts = {"machine": before, "runs": runs, "wall": round(wall, 1), "limit": LIMIT}
    save("train", {**facts, "wrong_answers": mistakes, "steps": rounded})
    print(f"from nothing to served and asked: {wall:.1f} s (limit {LIMIT:g} s)")
    sys.exit(1 if wall > LIMIT or mistakes else 0)


if __name__ == "__main__":
    main()
