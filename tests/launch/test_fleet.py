"""Several engines under one supervisor: `serve --replicas`, `ps`, `logs`, `stop`; no gateway here.

What the gateway adds is in test_gateway.py and, with real engines, in test_kill.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from uniscale import folders, ports
from uniscale.engines.engines import Command
from uniscale.jobs import state
from uniscale.serving import client, gateway
from uniscale.serving import fleet as fleet_

from .helpers import PATIENCE, Bench, alive, flag, lay_payload, until

CONFIG = "experiment: {{name: pair}}\nserve:\n  gateway: none\n  port: {port}\n{rest}"


def lay(bench: Bench, model: Path, rest: str = "") -> Path:
    """A configuration of two engines of one model, without a gateway."""
    port = ports.free_port()
    body = rest or f"  model: {model}\n  replicas: 2\n"
    path = bench.root / "fleet.yaml"
    path.write_text(CONFIG.format(port=port, rest=body))
    return path


def listed(bench: Bench, *words: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = json.loads(bench.run("ps", "--json", *words).ok().out)["jobs"]
    return jobs


@contextmanager
def fleet(
    bench: Bench, path: Path, *raw: str | Path
) -> Iterator[tuple[subprocess.Popen[bytes], state.Job]]:
    """A running fleet, once all its engines are ready."""
    process = bench.start("serve", path, "--", *raw, stderr=subprocess.DEVNULL)
    try:
        yield process, until(lambda: ready(bench), "all engines are ready")
    finally:
        process.terminate()
        process.wait(PATIENCE)


def ready(bench: Bench) -> state.Job | None:
    """The one job, when every process of it is ready."""
    folder = bench.root / "state"
    os.environ[folders.STATE], old = str(folder), os.environ.get(folders.STATE)
    try:
        found = [job for job in state.jobs() if job.alive]
    finally:
        os.environ.pop(folders.STATE)
        if old is not None:
            os.environ[folders.STATE] = old
    steady = [
        job for job in found if job.processes and all(p.state == "ready" for p in job.processes)
    ]
    return steady[0] if steady else None


def test_replicas_run_and_end_together(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    with fleet(bench, lay(bench, model)) as (process, job):
        assert (job.id, job.kind, job.pid) == ("pair", "fleet", process.pid)
        assert [one.title for one in job.processes] == ["small/llama.cpp/0", "small/llama.cpp/1"]
        groups = {os.getpgid(one.pid) for one in job.processes}
        assert groups == {one.pid for one in job.processes}, "each has a group of its own"
        for one in job.processes:
            assert client.ready("127.0.0.1", one.port, "/health", 5)
        told = bench.run("ps").ok().out
        assert "pair  running" in told and "small/llama.cpp/1  ready" in told
        logs = bench.run("logs", "pair", "-n", "1").ok().out
        assert "small/llama.cpp/0 | " in logs
        assert "pair" in bench.run("stop", "pair").ok().out
        assert process.wait(PATIENCE) == 0
    assert not any(alive(one.pid) for one in job.processes)
    assert listed(bench) == [] and [job["id"] for job in listed(bench, "--all")] == ["pair"]
    assert "nothing runs" in bench.run("ps").ok().out
    bench.run("stop").refused("no-job")


def test_an_engine_that_is_killed_comes_back(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    with fleet(bench, lay(bench, model), "--worker", bench.root / "worker") as (_, job):
        first, second = job.processes
        os.kill(first.pid, signal.SIGKILL)

        def again() -> state.Job | None:
            now = ready(bench)
            return now if now and now.processes[0].pid != first.pid else None

        now = until(again, "it is started again")
        assert now.processes[0].restarts == 1 and now.processes[0].port == first.port
        assert now.processes[1] == second, "the other one was left alone"


def test_only_starts_that_come_to_nothing_lengthen_the_pause(tmp_path: Path) -> None:
    def make(port: int) -> Command:
        return Command(("x",), {}, "127.0.0.1", str(port), "m", "/health", None)

    worker = fleet_.Worker("one", make, 1, tmp_path / "log", 1.0)
    assert [worker.died(float(now)) for now in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert [worker.died(9.0) for _ in range(2000)][-1] == 30.0
    for now in (100.0, 103.0, 106.0, 109.0):  # killed every three seconds
        worker.came_to_work(now)
        assert worker.died(now + 2.0) == 0.1 and not worker.ready
    worker.came_to_work(200.0)  # it works, and its first request breaks it, each time
    assert worker.died(200.1) == 0.2
    worker.came_to_work(300.0)
    assert worker.died(300.1) == 0.4 and worker.restarts == 2011


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_outlives_the_supervisor(bench: Bench, model: Path, number: int) -> None:
    lay_payload(bench.payloads)
    worker = bench.root / "worker"
    with fleet(bench, lay(bench, model), "--worker", worker) as (process, job):
        grandchild = int(worker.read_text())
        assert alive(grandchild)
        process.send_signal(number)
        code = process.wait(PATIENCE)
        expected = {signal.SIGKILL: -9, signal.SIGINT: 130}.get(signal.Signals(number), 0)
        assert code == expected
    left = [*(one.pid for one in job.processes), grandchild]
    until(lambda: not any(alive(pid) for pid in left), "engines and their workers end")


def test_an_engine_that_never_comes_up_ends_the_start(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    result = bench.run("serve", lay(bench, model), "--", "--die-at-start", "no such luck")
    err = result.refused("engine-died")
    assert "each time that it was started" in err and "no such luck" in err
    assert listed(bench) == []


def test_an_engine_that_ignores_sigterm_ends_too(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    with fleet(bench, lay(bench, model), "--ignore-term") as (process, job):
        process.kill()  # as the impatient do
        process.wait()
    until(lambda: not any(alive(one.pid) for one in job.processes), "engines end")


def test_all_problems_of_a_fleet_at_once(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    rest = (
        "  models:\n"
        f"    - {{model: {model}, engine: nothing}}\n"
        "    - {model: gone.gguf, replicas: 3}\n"
        f"    - {{model: {model}, args: {{tensor_parallel_size: 8}}}}\n"
    )
    err = bench.run("serve", lay(bench, model, rest)).err
    for slug in ("unknown-backend", "no-model", "impossible-argument"):
        assert err.count(f"error[{slug}]") == 1, err
    assert "Traceback" not in err and not (bench.root / "state").exists()


def test_the_first_engine_that_fits(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    rest = f"  model: {model}\n  engine: [vllm, sglang, llama.cpp]\n  replicas: 2\n"
    out = bench.run("serve", lay(bench, model, rest), "--dry-run", "--json").ok().out
    assert [one["backend"] for one in json.loads(out)["engines"]] == ["llama.cpp"] * 2
    rest = f"  model: {model}\n  engine: [vllm, sglang]\n"
    assert "vLLM" in bench.run("serve", lay(bench, model, rest)).refused("no-engine")


def test_a_lone_engine_is_listed_and_stopped_too(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    process = bench.start("serve", model, "--port", str(ports.free_port()))
    (job,) = until(lambda: listed(bench), "it is listed")
    assert (job["pid"], job["kind"], job["models"]) == (process.pid, "engine", ["small"])
    assert "where it was started" in bench.run("logs").refused("no-log")
    bench.run("stop").ok()
    assert process.wait(PATIENCE) == -signal.SIGTERM


def test_a_pid_that_became_somebody_elses_is_left_alone(bench: Bench) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        folder = bench.root / "state" / "old"
        folder.mkdir(parents=True)
        start = (state.started(stranger.pid) or 0) - 1
        job = state.Job(
            "old", str(folder), stranger.pid, start, state.boot(), "engine", ("m",), "u", 0.0
        )
        job.save()
        assert listed(bench) == []
        bench.run("stop", "old").refused("no-job", code=2)
        bench.run("stop", "--all").ok()
        assert alive(stranger.pid)
        stranger.kill()


def test_bad_records_hide_nothing(bench: Bench) -> None:
    for name, text in (("a", "{"), ("b", "[]"), ("c", '{"id": 1}'), ("d", "")):
        (bench.root / "state" / name).mkdir(parents=True)
        (bench.root / "state" / name / "job.json").write_text(text)
    assert listed(bench, "--all") == []


def test_values_reach_no_shell(bench: Bench, model: Path) -> None:
    odd = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|\nnext"
    facts = bench.root / "facts.json"
    lay_payload(bench.payloads)
    told = {
        "experiment": {"name": odd, "env": {"ODD_A": odd}},
        "serve": {
            "port": ports.free_port(),
            "gateway": "none",
            "models": [
                {
                    "model": str(model),
                    "name": odd,
                    "env": {"ODD_B": odd},
                    "flags": ["--record", str(facts), "--die-at-start", odd],
                },
                {"model": str(model)},
            ],
        },
    }
    path = bench.root / "odd.yaml"
    path.write_text(json.dumps(told), encoding="utf-8")
    bench.run("config", path).ok()
    bench.run("serve", path, "--dry-run").ok()
    told["serve"]["models"][0]["flags"] = ["--record", str(facts)]  # type: ignore[index]
    path.write_text(json.dumps(told), encoding="utf-8")
    with fleet(bench, path):
        given = json.loads(facts.read_text())
    assert flag(given["argv"], "--alias") == odd
    assert given["environ"]["ODD_A"] == given["environ"]["ODD_B"] == odd
    assert not list(bench.root.rglob("x")), "something went through a shell"


def test_api_keys(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\nsecret\nteam:other  # a team's\n")
    path.chmod(0o600)
    assert gateway.keys(path) == [("", "secret"), ("team", "other")]


@pytest.mark.parametrize(
    ("text", "mode", "told"),
    [
        ("", 0o600, "holds no key"),
        ("# x\n", 0o600, "holds no key"),
        ("secret", 0o644, "read by other users"),
        ("two words", 0o600, "without blanks"),
        ("team:", 0o600, "without blanks"),
        ("schlüssel", 0o600, "without blanks"),
    ],
)
def test_bad_api_keys(bench: Bench, model: Path, text: str, mode: int, told: str) -> None:
    lay_payload(bench.payloads)
    path = bench.root / "keys"
    path.write_text(text)
    path.chmod(mode)
    port = ("--port", str(ports.free_port()))
    assert told in bench.run("serve", model, *port, "--api-keys", path).refused("bad-keys", code=2)


def test_no_key_is_on_a_command_line(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    path = bench.root / "keys"
    path.write_text("very-secret")
    path.chmod(0o600)
    for form in ((), ("--json",)):
        out = bench.run("serve", model, "--api-keys", path, "--dry-run", *form).ok().out
        assert str(path) in out and "very-secret" not in out


def test_gateway_settings_become_its_flags(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    words = ["policy=round_robin", "max_concurrent_requests=8", "queue_size=0", "metrics_port=9"]
    words += ["cors_allowed_origins=[https://a, https://b]", "traces_endpoint=h:1", "flags=[--x]"]
    settings = [one for word in words for one in ("--set", f"serve.gateway.{word}")]
    out = bench.run("serve", model, *settings, "--dry-run", "--json").ok().out
    argv = json.loads(out)["gateway"]["argv"]
    wanted = {"--policy=round_robin", "--max-concurrent-requests=8", "--queue-size=0"}
    wanted |= {"--prometheus-port=9", "--enable-trace", "--otlp-traces-endpoint=h:1"}
    assert wanted <= set(argv) and argv[-1] == "--x"
    place = argv.index("--cors-allowed-origins")
    assert argv[place + 1 : place + 3] == ["https://a", "https://b"]


def test_models_keys_and_certificates_are_told_together(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    (bench.root / "c.yaml").write_text(
        "serve:\n  models:\n    - {model: nope}\n    - {model: nor-this}\n"
        "  gateway: {api_keys: nokeys, tls_certificate: x.pem, tls_key: y.pem}\n"
    )
    told = bench.run("serve", "c.yaml").err
    for word in ("nope", "nor-this", "the keys cannot be read", "x.pem", "y.pem"):
        assert word in told
