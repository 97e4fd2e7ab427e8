"""Deflate in blocks: one ordinary stream, and codecs that know what they make."""

from __future__ import annotations

import sys
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uniscale_build.errors import SettingsError
from uniscale_build.wheels.deflate import LEVELS, codec

from .wheels import noise


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=9000), min_size=1, max_size=5), st.sampled_from(LEVELS[1:]))
def test_blocks_join_to_one_ordinary_stream(blocks: list[bytes], level: str) -> None:
    chosen, before, out = codec(level), b"", b""
    for number, data in enumerate(blocks):
        out += chosen.block(data, before, last=number == len(blocks) - 1)
        before += data
    stream = zlib.decompressobj(-15)
    assert stream.decompress(out) + stream.flush() == before
    assert stream.eof and not stream.unused_data


@pytest.mark.parametrize("level", LEVELS[1:])
def test_what_came_before_a_block_helps_to_shrink_it(level: str) -> None:
    data = noise(20_000)
    assert len(codec(level).block(data, data)) < len(codec(level).block(data)) / 4


def test_a_codec_knows_its_outcome() -> None:
    identities = [codec(level).identity for level in LEVELS]
    assert identities == [codec(level).identity for level in LEVELS]
    assert len(set(identities)) == len(LEVELS)
    assert codec("store").block(b"abc") == b"abc"


def test_fast_is_zlib_where_isal_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    assert codec("fast").name == "zlib-1"


def test_an_unknown_level_is_refused_with_the_nearest() -> None:
    with pytest.raises(SettingsError) as caught:
        codec("fats")
    assert caught.value.hint == 'did you mean "fast"?'
