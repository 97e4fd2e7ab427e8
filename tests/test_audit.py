"""Our wheels under the ecosystem's own tools: what an index or a reviewer would run on them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .native import ROOT, make_native

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")


def needs(module: str) -> pytest.MarkDecorator:
    """Skip where a tool is not installed."""
    found = importlib.util.find_spec(module)
    return pytest.mark.skipif(found is None, reason=f"{module} is not installed")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The bundle, the payload's own distribution, and the plain wheel."""
    native = make_native(tmp_path_factory.mktemp("native"), packages=True)
    for options in ((), ("--split",)):
        ran = native.run("wheel", "-b", "mini", *options)
        assert ran.returncode == 0, ran.stderr
    return sorted((native.root / "dist").glob("*.whl"))


def tool(*args: str | Path) -> str:
    """Run ``python -m …`` in the project (for its settings), which must be content."""
    ran = subprocess.run([sys.executable, "-m", *map(str, args)], cwd=ROOT, text=True,
                         capture_output=True, check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def test_there_are_three(wheels: list[Path]) -> None:
    assert [path.name.split("-")[0] for path in wheels] == ["uniscale", "uniscale", "uniscale_mini"]


@needs("check_wheel_contents")
def test_check_wheel_contents(wheels: list[Path]) -> None:
    tool("check_wheel_contents", *wheels)


@needs("twine")
def test_twine_check(wheels: list[Path]) -> None:
    tool("twine", "check", "--strict", *wheels)


@needs("auditwheel")
def test_auditwheel_finds_the_tag_that_we_gave(wheels: list[Path]) -> None:
    for wheel in wheels:
        platform = wheel.stem.rsplit("-", 1)[-1]
        if platform != "any":
            found = json.loads(tool("auditwheel", "show", "--json", wheel))
            assert found["overall_tag"] == platform
