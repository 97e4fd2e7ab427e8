"""Megatron-LM on processors: a tiny GPT learns, however its work is shared."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from .conftest import Install

pytestmark = [pytest.mark.engine, pytest.mark.compile, pytest.mark.sources]

SCRIPT = Path(__file__).with_name("train_gpt.py")
VOCABULARY = 64


@pytest.mark.parametrize(
    ("processes", "shape"),
    [
        (1, {"data": 1, "tensor": 1, "pipeline": 1}),
        (2, {"data": 2, "tensor": 1, "pipeline": 1}),
        (2, {"data": 1, "tensor": 2, "pipeline": 1}),
        (2, {"data": 1, "tensor": 1, "pipeline": 2}),
    ],
)
def test_a_gpt_learns(install: Install, processes: int, shape: dict[str, int]) -> None:
    engine = install("Megatron-LM")
    out = engine.ok(
        "python", "-m", "torch.distributed.run", "--standalone",
        "--nproc-per-node", str(processes), str(SCRIPT),
        "--tensor", str(shape["tensor"]), "--pipeline", str(shape["pipeline"]),
        PYTHONPATH=str(engine.prefix),
    )  # fmt: skip
    told = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    losses = told["losses"]
    # It starts from knowing nothing and ends knowing the rule.
    assert losses[0] == pytest.approx(math.log(VOCABULARY), rel=0.05)
    assert losses[-1] < losses[0] / 4
    assert {key: told[key] for key in shape} == shape
    assert told["helper"].startswith(str(engine.prefix))


def test_tensor_parallel_training_is_the_same_training(install: Install) -> None:
    engine = install("Megatron-LM")
    runs = []
    for processes in (1, 2):
        out = engine.ok(
            "python", "-m", "torch.distributed.run", "--standalone",
            "--nproc-per-node", str(processes), str(SCRIPT),
            "--tensor", str(processes), "--steps", "5", PYTHONPATH=str(engine.prefix),
        )  # fmt: skip
        line = next(line for line in out.splitlines() if line.startswith("{"))
        runs.append(json.loads(line)["losses"])
    assert runs[0] == pytest.approx(runs[1], rel=1e-4)
