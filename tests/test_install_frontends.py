"""`uniscale install` with every installer that people have, from a served and a local index."""

from __future__ import annotations

import functools
import http.server
import json
import subprocess
import threading
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .native import Native, make_native

pytestmark = [pytest.mark.compile, pytest.mark.sources]


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """A project whose wheels, split and as a bundle, are in an index."""
    made = make_native(tmp_path_factory.mktemp("native"), packages=True)
    for words in (
        ("wheel", "-b", "mini", "-d", "cpu", "-o", "dist", "--split"),
        ("wheel", "-b", "mini", "-d", "cpu", "-o", "dist"),
        ("index", "dist", "-o", "site"),
    ):
        ran = made.run(*words)
        assert ran.returncode == 0, ran.stderr
    return made


@pytest.fixture(scope="module")
def places(native: Native) -> Iterator[dict[str, str]]:
    """The index by a folder, by a file:// address and over HTTP."""
    site = native.root / "site"
    handler = functools.partial(_Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        yield {"folder": str(site), "file": site.as_uri(), "http": address}
        server.shutdown()


def run(*words: str | Path, native: Native, folder: Path, code: int = 0) -> str:
    env = {k: v for k, v in native.env.items() if k not in ("PYTHONPATH", "CI")}
    env |= {"UNISCALE_DATA": str(folder / "data"), "UNISCALE_CACHE": str(folder / "cache"),
            "PATH": "/usr/bin:/bin"}  # fmt: skip
    ran = subprocess.run(
        [str(word) for word in words], cwd=folder, env=env, text=True, capture_output=True,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran.stdout


def environment(native: Native, folder: Path, places: dict[str, str], *packages: str) -> Path:
    """A Python with the plain uniscale, installed from the index's files by its own pip."""
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    plain = next(path for path in (native.root / "site" / "packages").glob("uniscale-*.whl")
                 if "+" not in path.name)  # fmt: skip
    run(python, "-m", "pip", "install", "-q", *packages, native=native, folder=folder)
    run(python, "-m", "pip", "install", "-q", plain, native=native, folder=folder)
    return python


def listed(python: Path, **where: Any) -> list[tuple[str, bool]]:
    told = json.loads(run(python.parent / "uniscale", "list", "--json", **where))
    return [(one["backend"], "data" in one["prefix"]) for one in told["payloads"]]


def go_round(python: Path, index: str, **where: Any) -> None:
    """Install, look, install again, verify, test, take out; then isolated, and out again."""
    uniscale = python.parent / "uniscale"
    dry = run(uniscale, "install", "mini", "--index", index, "--dry-run", **where)
    assert "a bundle with uniscale itself" in dry
    run(uniscale, "install", "mini_engine", "--index", index, **where)
    assert listed(python, **where) == [("mini", False)]
    assert "the newest" in run(uniscale, "upgrade", "--index", index, **where)
    told = json.loads(run(uniscale, "verify", "mini", "--json", **where))
    states = {one["name"]: one["state"] for one in told["checks"]}
    # The wheel carries the manifests and layers that its trees are made from again.
    assert "tree of uniscale-mini-cpu" in states and set(states.values()) == {"passed"}
    run(uniscale, "uninstall", "mini", **where)
    assert listed(python, **where) == []
    run(uniscale, "install", "mini", "--index", index, "--isolated", **where)
    assert listed(python, **where) == [("mini", True)]
    assert "it is installed already" in run(
        uniscale, "install", "mini", "--index", index, "--isolated", **where
    )
    run(uniscale, "uninstall", "mini", **where)
    assert listed(python, **where) == []


@pytest.mark.parametrize(
    ("version", "place"),
    [("22.3.1", "http"), ("23.0.1", "folder"), ("24.0", "file"), ("25.3", "http"),
     ("26.3", "http"), ("26.3", "folder")],
)  # fmt: skip
def test_pip(
    version: str, place: str, native: Native, places: dict[str, str], tmp_path: Path
) -> None:
    python = environment(native, tmp_path, places, f"pip=={version}")
    go_round(python, places[place], native=native, folder=tmp_path)


@pytest.mark.parametrize("place", ["http", "file"])
def test_uv(place: str, native: Native, places: dict[str, str], tmp_path: Path) -> None:
    python = environment(native, tmp_path, places, "uv==0.13.8")
    run(python, "-m", "pip", "uninstall", "-qy", "pip", native=native, folder=tmp_path)
    go_round(python, places[place], native=native, folder=tmp_path)


def test_an_environment_of_its_own_without_pip_and_uv(
    native: Native, places: dict[str, str], tmp_path: Path
) -> None:
    python = environment(native, tmp_path, places, "pip==26.3")
    run(python, "-m", "pip", "uninstall", "-qy", "pip", native=native, folder=tmp_path)
    uniscale = python.parent / "uniscale"
    where: dict[str, Any] = {"native": native, "folder": tmp_path}
    run(uniscale, "install", "mini", "--index", places["http"], code=13, **where)
    run(uniscale, "install", "mini", "--index", places["http"], "--isolated", **where)
    assert listed(python, **where) == [("mini", True)]


def test_a_wheel_that_was_changed_on_the_server(
    native: Native, places: dict[str, str], tmp_path: Path
) -> None:
    python = environment(native, tmp_path, places, "pip==26.3")
    path = next((native.root / "site" / "packages").glob("uniscale_mini-*.whl"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + b"\0" + whole[-8:])
    try:
        run(python.parent / "uniscale", "install", "mini", "--index", places["http"], code=12,
            native=native, folder=tmp_path)  # fmt: skip
    finally:
        path.write_bytes(whole)
    assert listed(python, native=native, folder=tmp_path) == []
