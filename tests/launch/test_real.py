"""The launchers with the real llama.cpp of this environment and the demo model of the wheel."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale import ports
from uniscale.models import models
from uniscale.serving import client
from uniscale.wheels import payloads
from uniscale_build import __file__ as build_file

from . import vision
from .helpers import PATIENCE, Result, alive, until

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def environ(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which ``uniscale`` is this checkout's; skips without payload or model."""
    found = [one.title for one in payloads.find().payloads]
    if "llama.cpp (cpu)" not in found:
        pytest.skip("no llama.cpp (cpu) payload is installed: pip install . with backend=llama.cpp")
    if not (Path(models.SHIPPED) / "demo" / "model.gguf").is_file():
        pytest.skip("the demo model is not there")
    sources = [Path(models.SHIPPED).parents[1], Path(build_file).parents[1]]
    old = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join([*map(str, sources), *filter(None, [old])])
    return {**os.environ, "PYTHONPATH": path, "TMPDIR": str(tmp_path_factory.mktemp("logs"))}


def words(command: str, *more: str) -> list[str]:
    chosen = ["--backend", "llama.cpp", "--device", "cpu"]
    return [sys.executable, "-m", "uniscale", command, *chosen, *more]


def run(environ: dict[str, str], *more: str) -> Result:
    command = words(*more)
    done = subprocess.run(command, env=environ, capture_output=True, timeout=120)
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def engines(environ: dict[str, str]) -> set[int]:
    """The pids of the payload's engine that run now."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:  # it has ended meanwhile
                continue
            if b"llama-server" in command.split(b"\0")[0]:
                found.add(int(entry.name))
    return found


def test_the_demo_says_who_it_is(environ: dict[str, str]) -> None:
    result = run(environ, "infer", "demo", "Who are you?").ok()
    assert "uniscale" in result.out.lower()
    assert result.out.count("\n") == 1
    again = json.loads(run(environ, "infer", "demo", "Who are you?", "--json").ok().out)
    assert again["text"] == result.out.rstrip("\n"), "the default is not greedy"
    assert again["finish_reason"] == "stop"
    assert again["usage"]["completion_tokens"] > 1


def test_chinese_and_odd_prompts(environ: dict[str, str]) -> None:
    assert run(environ, "infer", "demo", "你是谁？").ok().out.strip()
    assert run(environ, "infer", "demo", "a 'b' \"c\"\n🌍 $(exit 3)", "--max-tokens", "8").ok().out


def test_serve_is_llama_server(environ: dict[str, str]) -> None:
    port = ports.free_port()
    command = words("serve", "demo", "--port", str(port), "--", "--threads", "1")
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: client.ready("127.0.0.1", port, "/health", 1), "llama-server is ready")
            assert process.pid in engines(environ)
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/v1/models")
            with connection.getresponse() as response:
                listed = json.load(response)["data"]
            connection.close()
            assert [one["id"] for one in listed] == ["demo"]
            body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
            assert list(client.chat("127.0.0.1", port, body))
        finally:
            process.terminate()
    assert process.returncode in (0, -signal.SIGTERM)


def test_no_engine_is_left(environ: dict[str, str]) -> None:
    before = engines(environ)
    for number in (signal.SIGKILL, signal.SIGINT):
        # A model that takes long: a great context keeps llama-server busy at its start.
        command = words("infer", "demo", "count", "--max-tokens", "100000", "--", "--ignore-eos")
        pipe = subprocess.PIPE
        with subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe) as process:
            until(lambda: engines(environ) - before, "llama-server starts")
            process.send_signal(number)
            process.communicate(timeout=PATIENCE)
        until(lambda: not engines(environ) - before, "llama-server ends")


def test_what_llama_server_refuses_is_told(environ: dict[str, str]) -> None:
    result = run(environ, "infer", "demo", "x", "--", "--ctx-size", "many")
    err = result.refused("engine-died")
    assert "its last lines:" in err and "--ctx-size" in err


def test_a_gguf_without_content(environ: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "空 model.gguf"
    whole = (Path(models.SHIPPED) / "demo" / "model.gguf").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    err = run(environ, "infer", str(path), "x").refused("engine-died")
    assert "failed to load" in err


def test_unknown_flags(environ: dict[str, str]) -> None:
    (payload,) = (one for one in payloads.find().payloads if one.title == "llama.cpp (cpu)")
    if not payload.launch["serve"].flags:
        pytest.skip("the payload records no flags")
    result = run(environ, "serve", "demo", "--", "--ctx-sise", "8")
    assert 'did you mean "--ctx-size"?' in result.refused("unknown-flag")


def test_it_sees_an_image(environ: dict[str, str], tmp_path: Path) -> None:
    demo = Path(models.SHIPPED) / "demo"
    questions = ("What is a layer?", "What is a pin?")
    words = vision.words(demo / "answers.jsonl", questions)
    known = sorted({token for tokens in words.values() for token in tokens})
    folder = tmp_path / "seeing"
    folder.mkdir()
    (folder / "demo.gguf").symlink_to(demo / "model.gguf")
    vision.write_encoder(demo / "model.gguf", known, folder / "mmproj-demo.gguf")
    answers = {}
    for number, question in enumerate(questions):
        image = tmp_path / f"{number}.png"
        image.write_bytes(vision.image(words[question], known))
        # The image says all but the last word.
        words_ = (str(folder), "?", "--image", str(image), "--temperature", "0")
        answers[question] = run(environ, "infer", *words_).ok().out.strip()
    lines = (demo / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    told = [json.loads(line)["messages"] for line in lines]
    expected = {user["content"]: answer["content"] for user, answer in (one[-2:] for one in told)}
    assert answers == {question: expected[question] for question in questions}
