"""Megatron-LM for a vendor's chips, with none: it trains on a PyTorch device called ``mlu``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Install, Installed, build_wheel

pytestmark = [pytest.mark.engine, pytest.mark.compile, pytest.mark.sources]

SCRIPT = Path(__file__).with_name("train_on_device.py")


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    wheel = build_wheel("Megatron-LM", tmp_path_factory.mktemp("wheel"), device="Cambricon_MLU")
    assert "+megatron.mlu-" in wheel.name
    out = tmp_path_factory.mktemp("payload")
    subprocess.run([sys.executable, "-m", "zipfile", "-e", str(wheel), str(out)], check=True)
    return out / "uniscale_payloads" / "Megatron-LM-Cambricon_MLU"


def trained(engine: Installed, payload: Path, device: str) -> dict[str, list[object]]:
    out = engine.ok("python", str(SCRIPT), device, PYTHONPATH=str(payload))
    told: dict[str, list[object]] = json.loads(out.splitlines()[-1])
    return told


def test_a_gpt_learns_there_what_it_learns_on_the_processor(
    install: Install, payload: Path
) -> None:
    engine = install("Megatron-LM")  # its environment has torch
    here, there = trained(engine, payload, "cpu"), trained(engine, payload, "mlu")
    assert (here["devices"], there["devices"]) == (["cpu"], ["mlu:0"])
    assert there["losses"] == pytest.approx(here["losses"], rel=1e-4)
    assert there["types"] == ["torch.bfloat16", "torch.float32"]
    assert {"set_device", "manual_seed", "get_rng_state", "set_rng_state", "synchronize"} <= set(
        there["asked"]
    )


@pytest.mark.parametrize(
    ("package", "words"),
    [("torch_of_nobody", "which cannot be imported"), ("json", "it finds no device of its own")],
)
def test_nobody_trains_on_the_processor_by_mistake(
    install: Install, payload: Path, package: str, words: str
) -> None:
    code = "from megatron.core import device; device.current_device()"
    ran = install("Megatron-LM").run(
        "python", "-c", code, PYTHONPATH=str(payload), MEGATRON_DEVICE_PACKAGE=package
    )
    assert ran.returncode == 1 and words in ran.stderr
