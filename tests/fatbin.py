"""Which chips the device code in a shared library is for, read from nvcc's fat binary."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

from elftools.elf.elffile import ELFFile

_MAGIC = 0xBA55ED50
_KINDS = {1: "compute", 2: "sm"}  # PTX, and machine code


def chips(library: Path) -> Counter[str]:
    """``sm_90`` (machine code) or ``compute_80`` (PTX) → how many pieces of it there are."""
    with library.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".nv_fatbin")
        data = section.data() if section is not None else b""
    found: Counter[str] = Counter()
    place = 0
    while place + 16 <= len(data):
        magic, _, header, size = struct.unpack_from("<IHHQ", data, place)
        if magic != _MAGIC:
            place += 8  # what fills up to the next one's alignment
            continue
        entry, end = place + header, place + header + size
        while entry < end:
            kind, _, head, length = struct.unpack_from("<HHIQ", data, entry)
            (chip,) = struct.unpack_from("<I", data, entry + 28)
            found[f"{_KINDS.get(kind, kind)}_{chip}"] += 1
            entry += head + length
        place = end
    return found
