"""vLLM's public recipes, read as they are: what hardware, variant and strategy give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale import recipe, recipe_hardware, servefile
from uniscale.plans import ModelPlan, ServePlan
from uniscale_build.errors import UniscaleError

from .helpers import Bench, launch, lay_payload, record

RECIPE = """
meta:
  title: "Large"
  date_updated: 2026-09-10
  tasks: [text]
  hardware: {h200: verified}
model:
  model_id: "org/Large-235B"
  min_vllm_version: "0.18.0"
  architecture: moe
  context_length: 262144
  base_args: ["--trust-remote-code", "--max-model-len", "32768"]
  base_env: {VLLM_USE_DEEP_GEMM: "0"}
dependencies:
  - note: "Kernels for FP8"
    command: "pip install some-kernels"
  - {note: "not needed", command: "true", optional: true}
features:
  tool_calling:
    description: "…"
    args: ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
  spec_decoding:
    default_mode: mtp
    modes:
      mtp:
        args: ["--speculative-config", '{"method":"mtp","num_speculative_tokens":2}']
        hardware_overrides:
          hopper: {args: ["--speculative-config", '{"method":"mtp","num_speculative_tokens":1}']}
      eagle3:
        variants: [fp8]
        args: ["--speculative-config", '{"method":"eagle3"}']
  long_context:
    args: ["--max-model-len", "131072"]
    env: {VLLM_ALLOW_LONG_MAX_MODEL_LEN: "1"}
opt_in_features: [spec_decoding, long_context]
variants:
  default: {precision: bf16, vram_minimum_gb: 564}
  fp8:
    model_id: "org/Large-235B-FP8"
    tp: 4
    extra_args: ["--kv-cache-dtype=fp8", "--no-enable-prefix-caching"]
    extra_env: {FP8: "1"}
    default_modes: {spec_decoding: eagle3}
  npu:
    model_id: "other/Large-w8a8"
    supported_hardware: [ascend_950dt]
    hardware_overrides: {ascend_950dt: {extra_env: {HCCL_BUFFSIZE: "400"}}}
compatible_strategies:
  [single_node_tp, single_node_tep, single_node_dep, multi_node_tp_pp, pd_cluster]
hardware_overrides:
  nvidia: {extra_args: ["--moe-backend", "flashinfer"]}
  hopper: {extra_args: ["--moe-backend", "triton", "--max-num-seqs", "512"], extra_env: {HOP: "1"}}
  amd: {extra_env: {VLLM_ROCM_USE_AITER: "1"}}
  cpu: {extra_args: ["--max-num-batched-tokens", "16384"]}
  musa: {extra_env: {MUSA_ONLY: "1"}}
strategy_overrides:
  single_node_tp: {tp: 4}
guide: |
  ## Overview
  Costs $(touch x) nothing: ${HOME} ${not.there}
"""


def read(tmp_path: Path, *settings: str, text: str = RECIPE) -> ServePlan:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return servefile.read(path, settings)


def model(tmp_path: Path, *settings: str) -> ModelPlan:
    (one,) = read(tmp_path, *settings).models
    return one


def test_on_a_machine_without_chips(tmp_path: Path) -> None:
    plan = read(tmp_path, "recipe.hardware=cpu")
    (one,) = plan.models
    assert (one.model, one.name, one.engines) == ("org/Large-235B", "org/Large-235B", ())
    assert one.arguments == {
        "trust_remote_code": True, "max_model_len": "32768", "max_num_batched_tokens": "16384",
        "tensor_parallel_size": "4", "enable_auto_tool_choice": True, "tool_call_parser": "hermes",
    }  # fmt: skip
    assert one.environment == {"VLLM_USE_DEEP_GEMM": "0"}
    assert plan.warnings == ("the recipe asks for: Kernels for FP8 (pip install some-kernels)",)


def test_hardware_from_brand_to_chip(tmp_path: Path) -> None:
    hopper = model(tmp_path, "recipe.hardware=h200", "recipe.chips=8")
    assert hopper.arguments["moe_backend"] == "triton" and hopper.environment["HOP"] == "1"
    assert hopper.arguments["tensor_parallel_size"] == "4", "the recipe allows no more"
    ada = model(tmp_path, "recipe.hardware=l40s", "recipe.chips=2")
    assert ada.arguments["moe_backend"] == "flashinfer" and "HOP" not in ada.environment
    assert ada.arguments["tensor_parallel_size"] == "2"
    assert model(tmp_path, "recipe.hardware=mi300x").environment["VLLM_ROCM_USE_AITER"] == "1"
    for name in ("musa", "MUSA_S5000", "mthreads"):  # a vendor's own key, by any of its names
        assert model(tmp_path, f"recipe.hardware={name}").environment["MUSA_ONLY"] == "1"


def test_variants(tmp_path: Path) -> None:
    fp8 = model(tmp_path, "recipe.variant=fp8", "recipe.hardware=h200", "recipe.chips=8")
    assert fp8.model == "org/Large-235B-FP8" and fp8.name == "org/Large-235B"
    assert fp8.arguments["kv_cache_dtype"] == "fp8" and fp8.environment["FP8"] == "1"
    assert fp8.arguments["enable_prefix_caching"] is False
    assert fp8.arguments["speculative_config"] == '{"method":"eagle3"}', "on with this variant"
    plan = read(tmp_path, "recipe.variant=npu", "recipe.hardware=h200")
    assert "the variant npu is for ascend_950dt; this is h200" in plan.warnings
    npu = model(tmp_path, "recipe.variant=npu", "recipe.hardware=ascend_950dt")
    assert npu.environment["HCCL_BUFFSIZE"] == "400"


def test_features_are_last_and_win(tmp_path: Path) -> None:
    on = model(tmp_path, "recipe.features=[long_context, spec_decoding]", "recipe.hardware=h100")
    assert on.arguments["max_model_len"] == "131072"
    assert on.environment["VLLM_ALLOW_LONG_MAX_MODEL_LEN"] == "1"
    assert on.arguments["speculative_config"] == '{"method":"mtp","num_speculative_tokens":1}'
    other = model(tmp_path, "recipe.features=spec_decoding", "recipe.hardware=b200")
    assert other.arguments["speculative_config"] == '{"method":"mtp","num_speculative_tokens":2}'
    off = model(tmp_path, "recipe.without=tool_calling", "recipe.hardware=cpu")
    assert "tool_call_parser" not in off.arguments


def test_strategies(tmp_path: Path) -> None:
    eight = ("recipe.hardware=h200", "recipe.chips=8")
    tep = model(tmp_path, "recipe.strategy=single_node_tep", *eight).arguments
    assert tep["tensor_parallel_size"] == "8" and tep["enable_expert_parallel"] is True
    dep = model(tmp_path, "recipe.strategy=single_node_dep", *eight).arguments
    assert dep["data_parallel_size"] == "8" and "tensor_parallel_size" not in dep
    two = model(tmp_path, "recipe.strategy=multi_node_tp_pp", "recipe.nodes=2", *eight).arguments
    assert (two["tensor_parallel_size"], two["pipeline_parallel_size"]) == ("8", "2")


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("recipe.variant=fp9", 'no variant "fp9"'),
        ("recipe.strategy=multi_node_dep", 'no strategy "multi_node_dep"'),
        ("recipe.strategy=pd_cluster", "uniscale does not start the strategy pd_cluster"),
        ("recipe.features=[tool_caling]", 'did you mean "tool_calling"?'),
        ("recipe.chips=many", '"chips" must be a whole number from 1'),
        ("recipe.varient=fp8", 'did you mean "variant"?'),
        ("recipe.modes={spec_decoding: x}", ""),
        ("model.base_args=[{a: b}]", '"base_args" must be a list of texts'),
        ("meta.tasks=[omni]", "vLLM-Omni"),
    ],
)
def test_what_a_recipe_does_not_have(tmp_path: Path, setting: str, told: str) -> None:
    settings = [setting, "recipe.hardware=h200"]
    if not told:
        settings.append("recipe.features=spec_decoding")
        told = 'spec_decoding has no mode "x"'
    with pytest.raises(UniscaleError) as caught:
        read(tmp_path, *settings)
    assert told in caught.value.render()


def test_a_key_that_is_new_is_told(tmp_path: Path) -> None:
    plan = read(
        tmp_path, "recipe.hardware=cpu", text=RECIPE + "sglang: {tp_by_hardware: {h200: 8}}\n"
    )
    assert any(warning.endswith("sglang is not used") for warning in plan.warnings)


def test_flags_as_arguments() -> None:
    words = [
        "-tp",
        "4",
        "--a-b",
        "1",
        "--a-b=2",
        "--no-c",
        "--list",
        "x",
        "y",
        "--d",
        "-1",
        "-q",
        "fp8",
    ]
    assert recipe.arguments_of(words) == {
        "tensor_parallel_size": "4", "a_b": "2", "c": False, "list": ["x", "y"], "d": "-1",
        "quantization": "fp8",
    }  # fmt: skip


def test_names_of_hardware() -> None:
    assert recipe_hardware.lineage("H200") == ("nvidia", "hopper", "h200")
    assert recipe_hardware.lineage("ascend_950dt") == ("ascend", "ascend_950dt")
    assert recipe_hardware.lineage("xeon6") == ("cpu", "xeon6")
    assert "metax" in recipe_hardware.lineage("Metax_C550")
    assert recipe_hardware.lineage("tpu_v7") == ("tpu_v7",)


def test_it_is_served(bench: Bench) -> None:
    told = launch(formats=["hf"], model="", flags=[])
    lay_payload(bench.payloads, record(backend="vllm", version="0.17.0", launch={"serve": told}))
    path = bench.root / "recipe.yaml"
    path.write_text(RECIPE)
    result = bench.run("serve", path, "--dry-run", "--json", "--set", "recipe.hardware=h200")
    argv = json.loads(result.ok().out)["argv"]
    place = argv.index("--tool-call-parser")
    assert argv[1] == "org/Large-235B" and argv[place + 1] == "hermes"
    assert argv[argv.index("--max-num-seqs") + 1] == "512"
    assert "asks for vLLM 0.18.0; the payload here is 0.17.0" in result.err
    assert not (bench.root / "x").exists()
    shown = bench.run("config", path, "--set", "recipe.variant=fp8").ok().out
    assert "recipe.variant = fp8" in shown and "model.model_id = org/Large-235B" in shown
