"""llama.cpp on Vulkan: compiled here, and it sees Mesa's software device, which any machine has."""

from __future__ import annotations

import glob
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import build_wheel

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


@pytest.fixture(scope="module")
def venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = build_wheel("llama.cpp", tmp_path_factory.mktemp("wheel"), device="vulkan")
    folder = tmp_path_factory.mktemp("vulkan") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    subprocess.run([str(folder / "bin" / "pip"), "install", "-q", str(wheel)], check=True)
    return folder


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=600,
        # A software device is passed over unless it is named.
        env={"PATH": "/usr/bin:/bin", "VK_ICD_FILENAMES": LAVAPIPE[0],
             "GGML_VK_VISIBLE_DEVICES": "0"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    return ran


def test_the_engine_sees_the_software_device(venv: Path) -> None:
    (program,) = venv.glob("lib/python*/site-packages/uniscale_payloads/*/bin/llama-server")
    assert "Vulkan0: llvmpipe" in run(program, "--list-devices").stdout
