"""Fixtures of the launchers' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from .helpers import Bench, lay_gguf


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
