"""vLLM's public recipes, read as they are: what hardware, variant and strategy give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale.config import recipe, recipe_hardware, servefile
from uniscale.config.plans import ModelPlan, ServePlan
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
    assert recipe_hardware.lineage("ascend_950dt") == ("huawei", "ascend", "npu", "ascend_950dt")
    assert recipe_hardware.lineage("xeon6") == ("intel", "cpu", "xeon6")
    assert recipe_hardware.lineage("arc_pro_b60") == ("intel", "xpu", "arc_pro_b60")
    assert recipe_hardware.lineage("rtx_5090_2x") == ("nvidia", "blackwell", "rtx_5090")
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


SPARSE = """
meta: {title: "Sparse", tasks: [text], hardware: {b300: verified, mi300x: unsupported}}
model: {model_id: org/Sparse, min_vllm_version: "0.20.0", base_args: ["--moe-backend", "auto"]}
dependencies:
  - {note: "CUDA's kernels", command: "pip install a", brand: NVIDIA}
  - {note: "ROCm's kernels", command: "pip install b", brand: [AMD]}
  - {note: "in the image", command: "true", install_modes: [docker]}
features:
  drafts:
    strategies: [single_node_tp, multi_node_tp]
    args: ["--speculative-config", "slow"]
    env: {DRAFT: "1"}
    hardware_overrides:
      blackwell: {args: ["--speculative-config", "fast"]}
      default: {env: {DRAFT: "2"}}
  ways:
    default_mode: first
    modes:
      first: {args: ["--way", "first"], hardware: {hopper: unsupported}}
      second: {args: ["--way", "second"], env: {SECOND: "1"}}
  cache: {args: ["--cache"], companion: {label: c, command: "cache server"}}
opt_in_features: [cache]
variants:
  default: {precision: bf16, vram_minimum_gb: 100, tp: {h200: 2, amd: 4, default: 8}}
  small:
    precision: nvfp4
    min_vllm_version: "0.30.0"
    hardware_overrides:
      blackwell: {extra_args: ["--small", "on"], extra_env: {SMALL: "1"}}
      b300: {extra_args: ["--this-chip", "yes"]}
  any: {precision: nvfp4, precision_hardware: {brand: NVIDIA}}
compatible_strategies: [multi_node_dep, single_node_tep, single_node_tp]
default_strategy: single_node_tep
strategy_hardware:
  multi_node_dep: {hopper: unsupported}
  multi_node_tp: {b300: supported}
strategy_min_gpus: {multi_node_dep: 16, h100: 32, b300: {multi_node_dep: 24}}
hardware_overrides:
  blackwell: {extra_args: ["--shared", "1"], extra_env: {SHARED: "1"}}
strategy_overrides:
  single_node_tp:
    tp: 1
    extra_args: ["-cc.pass_config.fuse_it=True"]
    hardware_overrides:
      blackwell: {extra_args: ["--alone", "1"]}
      b300: {extra_env: {CHIP: "1"}}
omni: {port: 1}
kv_offload_support: {x: verified}
"""


def sparse(tmp_path: Path, *settings: str) -> tuple[ModelPlan, str]:
    plan = read(tmp_path, *(f"recipe.{one}" for one in settings), text=SPARSE)
    return plan.models[0], "\n".join(plan.warnings)


def test_a_strategys_own_hardware_stands_in_place_of_the_recipes(tmp_path: Path) -> None:
    usual, _ = sparse(tmp_path, "variant=small", "hardware=b300", "chips=8")
    assert usual.arguments["enable_expert_parallel"] is True, "the recipe's own default strategy"
    assert usual.arguments["tensor_parallel_size"] == "8", "tp is of single_node_tp alone"
    assert (usual.arguments["shared"], usual.arguments["small"]) == ("1", "on")
    assert usual.environment["SHARED"] == usual.environment["SMALL"] == "1"
    own, _ = sparse(
        tmp_path, "variant=small", "hardware=b300", "chips=8", "strategy=single_node_tp"
    )
    assert own.arguments["alone"] == "1" and own.environment["CHIP"] == "1"
    assert not {"shared", "small"} & own.arguments.keys() and "SHARED" not in own.environment
    assert own.arguments["this_chip"] == "yes", "of this very chip: it stays"
    assert own.arguments["compilation_config.pass_config.fuse_it"] == "True"
    assert "tensor_parallel_size" not in own.arguments, "one chip"


@pytest.mark.parametrize(("hardware", "count"), [("h200", "2"), ("mi300x", "4"), ("l4", "8")])
def test_chips_by_hardware(tmp_path: Path, hardware: str, count: str) -> None:
    words = ("strategy=single_node_tp", f"hardware={hardware}", "chips=8")
    assert sparse(tmp_path, *words)[0].arguments["tensor_parallel_size"] == count


def test_features_of_hardware_and_strategy(tmp_path: Path) -> None:
    one = ("strategy=single_node_tp", "chips=1")
    fast, _ = sparse(tmp_path, *one, "hardware=b200")
    assert fast.arguments["speculative_config"] == "fast" and fast.environment["DRAFT"] == "1"
    slow, _ = sparse(tmp_path, *one, "hardware=h200")
    assert slow.arguments["speculative_config"] == "slow" and slow.environment["DRAFT"] == "2"
    assert (fast.arguments["way"], slow.arguments["way"]) == ("first", "second")
    assert slow.environment["SECOND"] == "1"
    other, told = sparse(tmp_path, "hardware=h200", "chips=1", "features=[drafts, cache]")
    assert "speculative_config" not in other.arguments and other.arguments["cache"] is True
    assert "drafts is not for single_node_tep: single_node_tp, multi_node_tp" in told
    assert "cache needs another process beside the server: cache server" in told
    _, told = sparse(tmp_path, *one, "hardware=h200", "modes={ways: first}")
    assert "ways: first is not for h200" in told


def test_strategies_of_hardware(tmp_path: Path) -> None:
    _, told = sparse(tmp_path, "strategy=multi_node_dep", "hardware=b300", "chips=8", "nodes=2")
    assert "the recipe asks for 24 chips for multi_node_dep; there are 16" in told
    assert "all requests enter at the first machine" in told
    two, _ = sparse(tmp_path, "strategy=multi_node_tp", "hardware=b300", "chips=8", "nodes=2")
    assert two.arguments["tensor_parallel_size"] == "16"
    for word in ("multi_node_dep", "multi_node_tp"):
        with pytest.raises(UniscaleError, match=f"no {word} for h200"):
            sparse(tmp_path, f"strategy={word}", "hardware=h200", "chips=8", "nodes=2")


def test_what_a_recipe_says_of_this_machine(tmp_path: Path) -> None:
    _, told = sparse(tmp_path, "hardware=mi300x", "chips=8", "variant=small")
    assert "does not run on mi300x yet" in told
    assert "nvfp4 of the variant small needs blackwell; this is mi300x" in told
    assert "ROCm's kernels" in told and "CUDA's" not in told and "image" not in told
    _, told = sparse(tmp_path, "hardware=h200", "chips=8", "variant=any")
    assert "CUDA's kernels" in told and "nvfp4" not in told
    assert "is not used" not in told


def test_a_newer_vllm_for_a_variant(bench: Bench) -> None:
    told = launch(formats=["hf"], model="", flags=[])
    lay_payload(bench.payloads, record(backend="vllm", version="0.25.0", launch={"serve": told}))
    path = bench.root / "recipe.yaml"
    path.write_text(SPARSE)
    settings = ("hardware=b300", "chips=1", "strategy=single_node_tp")
    words = ["serve", str(path), "--dry-run", *(f"--set=recipe.{one}" for one in settings)]
    first = bench.run(*words).ok()
    assert "asks for vLLM" not in first.err
    assert "--compilation-config.pass_config.fuse_it True" in first.out, "fields keep their names"
    second = bench.run(*words, "--set", "recipe.variant=small").ok()
    assert "asks for vLLM 0.30.0; the payload here is 0.25.0" in second.err
