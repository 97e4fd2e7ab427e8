"""Logs of a limited size, while the engine holds them open."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from uniscale import ports
from uniscale.cli import jobs
from uniscale.jobs import logfile, state

from .helpers import Bench, lay_payload, until

WRITER = """
import sys, time
for number in range(4000):
    sys.stdout.write(f"line {number:05} " + "x" * 40 + "\\n")
    sys.stdout.flush()
    if number % 40 == 0:
        time.sleep(0.002)
"""


def test_an_engine_goes_on_in_the_emptied_log(tmp_path: Path) -> None:
    log = tmp_path / "engine-0.log"
    seen: list[str] = []
    with log.open("ab") as stream:
        child = subprocess.Popen([sys.executable, "-S", "-c", WRITER], stdout=stream)
    turns = 0
    while child.poll() is None:
        if logfile.rotate(log, 20_000):
            turns += 1
            seen += logfile.before(log).read_text().splitlines()
    seen += log.read_text().splitlines()
    assert turns >= 2 and log.stat().st_size < 100_000
    assert logfile.before(log).stat().st_mode & 0o077 == 0
    assert b"\0" not in log.read_bytes(), "it went on at its old place"
    # A line may fall between the last look and the cut, no more; none comes twice.
    numbers = [int(line.split()[1]) for line in seen if line.startswith("line ")]
    assert numbers == sorted(set(numbers)) and len(numbers) >= 4000 - 40 * turns
    assert numbers[-1] == 3999


def test_a_small_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert not logfile.rotate(log), "it is not there yet"
    log.write_text("small")
    assert not logfile.rotate(log) and log.read_text() == "small"


def test_a_log_that_cannot_be_put_aside_stays_whole(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("x" * 100)
    (tmp_path / ".a.log.1.part").mkdir()
    assert not logfile.rotate(log, 10) and log.read_text() == "x" * 100


def test_following_goes_on_after_a_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo\n")
    place = jobs._more("a", log, 0, False)
    logfile.rotate(log, 1)
    with log.open("a") as stream:
        stream.write("new\n")
    assert jobs._more("a", log, place, False) == 4
    assert capsys.readouterr().out == "one\ntwo\nnew\n"


def test_a_fleet_puts_logs_aside(
    bench: Bench, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The supervisor's own loop, with a log that is large already."""
    from uniscale.engines.engines import Command
    from uniscale.serving.fleet import Fleet, Worker

    prefix = lay_payload(bench.payloads)
    monkeypatch.setenv("UNISCALE_STATE", str(tmp_path / "state"))
    job = state.create("fleet", kind="fleet", models=("m",), url="")
    log = job.folder / "engine-0.log"
    log.write_bytes(b"x" * (logfile.MOST + 1))

    def make(port: int) -> Command:
        words = ("--model", str(model), "--port", str(port))
        return Command(
            argv=(f"{prefix}/bin/engine", *words), environment={"PATH": "/usr/bin:/bin"},
            host="127.0.0.1", port=str(port), served_name="m", probe="/health", metrics=None,
        )  # fmt: skip

    worker = Worker("m", make, ports.free_port(), log, 30.0)
    ready = threading.Event()
    one = Fleet(job, [worker], job.folder / "workers.json", ready.set)

    def turned() -> bool:
        return ready.is_set() and logfile.before(log).exists()

    def end() -> None:
        until(turned, "it is ready and its log was put aside")
        os.kill(os.getpid(), signal.SIGTERM)  # the supervisor's, while it serves

    threading.Thread(target=end, daemon=True).start()
    one.serve()
    assert logfile.before(log).stat().st_size > logfile.MOST > log.stat().st_size
