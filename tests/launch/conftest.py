"""Fixtures of the launchers' tests."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from .helpers import Bench, lay_gguf
from .indexes import Index, Place


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of this environment without its payloads, which are none of these tests'."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(typer.__file__).parents[1].iterdir():
        if not entry.name.startswith("uniscale"):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.fixture
def bench(tmp_path: Path, site: Path) -> Iterator[Bench]:
    """An environment without payloads, and a folder to work in."""
    bench = Bench(tmp_path / "bench", site)
    yield bench
    bench.close()


@pytest.fixture
def model(bench: Bench) -> Path:
    """A GGUF file."""
    return lay_gguf(bench.root / "small.gguf")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without pip that nobody changes."""
    folder = tmp_path_factory.mktemp("template") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder


@pytest.fixture
def bare(tmp_path: Path, site: Path, template: Path) -> Iterator[Place]:
    """A place with neither pip nor uv."""
    found = Place(tmp_path / "bench", site)
    env = tmp_path / "env"
    # A copied environment is one of its own: its interpreter finds pyvenv.cfg beside itself.
    shutil.copytree(template, env, symlinks=True)
    found.python = env / "bin" / "python"
    found.index = Index(tmp_path / "index")
    (found.root / "bin").mkdir()
    found.environ |= {"UNISCALE_DATA": str(found.root / "data"), "UNISCALE_PAYLOADS": "",
                      "UNISCALE_CACHE": str(found.root / "cache"), "PIP_NO_CACHE_DIR": "1",
                      "PATH": f"{found.root / 'bin'}:/usr/bin:/bin"}  # fmt: skip
    yield found
    found.close()


@pytest.fixture
def place(bare: Place) -> Place:
    """A place with uv, which is many times faster than pip."""
    found = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip("uv is not installed")
    (bare.root / "bin" / "uv").symlink_to(found)
    return bare
