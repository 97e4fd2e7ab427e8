"""pip and uv install from an index: from a folder, from a server, from HTML and from JSON."""

from __future__ import annotations

import contextlib
import functools
import http.server
import subprocess
import sys
import threading
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.index import Request, publish

from tests import wheels
from tests.payload_wheels import payload_wheel, plain_wheel
from tests.sitecheck import anchors

JSON = "application/vnd.pypi.simple.v1+json"
PIPS = ["22.3.1", "23.0.1", "24.0", "25.3", "26.3"]
# pip is slow to start: by default it is tried in one way, the rest when other versions are.
LATER = pytest.param("pip", marks=pytest.mark.sources)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of one backend for two devices; the newest for cpu is withdrawn."""
    base = tmp_path_factory.mktemp("index")
    plain_wheel(base / "dist")
    for version in ("0.9.2", "0.32.0", "0.33.0"):
        payload_wheel(base / "dist", "vllm", version)
        payload_wheel(base / "dist", "vllm", version, "Metax_C550")
    publish(base / "site", Request(add=(base / "dist",)))
    name = "uniscale_vllm-0.33.0+cpu-py3-none-any.whl"
    publish(base / "site", Request(yank={name: "wrong answers"}))
    return base / "site"


class _Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder; with ``negotiate`` as a real index does it, by what is accepted."""

    asked: list[str]
    negotiate: bool

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Nothing."""

    def do_GET(self) -> None:
        """Keep what is asked for."""
        self.asked.append(self.path)
        if self.negotiate and self.path.endswith("/") and JSON in self.headers["Accept"]:
            self.path += "index.json"
        super().do_GET()

    def guess_type(self, path: object) -> str:
        """The media type of PEP 691."""
        return JSON if str(path).endswith("index.json") else super().guess_type(str(path))


@contextlib.contextmanager
def serve(site: Path, *, negotiate: bool = False) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    kind = type("Handler", (_Server,), {"asked": asked, "negotiate": negotiate})
    handler = functools.partial(kind, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", asked
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def address(site: Path, way: str) -> Iterator[str]:
    if way == "folder":
        yield site.as_uri() + "/"
        return
    with serve(site, negotiate=way == "json") as (base, _):
        yield base


def tool(name: str, python: Path) -> list[str]:
    """The command that installs into the environment of ``python``."""
    if name == "uv":
        return [sys.executable, "-m", "uv", "pip", "install", "--no-cache", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-cache-dir",
            "--disable-pip-version-check"]  # fmt: skip


def environment(folder: Path) -> Path:
    venv.create(folder, with_pip=False)
    return folder / "bin" / "python"


def run(*command: str, ok: bool = True) -> str:
    ran = subprocess.run(command, text=True, capture_output=True, check=False, timeout=120,
                         stdin=subprocess.DEVNULL)  # fmt: skip
    assert (ran.returncode == 0) is ok, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def installed(python: Path) -> set[str]:
    site = next(python.parent.parent.glob("lib/python*/site-packages"))
    return {path.name for path in site.glob("uniscale*.dist-info")}


WANTED = {"uniscale-0.1.0.dist-info", "uniscale_vllm-0.32.0+cpu.dist-info"}


@pytest.mark.parametrize(
    ("name", "way"), [("pip", "folder"), ("uv", "folder"), ("uv", "html"), ("uv", "json")]
)
def test_a_channel_gives_the_newest_for_its_device(
    name: str, way: str, site: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "env")
    with address(site, way) as base:
        run(*tool(name, python), "--index-url", f"{base}cpu/", "uniscale-vllm")
    assert installed(python) == WANTED


@pytest.mark.parametrize("name", [LATER, "uv"])
def test_only_metadata_is_fetched_to_resolve(name: str, site: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "env")
    with serve(site) as (base, asked):
        run(*tool(name, python), "--dry-run", "--index-url", f"{base}Metax_C550/", "uniscale-vllm")
    fetched = [path for path in asked if path.startswith("/packages/")]
    first = [path for path in fetched if path.endswith(".metadata")]
    # Withdrawn for cpu alone. pip 23 fetches wheels too, those that it would install.
    assert fetched[:2] == first and any("0.33.0" in path for path in first)
    assert {path for path in fetched if path not in first} <= {
        path.removesuffix(".metadata") for path in first
    }
    assert not [path for path in fetched if "0.9.2" in path or "0.32.0" in path]


@pytest.mark.parametrize("name", [LATER, "uv"])
def test_a_withdrawn_wheel_is_had_by_its_exact_version(
    name: str, site: Path, tmp_path: Path
) -> None:
    python = environment(tmp_path / "env")
    said = run(*tool(name, python), "--index-url", f"{site.as_uri()}/cpu/",
               "uniscale-vllm==0.33.0+cpu")  # fmt: skip
    assert "wrong answers" in said
    assert "uniscale_vllm-0.33.0+cpu.dist-info" in installed(python)


@pytest.mark.parametrize("what", ["wheel", "metadata"])
@pytest.mark.parametrize("name", [LATER, "uv"])
def test_what_was_changed_afterwards_is_not_installed(
    name: str, what: str, site: Path, tmp_path: Path
) -> None:
    publish(tmp_path / "site", Request(add=(site / "packages",)))
    (link,) = (one for one in anchors(tmp_path / "site" / "cpu" / "uniscale" / "index.html"))
    path = tmp_path / "site" / "packages" / str(link["text"])
    if what == "wheel":
        wheels.rewrite(path, path, lambda files: files.update({"evil.py": b""}))
    else:
        with path.with_name(f"{path.name}.metadata").open("a") as stream:
            stream.write("Requires-Dist: evil\n")
    python = environment(tmp_path / "env")
    with serve(tmp_path / "site") as (base, _):
        run(*tool(name, python), "--index-url", f"{base}cpu/", "uniscale", ok=False)
    assert installed(python) == set()


@pytest.mark.sources
@pytest.mark.parametrize("way", ["folder", "html", "json"])
@pytest.mark.parametrize("version", PIPS)
def test_pips_of_many_years(version: str, way: str, site: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    run(str(python), "-m", "pip", "install", "-q", f"pip=={version}")
    with address(site, way) as base:
        run(str(python), "-m", "pip", "install", "--no-cache-dir", "--index-url", f"{base}cpu/",
            "uniscale-vllm")  # fmt: skip
    assert installed(python) == WANTED
    run(str(python), "-m", "pip", "check")
