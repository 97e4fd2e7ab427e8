"""Weights that Megatron trained, in Llama's form: parts of all ranks joined, names translated.

Megatron keeps queries, keys and values of a group in one matrix, gate and up in another, and every
tensor-parallel rank has its share of each.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

Json = dict[str, Any]
Weights = dict[str, torch.Tensor]
#: What the shape of a model must be for Llama to be the same model.
LLAMA: Json = {
    "normalization": "RMSNorm",
    "swiglu": True,
    "position_embedding_type": "rope",
    "disable_bias_linear": True,
}
_COLUMNS = ("self_attention.linear_proj.weight", "mlp.linear_fc2.weight")  # shared by columns
_WHOLE = ("norm.weight",)  # the same on every rank
_LAYER = {
    "input_layernorm.weight": "input_layernorm.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
}
_OUTER = {
    "embedding.word_embeddings.weight": "model.embed_tokens.weight",
    "decoder.final_layernorm.weight": "model.norm.weight",
    "output_layer.weight": "lm_head.weight",
}


def convert(shards: Path, tokenizer: Path, out: Path) -> None:
    """Write the model in ``shards`` to ``out`` as Llama, with the files of a tokenizer.

    Raises ValueError for a model of another shape than Llama's.
    """
    from safetensors.torch import save_file

    told: Json = json.loads((shards / "model.json").read_text(encoding="utf-8"))
    other = [f"{key}={json.dumps(value)}" for key, value in LLAMA.items() if told[key] != value]
    if other:
        raise ValueError(f"this model is no Llama: train it with {', '.join(other)}")
    weights = _translated(_joined(shards, told), told)
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    rows = weights["model.embed_tokens.weight"].shape[0]
    save_file({name: one.contiguous() for name, one in weights.items()},
              part / "model.safetensors", {"format": "pt"})  # fmt: skip
    (part / "config.json").write_text(json.dumps(_config(told, rows, tokenizer), indent=2) + "\n")
    for path in tokenizer.iterdir():
        if path.name.startswith(("tokenizer", "special_tokens", "chat_template")):
            shutil.copy(path, part / path.name)
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


def _joined(shards: Path, told: Json) -> Weights:
    """The parts of all ranks as whole matrices, by Megatron's names with layers counted through."""
    found: Weights = {}
    layers = told["num_layers"] // told["pipeline"]
    for stage in range(told["pipeline"]):
        parts = [
            torch.load(shards / f"weights-tensor{rank:02}-pipeline{stage:02}.pt", weights_only=True)
            for rank in range(told["tensor"])
        ]
        for name in parts[0]:
            found[_counted(name, stage * layers)] = _whole(name, [one[name] for one in parts])
    return found


def _counted(name: str, before: int) -> str:
    """The name with the layer's number in the whole model, not in its stage."""
    head, layer, rest = name.partition("decoder.layers.")
    if not layer:
        return name
    number, _, inside = rest.partition(".")
    return f"{head}{layer}{int(number) + before}.{inside}"


def _whole(name: str, parts: list[torch.Tensor]) -> torch.Tensor:
    if len(parts) == 1 or name.endswith(_WHOLE):
        return parts[0]
    if name.endswith(_COLUMNS):
        return torch.cat(parts, dim=1)
    if name.endswith("mlp.linear_fc1.weight"):  # each rank has its share of gate, then of up
        return torch.cat([half for side in zip(*(one.chunk(2) for one in parts), strict=True)
                          for half in side])  # fmt: skip
    return torch.cat(parts)


def _translated(weights: Weights, told: Json) -> Weights:
    heads = told["num_attention_heads"]
    groups = told["num_query_groups"] or heads
    size = told["hidden_size"] // heads
    found: Weights = {}
    for name, value in weights.items():
        if name in _OUTER:
            found[_OUTER[name]] = value
            continue
        number, _, inside = name.removeprefix("decoder.layers.").partition(".")
        ours = f"model.layers.{number}."
        if inside in _LAYER:
            found[ours + _LAYER[inside]] = value
        elif inside == "self_attention.linear_qkv.weight":
            split = value.reshape(groups, heads // groups + 2, size, -1)
            for part, rows in (("q", split[:, :-2]), ("k", split[:, -2]), ("v", split[:, -1])):
                found[f"{ours}self_attn.{part}_proj.weight"] = rows.reshape(-1, value.shape[1])
        elif inside == "mlp.linear_fc1.weight":
            found[f"{ours}mlp.gate_proj.weight"], found[f"{ours}mlp.up_proj.weight"] = value.chunk(
                2
            )
        else:
            raise ValueError(f"this model has a part that Llama has not: {name}")
    if not told["untie_embeddings_and_output_weights"]:
        found.pop("lm_head.weight", None)  # a later stage's copy of the embedding
    return found


def _config(told: Json, rows: int, tokenizer: Path) -> Json:
    config: Json = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": rows,
        "hidden_size": told["hidden_size"],
        "intermediate_size": told["ffn_hidden_size"] or 4 * told["hidden_size"],
        "num_hidden_layers": told["num_layers"],
        "num_attention_heads": told["num_attention_heads"],
        "num_key_value_heads": told["num_query_groups"] or told["num_attention_heads"],
        "head_dim": told["hidden_size"] // told["num_attention_heads"],
        "max_position_embeddings": told["max_position_embeddings"] or told["seq_length"],
        "rms_norm_eps": told["norm_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": float(told["rotary_base"])},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": not told["untie_embeddings_and_output_weights"],
        "dtype": "bfloat16" if told["bf16"] else "float32",
    }
    known: Json = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    ids = ("bos_token_id", "eos_token_id", "pad_token_id")
    return {**config, **{key: known[key] for key in ids if key in known}}
