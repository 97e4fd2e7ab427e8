"""`uniscale test`: payloads that work, that do not start, and that answer something else."""

from __future__ import annotations

import json

import pytest

from .helpers import Bench, launch, lay_payload, record


def lay(bench: Bench, backend: str, argv: list[str] | None, **serve: object) -> None:
    commands = {"serve": launch(**serve)}
    if argv is not None:
        commands["test"] = {"argv": argv}
    lay_payload(bench.payloads, record(backend, launch=commands))


def test_a_payload_that_starts(bench: Bench) -> None:
    lay(bench, "llama.cpp", ["python", "-c", "import engine_module; print('whole')"])
    assert "ok llama.cpp (cpu) starts: whole" in bench.run("test", "--quick").ok().out
    # The test engine repeats the question, which is not what the demo model has learnt.
    result = bench.run("test", "--json")
    trials = json.loads(result.out)["trials"]
    assert [(one["name"], one["state"]) for one in trials] == [("starts", "passed"),
                                                               ("answers", "failed")]  # fmt: skip
    assert "Who are you?" in trials[1]["what"] and result.code == 13


def test_payloads_that_do_not_start(bench: Bench) -> None:
    lay(bench, "broken", ["python", "-c", "import no_such_module"])
    lay(bench, "missing", ["bin/no-such-program"])
    lay(bench, "silent", None)
    result = bench.run("test", "--quick")
    assert result.code == 13 and "Traceback" not in result.out
    assert "!! broken (cpu) starts: exit code 1:" in result.out
    assert "No module named 'no_such_module'" in result.out
    assert "!! missing (cpu) starts:" in result.out and "cannot be run" in result.out
    assert "-- silent (cpu) starts: its record names no test" in result.out
    assert "it does not start" in bench.run("test", "broken").out


def test_only_what_is_asked_for(bench: Bench) -> None:
    assert bench.run("test").refused("no-payload")
    lay(bench, "llama.cpp", ["python", "-c", "print(1)"])
    lay(bench, "vllm", ["python", "-c", "raise SystemExit(3)"])
    assert bench.run("test", "llama_cpp", "--quick").ok().out.count("\n") == 1
    assert 'did you mean "vllm"' in bench.run("test", "vlm").refused("unknown-backend", 2)
    assert "exit code 3: it said nothing" in bench.run("test", "vllm", "--quick").out


def test_what_serves_no_demo_is_not_asked(bench: Bench) -> None:
    commands = {"train": {"argv": ["python"]}, "test": {"argv": ["python", "-c", "1"]}}
    told = record("trainer", tasks=["train"], launch=commands)
    lay_payload(bench.payloads, told)
    assert "-- trainer (cpu) answers: it serves nothing" in bench.run("test").ok().out


@pytest.mark.engine
def test_real_payloads_pass() -> None:
    """Every payload that the environment of this run has."""
    from uniscale.wheels import payloads
    from uniscale.wheels.smoke import smoke

    if not payloads.find().payloads:
        pytest.skip("no payload is installed; see UNISCALE_PAYLOADS")
    assert smoke((), device=None, quick=False, timeout=600, as_json=False) == 0
