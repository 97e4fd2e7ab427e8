"""The short way to exec reads words as typer does, or leaves them to it."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import typer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uniscale import quick
from uniscale.cli import app

NAMES = [*quick.VALUES, *quick.NUMBERS, *quick.LISTS]
ODD = ("模型", "$(touch x)", "--", "-", "serve", "８０", " 8", "1e3")
PLAIN = ("demo", "a.gguf", "0,2", "2", "65535", "65536", "0", "-1", "a=b", "a.b=[1, 2]", "x=-1", "")
VALUE = st.sampled_from([*PLAIN, *ODD])
WORD = st.one_of(
    VALUE,
    st.sampled_from(
        [*NAMES, *quick.SWITCHES, "--help", "-h", "--dry", "--por", "-bx", "-vb", "-n"]
    ),
    st.builds("{}={}".format, st.sampled_from(NAMES), VALUE),
    st.text(max_size=4),
)


@settings(deadline=None, max_examples=400)
@given(st.lists(WORD, max_size=6))
@example(["demo", "--port", "8080", "--replicas=2", "-b", "vllm", "--", "--port", "1"])
@example(["demo", "-b=vllm"])
@example(["demo", "--arg", "a=b", "--arg=c=d", "--set", "x.y=1", "--dry-run", "--json", "-v"])
def test_what_it_reads_typer_reads_alike(words: list[str]) -> None:
    short: Any = quick.action(["serve", *words])
    if short is None:
        return
    whole = app.parse(["serve", *words])
    assert isinstance(whole, partial)
    assert short.func is whole.func and short.args == whole.args
    assert short.keywords == whole.keywords


def test_it_knows_every_option_of_serve() -> None:
    command: Any = typer.main.get_command(app.app)
    options = {
        name for one in command.commands["serve"].params if one.param_type_name == "option"
        for name in one.opts
    }  # fmt: skip
    assert options - {"--help", "-h"} == {*NAMES, *quick.SWITCHES}


@pytest.mark.parametrize(
    "words",
    [[], ["ps"], ["serve"], ["serve", "--help"], ["-v", "serve", "demo"], ["serve", "demo", "--x"]],
)
def test_what_it_leaves_to_typer(words: list[str]) -> None:
    assert quick.action(words) is None
