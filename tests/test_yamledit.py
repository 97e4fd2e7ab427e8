"""Edits of YAML leave everything else as it was, or are not made."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uniscale_build.errors import ManifestError
from uniscale_build.yamledit import Step, append_text, scalar, set_text
from uniscale_build.yamlfile import parse

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=40)


@given(TEXT)
def test_scalars_are_read_as_text(text: str) -> None:
    value = parse(f"key: {scalar(text)}\n".encode(), "x").plain()
    assert value == {"key": text if text else ""}


@pytest.mark.parametrize(
    ("before", "path", "after"),
    [
        ("pin: a\nlayers: []\n", ["layers"], "pin: a\nlayers: [n]\n"),
        ("pin: a\nlayers: [ x ]  # c\n", ["layers"], "pin: a\nlayers: [ x, n ]  # c\n"),
        ("layers: [x,\n  y,  # c\n  z]\n", ["layers"], "layers: [x,\n  y,  # c\n  z, n]\n"),
        ("layers:\n- x\n- y # c\n# d\na: b\n", ["layers"],
         "layers:\n- x\n- y # c\n- n\n# d\na: b\n"),
        ("layers:\n    - x\npin: a", ["layers"], "layers:\n    - x\n    - n\npin: a"),
        ("layers:\n  - x", ["layers"], "layers:\n  - x\n  - n\n"),
        ("layers:\npin: a\n", ["layers"], "layers: [n]\npin: a\n"),
        ("layers:  # none\npin: a\n", ["layers"], "layers: [n]  # none\npin: a\n"),
        ("pin: a  # c\nother: b\n", ["layers"], "pin: a  # c\nlayers: [n]\nother: b\n"),
        ("pin: a", ["layers"], "pin: a\nlayers: [n]\n"),
        ("pin: a\r\nx: y\r\n", ["layers"], "pin: a\r\nlayers: [n]\r\nx: y\r\n"),
        ("\ufeffpin: a\n", ["layers"], "\ufeffpin: a\nlayers: [n]\n"),
        ("{pin: a, x: y}\n", ["layers"], "{pin: a, layers: [n], x: y}\n"),
        ("pins:\n  - pin: a\n    x: y\n  - pin: b\n", ["pins", 1, "layers"],
         "pins:\n  - pin: a\n    x: y\n  - pin: b\n    layers: [n]\n"),
        ("pins:\n- {pin: a}\n", ["pins", 0, "layers"], "pins:\n- {pin: a, layers: [n]}\n"),
        ("é: 文\npin: a\n", ["layers"], "é: 文\npin: a\nlayers: [n]\n"),
    ],
)  # fmt: skip
def test_append(before: str, path: list[Step], after: str) -> None:
    assert append_text(before.encode(), path, "n", "x.yaml", after="pin").decode() == after


@pytest.mark.parametrize(
    "before",
    [
        "layers: text\npin: a\n",
        "layers: {a: b}\npin: a\n",
        "layers:\n  - >-\n    x\npin: a\n",
        "pin: >-\n  a\n",
        "other: a\n",
        "[a, b]\n",
    ],
)
def test_append_by_hand(before: str) -> None:
    with pytest.raises(ManifestError) as caught:
        append_text(before.encode(), ["layers"], "n", "x.yaml", after="pin")
    assert (caught.value.slug, caught.value.where) == ("edit-by-hand", "x.yaml")
    assert caught.value.hint == "at layers: add n to that list"


def test_names_that_would_be_something_else_are_quoted() -> None:
    assert append_text(b"layers: []\n", ["layers"], "1.10", "x", after="") == b"layers: ['1.10']\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("base: old  # c\nx: y\n", "base: new  # c\nx: y\n"),
        ("base: 'old'\n", "base: new\n"),
        ('{base: "old", x: y}', "{base: new, x: y}"),
    ],
)
def test_set(before: str, after: str) -> None:
    assert set_text(before.encode(), ["base"], "new", "x").decode() == after


def test_set_by_hand() -> None:
    with pytest.raises(ManifestError, match="without risk"):
        set_text(b"base: |\n  old\n", ["base"], "new", "x")
