"""`uniscale list`."""

from __future__ import annotations

import json
import os
import pty
import shutil

from .helpers import COMMIT, Bench, lay_payload, record


def test_none_says_how_to_get_one(bench: Bench) -> None:
    result = bench.run("list").ok()
    assert "--config-settings=backend=llama.cpp --config-settings=device=cpu" in result.out
    assert json.loads(bench.run("list", "--json").ok().out) == {"payloads": []}


def test_plain_lines(bench: Bench) -> None:
    lay_payload(bench.payloads)
    verified = {"built": True, "ran": False, "note": "no chip [red]here[/]"}
    told = record("vllm", "MUSA_S5000", layers=[], verified=verified)
    lay_payload(bench.payloads, told)
    head, first, second = bench.run("list").ok().out.splitlines()
    assert head.split()[:3] == ["backend", "device", "version"]
    for cell in ("llama.cpp", "cpu", "0.5.0 @ 012345678", "build-record", "serve, infer"):
        assert cell in first
    assert first.endswith("built and run")
    assert "MUSA_S5000" in second and second.endswith("built (no chip [red]here[/])")


def test_json(bench: Bench) -> None:
    prefix = lay_payload(bench.payloads)
    (row,) = json.loads(bench.run("list", "--json").ok().out)["payloads"]
    assert row["prefix"] == str(prefix)
    assert row["upstream"]["commit"] == COMMIT
    assert row["layers"] == ["build-record"]
    assert row["verified"] == {"built": True, "ran": True, "note": ""}
    assert row["broken"] is None and row["hidden_by"] is None


def test_broken_and_hidden_ones_are_told(bench: Bench) -> None:
    first = lay_payload(bench.payloads)
    shutil.copytree(first, bench.payloads / "zz-copy")
    lay_payload(bench.payloads, "{")
    out = bench.run("list").ok().out
    assert f"broken: {bench.payloads / 'broken-cpu'}: " in out and "it is not JSON" in out
    assert f"hidden: llama.cpp (cpu) in {bench.payloads / 'zz-copy'}" in out
    rows = json.loads(bench.run("list", "--json").ok().out)["payloads"]
    assert [bool(row["broken"]) for row in rows] == [False, False, True]
    assert rows[1]["hidden_by"] == str(first)


def test_only_broken_ones(bench: Bench) -> None:
    lay_payload(bench.payloads, "{")
    assert bench.run("list").ok().out.startswith("broken: ")


def test_a_table_on_a_terminal(bench: Bench) -> None:
    verified = {"built": True, "ran": False, "note": "[red]x"}
    lay_payload(bench.payloads, record(verified=verified))
    lay_payload(bench.payloads, "{")
    leader, follower = pty.openpty()
    bench.environ |= {"TERM": "xterm", "COLUMNS": "200"}
    process = bench.start("list", stdout=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # EIO: the other side is closed
            break
        shown += part
    os.close(leader)
    assert process.wait() == 0
    text = shown.decode()
    assert "─" in text and "\x1b[" in text  # a table, with colours
    assert "[red]x" in text  # a record's words are no markup
