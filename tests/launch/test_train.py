"""`uniscale train` and `export` before anything heavy starts: every refusal is a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale.devices import devices

from .helpers import Bench

ROW = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


@pytest.fixture
def data(bench: Bench) -> Path:
    path = bench.root / "data.jsonl"
    path.write_text(json.dumps(ROW) + "\n")
    return path


def test_all_that_is_wrong_at_once(bench: Bench, data: Path) -> None:
    data.write_text(json.dumps(ROW) + "\n{\n")
    result = bench.run(
        "train", "nothing", "--data", data, "--method", "hyenadna", "--processes", "none"
    )
    for slug in ("no-model", "bad-data", "unknown-method"):
        assert f"error[{slug}]" in result.err, result
    assert "data.jsonl:2" in result.err and "DNA" in result.err
    assert "Traceback" not in result.err and result.code
    assert not (bench.root / "outputs").exists()


def test_what_cannot_be_trained(bench: Bench, data: Path, model: Path) -> None:
    err = bench.run("train", model, "--data", data).err
    assert "error[wrong-format]" in err and "config.json" in err
    assert "no data is named" in bench.run("train", "demo").err
    bench.run("train", "demo", "--data", data, "--", "--x").refused("usage", code=2)


def test_scripts(bench: Bench) -> None:
    bench.run("train", "x", "--script", "none.py").refused("no-script", code=2)
    script = bench.root / "a 'b' $(touch x).py"
    script.write_text("")
    words = ("train", "x", "--script", script, "--dry-run")
    raw = ("--", "--flag", "$(touch y) 世界\n")
    out = bench.run(*words, "--json", *raw).ok().out
    argv = json.loads(out)["argv"]
    assert argv[-4:] == ["uniscale.workers.script", str(script), "--flag", "$(touch y) 世界\n"]
    assert "torch.distributed.run" in argv
    bench.run(*words, *raw).ok()
    assert not list(bench.root.rglob("[xy]"))


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_numbers_of_processes(bench: Bench, number: str) -> None:
    script = bench.root / "a.py"
    script.write_text("")
    words = ("train", "x", "--script", script, "--dry-run", f"--processes={number}")
    bench.run(*words).refused("bad-number", code=2)


def test_chips(bench: Bench) -> None:
    script = bench.root / "a.py"
    script.write_text("")
    words = ("train", "x", "--script", script, "--dry-run", "--json", "--devices", "0,2")
    told = json.loads(bench.run(*words, "--device", "nvidia").ok().out)
    assert told["environment"]["CUDA_VISIBLE_DEVICES"] == "0,2"
    bench.run(*words[:5], "--devices", "0", "--device", "nvidai").refused("unknown-device", code=2)


COLLECTIVES = {
    name: device.collective.backend for name, device in devices.known().items()
}  # read when the tests are collected: a new device is tested at once


@pytest.mark.parametrize("device", COLLECTIVES)
def test_workers_talk_by_what_the_device_says(bench: Bench, device: str) -> None:
    script = bench.root / "a.py"
    script.write_text("")
    words = ("train", "x", "--script", script, "--dry-run", "--json", "--device", device)
    told = json.loads(bench.run(*words).ok().out)["environment"]
    assert told.get("UNISCALE_COLLECTIVE", "") == COLLECTIVES[device]


def test_collectives_of_vendors() -> None:
    wanted = {"cpu": "gloo", "nvidia": "nccl", "Cambricon_MLU": "cncl", "MUSA_S5000": "mccl",
              "Huawei_Atlas800TA3": "hccl", "intel": "xccl"}  # fmt: skip
    assert wanted.items() <= COLLECTIVES.items()


def test_backends_that_are_not_here(bench: Bench, data: Path) -> None:
    words = ("train", "demo", "--data", data, "--backend", "megatron", "--dry-run")
    assert "backend=Megatron-LM" in bench.run(*words).refused("no-payload")


def test_a_base_model_without_a_chat_template(bench: Bench, data: Path) -> None:
    folder = bench.root / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text("{}")
    err = bench.run("train", folder, "--data", data).err
    assert "error[no-template]" in err and "train.chat_template=FILE" in err
    data.write_text('{"text": "plain"}\n')
    assert "no-template" not in bench.run("train", folder, "--data", data).err


class TestExport:
    def test_nothing_to_export(self, bench: Bench) -> None:
        bench.run("export", "nowhere").refused("no-export", code=2)
        bench.run("export", bench.root).refused("no-export", code=2)
        bench.run("export", ".", "--type", "f17").refused("usage", code=2)

    def job(self, bench: Bench, **changes: object) -> Path:
        folder = bench.root / "job"
        folder.mkdir()
        told = {"schema": 1, "name": "x", "method": "lora", "weights": "/w", **changes}
        (folder / "train.json").write_text(json.dumps(told))
        return folder

    def test_a_training_that_is_not_done(self, bench: Bench) -> None:
        folder = self.job(bench)
        (folder / "state.json").write_text('{"phase": "stopped"}')
        err = bench.run("export", folder).refused("no-export", code=2)
        assert "not done (stopped)" in err and "--resume" in err

    def test_what_cannot_be_merged(self, bench: Bench) -> None:
        folder = self.job(bench, method="adaption_prompt")
        assert "cannot be merged" in bench.run("export", folder).refused("no-export", code=2)

    def test_a_scripts_folder(self, bench: Bench) -> None:
        folder = self.job(bench, script="x.py")
        assert "wrote no model" in bench.run("export", folder).refused("no-export", code=2)

    def test_what_is_missing_is_named(self, bench: Bench) -> None:
        folder = self.job(bench)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")
        result = bench.run("export", folder)
        assert "uniscale[train]" in result.err or "export-failed" in result.err
        assert "Traceback" not in result.err and result.code == 13
