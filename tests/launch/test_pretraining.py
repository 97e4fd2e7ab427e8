"""Arguments of pre-training: unknown, of the wrong kind, or at odds with each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from uniscale.training.pretraining import check, settings
from uniscale.wheels.environments import Environment

from .helpers import Bench, lay_payload, record


@pytest.mark.parametrize(
    ("given", "processes", "said"),
    [
        ({"num_layer": 2}, "1", 'did you mean "num_layers"'),
        ({"num_layers": "two"}, "1", "must be a whole number, not 'two'"),
        ({"num_layers": 0}, "1", "must be more than 0"),
        ({"lr": -1.0}, "1", "must be more than 0"),
        ({"min_lr": -1.0}, "1", "must be 0 or more"),
        ({"swiglu": 1}, "1", "must be true or false"),
        ({"normalization": "rmsnorm"}, "1", 'did you mean "RMSNorm"'),
        ({"hidden_size": 130}, "1", "hidden_size (130) is no multiple of num_attention_heads (4)"),
        ({"tensor_model_parallel_size": 2}, "3", "processes (3) is no multiple"),
        ({"tensor_model_parallel_size": 8}, "8", "num_attention_heads (4) is no multiple"),
        ({"pipeline_model_parallel_size": 3}, "3", "num_layers (4) is no multiple"),
        ({"num_query_groups": 3}, "1", "is no multiple of num_query_groups (3)"),
        ({"global_batch_size": 6}, "2", "global_batch_size (6) is no multiple"),
        ({"max_position_embeddings": 8}, "1", "seq_length is longer"),
    ],
)
def test_what_cannot_be(given: dict[str, object], processes: str, said: str) -> None:
    told = "\n".join(error.render() for error in check(given, processes))
    assert said in told


def test_what_can_be() -> None:
    given: dict[str, object] = {
        "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2, "lr": 1,
        "num_query_groups": 2, "global_batch_size": 16, "ffn_hidden_size": None, "seed": 0,
    }  # fmt: skip
    assert check(given, "8") == []
    assert check({}, "gpu") == []
    assert settings(given)["num_layers"] == 4


def test_the_payload_stands_first(bench: Bench) -> None:
    told = record("Megatron-LM", tasks=["train"], launch={})
    prefix = lay_payload(bench.payloads, told)
    only = {"test": {"argv": ["python"]}}
    library = lay_payload(bench.payloads, record("Megatron-Energon", launch=only))
    data = bench.root / "data.jsonl"
    data.write_text('{"text": "a", "prompt": "b", "completion": "c"}\n')
    words = ("train", "bytes", "-b", "megatron", "--data", data, "-n", "2", "--dry-run", "--json")
    more = ("--arg", "tensor_model_parallel_size=2")
    shown = json.loads(bench.run(*words, *more).ok().out)
    assert shown["environment"]["PYTHONPATH"].split(":")[:2] == [str(prefix), str(library)]
    assert shown["argv"][-2:] == [
        "uniscale.workers.gpt",
        str(bench.root / "outputs/bytes-pretrain"),
    ]
    assert shown["record"]["weights"] == "bytes" and shown["record"]["processes"] == "2"
    err = bench.run(*words[:-1], "--arg", "num_layer=2", "--arg", "lr=x").err
    assert "unknown-argument" in err and "bad-argument" in err
    assert not Path(shown["folder"]).exists()


def test_of_several_payloads_it_says_which_one_trains(bench: Bench) -> None:
    told = {"tasks": ["train"], "launch": {}}
    for device in ("cpu", "Cambricon_MLU", "MUSA_S5000"):
        made = record("Megatron-LM", device, **told)
        lay_payload(bench.payloads, made)
    data = bench.root / "data.jsonl"
    data.write_text('{"text": "a"}\n')
    words = ("train", "bytes", "-b", "megatron", "--data", data, "--dry-run", "--json")
    result = bench.run(*words).ok()
    assert (
        "Megatron-LM (cpu) trains; with --device, another would: Cambricon_MLU, MUSA_S5000"
        in result.err
    )
    assert json.loads(result.out)["record"]["device"] == "cpu", "a resumed one trains there too"
    assert "another would" not in bench.run(*words, "--device", "MUSA_S5000").ok().err
    for folder in bench.payloads.glob("*-cpu"):
        folder.rename(bench.root / "away")
    err = bench.run(*words[:-1]).err
    assert "error[several-payloads]: 2 payloads can train with megatron" in err
    assert "--device Cambricon_MLU" in err and err.count("error[") == 1


def lay_environment(bench: Bench) -> tuple[Path, Path]:
    """A payload of Megatron-LM in an environment of its own: the environment's folder, and the
    payload's."""
    bench.environ["UNISCALE_DATA"] = str(bench.root / "own")
    made = bench.root / "own" / "environments" / "megatron"
    folder = made / "site" / "uniscale_payloads"
    prefix = lay_payload(folder, record("Megatron-LM", tasks=["train"], launch={}))
    python = made / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    Environment(
        folder=made, python=str(python), payloads=folder, name="uniscale-megatron-lm",
        version="0.14.0+cpu", file="x.whl", sha256="0" * 64, index="",
    ).save()  # fmt: skip
    return made, prefix


def test_tokenizers_are_looked_for_where_the_payload_runs(bench: Bench, tmp_path: Path) -> None:
    made, _ = lay_environment(bench)
    data = bench.root / "data.jsonl"
    data.write_text('{"text": "a"}\n')
    model = bench.root / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    words = ("train", model, "-b", "megatron", "--data", data, "--dry-run")
    assert (
        "error[no-package]: reading a model's tokenizer needs tokenizers" in bench.run(*words).err
    )
    (made / "site" / "tokenizers").mkdir()
    (made / "site" / "tokenizers" / "__init__.py").touch()
    bench.run(*words).ok()


def test_a_payload_in_an_environment_of_its_own_trains_with_its_python(bench: Bench) -> None:
    made, prefix = lay_environment(bench)
    data = bench.root / "data.jsonl"
    data.write_text('{"text": "a"}\n')
    words = ("train", "bytes", "-b", "megatron", "--data", data, "--dry-run", "--json")
    shown = json.loads(bench.run(*words).ok().out)
    assert shown["argv"][:3] == [str(made / "bin" / "python"), "-m", "torch.distributed.run"]
    assert shown["environment"]["PYTHONPATH"].split(":")[0] == str(prefix)
    for command in (("list", "--json"), ("show", "Megatron-LM", "--json")):
        assert str(prefix) in bench.run(*command).ok().out
