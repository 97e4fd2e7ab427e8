"""llama.cpp on Vulkan: compiled here, and it answers on Mesa's software device."""

from __future__ import annotations

import glob
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import ROOT, build_wheel

LAVAPIPE = glob.glob("/usr/share/vulkan/icd.d/lvp_icd*.json")
pytestmark = [
    pytest.mark.engine,
    pytest.mark.compile,
    pytest.mark.sources,
    pytest.mark.skipif(
        not (LAVAPIPE and shutil.which("glslc") and Path("/usr/include/vulkan").is_dir()),
        reason="libvulkan-dev, glslc, spirv-headers and mesa-vulkan-drivers are not installed",
    ),
]
_PATIENCE = 600.0  # seconds for shaders to be compiled: 20 of one core, on a busy machine


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = build_wheel("llama.cpp", tmp_path_factory.mktemp("wheel"), device="vulkan")
    folder = tmp_path_factory.mktemp("vulkan") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", str(wheel)], check=True)
    return folder


def environment(home: Path) -> dict[str, str]:
    """Only the software device, whatever else the machine has, and no shader of an earlier run."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(home), "VK_ICD_FILENAMES": LAVAPIPE[0]}


def test_the_engine_sees_the_software_device(venv: Path, tmp_path: Path) -> None:
    (program,) = venv.glob("lib/python*/site-packages/uniscale_payloads/*/bin/llama-server")
    ran = subprocess.run(
        [program, "--list-devices"], capture_output=True, text=True, check=True, timeout=60,
        env={**environment(tmp_path), "GGML_VK_VISIBLE_DEVICES": "0"},
    )  # fmt: skip
    assert "Vulkan0: llvmpipe" in ran.stdout


@dataclass(frozen=True)
class Server:
    """What `uniscale serve` started, and what it has said so far."""

    port: int
    log: Path


@pytest.fixture(scope="module")
def server(venv: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The demo model on the software device, started as docs/serving.md says."""
    folder = tmp_path_factory.mktemp("serve")
    log = folder / "log"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [venv / "bin" / "uniscale", "serve", "demo", "--device", "vulkan", "--devices", "0,",
               "--port", str(port), "--", "--ubatch-size", "1", "--verbosity", "4"]  # fmt: skip
    with (
        log.open("wb") as stream,
        subprocess.Popen([*map(str, command)], env=environment(folder), stdout=stream,
                         stderr=subprocess.STDOUT, start_new_session=True) as process,
    ):  # fmt: skip
        try:
            _wait(process, port, log)
            yield Server(port, log)
        finally:
            os.killpg(process.pid, signal.SIGTERM)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            if _ask(port, "/health", None)[0] == 200:
                return
        except OSError:  # it does not listen yet
            pass
        assert process.poll() is None, log.read_text(errors="replace")[-3000:]
        assert time.monotonic() < end, log.read_text(errors="replace")[-3000:]
        time.sleep(0.5)


def _ask(port: int, path: str, body: object) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    try:
        if body is None:
            connection.request("GET", path)
        else:
            connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_it_answers_there_as_on_the_processor(server: Server) -> None:
    lines = (ROOT / "launchers/uniscale/models/demo/answers.jsonl").read_text().splitlines()
    *asked, answer = min(
        (json.loads(line)["messages"] for line in lines), key=lambda m: len(str(m))
    )
    status, said = _ask(server.port, "/v1/chat/completions",
                        {"messages": asked, "temperature": 0})  # fmt: skip
    assert status == 200, said
    assert json.loads(said)["choices"][0]["message"]["content"] == answer["content"]
    # The weights and the work were there, not on the processor beside it.
    log = server.log.read_text(errors="replace")
    assert re.search(r"Vulkan0 model buffer size =\s+[1-9]", log), log[-3000:]
    layers = re.search(r"offloaded (\d+)/(\d+) layers", log)
    assert layers and layers[1] == layers[2]
