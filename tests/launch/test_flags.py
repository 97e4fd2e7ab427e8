"""`uniscale.engines.flags`: raw flags found, compared and checked."""

from __future__ import annotations

import pytest
from uniscale.engines import flags
from uniscale_build.errors import LaunchError, Problems

KNOWN = ("-m", "--model", "-ngl", "--n-gpu-layers", "-O", "--ctx-size", "--limit-mm-per-prompt")


@pytest.mark.parametrize(
    ("token", "name"),
    [
        ("--ctx-size", "--ctx-size"),
        ("--ctx_size=8", "--ctx-size"),
        ("-ngl", "-ngl"),
        ("--a=b\nc", "--a"),
        ("-1", None),
        ("-0.5", None),
        ("-", None),
        ("--", None),
        ("--not a flag", None),
        ("value", None),
        ("", None),
        ("--é", None),
    ],
)
def test_name(token: str, name: str | None) -> None:
    assert flags.name(token) == name


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (["--port", "9"], "9"),
        (["--port=9"], "9"),
        (["--port=9=8"], "9=8"),
        (["--port", "9", "--port", "10"], "10"),
        (["--port"], ""),
        (["--port="], ""),
        (["--sport", "9"], None),
        (["x", "port", "9"], None),
        ([], None),
    ],
)
def test_value(raw: list[str], value: str | None) -> None:
    assert flags.value(raw, "--port") == value


def test_without_drops_flags_with_their_values() -> None:
    ours = ["--model", "/m", "--host", "h", "--port", "1", "--no-webui"]
    assert flags.without(ours, ["--port=2", "--webui"]) == ("--model", "/m", "--host", "h")
    assert flags.without(ours, []) == tuple(ours)
    assert flags.without(["--max-len", "8"], ["--max_len", "9"]) == ()


def test_check_passes_what_the_engine_knows() -> None:
    raw = "-m x -ngl 99 -O3 --ctx_size=-1 -1 --limit-mm-per-prompt.image 2"
    flags.check(raw.split(), KNOWN, engine="e")


def test_check_tells_all_unknown_flags_with_the_nearest() -> None:
    with pytest.raises(Problems) as caught:
        flags.check(["--ctx-sise", "8", "--zzzzzzzzz"], KNOWN, engine="llama.cpp")
    first, second = caught.value.errors
    assert first.what == "llama.cpp has no flag --ctx-sise"
    assert first.hint == 'did you mean "--ctx-size"?'
    assert second.hint == "see llama.cpp --help"


def test_beginnings_of_flags_are_for_engines_that_take_them() -> None:
    known = ("--tp-size", "--port", "--pp-size", "--pp-max")
    flags.check(["--tp", "2"], known, engine="sglang", abbreviates=True)
    with pytest.raises(LaunchError):
        flags.check(["--tp", "2"], known, engine="llama.cpp")
    for token in ("--pp", "--p=1", "--tp-sizes"):  # of two, of three, of none
        with pytest.raises(LaunchError, match="has no flag"):
            flags.check([token], known, engine="sglang", abbreviates=True)


def test_check_without_a_list_checks_nothing() -> None:
    flags.check(["--anything"], (), engine="e")
    with pytest.raises(LaunchError):
        flags.check(["--anything"], ("--other",), engine="e")
