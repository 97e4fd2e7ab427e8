"""What pre-training can be told: Megatron's own names, our defaults, and what does not go together.

As data, read by the launcher and by the worker; nothing of Megatron is imported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, did_you_mean

BYTES = "bytes"  # in place of a model: no tokenizer, every byte is a token
DEFAULTS: Mapping[str, object] = {
    # the model
    "num_layers": 4,
    "hidden_size": 128,
    "ffn_hidden_size": None,  # None: four times the hidden size
    "num_attention_heads": 4,
    "num_query_groups": None,  # None: as many as heads
    "seq_length": 256,
    "max_position_embeddings": None,  # None: as long as a sequence
    "normalization": "RMSNorm",
    "norm_epsilon": 1e-5,
    "swiglu": True,
    "position_embedding_type": "rope",
    "rotary_base": 10000,
    "disable_bias_linear": True,
    "untie_embeddings_and_output_weights": False,
    "init_method_std": 0.02,
    "attention_dropout": 0.0,
    "hidden_dropout": 0.0,
    # how it is shared
    "tensor_model_parallel_size": 1,
    "pipeline_model_parallel_size": 1,
    # how it learns
    "micro_batch_size": 4,
    "global_batch_size": None,  # None: one micro batch for each data-parallel process
    "train_iters": 100,
    "lr": 1e-3,
    "min_lr": 0.0,
    "lr_warmup_iters": 0,
    "lr_decay_style": "cosine",
    "weight_decay": 0.01,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "clip_grad": 1.0,
    "bf16": False,
    "seed": 42,
    # what is written when
    "log_interval": 1,
    "save_interval": 100,
}
#: What Megatron's own script does where our defaults are Llama's: for files written for that.
MEGATRON: Mapping[str, object] = {
    "normalization": "LayerNorm",
    "swiglu": False,
    "position_embedding_type": "learned_absolute",
    "disable_bias_linear": False,
}
_CHOICES: Mapping[str, tuple[str, ...]] = {
    "normalization": ("LayerNorm", "RMSNorm"),
    "position_embedding_type": ("learned_absolute", "rope", "none"),
    "lr_decay_style": ("constant", "linear", "cosine"),
}
_FROM_ZERO = ("lr_warmup_iters", "seed", "min_lr", "weight_decay", "attention_dropout",
              "hidden_dropout", "clip_grad")  # fmt: skip


def settings(given: Mapping[str, object]) -> dict[str, Any]:
    """``given`` over the defaults."""
    return {**DEFAULTS, **{key: value for key, value in given.items() if value is not None}}


def check(given: Mapping[str, object], processes: str) -> list[UniscaleError]:
    """An error for each argument that is unknown, of the wrong kind, or fits nothing else."""
    errors = [_unknown(name) for name in given if name not in DEFAULTS]
    for name, value in given.items():
        if name in DEFAULTS and value is not None:
            errors += _value(name, value)
    return errors or _together(settings(given), processes)


def check_tokenizer(model: str | None, places: Sequence[str]) -> list[UniscaleError]:
    """An error when a model's tokenizer is to be used and nothing in ``places`` can read it.

    ``places`` are where the payload's own process finds packages.
    """
    from importlib.machinery import PathFinder

    if model in (None, BYTES) or PathFinder.find_spec("tokenizers", list(places)) is not None:
        return []
    hint = f"pip install tokenizers; or name {BYTES} in place of a model: every byte is a token"
    what = "reading a model's tokenizer needs tokenizers, not installed where the payload runs"
    return [LaunchError(what, hint=hint, slug="no-package")]


def _error(what: str, hint: str | None = None) -> SettingsError:
    return SettingsError(what, where="args", hint=hint, slug="bad-argument")


def _unknown(name: str) -> UniscaleError:
    return SettingsError(
        f"pre-training has no argument {name}",
        where="args",
        hint=did_you_mean(name, DEFAULTS),
        slug="unknown-argument",
    )


def _value(name: str, value: object) -> list[UniscaleError]:
    usual = DEFAULTS[name]
    if isinstance(usual, bool):
        right = isinstance(value, bool)
        return [] if right else [_error(f"{name} must be true or false, not {value!r}")]
    if isinstance(usual, str):
        choices = _CHOICES[name]
        hint = did_you_mean(str(value), choices)
        return [] if value in choices else [_error(f"{name} cannot be {value!r}", hint)]
    whole = not isinstance(usual, float)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        kind = "a whole number" if whole else "a number"
        return [_error(f"{name} must be {kind}, not {value!r}")]
    if value < 0 or (value == 0 and name not in _FROM_ZERO):
        least = "0 or more" if name in _FROM_ZERO else "more than 0"
        return [_error(f"{name} must be {least}, not {value}")]
    return []


def _together(told: Mapping[str, Any], processes: str) -> list[UniscaleError]:
    errors: list[UniscaleError] = []
    tensor, pipeline = told["tensor_model_parallel_size"], told["pipeline_model_parallel_size"]
    heads = told["num_attention_heads"]

    def divides(what: str, number: int, by: str, size: int) -> None:
        if number % size:
            errors.append(_error(f"{what} ({number}) is no multiple of {by} ({size})"))

    divides("hidden_size", told["hidden_size"], "num_attention_heads", told["num_attention_heads"])
    divides(
        "num_attention_heads", told["num_attention_heads"], "tensor_model_parallel_size", tensor
    )
    divides("num_layers", told["num_layers"], "pipeline_model_parallel_size", pipeline)
    groups = told["num_query_groups"]
    if groups is not None:
        divides("num_attention_heads", heads, "num_query_groups", groups)
        divides("num_query_groups", groups, "tensor_model_parallel_size", tensor)
    if told["max_position_embeddings"] is not None:
        longest = told["max_position_embeddings"]
        if longest < told["seq_length"]:
            errors.append(_error(f"seq_length is longer than max_position_embeddings ({longest})"))
    if processes.isdigit() and int(processes):
        divides("processes", int(processes), "tensor times pipeline parallel", tensor * pipeline)
        data = max(int(processes) // (tensor * pipeline), 1)
        if told["global_batch_size"] is not None:
            rows = told["micro_batch_size"] * data
            divides(
                "global_batch_size", told["global_batch_size"], "micro batches in parallel", rows
            )
    return errors
