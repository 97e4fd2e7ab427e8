"""A very small vision model: what its encoder sees in an image is a question to the demo model.

An image has four patches, a patch four cells of which one is red, green or blue: twelve words. The
encoder is a vision transformer as LLaVA has it (patches by a convolution, blocks of attention, a
projector with GELU), whose weights are set by hand: the convolution looks at the middle of each
cell in each colour, the projector gives the demo model's own embedding of the word.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CELL, SIDE, WIDTH, INNER, BLOCKS = 16, 2, 32, 64, 2
PATCH = 2 * CELL  # pixels
_SURE = 20.0  # where GELU is the identity


def words(answers: Path, questions: Sequence[str]) -> dict[str, list[int]]:
    """The tokens of each question that an image says: all but the question mark.

    Those of the conversation around it are left out.
    """
    found = {}
    for line in answers.read_text(encoding="utf-8").splitlines():
        told = json.loads(line)
        question = told["messages"][0]["content"]
        if question in questions:
            found[question] = told["prompt_tokens"][2:-3]
    assert all(len(found[question]) == SIDE * SIDE for question in questions)
    return found


def image(tokens: Sequence[int], known: Sequence[int]) -> bytes:
    """A PNG whose patches say ``tokens``, each by its place in ``known``."""
    rows = []
    for y in range(SIDE * PATCH):
        line = b""
        for x in range(SIDE * PATCH):
            word = known.index(tokens[(y // PATCH) * SIDE + x // PATCH])
            cell = (y % PATCH // CELL) * 2 + x % PATCH // CELL
            line += bytes(255 if word == cell * 3 + colour else 0 for colour in range(3))
        rows.append(b"\0" + line)
    size = SIDE * PATCH
    header = struct.pack(">2I5B", size, size, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


def write_encoder(model: Path, known: Sequence[int], path: Path) -> None:
    """The vision part (``mmproj``) for ``model``, a GGUF, that knows the words ``known``."""
    import gguf
    import numpy as np

    assert len(known) <= 4 * 3
    tensors = {one.name: one.data for one in gguf.GGUFReader(model).tensors}
    embeddings = np.asarray(tensors["token_embd.weight"], dtype=np.float32)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    settings = {
        "image_size": SIDE * PATCH, "patch_size": PATCH, "embedding_length": WIDTH,
        "feed_forward_length": INNER, "block_count": BLOCKS, "attention.head_count": 2,
        "projection_dim": embeddings.shape[1],
    }  # fmt: skip
    for key, value in settings.items():
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.0, 0.0, 0.0])
    writer.add_array("clip.vision.image_std", [1.0, 1.0, 1.0])
    for name, tensor in _weights(embeddings, known).items():
        writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _weights(embeddings: Any, known: Sequence[int]) -> dict[str, Any]:
    import numpy as np

    random = np.random.default_rng(42)
    patches = np.zeros((WIDTH, 3, PATCH, PATCH))
    first, second = np.zeros((WIDTH, WIDTH)), np.zeros((embeddings.shape[1], WIDTH))
    for place, token in enumerate(known):
        cell, colour = divmod(place, 3)
        y, x = (CELL * one + CELL // 2 - 2 for one in divmod(cell, 2))
        patches[place, colour, y : y + 4, x : x + 4] = 1 / 16  # which half precision holds
        first[place, place] = _SURE
        second[:, place] = embeddings[token] / _SURE
    found = {
        "v.patch_embd.weight": patches,
        "v.position_embd.weight": np.zeros((SIDE * SIDE, WIDTH)),
        "mm.0.weight": first, "mm.0.bias": np.zeros(WIDTH),
        "mm.2.weight": second, "mm.2.bias": np.zeros(embeddings.shape[1]),
    }  # fmt: skip
    for block in range(BLOCKS):
        shapes = dict.fromkeys(("attn_q", "attn_k", "attn_v", "attn_out"), (WIDTH, WIDTH))
        shapes |= {"ffn_up": (INNER, WIDTH), "ffn_down": (WIDTH, INNER)}
        for name, shape in shapes.items():
            # What attention and the inner layer find is thrown away at their end.
            strength = 0.0 if name in ("attn_out", "ffn_down") else 1.0
            found[f"v.blk.{block}.{name}.weight"] = strength * random.normal(size=shape)
            found[f"v.blk.{block}.{name}.bias"] = strength * random.normal(size=shape[0])
        for name in ("ln1", "ln2"):
            found[f"v.blk.{block}.{name}.weight"] = np.ones(WIDTH)
            found[f"v.blk.{block}.{name}.bias"] = np.zeros(WIDTH)
    return found
