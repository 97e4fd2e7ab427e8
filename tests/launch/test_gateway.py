"""The gateway's settings, each with the real smg and a real request; engines are the tests' own.

Keys, TLS, CORS and what happens when something dies are in test_kill.py, with real engines.
"""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports

from .helpers import PATIENCE, Bench, lay_payload, until

SMG = importlib.util.find_spec("smg")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(SMG is None, reason="smg is not installed: pip install smg==1.13.0"),
]
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # an HTTP/2 frame: a server's settings, none


@contextmanager
def serving(
    bench: Bench, model: Path, *settings: str, raw: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """The job of one engine behind the gateway with ``settings``, once both are ready."""
    assert SMG is not None and SMG.origin is not None
    bench.environ["PYTHONPATH"] += os.pathsep + str(Path(SMG.origin).parents[1])
    lay_payload(bench.payloads)
    words = [one for told in settings for one in ("--set", f"serve.gateway.{told}")]
    words += ["--port", str(ports.free_port()), "--name", "front"]
    process = bench.start("serve", model, *words, "--", *raw, stderr=subprocess.DEVNULL)
    try:
        yield until(lambda: ready(bench), "engine and gateway are ready")
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ready(bench: Bench) -> dict[str, Any] | None:
    jobs: list[dict[str, Any]] = json.loads(bench.run("ps", "--json").ok().out)["jobs"]
    for job in jobs:
        steady = all(one["state"] == "ready" for one in job["processes"])
        if job["processes"] and steady and "front" in get(f"{job['url']}/models")[1]:
            return job
    return None


def get(url: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError as error:
        return 0, str(error)


def ask(job: dict[str, Any], text: str = "hello") -> int:
    message = {"role": "user", "content": text}
    body = {"model": "front", "stream": True, "messages": [message]}
    return get(f"{job['url']}/chat/completions", body)[0]


def test_a_limit_of_requests_at_a_time(bench: Bench, model: Path) -> None:
    limits = ("max_concurrent_requests=1", "queue_size=0")
    with serving(bench, model, *limits, raw=("--delay", "1")) as job:
        with ThreadPoolExecutor(4) as pool:
            codes = sorted(pool.map(lambda _: ask(job), range(4)))
        assert codes[0] == 200 and codes[-1] == 429 and set(codes) == {200, 429}
        assert ask(job) == 200, "it is free again"


def test_a_queue(bench: Bench, model: Path) -> None:
    limits = ("max_concurrent_requests=1", "queue_size=8", "queue_timeout=20")
    with serving(bench, model, *limits, raw=("--delay", "0.3")) as job:
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda _: ask(job), range(4)))
        assert codes == [200] * 4, "they wait for each other"


def test_a_payload_that_is_too_large(bench: Bench, model: Path) -> None:
    with serving(bench, model, "max_payload_size=20000") as job:
        assert ask(job, "x" * 1000) == 200
        assert ask(job, "x" * 30000) in (400, 413)


def test_a_time_limit_for_an_answer(bench: Bench, model: Path) -> None:
    with serving(bench, model, "request_timeout=1", "retries=1", raw=("--delay", "5")) as job:
        assert ask(job) in (408, 500, 502, 504)


def test_prometheus(bench: Bench, model: Path) -> None:
    port = ports.free_port()
    with serving(bench, model, f"metrics_port={port}") as job:
        assert ask(job) == 200
        code, text = get(f"http://127.0.0.1:{port}/metrics")
        assert code == 200 and "# TYPE smg_" in text
        counted = [line for line in text.splitlines() if line.startswith("smg_http_requests_total")]
        assert any("/v1/chat/completions" in line for line in counted), counted


def test_opentelemetry(bench: Bench, model: Path) -> None:
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as collector:

        def collect() -> None:
            """As much of HTTP/2 as lets a client send: its spans are plain in the frames."""
            try:
                while True:
                    connection, _ = collector.accept()
                    with connection:
                        connection.sendall(SETTINGS)
                        while data := connection.recv(65536):
                            got.extend(data)
            except OSError:
                pass  # the test is over

        thread = threading.Thread(target=collect, daemon=True)
        thread.start()
        place = f"127.0.0.1:{collector.getsockname()[1]}"
        with serving(bench, model, f"traces_endpoint={place}", "log_level=info") as job:
            assert ask(job) == 200
            until(lambda: b"/v1/chat/completions" in got, "a span of the request arrives")
        assert got.startswith(b"PRI * HTTP/2.0"), "OTLP over gRPC"


def test_a_websocket(bench: Bench, model: Path) -> None:
    with serving(bench, model, "log_level=warn", raw=("--realtime",)) as job:
        (engine,) = (one for one in job["processes"] if one["title"] != "gateway")
        assert upgraded(engine["port"]) == (101, b"hello"), "the engine itself speaks it"
        gate = int(job["url"].rpartition(":")[2].partition("/")[0])
        status, told = upgraded(gate)
        assert status == 404 and b"No worker available" in told, "smg passes it on to OpenAI only"


def upgraded(port: int) -> tuple[int, bytes]:
    """What a WebSocket client gets from ``/v1/realtime``: the status, and the echo of hello."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.settimeout(PATIENCE)
        lines = ["GET /v1/realtime?model=front HTTP/1.1", f"Host: 127.0.0.1:{port}"]
        lines += ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
        lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]
        client.sendall("\r\n".join(lines).encode())
        stream = client.makefile("rb")
        status = int(stream.readline().split()[1])
        head = b""
        while (line := stream.readline()).strip():
            head += line
        if status != 101:
            return status, stream.read1(4096) if b"length: 0" not in head.lower() else b""
        assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head, "RFC 6455's own example"
        client.sendall(bytes([0x81, 0x85, 0, 0, 0, 0]) + b"hello")
        answer = stream.read(7)
        client.sendall(bytes([0x88, 0x80, 0, 0, 0, 0]))
        return status, answer[2:]
