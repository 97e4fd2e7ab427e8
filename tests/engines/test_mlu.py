"""vLLM for Cambricon MLU, with no MLU: its plugin's logic, and what it generates on a processor.

The release is older than the environment that the processor's vLLM has: a second environment puts
the packages of its time before that one's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Install, build_wheel
from .reference import DEMO

pytestmark = [pytest.mark.engine, pytest.mark.sources]

STAND_IN = Path(__file__).with_name("mlu_stand_in.py")
OF_ITS_TIME = (
    "compressed-tensors==0.9.2", "depyf==0.18.0", "gguf==0.10.0", "huggingface-hub==0.36.0",
    "importlib-metadata==10.2.0", "lm-format-enforcer==0.10.12", "mistral-common==1.5.6",
    "outlines==0.1.11", "scipy==1.17.1", "tokenizers==0.21.4", "transformers==4.51.3",
    "xgrammar==0.1.17",
)  # fmt: skip


@pytest.fixture(scope="module")
def python(install: Install, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a Python that has what vLLM 0.8.3 imports, the payload before all."""
    base = install("vllm")
    venv = base.venv.with_name("vllm-mlu")
    if not (venv / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        (site,) = venv.glob("lib/python*/site-packages")
        (behind,) = base.venv.glob("lib/python*/site-packages")
        (site / "base.pth").write_text(f"{behind}\n")
        pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps"]
        subprocess.run([*pip, *OF_ITS_TIME], check=True)
        (venv / "ready").touch()
    wheel = build_wheel("vllm", tmp_path_factory.mktemp("wheel"), device="Cambricon_MLU")
    assert wheel.name.endswith("+vllm.mlu-py3-none-any.whl")
    out = tmp_path_factory.mktemp("payload")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(out)], check=True)
    payload = out / "uniscale_payloads" / "vllm-Cambricon_MLU"
    path = {"PYTHONPATH": str(payload), "OMP_NUM_THREADS": "1"}
    return ["env", *(f"{key}={text}" for key, text in path.items()), str(venv / "bin" / "python")]


def run(command: list[str], folder: Path) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder,
                         timeout=900, stdin=subprocess.DEVNULL)  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    return ran.stdout.splitlines()[-1]


def test_the_platform_is_found_and_answers(python: list[str], tmp_path: Path) -> None:
    assert run([*python, str(STAND_IN), "platform", str(DEMO)], tmp_path) == "ok"


def test_it_generates_what_transformers_do(python: list[str], tmp_path: Path) -> None:
    """The demo model and a small Qwen3; plain, in chunks, and from cached prefixes."""
    last = run([*python, str(STAND_IN), "generate", str(DEMO), str(tmp_path)], tmp_path)
    found = json.loads(last)
    assert {(item["model"], item["way"]) for item in found} == {
        (model, way) for model in ("hf", "small-qwen3") for way in ("plain", "chunked", "cached")
    }
    for item in found:
        assert item["got"] == item["wanted"], (item["model"], item["way"])
