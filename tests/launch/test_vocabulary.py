"""`uniscale.engines.vocabulary`: common arguments in each engine's own words."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from uniscale.engines import enginefile, vocabulary
from uniscale_build.errors import LaunchError, Problems

LLAMA = (
    *("--host", "--port", "--alias", "--ctx-size", "--parallel", "--kv-unified", "--cache-type-k"),
    *("--cache-type-v", "--rope-scaling", "--rope-scale", "--yarn-orig-ctx", "--log-verbosity"),
    *("--cont-batching", "--no-cont-batching", "--mlock", "--lora", "--threads", "-fa", "--seed"),
)
VLLM = (
    *("--max-model-len", "--enforce-eager", "--no-enforce-eager", "--kv-transfer-config"),
    *("--compilation-config", "--allowed-origins", "--seed", "--limit-mm-per-prompt"),
)


def speak(
    engine: str,
    common: Mapping[str, object] | None = None,
    own: Mapping[str, object] | None = None,
    known: tuple[str, ...] = (),
    recorded: dict[str, str] | None = None,
) -> vocabulary.Spoken:
    described = enginefile.find(engine)
    assert described is not None
    return vocabulary.speak(described, common or {}, own or {}, known=known, recorded=recorded)


def refused(engine: str, known: tuple[str, ...] = (), **common: object) -> list[LaunchError]:
    with pytest.raises((LaunchError, Problems)) as caught:
        speak(engine, common, known=known)
    return list(caught.value.findings())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("8K", "8192"),
        ("8k", "8000"),
        ("4096", "4096"),
        (4096, "4096"),
        ("1.5k", "1500"),
        ("1M", "1048576"),
    ],
)
def test_sizes(given: object, number: str) -> None:
    assert speak("llama.cpp", {"max_model_len": given}).words == ("--ctx-size", number)
    assert speak("vllm", {"max_model_len": given}).words == ("--max-model-len", number)


@pytest.mark.parametrize("given", ["8 K", "eight", "0.0001", "1.2345k1", "", [8], {"a": 1}])
def test_sizes_that_are_none(given: object) -> None:
    (error,) = refused("llama.cpp", max_model_len=given)
    assert error.slug == "bad-value" and "8K is 8192" in (error.hint or "")


def test_none_is_left_out_and_false_turns_off() -> None:
    words = speak("llama.cpp", {"max_model_len": None}, {"threads": None}, LLAMA).words
    assert words == ()
    off = {"cont_batching": False, "mlock": False, "threads": 2}
    assert speak("llama.cpp", {}, off, LLAMA).words == ("--no-cont-batching", "--threads", "2")
    assert speak("vllm", {"enforce_eager": False}).words == ("--no-enforce-eager",)
    assert speak("vllm", {"enforce_eager": "true"}, known=VLLM).words == ("--enforce-eager",)


def test_mappings_become_json_and_lists_what_the_engine_takes() -> None:
    config = {"kv_connector": "X", "言": ["$(touch x)", 'q"']}
    words = speak("vllm", {"kv_transfer_config": config}, known=VLLM).words
    assert words[0] == "--kv-transfer-config" and json.loads(words[1]) == config
    many = {"allowed_origins": ["a", "b c"]}
    assert speak("vllm", many, known=VLLM).words == ("--allowed-origins", "a", "b c")
    lora = {"lora_modules": ["a.gguf", "b.gguf"]}
    assert speak("llama.cpp", lora, known=LLAMA).words == ("--lora", "a.gguf,b.gguf")


def test_approximations_are_told() -> None:
    spoken = speak("llama.cpp", {"kv_cache_dtype": "fp8"}, known=LLAMA)
    assert spoken.words == ("--cache-type-k", "q8_0", "--cache-type-v", "q8_0")
    assert "only approximated" in spoken.warnings[0]
    exact = speak("llama.cpp", {"kv_cache_dtype": "bfloat16"}, known=LLAMA)
    assert exact.words[1] == "bf16" and not exact.warnings
    assert speak("llama.cpp", {"kv_cache_dtype": "auto"}, known=LLAMA).words == ()


def test_each_sequence_of_llama_cpp_may_use_the_whole_context() -> None:
    spoken = speak("llama.cpp", {"max_model_len": "4K", "max_num_seqs": 8}, known=LLAMA)
    assert spoken.words == ("--ctx-size", "4096", "--parallel", "8", "--kv-unified")
    assert "share" in spoken.warnings[0]
    assert not speak("llama.cpp", {"max_model_len": "4K"}).warnings


def test_what_has_no_effect_is_a_warning_and_what_cannot_be_an_error() -> None:
    spoken = speak("llama.cpp", {"gpu_memory_utilization": 0.9, "trust_remote_code": False})
    assert spoken.words == () and len(spoken.warnings) == 1
    errors = refused("llama.cpp", tensor_parallel_size=2, quantization="awq", kv_cache_dtype="x")
    assert {one.slug for one in errors} == {"impossible-argument", "bad-value"}
    assert speak("llama.cpp", {"tensor_parallel_size": 1}).words == ()


def test_parts_of_a_mapping() -> None:
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
    wanted = ("--rope-scaling", "yarn", "--rope-scale", "4.0", "--yarn-orig-ctx", "32768")
    assert speak("llama.cpp", {"rope_scaling": yarn}, known=LLAMA).words == wanted
    as_text = json.dumps(yarn)
    assert speak("llama.cpp", {"rope_scaling": as_text}, known=LLAMA).words == wanted
    (error,) = refused("llama.cpp", rope_scaling={"faktor": 4})
    assert 'did you mean "factor"?' in (error.hint or "")
    (error,) = refused("llama.cpp", rope_scaling="{")
    assert "not JSON" in error.what


def test_unknown_arguments_are_refused_with_the_nearest() -> None:
    (error,) = refused("llama.cpp", LLAMA, max_modle_len=1)
    assert error.slug == "unknown-argument" and '"max_model_len"' in (error.hint or "")
    (error,) = refused("vllm", VLLM, max_model_lenn=1, seed=1)
    assert '"max_model_len"' in (error.hint or "")
    # vLLM's own names do not pass to an engine that lacks them.
    (error,) = refused("llama.cpp", LLAMA, num_scheduler_steps=8)
    assert error.slug == "unknown-argument"
    with pytest.raises(LaunchError, match=r"did you mean .--threads.") as caught:
        speak("llama.cpp", {}, {"thread": 8}, LLAMA)
    assert caught.value.slug == "unknown-flag"


def test_the_build_at_hand_decides() -> None:
    known = tuple(flag for flag in LLAMA if flag != "--cache-type-v")
    (error,) = refused("llama.cpp", known, kv_cache_dtype="fp8")
    assert "this build of llama.cpp has no flag --cache-type-v" in error.what
    words = speak("llama.cpp", {"max_model_len": "8k"}, recorded={"max_model_len": "-c"}).words
    assert words == ("-c", "8000")


def test_own_arguments_win_and_may_be_dotted_or_dashed() -> None:
    words = speak("vllm", {"seed": 1}, {"seed": 2}, VLLM).words
    assert words == ("--seed", "2")
    own: dict[str, object] = {"limit_mm_per_prompt.image": 3, "max-model-len": 5}
    words = speak("vllm", {}, own, VLLM).words
    assert words == ("--limit-mm-per-prompt.image", "3", "--max-model-len", "5")


def test_values_with_a_dash_stay_values() -> None:
    assert speak("llama.cpp", {"seed": -1}).words == ("--seed=-1",)
    assert speak("llama.cpp", {"seed": "--port=1"}).words == ("--seed=--port=1",)


@pytest.mark.parametrize("name", ["a b", "", "$(touch x)", "x=1", "-", "名"])
def test_names_that_cannot_be_flags(name: str) -> None:
    for engine in ("vllm", "mindie", "llama.cpp"):
        with pytest.raises(LaunchError):
            speak(engine, {}, {name: 1})
        with pytest.raises(LaunchError):
            speak(engine, {name: 1})


def test_other_engines() -> None:
    common: dict[str, object] = {"max_model_len": "8K", "tensor_parallel_size": 2}
    common["gpu_memory_utilization"] = 0.8
    spoken = speak("sgl", common)
    assert spoken.words[:4] == ("--context-length", "8192", "--tp-size", "2")
    assert spoken.words[4:] == ("--mem-fraction-static", "0.8") and spoken.warnings
    spoken = speak("trtllm", common, {"ep_size": 2})
    assert "--max_seq_len" in spoken.words and spoken.words[-2:] == ("--ep_size", "2")
    spoken = speak("tgi", {"tensor_parallel_size": 2, "enforce_eager": True})
    assert spoken.words == ("--num-shard", "2") and "cuda-graphs" in spoken.warnings[0]
