"""A second, independent reader of GGUF (version 3) and safetensors: what the demo is checked by."""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9
_BYTES = {0: 4, 1: 2}  # bytes of a value by tensor type: float32, float16
_ALIGNMENT = 32


@dataclass(frozen=True)
class Tensor:
    """Its shape, slowest dimension first, bytes for each value, and content."""

    shape: tuple[int, ...]
    width: int
    content: bytes

    def rows(self) -> list[bytes]:
        """The content, one piece for each index of the slowest dimension."""
        size = len(self.content) // self.shape[0]
        return [self.content[i : i + size] for i in range(0, len(self.content), size)]


class _Cursor:
    def __init__(self, content: bytes) -> None:
        self.content, self.at = content, 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.content, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def text(self) -> str:
        size = self.scalar("Q")
        self.at += size
        return self.content[self.at - size : self.at].decode()

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            inner, size = self.scalar("I"), self.scalar("Q")
            return [self.value(inner) for _ in range(size)]
        return self.scalar(_SCALARS[kind])


def read_gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Metadata and tensors of a GGUF file; fails on any other file."""
    cursor = _Cursor(path.read_bytes())
    assert cursor.content[:4] == b"GGUF"
    cursor.at = 4
    version, tensors, entries = cursor.scalar("I"), cursor.scalar("Q"), cursor.scalar("Q")
    assert version == 3
    fields = {}
    for _ in range(entries):
        key = cursor.text()
        fields[key] = cursor.value(cursor.scalar("I"))
    heads = []
    for _ in range(tensors):
        name, dimensions = cursor.text(), cursor.scalar("I")
        shape = tuple(reversed([cursor.scalar("Q") for _ in range(dimensions)]))
        heads.append((name, shape, _BYTES[cursor.scalar("I")], cursor.scalar("Q")))
    start = math.ceil(cursor.at / _ALIGNMENT) * _ALIGNMENT
    found = {}
    for name, shape, width, offset in heads:
        size = math.prod(shape) * width
        content = cursor.content[start + offset : start + offset + size]
        assert len(content) == size, f"{name} is cut short"
        found[name] = Tensor(shape, width, content)
    return fields, found


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, all of which are float16."""
    content = path.read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    found = {}
    for name, head in json.loads(content[8 : 8 + size]).items():
        if name != "__metadata__":
            assert head["dtype"] == "F16", name
            first, last = (8 + size + offset for offset in head["data_offsets"])
            found[name] = Tensor(tuple(head["shape"]), 2, content[first:last])
    return found


def widened(tensor: Tensor) -> bytes:
    """Float16 content as float32."""
    values = struct.unpack(f"<{len(tensor.content) // 2}e", tensor.content)
    return struct.pack(f"<{len(values)}f", *values)
