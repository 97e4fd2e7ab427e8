"""`uniscale pull`: what it takes words for, and that no failure is a success."""

from __future__ import annotations

import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uniscale.models import pull
from uniscale_build.errors import LaunchError, SettingsError, SourceError

from .helpers import Bench

DIGEST = "@sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("word", "image"),
    [
        ("Qwen/Qwen3-0.6B", False),
        ("owner/name.with.dots", False),
        ("vllm/vllm-openai:latest", True),
        ("registry.example.org/team/vllm", True),
        ("localhost/x", True),
        ("host:5000/a/b:1", True),
        ("ubuntu:24.04", True),
        (f"ubuntu{DIGEST}", True),
        ("a/b/c", True),
    ],
)
def test_images_and_models(word: str, image: bool) -> None:
    assert pull._is_image(pull.PullRequest(what=word)) is image


def test_what_the_options_say() -> None:
    assert not pull._is_image(pull.PullRequest(what="a.b/c", to="x"))
    assert pull._is_image(pull.PullRequest(what="ubuntu", image=True))
    for word in ("ubuntu", "-v", "--privileged:x", "https://x/y", "a/b:c d", "", "Upper/case:x"):
        with pytest.raises(SettingsError):
            pull._is_image(pull.PullRequest(what=word))
    with pytest.raises(SettingsError, match="both"):
        pull._is_image(pull.PullRequest(what="a/b", image=True, model=True))


@pytest.mark.parametrize("option", ["revision", "to", "source"])
def test_options_of_models_are_refused_for_images(option: str) -> None:
    given: dict[str, Any] = {option: "huggingface"}
    asked = pull.PullRequest(what="host/x:1", image=True, **given)
    with pytest.raises(SettingsError, match="for models, and this is an image"):
        pull._is_image(asked)


def engine(bench: Bench, text: str, name: str = "podman") -> Bench:
    """A program in podman's place, which notes what it was asked for."""
    path = bench.root / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$@" >> {bench.root}/asked\n{text}\n')
    path.chmod(0o755)
    bench.environ["PATH"] = str(path.parent)
    return bench


def test_an_image(bench: Bench) -> None:
    engine(bench, 'if [ "$1" = image ]; then echo sha256:abc; else echo layer 1 of 2; fi')
    told = json.loads(bench.run("pull", "example.org/x:1", "--json").ok().out)
    assert (told["kind"], told["where"]) == ("image", "sha256:abc")
    assert (bench.root / "asked").read_text().splitlines()[0] == "pull example.org/x:1"


def test_an_image_that_does_not_come(bench: Bench) -> None:
    bench.environ["PATH"] = "/nowhere"
    assert "docker, podman" in bench.run("pull", "x:1").refused("no-engine")
    engine(bench, "echo manifest unknown >&2; exit 125")
    assert "manifest unknown" in bench.run("pull", "x:1").refused("pull-failed", 4)


def test_of_two_engines_the_one_that_works(bench: Bench) -> None:
    engine(bench, "echo is the daemon running? >&2; exit 1", "docker")
    engine(bench, 'if [ "$1" = image ]; then echo sha256:abc; fi')
    told = json.loads(bench.run("pull", "example.org/x:1", "--json").ok().out)
    assert told["by"].endswith("/podman")
    engine(bench, "exit 1")
    assert "daemon running" in bench.run("pull", "x:1").refused("pull-failed", 4)


def test_a_real_engine_without_its_daemon(bench: Bench) -> None:
    found = shutil.which("docker")
    if found is None:
        pytest.skip("docker is not installed")
    bench.environ |= {"PATH": str(Path(found).parent), "DOCKER_HOST": "unix:///nowhere.sock"}
    bench.run("pull", "example.invalid/x:1").refused("pull-failed", 4)


def test_a_model_without_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LaunchError, match="huggingface_hub or modelscope") as caught:
        pull.pull(pull.PullRequest(what="a/b"))
    assert caught.value.slug == "no-hub" and "pip install" in str(caught.value.hint)
    with pytest.raises(SettingsError, match="did you mean"):
        pull.pull(pull.PullRequest(what="a/b", source="modelscoop"))


FILES = {"config.json": b'{"a": 1}', "model.safetensors": b"weights" * 1000}
REVISION = "1" * 40


class Hub(http.server.BaseHTTPRequestHandler):
    """The little of a hub's interface that fetching a repository needs."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/owner/name/tree/"):
            listed = [{"type": "file", "path": name, "size": len(data), "oid": "2" * 40}
                      for name, data in FILES.items()]  # fmt: skip
            self._send(json.dumps(listed).encode())
        elif path.startswith("/api/models/owner/name"):
            siblings = [{"rfilename": name} for name in FILES]
            self._send(json.dumps({"sha": REVISION, "id": "owner/name",
                                   "siblings": siblings}).encode())  # fmt: skip
        elif path.startswith("/owner/name/resolve/"):
            self._send(FILES[path.rpartition("/")[2]])
        else:
            code = "GatedRepo" if "gated" in path else "RepoNotFound"
            self._send(b"{}", 403 if "gated" in path else 404, code)

    do_HEAD = do_GET

    def _send(self, data: bytes, code: int = 200, error: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def hub(bench: Bench) -> Iterator[Bench]:
    library = pytest.importorskip("huggingface_hub")
    where = Path(library.__file__).parents[1]
    bench.environ["PYTHONPATH"] += f":{where}"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        bench.environ |= {"HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1"}
        yield bench
        server.shutdown()


def test_a_model(hub: Bench) -> None:
    to = hub.root / "model"
    told = json.loads(hub.run("pull", "owner/name", "--to", to, "--json").ok().out)
    assert (told["by"], told["where"]) == ("huggingface", str(to))
    assert {name: (to / name).read_bytes() for name in FILES} == FILES


def test_models_that_do_not_come(hub: Bench) -> None:
    assert "no such model" in hub.run("pull", "owner/other").refused("no-model", 4)
    assert "consent" in hub.run("pull", "owner/gated").refused("gated", 4)
    hub.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
    assert hub.run("pull", "owner/third").refused("no-network", 4)


def test_reasons() -> None:
    request = pull.PullRequest(what="a/b", revision="v2")
    unreached = pull._refused("modelscope", request, ConnectionError("refused"))
    assert unreached.slug == "no-network" and "MODELSCOPE_DOMAIN" in str(unreached.hint)
    error = pull._refused("huggingface", request, OSError(28, "No space left on device"))
    assert isinstance(error, SourceError) and "No space left" in error.what
    assert error.slug == "pull-failed"
