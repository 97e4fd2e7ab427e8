"""A model in Hugging Face's form, read for GGUF: its numbers, its tokenizer, its tensors' names.

Covers the Llama, Mistral, Qwen2 and Qwen3 families with byte-level BPE tokenizers. What is not
covered is refused by a sentence: a file that is nearly right is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]
#: GGUF's architecture by the class that config.json names.
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
#: llama.cpp's names of the ways to cut text before BPE, by their regular expression.
_CUTS = {_LLAMA3: "llama-bpe", _LLAMA3.replace("{1,3}", ""): "qwen2"}
_OTHERS = "llama.cpp's own convert_hf_to_gguf.py knows more models"


class NotCovered(ValueError):
    """A model that this exporter does not write; its text says why."""


@dataclass(frozen=True)
class HfModel:
    """The documents of a model's folder."""

    folder: Path
    config: Json
    tokenizer: Json
    tokenizer_config: Json
    generation: Json

    @property
    def architecture(self) -> str:
        """GGUF's name of the architecture."""
        return ARCHITECTURES[self.config["architectures"][0]]

    @property
    def layers(self) -> int:
        """How many blocks it has."""
        return int(self.config["num_hidden_layers"])

    @property
    def heads(self) -> int:
        """Attention heads of the queries."""
        return int(self.config["num_attention_heads"])

    @property
    def key_heads(self) -> int:
        """Attention heads of keys and values."""
        return int(self.config.get("num_key_value_heads") or self.heads)

    @property
    def head_size(self) -> int:
        """Dimensions of one head."""
        return int(self.config.get("head_dim") or self.config["hidden_size"] // self.heads)

    @property
    def rope(self) -> Json:
        """The rotation's settings, in the one form that both generations of config.json give."""
        told = dict(self.config.get("rope_parameters") or self.config.get("rope_scaling") or {})
        told.setdefault("rope_theta", self.config.get("rope_theta", 10000.0))
        told.setdefault("rope_type", told.get("type", "default"))
        return told

    @property
    def special(self) -> dict[str, Json]:
        """The added tokens by their text."""
        return {one["content"]: one for one in self.tokenizer.get("added_tokens", [])}

    @property
    def tokens(self) -> list[str]:
        """Every token in the order of its id, up to the rows of the embedding."""
        by_id = {place: text for text, place in self.tokenizer["model"]["vocab"].items()}
        by_id |= {one["id"]: one["content"] for one in self.special.values()}
        size = max(int(self.config["vocab_size"]), max(by_id) + 1)
        return [by_id.get(place, f"[PAD{place}]") for place in range(size)]

    @property
    def merges(self) -> list[str]:
        """The merges as GGUF writes them: both parts with one space between."""
        listed = self.tokenizer["model"]["merges"]
        return [one if isinstance(one, str) else " ".join(one) for one in listed]

    @property
    def chat_template(self) -> str | None:
        """The template that conversations are written with."""
        beside = self.folder / "chat_template.jinja"
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        told = self.tokenizer_config.get("chat_template")
        return told if isinstance(told, str) else None

    @property
    def cut(self) -> str:
        """llama.cpp's name of how text is cut before BPE; `NotCovered` for one that it has not."""
        steps = self.tokenizer.get("pre_tokenizer") or {}
        listed = steps.get("pretokenizers", [steps])
        kinds = [one.get("type") for one in listed]
        if kinds == ["ByteLevel"] and listed[0].get("use_regex", True):
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and listed[0].get("individual_digits"):
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not listed[1].get("use_regex", True):
            pattern = listed[0].get("pattern", {}).get("Regex")
            if pattern in _CUTS:
                return _CUTS[pattern]
        raise NotCovered(f"its tokenizer cuts text by {kinds}, which is not covered; {_OTHERS}")

    @property
    def begins(self) -> bool:
        """Whether the tokenizer puts the first token before every text."""
        after = self.tokenizer.get("post_processor") or {}
        listed = after.get("processors", [after])
        bos = token(self.tokenizer_config.get("bos_token"))
        return any(
            bos is not None and bos in one.get("special_tokens", {}) and "single" in one
            for one in listed if one.get("type") == "TemplateProcessing"
        )  # fmt: skip


def token(told: object) -> str | None:
    """A special token's text, however tokenizer_config.json writes it."""
    if isinstance(told, Mapping):
        told = told.get("content")
    return told if isinstance(told, str) else None


def read(folder: Path) -> HfModel:
    """The documents of ``folder``; `NotCovered` for a model that is not covered."""
    model = HfModel(
        folder,
        config=_document(folder / "config.json"),
        tokenizer=_document(folder / "tokenizer.json"),
        tokenizer_config=_document(folder / "tokenizer_config.json", {}),
        generation=_document(folder / "generation_config.json", {}),
    )
    named = (model.config.get("architectures") or ["?"])[0]
    if named not in ARCHITECTURES:
        raise NotCovered(f"its architecture {named} is not covered; {_OTHERS}")
    kind = model.tokenizer.get("model", {})
    if kind.get("type", "BPE") != "BPE" or kind.get("byte_fallback"):
        raise NotCovered(f"its tokenizer is not byte-level BPE; {_OTHERS}")
    if model.rope["rope_type"] not in ("default", "linear"):
        raise NotCovered(f"its rope scaling {model.rope['rope_type']} is not covered; {_OTHERS}")
    assert model.cut
    return model


def _document(path: Path, default: Json | None = None) -> Json:
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if default is not None:
            return default
        raise NotCovered(f"{path.name} is missing") from None
    except ValueError as error:
        raise NotCovered(f"{path.name} is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise NotCovered(f"{path.name} holds no object")
    return told


def weights(folder: Path) -> Iterator[tuple[str, Any]]:
    """Every tensor (torch) by its name in Hugging Face's form, one in memory at a time."""
    from safetensors import safe_open

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise NotCovered("it has no .safetensors")
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (no mapping)
                yield name, file.get_tensor(name)
