"""What an ELF file says of itself: the facts that payloads, tags and records are made from.

The dynamic segment is read, not the section headers: it is what the loader sees, and stripping
cannot remove it. Parsing is pyelftools' work, which is imported at the first file.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from uniscale_build.errors import WheelError

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_MAGIC = b"\x7fELF"

# (e_machine, bits, little endian) -> the architecture as platform tags spell it.
_ARCHITECTURES = {
    ("EM_386", 32, True): "i686",
    ("EM_X86_64", 64, True): "x86_64",
    ("EM_AARCH64", 64, True): "aarch64",
    ("EM_ARM", 32, True): "armv7l",
    ("EM_PPC64", 64, True): "ppc64le",
    ("EM_PPC64", 64, False): "ppc64",
    ("EM_S390", 64, False): "s390x",
    ("EM_RISCV", 64, True): "riscv64",
    ("EM_LOONGARCH", 64, True): "loongarch64",
}
HOST_MACHINES = frozenset(_ARCHITECTURES.values())

# The steps of x86-64 as bits of GNU_PROPERTY_X86_ISA_1_NEEDED (x86-64 psABI): v2, v3, v4.
_ISA_PROPERTY = 0xC0008002
_ISA_BITS = ((8, 4), (4, 3), (2, 2))


@dataclass(frozen=True)
class Elf:
    """One ELF file.

    ``versions`` maps a needed library to the symbol versions that are needed of it
    (``{"libc.so.6": ("GLIBC_2.34",)}``). ``rpath`` is RUNPATH where present, else RPATH, as the
    loader has it, split at colons. ``machine`` is the architecture in a platform tag's spelling,
    or ``em-N`` for code that no host runs (device kernels in ELF containers).
    ``inherits`` is true when the loader also looks where those that load the file have their
    RPATH, which RUNPATH ends. ``python_module`` is true when the file defines ``PyInit_<its
    name>``. ``isa_level`` is 2, 3 or 4 when the file declares that it needs that step of x86-64,
    else 1.
    """

    path: Path
    soname: str | None
    needed: tuple[str, ...]
    rpath: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]] = field(hash=False)
    is_executable: bool
    machine: str
    python_module: bool = False
    inherits: bool = True
    isa_level: int = 1

    @property
    def is_shared_library(self) -> bool:
        """True for what other files can be linked with: it has a SONAME and no entry of its own."""
        return self.soname is not None and not self.is_executable


def read(path: Path) -> Elf | None:
    """What the ELF file at ``path`` says of itself; None when it is no ELF file.

    A file that begins like ELF and cannot be read to the end is a `WheelError` (``bad-elf``).
    """
    with path.open("rb") as stream:
        if stream.read(4) != _MAGIC:
            return None
        stream.seek(0)
        return _read(path, stream)


def _read(path: Path, stream: IO[bytes]) -> Elf:
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError
    from elftools.elf.elffile import ELFFile

    # pyelftools checks the header; offsets inside a damaged file surface as any of these.
    broken = (ELFError, ConstructError, struct.error, ValueError, LookupError, TypeError,
              AttributeError, AssertionError, OverflowError, MemoryError, OSError)  # fmt: skip
    try:
        return _facts(path, ELFFile(stream))
    except broken as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # a seek past all files
            raise
        raise WheelError(
            f"{path.name} begins like an ELF file, and is damaged: {error or type(error).__name__}",
            where=str(path),
            hint="build or fetch it again; a truncated copy looks like this",
            slug="bad-elf",
        ) from error


def _facts(path: Path, elf: ELFFile) -> Elf:
    dynamic = _Dynamic(elf)
    machine = elf["e_machine"]
    known = _ARCHITECTURES.get((machine, elf.elfclass, elf.little_endian))
    kind = elf["e_type"]
    has_interpreter = any(segment["p_type"] == "PT_INTERP" for segment in elf.iter_segments())
    stem = path.name.split(".", 1)[0]
    return Elf(
        path=path,
        soname=dynamic.one("DT_SONAME"),
        needed=tuple(dynamic.texts("DT_NEEDED")),
        rpath=dynamic.search_path(),
        versions=dynamic.versions(),
        # libc.so.6 has an interpreter and a SONAME: it can be run, and is a library all the same.
        is_executable=kind == "ET_EXEC"
        or (kind == "ET_DYN" and has_interpreter and dynamic.one("DT_SONAME") is None),
        machine=known or f"em-{machine if isinstance(machine, int) else machine[3:].lower()}",
        python_module=dynamic.names(f"PyInit_{stem}"),
        inherits=dynamic.one("DT_RUNPATH") is None,
        isa_level=_isa_level(elf) if known == "x86_64" else 1,
    )


class _Dynamic:
    """The dynamic segment of one file: tags, its string table, the versions it needs."""

    def __init__(self, elf: ELFFile) -> None:
        from elftools.elf.dynamic import DynamicSegment

        self._elf = elf
        self._tags: list[tuple[str, int]] = []
        for segment in elf.iter_segments(type="PT_DYNAMIC"):
            if isinstance(segment, DynamicSegment):
                self._tags = [
                    (str(tag.entry.d_tag), int(tag.entry.d_val)) for tag in segment.iter_tags()
                ]
                break
        self._strings = self._string_table()

    def _value(self, name: str) -> int | None:
        return next((value for tag, value in self._tags if tag == name), None)

    def _at(self, address: int, size: int) -> bytes:
        """``size`` bytes of the loaded image at ``address``."""
        for segment in self._elf.iter_segments(type="PT_LOAD"):
            start = segment["p_vaddr"]
            if start <= address and address + size <= start + segment["p_filesz"]:
                stream = self._elf.stream
                place = segment["p_offset"] + address - start
                if place + size <= stream.seek(0, os.SEEK_END):
                    stream.seek(place)
                    data: bytes = stream.read(size)
                    return data
        raise ValueError(f"address {address:#x} is not in the file")

    def _string_table(self) -> bytes:
        address, size = self._value("DT_STRTAB"), self._value("DT_STRSZ")
        if address is None or size is None:
            return b""
        return self._at(address, size)

    def _text(self, offset: int) -> str:
        end = self._strings.index(b"\0", offset)
        # Bytes that are not UTF-8 stay recognisable, and are refused with the name later on.
        return self._strings[offset:end].decode("utf-8", "surrogateescape")

    def texts(self, name: str) -> list[str]:
        """The strings of every tag of that name, in order."""
        return [self._text(value) for tag, value in self._tags if tag == name]

    def one(self, name: str) -> str | None:
        """The string of the first tag of that name."""
        value = self._value(name)
        return None if value is None else self._text(value)

    def names(self, symbol: str) -> bool:
        """True when the string table holds exactly that symbol's name."""
        return b"\0" + symbol.encode("utf-8", "surrogateescape") + b"\0" in self._strings

    def search_path(self) -> tuple[str, ...]:
        """RUNPATH's entries, else RPATH's; an empty entry (the current folder) is kept as one."""
        text = self.one("DT_RUNPATH")
        if text is None:
            text = self.one("DT_RPATH")
        return () if not text else tuple(text.split(":"))

    def versions(self) -> dict[str, tuple[str, ...]]:
        """Needed symbol versions by library: ``Elfxx_Verneed`` records of the gABI's GNU part."""
        address, count = self._value("DT_VERNEED"), self._value("DT_VERNEEDNUM")
        if address is None or count is None:
            return {}
        order = "<" if self._elf.little_endian else ">"
        found: dict[str, tuple[str, ...]] = {}
        for _ in range(count):
            _, amount, library, first, following = struct.unpack(
                f"{order}HHIII", self._at(address, 16)
            )
            wanted, at = [], address + first
            for _ in range(amount):
                _, _, _, name, after = struct.unpack(f"{order}IHHII", self._at(at, 16))
                wanted.append(self._text(name))
                if after == 0:  # the last one, whatever the count says: no endless loop
                    break
                at += after
            key = self._text(library)
            found[key] = tuple(sorted({*wanted, *found.get(key, ())}))
            if following == 0:
                break
            address += following
        return dict(sorted(found.items()))


def _isa_level(elf: ELFFile) -> int:
    """The x86-64 step that the file's GNU property note declares as needed; 1 without one."""
    from elftools.elf.segments import NoteSegment

    for segment in elf.iter_segments(type="PT_NOTE"):
        if not isinstance(segment, NoteSegment):
            continue
        for note in segment.iter_notes():
            if note["n_type"] != "NT_GNU_PROPERTY_TYPE_0" or note["n_name"] != "GNU":
                continue
            for prop in note["n_desc"]:
                if (level := _property_level(prop)) > 1:
                    return level
    return 1


def _property_level(prop: Any) -> int:
    if prop.pr_type not in ("GNU_PROPERTY_X86_ISA_1_NEEDED", _ISA_PROPERTY):
        return 1
    return next((level for bit, level in _ISA_BITS if int(prop.pr_data) & bit), 1)
