"""Arguments of pre-training: unknown, of the wrong kind, or at odds with each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale.pretraining import check, settings

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
    data = bench.root / "data.jsonl"
    data.write_text('{"text": "a", "prompt": "b", "completion": "c"}\n')
    words = ("train", "bytes", "-b", "megatron", "--data", data, "-n", "2", "--dry-run", "--json")
    more = ("--arg", "tensor_model_parallel_size=2")
    shown = json.loads(bench.run(*words, *more).ok().out)
    assert shown["environment"]["PYTHONPATH"].split(":")[0] == str(prefix)
    assert shown["argv"][-2:] == [
        "uniscale.workers.gpt",
        str(bench.root / "outputs/bytes-pretrain"),
    ]
    assert shown["record"]["weights"] == "bytes" and shown["record"]["processes"] == "2"
    err = bench.run(*words[:-1], "--arg", "num_layer=2", "--arg", "lr=x").err
    assert "unknown-argument" in err and "bad-argument" in err
    assert not Path(shown["folder"]).exists()
