"""Texts that a shell would run, in every free field of every layout: they arrive or are refused.

Real starts with such texts: test_serve.py (one engine), test_cluster.py and test_machines.py
(several machines), test_train.py (scripts). Here is what configurations say, field by field.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from uniscale.config import servefile, spec
from uniscale.training import trainfile
from uniscale.training.trainfile import TrainAsked
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


FLAGSCALE: dict[str, Any] = {
    "experiment": {
        "exp_name": "a", "exp_dir": "out", "seed": "1", "save_steps": "1", "load": "x",
        "ckpt_format": "torch",
        "task": {"type": "serve", "backend": "vllm", "entrypoint": "ENTRY"},
        "runner": {
            "type": "ssh", "backend": "torchrun", "hostfile": "HOSTS", "nnodes": "2",
            "nproc_per_node": "2", "ssh_port": "22", "master_addr": "10.0.0.1",
            "master_port": "29500", "docker": "image", "rdzv_backend": "static",
            "deploy": {"port": "6702", "use_fs_serve": "false"},
        },
        "envs": {
            "A": "1", "nodes_envs": {"10.0.0.1": {"B": "2"}}, "node_specific": {"h": {"C": "3"}},
            "device_type_specific": {"BI_V150": {"D": "4"}},
        },
        "cmds": {"before_start": "true", "after_stop": "true"},
        "auto_tuner": {"space": {"x": "1"}},
    },
    "action": "run",
    "hydra": {"run": {"dir": "x"}},
}  # fmt: skip
FLAGSCALE_SERVE = {
    **FLAGSCALE,
    "serve": [
        {
            "serve_id": "vllm_model",
            "engine": "vllm",
            "engine_args": {
                "model": "demo", "host": "127.0.0.1", "port": "80", "served_model_name": "a",
                "max_model_len": "8K", "tensor_parallel_size": "2",
            },
            "engine_args_specific": {
                "vllm": {"enforce_eager": "true", "model": "demo", "host": "h", "port": "81"},
                "sglang": {"model_path": "demo", "served_model_name": "b"},
            },
            "resources": {"num_replicas": "1", "num_gpus": "2"},
            "profile": {"prefix_len": "0", "num_prompts": "1"},
        }
    ],
}  # fmt: skip
FLAGSCALE_TRAIN = {
    **FLAGSCALE,
    "train": {
        "system": {
            "tensor_model_parallel_size": "2", "precision": {"bf16": "true"},
            "logging": {"log_interval": "1"}, "checkpoint": {"save_interval": "10"},
        },
        "model": {"num_layers": "2", "optimizer": {"lr": "1e-3", "lr_scheduler": {"min_lr": "0"}}},
        "data": {"data_path": "corpus", "split": "1", "tokenizer": {"tokenizer_path": "tok"}},
    },
}  # fmt: skip
# Keys of FlagScale's own machinery (its runner, tuner, profiler), known and without effect here;
# what would have been run is warned of. Their values go nowhere at all.
UNUSED = (
    *("experiment.seed", "experiment.save_steps", "experiment.load", "experiment.ckpt_format"),
    *("experiment.task.type", "experiment.task.backend", "experiment.runner.type"),
    *("experiment.runner.backend", "experiment.runner.master_addr", "experiment.runner.docker"),
    *("experiment.runner.rdzv_backend", "experiment.runner.deploy.use_fs_serve", "action"),
    *("experiment.cmds.", "experiment.auto_tuner.", "hydra.", "serve.0.profile."),
    "serve.0.resources.num_gpus",
)
# Of the other task alone, or hidden by a place that goes before it.
UNUSED_SERVE = (
    *("experiment.exp_dir", "experiment.task.entrypoint", "experiment.runner.nproc_per_node"),
    *("serve.0.serve_id", "serve.0.engine_args.model", "serve.0.engine_args.host"),
    *("serve.0.engine_args.port", "serve.0.engine_args.served_model_name"),
    *("serve.0.engine_args_specific.vllm.model", "serve.0.engine_args_specific.vllm.port"),
)
UNUSED_TRAIN = ("experiment.runner.deploy.port",)


def places(value: Any, at: str = "") -> list[str]:
    """The dotted places of all texts in ``value``."""
    if isinstance(value, str):
        return [at.removeprefix(".")]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [place for key, one in items for place in places(one, f"{at}.{key}")]


def odd_at(value: Any, place: str) -> Any:
    """``value`` with the odd text at a dotted place; a host in its key takes its dots along."""
    if place == "":
        return ODD
    if isinstance(value, list):
        return [odd_at(one, place.partition(".")[2]) for one in value]
    key = next(key for key in value if f"{place}.".startswith(f"{key}."))
    return {**value, key: odd_at(value[key], place[len(key) + 1 :])}


@pytest.mark.parametrize(("task", "script"), [("serve", False), ("train", True), ("train", False)])
def test_flagscales_layouts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, script: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "HOSTS").write_text("10.0.0.1 slots=8\n10.0.0.2 slots=8\n")
    if script:
        (tmp_path / "ENTRY").write_text("")
    whole = FLAGSCALE_SERVE if task == "serve" else FLAGSCALE_TRAIN
    idle = (*UNUSED, *(UNUSED_SERVE if task == "serve" else UNUSED_TRAIN))
    if task == "train" and not script:
        idle += ("train.data.split",)  # of Megatron's own script: a warning names it
    path = tmp_path / "c.yaml"
    lost = []
    for place in places(whole):
        path.write_text(json.dumps(odd_at(whole, place)))
        try:
            plan: object = (
                servefile.read(path, [])
                if task == "serve"
                else trainfile.planned(TrainAsked(str(path)))
            )
        except UniscaleError as error:
            assert error.render()
            continue
        if (ODD in told(plan)) == place.startswith(idle):
            lost.append(place)
    assert not lost, "these change what arrives: is that meant?"
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
