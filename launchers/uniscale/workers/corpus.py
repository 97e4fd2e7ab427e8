"""Text as blocks of tokens, in an order that follows from the seed: the same after a restart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from uniscale.training.pretraining import BYTES


@dataclass(frozen=True)
class Corpus:
    """All tokens of the data in one row, each document ended by the end token."""

    tokens: torch.Tensor  # int32, (number of tokens)
    vocabulary: int
    length: int  # of a block, without the one token that is only predicted
    seed: int

    @classmethod
    def read(cls, path: Path, tokenizer: str | None, length: int, seed: int) -> Corpus:
        """The samples in ``path`` as a tokenizer cuts them; ValueError when they are too few."""
        encode, vocabulary, end = _encoder(tokenizer)
        found: list[int] = []
        for text in _texts(path):
            found += [*encode(text), end]
        if len(found) < length + 1:
            raise ValueError(f"the data has {len(found)} tokens, and one block needs {length + 1}")
        return cls(torch.tensor(found, dtype=torch.int32), vocabulary, length, seed)

    @property
    def blocks(self) -> int:
        """How many whole blocks there are."""
        return (len(self.tokens) - 1) // self.length

    def block(self, first: int, rows: int) -> torch.Tensor:
        """Samples ``first`` to ``first + rows``: int64 of shape (rows, length + 1).

        Sample n is a block of epoch n // blocks, and every epoch has an order of its own.
        """
        picked = []
        for number in range(first, first + rows):
            epoch, place = divmod(number, self.blocks)
            start = int(_order(self.seed + epoch, self.blocks)[place]) * self.length
            picked.append(self.tokens[start : start + self.length + 1])
        return torch.stack(picked).long()


_ORDERS: dict[tuple[int, int], torch.Tensor] = {}


def _order(seed: int, blocks: int) -> torch.Tensor:
    if (seed, blocks) not in _ORDERS:
        if len(_ORDERS) > 1:
            _ORDERS.clear()
        generator = torch.Generator().manual_seed(seed)
        _ORDERS[seed, blocks] = torch.randperm(blocks, generator=generator)
    return _ORDERS[seed, blocks]


def _texts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            sample = json.loads(line)
            if "text" in sample:
                yield sample["text"]
            else:
                yield "\n".join(
                    one["content"] for one in [*sample["prompt"], *sample["completion"]]
                )


def _encoder(tokenizer: str | None) -> tuple[Any, int, int]:
    """The function from text to ids, the size of the vocabulary, and the end token."""
    if tokenizer == BYTES:
        return lambda text: list(text.encode("utf-8", "replace")), 257, 256
    from tokenizers import Tokenizer

    folder = Path(str(tokenizer))
    known: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
    told: dict[str, Any] = json.loads(
        (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    )
    name = told.get("eos_token")
    end = known.token_to_id(name["content"] if isinstance(name, dict) else str(name))
    size = known.get_vocab_size()
    return lambda text: known.encode(text, add_special_tokens=False).ids, size, end or 0
