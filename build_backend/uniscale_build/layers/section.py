"""What a patch does to one file."""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass
class Section:
    """A file's part of a patch; lines count from 1."""

    line: int
    header: bytes
    old: bytes | None = None  # None: the file is created
    new: bytes | None = None  # None: the file is deleted
    old_mode: str = ""
    new_mode: str = ""
    renamed: bool = False
    copied: bool = False
    old_oid: str = ""
    new_oid: str = ""
    binary: bool = False
    hunks: int = 0
    text: bytes = b""  # of a plain patch, whose hunks begin at ``start``
    start: int = 0

    @property
    def path(self) -> bytes:
        """The file that the section is about: its new name, the old one when it is deleted."""
        return self.new if self.new is not None else self.old or b""

    @property
    def names(self) -> tuple[bytes, ...]:
        """Every name in it."""
        return tuple(dict.fromkeys(name for name in (self.old, self.new) if name is not None))

    @functools.cached_property
    def added(self) -> list[bytes]:
        """The lines that come in, without their sign."""
        return self._lines(b"+")

    @functools.cached_property
    def removed(self) -> list[bytes]:
        """The lines that go, without their sign."""
        return self._lines(b"-")

    def _lines(self, sign: bytes) -> list[bytes]:
        lines = self.text[self.start :].split(b"\n")[1:]  # without the rest of the first "@@"
        return [line[1:] for line in lines if line.startswith(sign)]
