"""Measures what stands before an engine: ``python ci/bench_serve.py`` writes ci/results/serve.json.

One llama-server, started by ``uniscale serve`` with the gateway; wrk asks it directly, through the
gateway, through a proxy of a dozen lines of FastAPI and httpx, through LiteLLM where
``--litellm PROGRAM`` names one, and through the same proxy as a deployment of Ray Serve where
``--serve PROGRAM`` names Ray's ``serve``. Both want environments of their own:
``pip install 'litellm[proxy]'`` and ``pip install 'ray[serve]==2.60.0' httpx``. Rounds are
interleaved, so that what else the machine does hits all alike; the ratios are what counts. Needs
the installed llama.cpp payload, smg, wrk, uvicorn, fastapi, httpx.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from benchlib import ROOT, save

CONCURRENCY = (1, 8, 32)
LEAST = 0.85  # of the direct throughput, at concurrency 32
PROXY = """
import os
import httpx
from fastapi import FastAPI, Request, Response
app = FastAPI()
client = httpx.AsyncClient(base_url=os.environ["TARGET"], timeout=60)
@app.post("/v1/chat/completions")
async def chat(request: Request) -> Response:
    kind = {"content-type": "application/json"}
    body = await request.body()
    answer = await client.post("/v1/chat/completions", content=body, headers=kind)
    return Response(answer.content, answer.status_code, media_type="application/json")
@app.get("/health")
async def health() -> dict[str, str]:
    return {}
"""
DEPLOYMENT = """
from ray import serve
from proxy import app
@serve.deployment(max_ongoing_requests=64)
@serve.ingress(app)
class Proxy:
    pass
deployed = Proxy.bind()
"""
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"bench","max_tokens":8,"messages":[{"role":"user","content":"hello"}]}'
"""
_FIGURES = {
    "rps": re.compile(r"Requests/sec:\s*([\d.]+)"),
    "p50": re.compile(r"50%\s*([\d.]+)(us|ms|s)"),
    "p99": re.compile(r"99%\s*([\d.]+)(us|ms|s)"),
    "refused": re.compile(r"Non-2xx or 3xx responses: (\d+)"),
    "errors": re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)"),
}
_MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


def main() -> None:
    """Measure, print, write the results; exit code 1 when the gateway keeps too little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo", help="what is served (default: the demo model)")
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--litellm", help="the program of a LiteLLM installation")
    parser.add_argument("--serve", help="the program serve of a Ray installation")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        targets, starts = _targets(stack, folder, options)
        runs = _measure(targets, folder, options)
    figures = _figures(runs)
    _tell(figures)
    kept = figures["smg"]["32"]["of_direct"]
    facts = {"seconds": options.seconds, "rounds": options.rounds, "starts_s": starts}
    save("serve", {**facts, "least": LEAST, "paths": figures})
    sys.exit(0 if kept >= LEAST else f"the gateway keeps {kept:.0%} of the throughput")


def _targets(
    stack: ExitStack, folder: Path, options: argparse.Namespace
) -> tuple[dict[str, str], dict[str, float]]:
    """Where each path is asked, and the seconds that it took to answer after its start."""
    starts: dict[str, float] = {}
    gate, engine = stack.enter_context(_served(folder, options.model))
    targets = {"direct": engine, "smg": gate}
    (folder / "proxy.py").write_text(PROXY)
    port = _free()
    command = [sys.executable, "-m", "uvicorn", "proxy:app", "--port", str(port)]
    command += ["--log-level", "error", "--no-access-log", "--app-dir", str(folder)]
    extra = {"TARGET": engine}
    starts["fastapi"] = stack.enter_context(_running(command, port, "/health", extra))
    targets["fastapi"] = f"http://127.0.0.1:{port}"
    if options.litellm:
        port = _free()
        entry = {"model": "openai/bench", "api_base": f"{engine}/v1", "api_key": "none"}
        told = {"model_list": [{"model_name": "bench", "litellm_params": entry}]}
        (folder / "litellm.yaml").write_text(json.dumps(told))
        command = [options.litellm, "--config", str(folder / "litellm.yaml"), "--port", str(port)]
        extra = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        extra["LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY"] = "true"
        starts["litellm"] = stack.enter_context(
            _running(command, port, "/health/liveliness", extra)
        )
        targets["litellm"] = f"http://127.0.0.1:{port}"
    if options.serve:
        starts["ray"], targets["ray"] = stack.enter_context(_ray(folder, options.serve, engine))
    return targets, starts


@contextmanager
def _ray(folder: Path, program: str, target: str) -> Iterator[tuple[float, str]]:
    """Ray Serve with the same proxy, on a Ray of its own; how long it took, and its address."""
    port = _free()
    (folder / "deployment.py").write_text(DEPLOYMENT)
    told = {
        "http_options": {"host": "127.0.0.1", "port": port},
        # The other paths write no line for each request either.
        "logging_config": {"log_level": "ERROR", "enable_access_log": False},
        "applications": [
            {"name": "bench", "route_prefix": "/", "import_path": "deployment:deployed"}
        ],
    }
    (folder / "ray.yaml").write_text(json.dumps(told))
    command = [program, "run", "--app-dir", str(folder), str(folder / "ray.yaml")]
    extra = {"TARGET": target, "PYTHONPATH": str(folder)}
    extra |= {"RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    with _running(command, port, "/health", extra) as seconds:
        yield seconds, f"http://127.0.0.1:{port}"


@contextmanager
def _served(folder: Path, model: str) -> Iterator[tuple[str, str]]:
    """The gateway's and the engine's addresses."""
    port = _free()
    roots = [str(ROOT / "launchers"), str(ROOT / "build_backend"), os.environ.get("PYTHONPATH", "")]
    environ = {
        **os.environ,
        "UNISCALE_STATE": str(folder / "state"),
        "PYTHONPATH": os.pathsep.join(filter(None, roots)),
    }
    uniscale = [sys.executable, "-m", "uniscale"]
    command = [*uniscale, "serve", model, "--name", "bench", "--port", str(port)]
    command += ["--set", "serve.gateway.policy=round_robin"]
    # One thread leaves room for what is measured; the log of each request is no part of it.
    raw = ["--", "--threads", "1", "--threads-batch", "1", "--log-disable"]
    with subprocess.Popen([*command, *raw], env=environ) as process:
        try:
            job = _wait(lambda: _ready([*uniscale, "ps", "--json"], environ), process)
            engine = next(one for one in job["processes"] if one["title"] != "gateway")
            address = f"http://127.0.0.1:{port}"
            _wait(lambda: b"bench" in _get(f"{address}/v1/models"), process)
            yield address, f"http://127.0.0.1:{engine['port']}"
        finally:
            process.terminate()


def _ready(command: list[str], environ: dict[str, str]) -> dict[str, Any] | None:
    done = subprocess.run(command, env=environ, capture_output=True, check=True)
    for job in json.loads(done.stdout)["jobs"]:
        if job["processes"] and all(one["state"] == "ready" for one in job["processes"]):
            found: dict[str, Any] = job
            return found
    return None


@contextmanager
def _running(command: list[str], port: int, path: str, extra: dict[str, str]) -> Iterator[float]:
    began = time.monotonic()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, env={**os.environ, **extra}, stdout=quiet, start_new_session=True
    ) as process:
        try:
            _wait(lambda: _get(f"http://127.0.0.1:{port}{path}") is not None, process)
            yield round(time.monotonic() - began, 2)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _wait(condition: Callable[[], Any], process: subprocess.Popen[bytes]) -> Any:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"{process.args!r} ended with {process.returncode}")
        try:
            if found := condition():
                return found
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.1)
    sys.exit(f"waited in vain for {process.args!r}")


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return bytes(answer.read()) or b" "


def _free() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _measure(
    targets: dict[str, str], folder: Path, options: argparse.Namespace
) -> dict[str, dict[int, list[dict[str, float]]]]:
    script = folder / "ask.lua"
    script.write_text(SCRIPT)
    runs: dict[str, dict[int, list[dict[str, float]]]] = {
        name: {many: [] for many in CONCURRENCY} for name in targets
    }
    for _ in range(options.rounds):
        for many in CONCURRENCY:
            for name, url in targets.items():
                command = ["wrk", "-t1", f"-c{many}", f"-d{options.seconds}s", "--latency"]
                command += ["-s", str(script), f"{url}/v1/chat/completions"]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                runs[name][many].append(_read(done.stdout))
    return runs


def _read(text: str) -> dict[str, float]:
    found = {}
    for name, pattern in _FIGURES.items():
        match = pattern.search(text)
        if name in ("refused", "errors"):
            found[name] = float(sum(map(int, match.groups()))) if match else 0.0
        elif match is None:
            sys.exit(f"wrk did not tell {name}:\n{text}")
        else:
            found[name] = float(match[1]) * (_MS[match[2]] if name != "rps" else 1.0)
    return found


def _figures(
    runs: dict[str, dict[int, list[dict[str, float]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, by_many in runs.items():
        figures[name] = {}
        for many, rows in by_many.items():
            ratios = [
                row["rps"] / direct["rps"]
                for row, direct in zip(rows, runs["direct"][many], strict=True)
            ]
            figures[name][str(many)] = {
                "rps": round(statistics.median(row["rps"] for row in rows), 1),
                "p50_ms": round(statistics.median(row["p50"] for row in rows), 2),
                "p99_ms": round(statistics.median(row["p99"] for row in rows), 2),
                "failed": sum(row["refused"] + row["errors"] for row in rows),
                # Round by round: the machine's load is the same for both of a pair.
                "of_direct": round(statistics.median(ratios), 3),
            }
    return figures


def _tell(figures: dict[str, dict[str, dict[str, float]]]) -> None:
    for name, by_many in figures.items():
        for many, row in by_many.items():
            print(
                f"{name:8} c={many:3} {row['rps']:8.1f} req/s  p50 {row['p50_ms']:7.2f} ms  "
                f"p99 {row['p99_ms']:8.2f} ms  failed {row['failed']:.0f}  "
                f"{row['of_direct']:6.1%} of direct"
            )


if __name__ == "__main__":
    main()
