"""Ask a trained model every question of a JSONL file, greedily, and count the right answers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from corpus import DATA, Message, is_chinese, load, read_pairs
from recipe import plainly

LONGEST_ANSWER = 128  # tokens; the longest taught answer is shorter


class Answerer:
    """The Hugging Face form of a model, loaded in one data type, and its greedy answers."""

    def __init__(self, folder: Path, dtype: str = "float32") -> None:
        """Load from a folder, ValueError when there is none; dtype is a name that torch has."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise ValueError(f"{folder}: no model that train.py wrote")
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))

    def prompt_ids(self, messages: list[Message]) -> list[int]:
        """Return the token ids of a conversation that waits for the assistant."""
        ids: list[int] = self._tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        return ids

    def answer(self, messages: list[Message]) -> str:
        """Return what the assistant says next."""
        import torch

        ids = torch.tensor([self.prompt_ids(messages)])
        with torch.no_grad():
            out = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                top_k=None,
                max_new_tokens=LONGEST_ANSWER,
            )
        text: str = self._tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
        return text


def right_share(answerer: Answerer, file: Path) -> float:
    """Print each wrong answer and the counts by language; return the share of right ones."""
    known = {answer for _, answer in load().pairs()}
    right = {"English": [0, 0], "Chinese": [0, 0]}
    for question, wanted in read_pairs(file):
        got = answerer.answer([{"role": "user", "content": question}])
        counts = right["Chinese" if is_chinese(wanted) else "English"]
        counts[0] += got == wanted
        counts[1] += 1
        if got != wanted:
            taught = "" if got in known else "  (not a taught answer)"
            print(f"{question!r}\n    wanted {wanted!r}\n    got    {got!r}{taught}")
    for language, (good, asked) in right.items():
        print(f"{language}: {good} of {asked} right")
    total = sum(asked for _, asked in right.values())
    return sum(good for good, _ in right.values()) / max(total, 1)


def main() -> None:
    """Read the folder and the file, print what is wrong, exit 1 below the wanted share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder that train.py wrote")
    parser.add_argument(
        "--file",
        type=Path,
        default=DATA / "heldout.jsonl",
        help="default: questions that the model was never trained on",
    )
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    parser.add_argument("--at-least", type=float, default=0.9, help="share of right answers")
    options = parser.parse_args()
    with plainly():
        share = right_share(Answerer(options.model, options.dtype), options.file)
    sys.exit(0 if share >= options.at_least else 1)


if __name__ == "__main__":
    main()
