"""Writes a model as one GGUF file for llama.cpp, and reads it back to prove it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from uniscale.workers.gguf_model import HfModel, NotCovered, token, weights

TYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
_SAMPLING = {
    "top_k": "add_sampling_top_k",
    "top_p": "add_sampling_top_p",
    "min_p": "add_sampling_min_p",
    "temperature": "add_sampling_temp",
}


def write(model: HfModel, path: Path, kind: str, name: str) -> None:
    """Write ``model`` to ``path`` with matrices of type ``kind`` (see TYPES), whole or not at all.

    Raises `NotCovered` for a tensor that the architecture does not have.
    """
    import gguf

    part = path.with_name(f".{path.name}.part")
    writer: Any = gguf.GGUFWriter(part, model.architecture)
    _numbers(writer, model, name, kind)
    _tokenizer(writer, model)
    for theirs, tensor in weights(model.folder):
        ours = tensor_name(model, theirs)
        if ours is not None:
            array, stored = converted(model, theirs, tensor, kind)
            writer.add_tensor(ours, array, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    verify(model, part, kind)
    part.replace(path)


def tensor_name(model: HfModel, theirs: str) -> str | None:
    """GGUF's name of a tensor; None for one that llama.cpp computes itself."""
    import gguf

    if theirs.endswith(("rotary_emb.inv_freq", "masked_bias")):
        return None
    if theirs == "lm_head.weight" and model.config.get("tie_word_embeddings"):
        return None
    kind = {text: one for one, text in gguf.MODEL_ARCH_NAMES.items()}[model.architecture]
    found = gguf.get_tensor_name_map(kind, model.layers).get_name(theirs, (".weight", ".bias"))
    if found is None:
        raise NotCovered(f"its tensor {theirs} has no place in GGUF's {model.architecture}")
    return str(found)


def converted(model: HfModel, theirs: str, tensor: Any, kind: str) -> tuple[Any, Any]:
    """The tensor as it is stored: matrices in ``kind``, vectors in 32 bits."""
    import gguf

    if model.architecture == "llama":
        for part, heads in (("q_proj", model.heads), ("k_proj", model.key_heads)):
            if f".{part}." in theirs:
                tensor = interleaved(tensor, heads)
    array = tensor.float().numpy()
    stored = gguf.GGMLQuantizationType.F32
    if array.ndim > 1:
        stored = gguf.GGMLQuantizationType[TYPES[kind]]
        if stored is gguf.GGMLQuantizationType.Q8_0 and array.shape[-1] % 32:
            stored = gguf.GGMLQuantizationType.F16  # its blocks are rows of 32
    return gguf.quants.quantize(array, stored), stored


def interleaved(weight: Any, heads: int) -> Any:
    """Reorder rows of queries or keys from split halves to llama.cpp's adjacent pairs.

    transformers rotates row i of a head with row i + half, llama.cpp row 2i with row 2i + 1.
    """
    rows, rest = weight.shape[0], weight.shape[1:]
    return weight.reshape(heads, 2, rows // heads // 2, *rest).swapaxes(1, 2).reshape(rows, *rest)


def _numbers(writer: Any, model: HfModel, name: str, kind: str) -> None:
    import gguf

    config = model.config
    writer.add_name(name)
    writer.add_file_type(
        getattr(gguf.LlamaFileType, "ALL_F32" if kind == "f32" else f"MOSTLY_{TYPES[kind]}")
    )
    writer.add_vocab_size(len(model.tokens))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(model.layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.key_heads)
    writer.add_key_length(model.head_size)
    writer.add_value_length(model.head_size)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(model.head_size)
    writer.add_rope_freq_base(model.rope["rope_theta"])
    if model.rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(model.rope["factor"])
    if model.generation.get("do_sample"):
        for key, method in _SAMPLING.items():
            if model.generation.get(key) is not None:
                getattr(writer, method)(model.generation[key])


def _tokenizer(writer: Any, model: HfModel) -> None:
    import gguf

    special = model.special

    def kind(text: str) -> Any:
        if text in special:
            control = special[text].get("special")
            return gguf.TokenType.CONTROL if control else gguf.TokenType.USER_DEFINED
        return gguf.TokenType.UNUSED if text.startswith("[PAD") else gguf.TokenType.NORMAL

    tokens = model.tokens
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(model.cut)
    writer.add_token_list(tokens)
    writer.add_token_types([kind(text) for text in tokens])
    writer.add_token_merges(model.merges)
    for name, place in special_ids(model).items():
        getattr(writer, f"add_{name}_token_id")(place)
    writer.add_add_bos_token(model.begins)
    writer.add_add_eos_token(False)
    if model.chat_template is not None:
        writer.add_chat_template(model.chat_template)


def special_ids(model: HfModel) -> dict[str, int]:
    """The ids of bos, eos, unk and pad, as the tokenizer says, else as config.json does."""
    found: dict[str, int] = {}
    tokens = model.tokens
    for name in ("bos", "eos", "unk", "pad"):
        text = token(model.tokenizer_config.get(f"{name}_token"))
        place = model.config.get(f"{name}_token_id")
        if text is not None and text in tokens:
            found[name] = tokens.index(text)
        elif isinstance(place, int):
            found[name] = place
    return found


def verify(model: HfModel, path: Path, kind: str) -> None:
    """Read the file back and compare it with the model; ValueError names what differs."""
    import gguf

    reader: Any = gguf.GGUFReader(path)
    written = {one.name: one for one in reader.tensors}
    differing = []
    for theirs, tensor in weights(model.folder):
        ours = tensor_name(model, theirs)
        if ours is None:
            continue
        found = written.pop(ours, None)
        array, stored = converted(model, theirs, tensor, kind)
        if found is None or found.tensor_type != stored or found.data.tobytes() != array.tobytes():
            differing.append(ours)
    fields = {
        "tokenizer.ggml.tokens": model.tokens,
        "tokenizer.ggml.merges": model.merges,
        "tokenizer.ggml.pre": model.cut,
        f"{model.architecture}.block_count": model.layers,
    }
    for name, value in fields.items():
        field = reader.get_field(name)
        if field is None or field.contents() != value:
            differing.append(name)
    if differing or written:
        raise ValueError(f"{path} differs from its source in: {', '.join([*differing, *written])}")
