"""Write the trained model as one GGUF file of float16 weights, and read it back to prove it."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bpe import SPECIAL
from recipe import plainly

Json = dict[str, Any]

#: llama.cpp's names of what stands outside the layers, by transformers' names.
OUTER = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
}
#: The same for what stands in each layer, after "model.layers.N." and "blk.N.".
INNER = {
    "input_layernorm.weight": "attn_norm.weight",
    "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight",
    "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight",
    "mlp.down_proj.weight": "ffn_down.weight",
}

#: What must stand in config.json.
CONFIG = {
    "model_type", "tie_word_embeddings", "vocab_size", "max_position_embeddings", "hidden_size",
    "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "rms_norm_eps", "rope_parameters", "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The Hugging Face form, read: configurations, tokenizer and weights by their names there."""

    config: Json
    tokenizer: Json
    tokenizer_config: Json
    weights: dict[str, Any]

    @property
    def tokens(self) -> list[str]:
        """Every token in the order of its id."""
        vocabulary: dict[str, int] = self.tokenizer["model"]["vocab"]
        return sorted(vocabulary, key=vocabulary.__getitem__)

    @property
    def merges(self) -> list[str]:
        """The merges as GGUF writes them: both parts with one space between."""
        return [" ".join(pair) for pair in self.tokenizer["model"]["merges"]]


def read(folder: Path) -> Source:
    """Read what train.py wrote; ValueError for a model that this exporter does not cover."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    def document(name: str) -> Json:
        try:
            content: Json = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{folder / name}: not JSON: {error}") from error
        return content

    path = folder / "model.safetensors"
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path}: {error}") from error

    source = Source(
        config=document("config.json"),
        tokenizer=document("tokenizer.json"),
        tokenizer_config=document("tokenizer_config.json"),
        weights=weights,
    )
    config = source.config
    if missing := sorted(CONFIG - set(config)):
        raise ValueError(f"{folder}: config.json lacks {', '.join(missing)}")
    if config["model_type"] != "llama" or not config["tie_word_embeddings"]:
        raise ValueError(f"{folder}: not a Llama model with tied embeddings")
    if len(source.tokens) != config["vocab_size"]:
        raise ValueError(f"{folder}: {len(source.tokens)} tokens, but vocab_size differs")
    if tuple(source.tokens[: len(SPECIAL)]) != SPECIAL:
        raise ValueError(f"{folder}: the special tokens are not the first ones")
    return source


def interleave(weight: Any, heads: int) -> Any:
    """Reorder the rows of a query or key matrix from split halves to llama.cpp's adjacent pairs.

    transformers rotates row i of a head with row i + half, llama.cpp row 2i with row 2i + 1.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, -1)


def tensors(source: Source) -> dict[str, Any]:
    """Return GGUF names and arrays; matrices stay float16, norms become float32 as ggml wants.

    ValueError when a weight is missing, left over, or not float16.
    """
    config = source.config
    names = dict(OUTER)
    for layer in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{layer}.{k}": f"blk.{layer}.{v}" for k, v in INNER.items()}
    if strange := set(names) ^ set(source.weights):
        raise ValueError(f"weights missing or left over: {', '.join(sorted(strange))}")
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }
    found: dict[str, Any] = {}
    for theirs, ours in names.items():
        weight = source.weights[theirs]
        if weight.dtype != "float16":
            raise ValueError(f"{theirs} is {weight.dtype}, not float16")
        part = theirs.split(".")[-2]
        if part in heads:
            weight = interleave(weight, heads[part])
        found[ours] = weight.astype("float32") if weight.ndim == 1 else weight
    return found


def add_model(writer: Any, config: Json) -> None:
    """Write what the model is and its numbers."""
    import gguf

    writer.add_name("uniscale demo")
    writer.add_description("A very small model that answers a few questions about uniscale.")
    writer.add_license("apache-2.0")
    writer.add_languages(["en", "zh"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    # Greedy by default, like generation_config.json: llama.cpp takes these where a request is mute.
    writer.add_sampling_temp(0.0)
    writer.add_sampling_top_k(1)


def add_tokenizer(writer: Any, source: Source) -> None:
    """Write vocabulary, merges, special tokens and the chat template."""
    import gguf

    names = source.tokenizer_config
    types = [
        gguf.TokenType.CONTROL if token in SPECIAL else gguf.TokenType.NORMAL
        for token in source.tokens
    ]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")  # ByteLevel's own pattern is GPT-2's
    writer.add_token_list(source.tokens)
    writer.add_token_types(types)
    writer.add_token_merges(source.merges)
    writer.add_bos_token_id(source.tokens.index(names["bos_token"]))
    writer.add_eos_token_id(source.tokens.index(names["eos_token"]))
    writer.add_unk_token_id(source.tokens.index(names["unk_token"]))
    writer.add_pad_token_id(source.tokens.index(names["pad_token"]))
    # The chat template writes the first token itself, and transformers adds none either.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_chat_template(names["chat_template"])


def export(source: Source, path: Path) -> None:
    """Write the GGUF file; an existing one is replaced."""
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    add_model(writer, source.config)
    add_tokenizer(writer, source)
    for name, array in tensors(source).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def verify(source: Source, path: Path) -> None:
    """Read the file back and compare it with the source; ValueError names what differs."""
    import gguf

    reader = gguf.GGUFReader(path)
    written = {tensor.name: tensor.data for tensor in reader.tensors}
    wanted = tensors(source)
    differing = sorted(set(written) ^ set(wanted))
    for name in set(written) & set(wanted):
        same = written[name].shape == wanted[name].shape and (written[name] == wanted[name]).all()
        differing += [] if same else [name]
    fields: Json = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": source.tokens,
        "tokenizer.ggml.merges": source.merges,
        "tokenizer.ggml.eos_token_id": source.config["eos_token_id"],
        "tokenizer.ggml.bos_token_id": source.config["bos_token_id"],
        "tokenizer.ggml.padding_token_id": source.config["pad_token_id"],
        "tokenizer.chat_template": source.tokenizer_config["chat_template"],
        "llama.context_length": source.config["max_position_embeddings"],
        "llama.rope.freq_base": source.config["rope_parameters"]["rope_theta"],
    }
    for name, value in fields.items():
        field = reader.get_field(name)
        if field is None or field.contents() != value:
            differing.append(name)
    if differing:
        raise ValueError(f"{path} differs from its source in: {', '.join(differing)}")


def main() -> None:
    """Export the folder to the file, and verify the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder that train.py wrote")
    parser.add_argument("gguf", type=Path, help="file to write")
    options = parser.parse_args()
    with plainly():
        source = read(options.model)
        export(source, options.gguf)
        verify(source, options.gguf)
    print(f"written and verified: {options.gguf}, {options.gguf.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
