"""A real llama.cpp all the way: split wheels, an index, `uniscale install`, `serve`, an answer.

The payload is the one that is built already: it is looked for in the cache, never compiled here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports
from uniscale.serving import client
from uniscale_build.wheels import trust

from .launch.helpers import until

pytestmark = [pytest.mark.engine, pytest.mark.sources]

WHAT = ("--backend", "llama.cpp", "--device", "cpu")


def run(*words: str | Path, **more: Any) -> str:
    ran = subprocess.run(
        [str(word) for word in words], text=True, capture_output=True, check=False, timeout=300,
        stdin=subprocess.DEVNULL, **more,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told: str = ran.stdout
    return told


def build(*words: str | Path, **more: Any) -> str:
    return run(sys.executable, "-m", "uniscale_build", *words, **more)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the split wheels, and of their variants."""
    stages = json.loads(build("explain", *WHAT, "--json"))
    if any(one["state"] != "cached" for one in stages if one["stage"] == "payload"):
        pytest.skip("the payload of llama.cpp for cpu is not in the cache: "
                    "uniscale-build wheel --backend llama.cpp --device cpu")  # fmt: skip
    base = tmp_path_factory.mktemp("real")
    build("wheel", "--split", *WHAT, "--out", base / "dist")
    build("index", base / "dist", "--out", base / "site", "--variants")
    return base / "site"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """What a user's shell has: nothing of this checkout."""
    kept = {key: value for key, value in os.environ.items()
            if not key.startswith(("UNISCALE_", "PYTHON"))}  # fmt: skip
    return {**kept, "UNISCALE_DATA": str(tmp_path / "data"), "UNISCALE_STATE": str(tmp_path / "st"),
            "UNISCALE_CACHE": str(tmp_path / "cache")}  # fmt: skip


def environment(folder: Path, site: Path) -> Path:
    """A new environment with the launchers of the index; its ``bin`` folder."""
    venv.create(folder, with_pip=False)
    plain = next(path for path in (site / "packages").glob("uniscale-*.whl"))
    run(sys.executable, "-m", "uv", "pip", "install", "--python", folder / "bin" / "python", plain)
    return folder / "bin"


def answer(uniscale: Path, environ: dict[str, str]) -> str:
    """What the demo model says, served by what is installed."""
    port = ports.free_port()
    command = [str(uniscale), "serve", "demo", "--port", str(port), "--", "--threads", "1"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: client.ready("127.0.0.1", port, "/health", 1), "llama-server is ready")
            body = {"messages": [{"role": "user", "content": "Who are you?"}], "max_tokens": 40,
                    "temperature": 0}  # fmt: skip
            pieces = list(client.chat("127.0.0.1", port, body))
            return "".join(str(piece.text) for piece in pieces)
        finally:
            process.send_signal(signal.SIGTERM)


def test_from_the_index_to_an_answer(site: Path, tmp_path: Path, environ: dict[str, str]) -> None:
    programs = environment(tmp_path / "env", site)
    uniscale = programs / "uniscale"
    where: dict[str, Any] = {"env": environ, "cwd": tmp_path}
    told = run(uniscale, "install", "llama.cpp", "--index", site, **where)
    assert "llama.cpp" in told and "sha256" in told
    assert "uniscale" in answer(uniscale, environ).lower()
    checks = json.loads(run(uniscale, "verify", "llama.cpp", "--json", **where))["checks"]
    states = {one["name"]: one["state"] for one in checks}
    # Whether the sources can be had again depends on the network.
    assert "failed" not in states.values(), checks
    assert states["files"] == states["SBOM"] == states["payload files"] == "passed", checks
    run(uniscale, "uninstall", "llama.cpp", **where)
    assert json.loads(run(uniscale, "list", "--json", **where))["payloads"] == []


def test_its_variant_is_the_same_engine(
    site: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    """uv takes the ``null`` variant of the real wheel; it verifies, and it answers."""
    python = tmp_path / "env" / "bin" / "python"
    venv.create(tmp_path / "env", with_pip=False)
    run(sys.executable, "-m", "uv", "pip", "install", "--python", python, "--preview-features",
        "wheel-variants", "--index", f"{site.as_uri()}/variants/", "uniscale-llama-cpp",
        env=environ)  # fmt: skip
    packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    (info,) = packages.glob("uniscale_llama_cpp-*.dist-info")
    assert "+" not in info.name and (info / "variant.json").is_file()
    version = info.name.removesuffix(".dist-info").partition("-")[2]
    subject, checks = trust.of_installed(packages, info.name, "uniscale-llama-cpp", version)
    assert subject is not None
    found = [*checks, trust.check_payloads(subject), trust.check_sbom(subject)]
    assert {one.state for one in found} == {"passed"}, found
    assert "uniscale" in answer(python.parent / "uniscale", environ).lower()
