"""Real engines behind the real gateway, killed under load from the real client."""

from __future__ import annotations

import collections
import http.client
import importlib
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports
from uniscale.models import models
from uniscale.wheels import payloads
from uniscale_build import __file__ as build_file

from .helpers import PATIENCE, until

pytestmark = pytest.mark.engine

SECONDS = float(os.environ.get("UNISCALE_KILL_SECONDS", "60"))
PAUSE = 3.0  # seconds between kills
CLIENTS = 6
LOADING = 600.0  # seconds that vLLM may take to be ready on a machine that does more


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """This checkout's ``uniscale`` with the installed payload; skips where a part is missing."""
    pytest.importorskip("openai")
    pytest.importorskip("smg")
    if "llama.cpp (cpu)" not in [one.title for one in payloads.find().payloads]:
        pytest.skip("no llama.cpp (cpu) payload is installed: pip install . with backend=llama.cpp")
    sources = [Path(models.SHIPPED).parents[1], Path(build_file).parents[1]]
    path = os.pathsep.join([*map(str, sources), os.environ.get("PYTHONPATH", "")])
    state = str(tmp_path_factory.mktemp("state"))
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "UNISCALE_STATE": state}


@pytest.fixture(scope="module")
def model() -> str:
    """The demo model, or the one that ``UNISCALE_TEST_MODEL`` names."""
    named = os.environ.get("UNISCALE_TEST_MODEL")
    if named is None and not (Path(models.SHIPPED) / "demo" / "model.gguf").is_file():
        pytest.skip("the demo model is not there, and UNISCALE_TEST_MODEL names none")
    return named or "demo"


def words(*more: str) -> list[str]:
    return [sys.executable, "-m", "uniscale", *more]


def jobs(environ: dict[str, str]) -> list[dict[str, Any]]:
    done = subprocess.run(words("ps", "--json"), env=environ, capture_output=True, check=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)["jobs"]
    return found


@contextmanager
def serving(environ: dict[str, str], *more: str, patience: float = PATIENCE) -> Iterator[str]:
    """The address of a fleet, once all its engines and the gateway are ready."""
    port = str(ports.free_port())
    command = words("serve", *more, "--port", port)
    chosen = ["--backend", "llama.cpp", "--", "--threads", "1"]
    raw = [] if more[0].endswith(".yaml") else chosen
    with subprocess.Popen([*command, *raw], env=environ) as process:
        try:
            deadline = time.monotonic() + patience
            while not all_ready(jobs(environ)):
                assert time.monotonic() < deadline and process.poll() is None, "not ready"
                time.sleep(0.2)
            until(lambda: answer(f"http://127.0.0.1:{port}/v1/models") == 200, "models are listed")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(PATIENCE)
    assert jobs(environ) == []


def all_ready(found: list[dict[str, Any]]) -> bool:
    states = [one["state"] for job in found for one in job["processes"]]
    return bool(states) and set(states) == {"ready"}


def answer(url: str, key: str = "", body: dict[str, Any] | None = None) -> int:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as got:
            return int(got.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


def completed(base: str, name: str) -> dict[str, Any]:
    data = json.dumps({"model": name, "max_tokens": 1, "prompt": "x"}).encode()
    request = urllib.request.Request(
        f"{base}/completions", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as got:
        told: dict[str, Any] = json.load(got)
        return told


@dataclass
class Tally:
    """What the clients saw."""

    done: collections.Counter[str] = field(default_factory=collections.Counter)
    cut: list[str] = field(default_factory=list)  # streams that broke after their answer began
    failed: list[str] = field(default_factory=list)

    def enough(self, number: int) -> bool:
        """True when that many whole answers, and as many streamed ones, have come."""
        return min(self.done["whole"], self.done["streamed"]) >= number

    def more(self, before: collections.Counter[str], number: int) -> bool:
        """True when that many of each have come since ``before``."""
        return Tally(self.done - before).enough(number)


def ask(base: str, number: int, stop: threading.Event, tally: Tally) -> None:
    openai: Any = importlib.import_module("openai")
    client = openai.OpenAI(base_url=base, api_key="none", max_retries=0, timeout=60)
    turn = 0
    while not stop.is_set():
        turn += 1
        message = {"role": "user", "content": f"hello {number} {turn}"}
        call: dict[str, Any] = {"model": "killed", "max_tokens": 8, "messages": [message]}
        began = False
        try:
            if turn % 2:
                client.chat.completions.create(**call)
                tally.done["whole"] += 1
                continue
            stream = client.chat.completions.create(**call, stream=True)
            began = True  # the status 200 has come: no gateway can take it back
            finished = [one for one in stream if one.choices and one.choices[0].finish_reason]
            if finished:
                tally.done["streamed"] += 1
            else:
                tally.cut.append("it ended early")
        except openai.OpenAIError as error:
            (tally.cut if began else tally.failed).append(repr(error))
    client.close()


@contextmanager
def asking(base: str, number: int, tally: Tally) -> Iterator[None]:
    """That many clients ask meanwhile, one request after the other."""
    stop = threading.Event()
    threads = [threading.Thread(target=ask, args=(base, one, stop, tally)) for one in range(number)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_no_request_fails_while_engines_are_killed(environ: dict[str, str], model: str) -> None:
    kills, tally, wanted = 0, Tally(), max(SECONDS / PAUSE / 3, 2)
    with serving(environ, model, "--replicas", "2", "--name", "killed") as base:
        begin = time.monotonic()
        with asking(base, CLIENTS, tally):
            # A machine that others use too gets as far, only later: then it takes longer.
            while time.monotonic() - begin < SECONDS or not (kills >= wanted and tally.enough(100)):
                assert time.monotonic() - begin < 6 * SECONDS, (kills, dict(tally.done))
                time.sleep(PAUSE)
                (job,) = jobs(environ)
                engines = [one for one in job["processes"] if one["title"] != "gateway"]
                if all(one["state"] == "ready" for one in engines):
                    os.kill(engines[kills % len(engines)]["pid"], signal.SIGKILL)
                    kills += 1
        (job,) = jobs(environ)
        restarts = sum(one["restarts"] for one in job["processes"])
    print(f"\n{dict(tally.done)}, {kills} kills, {len(tally.cut)} streams cut in their midst")
    assert restarts >= kills - 1
    assert tally.failed == []
    assert len(tally.cut) <= kills * CLIENTS, tally.cut


def test_a_mixed_fleet_loses_vllm_and_no_request(environ: dict[str, str], tmp_path: Path) -> None:
    if "vllm (cpu)" not in [one.title for one in payloads.find().payloads]:
        pytest.skip("no vllm (cpu) payload is installed")
    if not (Path(models.SHIPPED) / "demo").is_dir():
        pytest.skip("the demo model is not there")
    small = {"max_model_len": 128, "enforce_eager": True}
    told = [
        {"model": "demo", "name": "killed", "engine": "llama.cpp", "flags": ["--threads", "1"]},
        {"model": "demo", "name": "killed", "engine": "vllm", "args": small},
    ]
    config = tmp_path / "mixed.yaml"
    text = json.dumps({"serve": {"models": told, "gateway": {"policy": "round_robin"}}})
    config.write_text(text)
    kills, tally = 0, Tally()
    with serving(environ, str(config), patience=LOADING) as base, asking(base, 4, tally):
        # vLLM's, then twice llama.cpp's: each while the other answers, vLLM back in between.
        for word in ("vllm", "llama.cpp", "llama.cpp"):
            before = tally.done.copy()
            until(lambda: all_ready(jobs(environ)), "both are ready", LOADING, pause=2)
            (job,) = jobs(environ)
            (engine,) = (one for one in job["processes"] if word in one["title"])
            os.kill(engine["pid"], signal.SIGKILL)
            kills += 1
            time.sleep(PAUSE)
            until(partial(tally.more, before, 20), "the other answers")
        until(lambda: all_ready(jobs(environ)), "both are back", LOADING, pause=2)
        (job,) = jobs(environ)
        restarts = {one["title"]: one["restarts"] for one in job["processes"]}
    print(f"\n{dict(tally.done)}, {restarts}, {len(tally.cut)} streams cut in their midst")
    assert tally.failed == [] and len(tally.cut) <= kills * 4
    assert sum(restarts.values()) == kills


def test_keys_and_who_may_add_engines(environ: dict[str, str], model: str, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("secret\nteam:other\n")
    path.chmod(0o600)
    with serving(environ, model, "--name", "killed", "--api-keys", str(path)) as base:
        body = {"model": "killed", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        url = f"{base}/chat/completions"
        assert [answer(url, key, body) for key in ("", "wrong", "secret", "other")] == [
            *(401, 401, 200, 200),
        ]
        (job,) = jobs(environ)
        (front,) = (one for one in job["processes"] if one["title"] == "gateway")
        for name in ("cmdline", "environ"):
            assert b"secret" not in Path(f"/proc/{front['pid']}/{name}").read_bytes()
        assert answer(base.replace("/v1", "/workers"), "", {"url": "http://127.0.0.1:1"}) == 401


def test_two_models_behind_one_address(environ: dict[str, str], model: str, tmp_path: Path) -> None:
    told = {"models": [{"model": model, "name": name, "engine": "llama.cpp"} for name in "ab"]}
    config = tmp_path / "two.yaml"
    config.write_text(json.dumps({"serve": told}))
    with serving(environ, str(config)) as base:
        for name in ("a", "b"):
            assert completed(base, name)["model"] == name


def test_a_gateway_that_is_killed_comes_back(environ: dict[str, str], model: str) -> None:
    with serving(environ, model, "--replicas", "2", "--name", "killed") as base:
        (job,) = jobs(environ)
        (front,) = (one for one in job["processes"] if one["title"] == "gateway")
        os.kill(front["pid"], signal.SIGKILL)
        until(lambda: jobs(environ)[0]["processes"][-1]["restarts"] == 1, "it is started again")
        body = {"model": "killed", "max_tokens": 1, "prompt": "x"}
        until(lambda: answer(f"{base}/completions", "", body) == 200, "it serves again")


def test_tls_and_cors(environ: dict[str, str], model: str, tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not there to make a certificate")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*make, "-out", certificate, "-keyout", key], check=True, capture_output=True)
    settings = {"tls_certificate": certificate, "tls_key": key}
    words_of = [f"serve.gateway.{name}={path}" for name, path in settings.items()]
    words_of.append("serve.gateway.cors_allowed_origins=[https://page.example]")
    options = [part for word in words_of for part in ("--set", word)]
    trusted = ssl.create_default_context(cafile=str(certificate))
    port = ports.free_port()
    command = words("serve", model, "--name", "killed", "--port", str(port), *options)
    command += ["--backend", "llama.cpp"]
    with subprocess.Popen(command, env=environ) as process:
        try:
            until(lambda: all_ready(jobs(environ)), "all are ready")
            (job,) = jobs(environ)
            assert job["url"] == f"https://127.0.0.1:{port}/v1"
            asked = urllib.request.Request(
                f"{job['url']}/models", headers={"Origin": "https://page.example"}
            )
            with urllib.request.urlopen(asked, timeout=30, context=trusted) as got:
                assert got.status == 200
                assert got.headers["access-control-allow-origin"] == "https://page.example"
            with pytest.raises((OSError, http.client.HTTPException)):
                urllib.request.urlopen(job["url"].replace("https", "http"), timeout=10).close()
        finally:
            process.terminate()
            process.wait(PATIENCE)
