"""The `moe:` block: checked once, said in each engine's words."""

from __future__ import annotations

from pathlib import Path

import pytest
from uniscale.config import servefile
from uniscale.engines import enginefile, vocabulary
from uniscale_build.errors import UniscaleError


def spoken(tmp_path: Path, engine: str, moe: str) -> list[str]:
    path = tmp_path / "moe.yaml"
    path.write_text(f"serve: {{model: demo, moe: {{{moe}}}}}\n")
    plan = servefile.read(path)
    described = enginefile.find(engine)
    assert described is not None
    return list(vocabulary.speak(described, plan.models[0].arguments, {}).words)


ALL = "expert_parallel: true, placement: round_robin, balance: true, redundant_experts: 16"


def test_each_engine_in_its_own_words(tmp_path: Path) -> None:
    assert spoken(tmp_path, "vllm", f"{ALL}, all_to_all: deepep_low_latency") == [
        "--enable-expert-parallel",
        *("--expert-placement-strategy", "round_robin", "--enable-eplb"),
        *("--eplb-config.num_redundant_experts", "16"),
        *("--all2all-backend", "deepep_low_latency"),
    ]
    assert spoken(tmp_path, "sglang", "expert_parallel: 8, placement: linear, balance: true") == [
        *("--ep-size", "8", "--init-expert-location", "trivial", "--enable-eplb"),
    ]
    assert spoken(tmp_path, "llama.cpp", "offload: 20") == ["--n-cpu-moe", "20"]
    assert spoken(tmp_path, "llama.cpp", "offload: all") == ["--n-cpu-moe", "9999"]
    assert spoken(tmp_path, "trtllm", "expert_parallel: 4") == ["--ep_size", "4"]


def test_what_is_off_says_nothing(tmp_path: Path) -> None:
    off = "expert_parallel: false, balance: false, redundant_experts: 0, offload: false"
    assert spoken(tmp_path, "llama.cpp", off) == []


@pytest.mark.parametrize(
    ("engine", "moe", "told"),
    [
        ("vllm", "expert_parallel: 8", "expert_parallel cannot be '8'"),
        ("sglang", "expert_parallel: true", "expert_parallel cannot be 'true'"),
        ("sglang", "placement: round_robin", "known: linear"),
        ("llama.cpp", "expert_parallel: true", "llama.cpp cannot do expert_parallel"),
        ("llama.cpp", "balance: true", "llama.cpp cannot do expert_balance"),
        ("vllm", "offload: 4", "cpu_offload_gb"),
        ("vllm", "balance: maybe", '"balance" must be true or false'),
        ("vllm", "placement: random", "\"placement\" cannot be 'random'"),
        ("vllm", "redundant_experts: -1", '"redundant_experts" must be 0 or more'),
        ("vllm", "expert_paralel: true", 'did you mean "expert_parallel"?'),
    ],
)
def test_what_cannot_be(tmp_path: Path, engine: str, moe: str, told: str) -> None:
    with pytest.raises(UniscaleError) as caught:
        spoken(tmp_path, engine, moe)
    assert told in caught.value.render()
