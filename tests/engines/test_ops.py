"""Our fused operators: their numbers, their declarations, and that vLLM calls them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from .conftest import ROOT, Install, Installed
from .reference import DEMO

pytestmark = [pytest.mark.engine, pytest.mark.sources]

NUMBERS = Path(__file__).with_name("ops_numbers.py")
IN_VLLM = Path(__file__).with_name("ops_in_vllm.py")
SOURCES = ROOT / "patches" / "vllm" / "uniscale-ops" / "overlay" / "uniscale_ops"


def library(engine: Installed) -> str:
    return str(engine.prefix / "lib" / "libuniscale_ops.so")


@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_the_numbers_are_pytorchs(install: Install, level: str) -> None:
    engine = install("vllm")
    # A level that the processor or its kind does not have gives way to one that it has.
    env = {"UNISCALE_OPS_LEVEL": level, "OMP_NUM_THREADS": "2"}
    assert "the numbers agree" in engine.ok("python", str(NUMBERS), library(engine), "cpu", **env)


def test_the_declarations_are_pytorchs(install: Install, tmp_path: Path) -> None:
    """Two different declarations of one C function in one source are an error."""
    engine = install("vllm")
    where = "import torch, pathlib; print(pathlib.Path(torch.__file__).parent / 'include')"
    include = engine.ok("python", "-c", where).strip()
    source = tmp_path / "both.cpp"
    source.write_text(
        "#include <torch/csrc/stable/c/shim.h>\n"
        "#define UNISCALE_OPS_GPU\n"
        f'#include "{SOURCES}/torch_abi.h"\n'
    )
    command = ["c++", "-std=c++17", "-fsyntax-only", f"-I{include}", str(source)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    # The check can fail: a declaration that differs is seen.
    text = source.read_text() + 'extern "C" int64_t aoti_torch_dtype_float32();\n'
    source.write_text(text)
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode != 0 and "aoti_torch_dtype_float32" in ran.stderr


def test_vllm_calls_them_and_says_the_same_without(install: Install) -> None:
    engine = install("vllm")
    found = {}
    for switch in ("1", "0"):
        out = engine.ok("python", str(IN_VLLM), str(DEMO), UNISCALE_OPS=switch,
                        PYTHONPATH=str(engine.prefix))  # fmt: skip
        found[switch] = json.loads(out.splitlines()[-1])
    assert found["0"]["calls"] == {}
    assert found["1"]["tokens"] == found["0"]["tokens"]
    calls = found["1"]["calls"]
    layers = json.loads((DEMO / "config.json").read_text())["num_hidden_layers"]
    steps = calls["uniscale::rms_norm"]
    # Once at the bottom; then two norms of a sum in each layer, less the first, and one at the top.
    assert calls["uniscale::fused_add_rms_norm_"] == 2 * layers * steps
    assert calls["uniscale::silu_and_mul"] == layers * steps
    assert steps >= 16
