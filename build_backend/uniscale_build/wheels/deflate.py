"""Deflate in independent blocks, so that one large file keeps every core busy.

A file is cut into blocks of fixed size. Each is compressed on its own, with the 32 KiB before it
as its dictionary, and ends on a byte boundary; put one after the other they are one ordinary
deflate stream. Nothing depends on how many threads there are.
"""

from __future__ import annotations

import functools
import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from uniscale_build.errors import SettingsError, did_you_mean

BLOCK = 1 << 20
_WINDOW = 1 << 15
# The rule by which files are cut into blocks: a new number when the rule changes.
_CUT = 1

LEVELS = ("store", "fast", "default", "best")


class _Stream(Protocol):
    def compress(self, data: Any, /) -> bytes: ...
    def flush(self, mode: int = ..., /) -> bytes: ...


@dataclass(frozen=True)
class Codec:
    """One way to compress: ``name`` says by what and how hard, ``identity`` with what outcome.

    Two codecs of equal identity turn equal input into equal bytes: the identity holds a digest of
    what a fixed sample becomes, which tells library versions apart that differ in their output
    and no others. Without ``start``, nothing is compressed.
    """

    name: str
    start: Callable[[bytes], _Stream] | None

    def block(self, data: bytes, before: bytes = b"", *, last: bool = True) -> bytes:
        """Raw deflate of ``data``, which follows ``before``; more blocks follow unless ``last``."""
        if self.start is None:
            return data
        stream = self.start(before[-_WINDOW:])
        flush = zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH
        return stream.compress(data) + stream.flush(flush)

    @functools.cached_property
    def identity(self) -> str:
        """``name`` and 16 hex digits of the sample's digest; ``store`` has no need of them."""
        if self.start is None:
            return self.name
        sample = _sample()
        half = len(sample) // 2
        packed = self.block(sample[:half], last=False) + self.block(sample[half:], sample[:half])
        value = hashlib.sha256(packed + f"{_CUT} {BLOCK}".encode())
        return f"{self.name} {value.hexdigest()[:16]}"


def codec(compression: str) -> Codec:
    """The codec for ``store``, ``fast``, ``default`` or ``best``; else a `SettingsError`.

    ``fast`` is ISA-L's second level where the isal package is installed, which takes an eighth of
    the time for some 14 % more bytes, and zlib's first level elsewhere.
    """
    if compression == "store":
        return Codec("store", None)
    if compression == "fast":
        return _isal() or _zlib(1)
    if compression == "default":
        # 8 % more bytes than level 6, which others write, for a third of its time.
        return _zlib(2)
    if compression == "best":
        return _zlib(9)
    raise SettingsError(
        f"unknown compression {compression!r}",
        hint=did_you_mean(compression, LEVELS),
        slug="unknown-value",
    )


def _zlib(level: int) -> Codec:
    def start(before: bytes) -> _Stream:
        if before:
            return zlib.compressobj(level, zlib.DEFLATED, -15, zdict=before)
        return zlib.compressobj(level, zlib.DEFLATED, -15)

    return Codec(f"zlib-{level}", start)


def _isal() -> Codec | None:
    try:
        from isal import isal_zlib
    except ImportError:
        return None

    def start(before: bytes) -> _Stream:
        stream: _Stream
        if before:
            stream = isal_zlib.compressobj(2, isal_zlib.DEFLATED, -15, zdict=before)
        else:
            stream = isal_zlib.compressobj(2, isal_zlib.DEFLATED, -15)
        return stream

    return Codec("isal-2", start)


@functools.cache
def _sample() -> bytes:
    """96 KiB with what payloads have: text, tables of small numbers, noise, and zeros."""
    noise = b"".join(hashlib.sha256(bytes([i])).digest() for i in range(256))
    words = [noise[i : i + 2 + noise[i] % 9].hex().encode() for i in range(0, 2048, 8)]
    text = b" ".join(words[(i * i + 7 * i) % 255] for i in range(5000))[:49152]
    table = b"".join((i * i % 4099).to_bytes(4, "little") for i in range(8192))
    return text + table + noise + bytes(8192)
