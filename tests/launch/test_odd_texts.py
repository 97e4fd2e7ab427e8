"""Texts that a shell would run, in every free field of every layout: they arrive or are refused.

Real starts with such texts: test_serve.py (one engine), test_cluster.py and test_machines.py
(several machines), test_train.py (scripts). Here is what configurations say, field by field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from uniscale import servefile, spec, trainfile
from uniscale.trainfile import TrainAsked
from uniscale_build.errors import UniscaleError

from .helpers import Bench, lay_payload

ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|\n-x"
KINDS: dict[str, Any] = {
    "text": ODD, "word": ODD, "texts": [ODD], "env": {"A": ODD}, "map": {"a": ODD},
    "maps": {"vllm": {"a": ODD}},
}  # fmt: skip


def fields(task: str, place: str, block: tuple[spec.Key, ...]) -> dict[str, dict[str, Any]]:
    """The smallest configuration with an odd text in it, for each free field of ``place``."""
    found: dict[str, dict[str, Any]] = {}
    for key in block:
        if key.kind not in KINDS or key.choices:
            continue
        configuration: dict[str, Any] = {task: {"model": "demo"}}
        inner = configuration
        for name in place.split("."):
            inner = inner.setdefault(name, {})
        inner[key.name] = KINDS[key.kind]
        found[f"{place}.{key.name}"] = configuration
    return found


SERVE = {
    **fields("serve", "serve", (*spec.MODEL, *spec.SERVE)),
    **fields("serve", "serve.gateway", spec.GATEWAY),
    **fields("serve", "serve.moe", spec.MOE),
    **fields("serve", "experiment", spec.EXPERIMENT),
}
SERVE.pop("experiment.dir")  # a server writes nothing there
TRAIN = {**fields("train", "train", spec.TRAIN), **fields("train", "experiment", spec.EXPERIMENT)}


@pytest.mark.parametrize("field", SERVE)
def test_serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(SERVE[field]))
    try:
        assert ODD in told(servefile.read(path, []))
    except UniscaleError as error:
        assert error.render()
    assert not list(tmp_path.rglob("x"))


@pytest.mark.parametrize("field", TRAIN)
def test_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps(TRAIN[field]))
    try:
        assert ODD in told(trainfile.planned(TrainAsked(str(path))))
    except UniscaleError as error:
        assert error.render()
    assert not list(tmp_path.rglob("x"))


def told(plan: object) -> str:
    """All texts of a plan, one after another as they are."""
    if isinstance(plan, str):
        return plan
    if isinstance(plan, dict):
        return "\0".join(told(one) for pair in plan.items() for one in pair)
    if isinstance(plan, (list, tuple)):
        return "\0".join(map(told, plan))
    names = vars(plan) if hasattr(plan, "__dict__") else ()
    return "\0".join(told(getattr(plan, name)) for name in names)


def test_inference(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    out = bench.run("infer", model, ODD).ok().out
    assert "$(touch x) `touch x`;&|" in out
    assert not list(bench.root.rglob("x"))


def test_a_start_from_a_configuration(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    path = bench.root / "c.yaml"
    serve = {"model": str(model), "name": ODD, "env": {"A": ODD}, "flags": ["--finish", ODD]}
    path.write_text(json.dumps({"serve": serve}))
    out = json.loads(bench.run("serve", path, "--dry-run", "--json").ok().out)
    assert out["argv"][-2:] == ["--finish", ODD] and ODD in out["argv"][:-2]
    assert out["environment"]["A"] == ODD
    assert not list(bench.root.rglob("x"))
