"""The command line itself: help, versions, words that are none, tracebacks, what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale_build import __version__

from .helpers import Bench, lay_payload, record

HEAVY = ("rich", "yaml", "http", "urllib.request", "asyncio", "ssl", "pydantic", "torch", "ctypes")


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("serve", "-h"), ("infer", "--help")])
def test_help(bench: Bench, words: tuple[str, ...]) -> None:
    result = bench.run(*words).ok()
    assert result.out.startswith("Usage: uniscale")
    assert not result.err


def test_version(bench: Bench) -> None:
    assert bench.run("--version").ok().out == f"uniscale {__version__}\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("serv", "demo"), "Did you mean 'serve'?"),
        (("serve",), "Missing argument 'MODEL"),
        (("serve", "demo", "--prot", "1"), "--port"),
        (("serve", "demo", "--threads", "2"), "the engine's own flags go after --"),
        (("serve", "demo", "--port", "x"), "--port"),
        (("serve", "demo", "--port", "0"), "--port"),
        (("serve", "demo", "--port", "65536"), "--port"),
        (("serve", "demo", "--replicas", "0"), "--replicas"),
        (("serve", "demo", "--arg", "x"), "sets nothing"),
        (("serve", "a.yaml", "demo"), "served alone"),
        (("infer", "demo"), "Missing argument 'PROMPT'"),
        (("infer", "demo", "--", "--x"), "Missing argument 'PROMPT'"),
        (("infer", "demo", "two", "words"), "unexpected extra argument"),
        (("infer", "demo", "x", "--max-tokens", "0"), "--max-tokens"),
        (("infer", "demo", "x", "--temperature", "-1"), "--temperature"),
        (("infer", "demo", "x", "--start-timeout", "0"), "--start-timeout"),
        (("list", "x"), "unexpected extra argument"),
    ],
)
def test_words_that_are_none(bench: Bench, words: tuple[str, ...], told: str) -> None:
    assert told in bench.run(*words).refused("usage", code=2)


def test_errors_as_json(bench: Bench) -> None:
    result = bench.run("serve", "--json", "no-such-model")
    (error,) = json.loads(result.out)["errors"]
    assert (error["slug"], error["exit_code"], result.code) == ("no-model", 13, 13)
    # Behind -- the word belongs to the engine.
    assert "error[no-model]" in bench.run("serve", "no-such-model", "--", "--json").err


def test_tracebacks_only_when_asked_for(bench: Bench) -> None:
    assert "Traceback" in bench.run("serve", "no-such-model", "-v").err
    assert "Traceback" in bench.run("-v", "serve", "no-such-model").err
    assert "Traceback" not in bench.run("serve", "no-such-model", "--", "-v").err


def test_the_system_says_no(bench: Bench) -> None:
    # A fault that no module foresees is a sentence too: here, the current folder is gone.
    code = (
        "import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone');"
        "from uniscale.__main__ import main; sys.exit(main(['serve', 'x.gguf']))"
    )
    python = [sys.executable, "-S", "-c", code]
    result = subprocess.run(
        python, env=bench.environ, cwd=bench.root, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "error[system]: No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_closed_standard_streams(bench: Bench) -> None:
    lay_payload(bench.payloads)
    command = bench.words("list")
    for closed in ("<&- >&-", ">&-", "2>&-", "<&- >&- 2>&-"):
        shell = ["sh", "-c", f'exec "$@" {closed}', "sh", *command]
        result = subprocess.run(shell, env=bench.environ, cwd=bench.root, capture_output=True)
        assert result.returncode == 0, (closed, result)
        assert not result.stderr


def test_a_reader_that_has_gone(bench: Bench) -> None:
    for number in range(200):  # more than a pipe holds
        lay_payload(bench.payloads, record(f"engine{number}", version="1" * 500))
    pipeline = ["sh", "-c", '"$@" | true', "sh", *bench.words("list", "--json")]
    result = subprocess.run(pipeline, env=bench.environ, cwd=bench.root, capture_output=True)
    assert not result.stderr


def test_an_error_that_nobody_reads_is_still_an_error(bench: Bench) -> None:
    for words in (("serve", "no-such-model"), ("serve", "--json", "no-such-model")):
        shell = ["sh", "-c", '{ "$@"; echo $? >code; } 2>&1 | true', "sh", *bench.words(*words)]
        subprocess.run(shell, env=bench.environ, cwd=bench.root, check=True)
        assert (bench.root / "code").read_text() == "13\n"


def test_a_full_disk(bench: Bench) -> None:
    with open("/dev/full", "wb") as full:
        process = bench.start("list", stdout=full)
        err = process.communicate()[1].decode()
    assert process.returncode == 1
    assert err == "error[system]: No space left on device\n"


def imported(err: str) -> set[str]:
    """The modules in the output of ``-X importtime``."""
    lines = (line for line in err.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize(
    "words",
    [
        ("--help",),
        ("serve", "--help"),
        ("list",),
        ("serve", "small.gguf", "--dry-run"),
        ("serve", "small.gguf", "--", "--die-at-start", "x"),
    ],
)
def test_nothing_heavy_is_imported(bench: Bench, model: Path, words: tuple[str, ...]) -> None:
    lay_payload(bench.payloads)
    python, *rest = bench.words(*words)
    command = [python, "-X", "importtime", *rest]
    result = subprocess.run(
        command, env=bench.environ, cwd=bench.root, capture_output=True, text=True
    )
    names = imported(result.stderr)
    short = words[0] == "serve" and "--help" not in words
    typed = {"typer", "uniscale.cli.app"}
    assert typed & names == (set() if short else typed)
    heavy = {name for name in names if f"{name}.".startswith(tuple(f"{one}." for one in HEAVY))}
    assert not heavy, "typer >= 0.29 imports pydantic; the project asks for an older one"
