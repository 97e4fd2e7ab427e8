"""The numbers that define the demo model, the digest that names them, and plain errors."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

#: Every file that can change a byte of the model, relative to this folder, in digest order.
INPUTS = (
    "bpe.py",
    "corpus.py",
    "data/chinese.jsonl",
    "data/english.jsonl",
    "data/unknown.jsonl",
    "data/words.en.txt",
    "data/words.zh.txt",
    "export.py",
    "phrases.py",
    "recipe.py",
    "requirements.txt",
    "train.py",
)


@dataclass(frozen=True)
class Recipe:
    """Architecture and training numbers; lengths are in tokens, rates are per optimizer step."""

    seed: int = 20261121
    vocab_size: int = 1280
    hidden_size: int = 128
    intermediate_size: int = 256
    layers: int = 4
    heads: int = 2  # of 64 dimensions each: a head size that every engine has a kernel for
    max_positions: int = 1024
    steps: int = 1200
    batch_tokens: int = 2048
    learning_rate: float = 4e-3
    warmup: int = 60
    weight_decay: float = 0.05
    clip: float = 1.0

    @property
    def head_size(self) -> int:
        """Dimensions of one attention head."""
        return self.hidden_size // self.heads


def digest() -> str:
    """Return the SHA-256 over the names and bytes of all INPUTS; OSError when one is missing."""
    total = hashlib.sha256()
    for name in INPUTS:
        content = (HERE / name).read_bytes()
        total.update(f"{name}\0{len(content)}\0".encode())
        total.update(content)
    return total.hexdigest()


@contextmanager
def plainly() -> Iterator[None]:
    """End the program with a sentence, not a traceback, when files or packages are not right."""
    try:
        yield
    except ImportError as error:
        sys.exit(f"error: {error}\nhint: pip install -r {HERE / 'requirements.txt'}")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
