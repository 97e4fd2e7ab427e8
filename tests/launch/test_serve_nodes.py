"""`uniscale serve --nodes`: one engine over several machines, printed and run."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from uniscale import ports
from uniscale.serving import client

from .helpers import Bench, alive, launch, lay_gguf, lay_payload, record, recorded, until

VLLM = ["--host", "--port", "--alias", "--nnodes", "--node-rank", "--master-addr"]
VLLM += ["--master-port", "--headless", "--model", "--record", "--webui"]


def lay_vllm(bench: Bench, **changes: object) -> Path:
    """The test engine as vLLM: with vLLM's flags, as far as it tells them."""
    told = launch(**{"flags": VLLM, **changes})
    return lay_payload(bench.payloads, record(backend="vllm", launch={"serve": told}))


def hosts(bench: Bench, *lines: str) -> Path:
    path = bench.root / "hosts"
    path.write_text("\n".join(lines or ("localhost", "127.0.0.1")))
    return path


def test_the_commands_are_printed(bench: Bench, model: Path) -> None:
    prefix = lay_vllm(bench)
    words = ("serve", model, "--nodes", hosts(bench, "10.0.0.1 slots=8", "10.0.0.2"), "--dry-run")
    result = bench.run(*words).ok()
    assert "# rank 0, on 10.0.0.1" in result.out and "# rank 1, on 10.0.0.2" in result.out
    assert "only 10.0.0.1 itself reaches 127.0.0.1" in result.err
    told = json.loads(bench.run(*words, "--json", "--host", "0.0.0.0").ok().out)
    first, second = told["nodes"]
    assert first["argv"][0] == f"{prefix}/bin/engine" and first["host"] == "10.0.0.1"
    place = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "10.0.0.1"]
    assert second["argv"][-len(place) - 3 :] == [*place, "--master-port", "29500", "--headless"]
    assert second["environment"]["PYTHONPATH"].startswith(str(prefix))
    assert second["local"] == {"VLLM_HOST_IP": "address", "GLOO_SOCKET_IFNAME": "interface"}


def test_it_runs_there_and_stops(bench: Bench, model: Path) -> None:
    facts = [bench.root / f"facts{rank}.json" for rank in (0, 1)]
    # The second is told apart by its rank alone: it takes the same words.
    prefix = lay_vllm(bench, argv=["bin/node"])
    node = prefix / "bin" / "node"
    node.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--headless*) rank=1 port=$SECOND;; *) rank=0 port=$FIRST;; esac\n'
        f'exec "{prefix}/bin/engine" --model x --port $port --record {bench.root}/facts$rank.json\n'
    )
    node.chmod(0o755)
    first, second = (str(port) for port in ports.free_ports(2))
    environ = {**bench.environ, "FIRST": first, "SECOND": second}
    words = ("serve", model, "--nodes", hosts(bench), "--port", first)
    process = bench.start(*words, env=environ)
    told = [recorded(path) for path in facts]
    until(lambda: client.ready("127.0.0.1", int(first), "/health", 1), "the engine answers")
    assert told[1]["environ"]["VLLM_HOST_IP"] == "127.0.0.1"
    assert told[1]["environ"]["GLOO_SOCKET_IFNAME"] == "lo"
    job = until(lambda: _ready(bench), "ps shows it ready")
    assert job["kind"] == "nodes" and job["url"] == f"http://127.0.0.1:{first}/v1"
    bench.run("stop", "small").ok()
    assert process.wait() == 0
    assert not alive(told[0]["pid"]) and not alive(told[1]["pid"])
    assert process.stderr is not None and b"ready: small at" in process.stderr.read()


def _ready(bench: Bench) -> dict[str, object] | None:
    (job,) = json.loads(bench.run("ps", "--json").ok().out)["jobs"]
    return job if job["processes"][0]["state"] == "ready" else None


def test_an_engine_that_dies_on_one_machine(bench: Bench, model: Path) -> None:
    lay_vllm(bench, flags=[])
    there = hosts(bench, "localhost")
    words = ("serve", model, "--nodes", there, "--", "--die-at-start", "no luck")
    err = bench.run(*words).refused("node-died")
    assert "no luck" in err and "ended early (exit code" in err


def test_what_several_machines_cannot_do(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    there = hosts(bench)
    err = bench.run("serve", model, "--nodes", there).refused("no-nodes")
    assert "llama.cpp (cpu) runs on one machine only, not on 2" in err
    bench.run("serve", model, "--nodes", there, "--replicas", "2").refused("usage", 2)
    bench.run("serve", model, "--nodes", "none").refused("bad-hostfile", 2)
    there.write_text("a_b! slots=x")
    bench.run("serve", model, "--nodes", there).refused("bad-hostfile", 2)


@pytest.mark.parametrize("flagscale", [True, False])
def test_a_configuration_names_its_machines(bench: Bench, flagscale: bool) -> None:
    lay_vllm(bench)
    lay_gguf(bench.root / "small.gguf")
    hosts(bench, "10.0.0.1 slots=8 type=A800", "10.0.0.2 slots=8 type=BI_V150", "10.0.0.3")
    ours = "experiment: {nodes: hosts}\nserve: {model: small.gguf, engine: vllm}\n"
    theirs = """
experiment:
  exp_name: two
  runner: {hostfile: hosts, nnodes: 2, ssh_port: 2222}
  envs:
    ALL: "1"
    nodes_envs: {10.0.0.2: {ONE: $(touch x)}}
    device_type_specific: {BI_V150: {KIND: iluvatar}}
serve:
  - serve_id: vllm_model
    engine: vllm
    engine_args: {model: small.gguf}
"""
    path = bench.root / "run.yaml"
    path.write_text(theirs if flagscale else ours)
    told = json.loads(bench.run("serve", path, "--dry-run", "--json").ok().out)["nodes"]
    names = [one["host"] for one in told]
    assert names == (
        ["10.0.0.1", "10.0.0.2"] if flagscale else ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    )
    if flagscale:
        assert told[0]["environment"]["ALL"] == "1" and "KIND" not in told[0]["environment"]
        own = told[1]["environment"]
        assert (own["ALL"], own["ONE"], own["KIND"]) == ("1", "$(touch x)", "iluvatar")
        assert not any("29501" in word for one in told for word in one["argv"])
        path.write_text(theirs.replace("nnodes: 2", "nnodes: 2, master_port: 29501"))
        told = json.loads(bench.run("serve", path, "--dry-run", "--json").ok().out)["nodes"]
        assert all(any("29501" in word for word in one["argv"]) for one in told)
        path.write_text(theirs.replace("nnodes: 2", "nnodes: 4"))
        assert "is 4, and hosts names 3" in bench.run("serve", path, "--dry-run").err


def test_the_terminal_ends_it(bench: Bench, model: Path) -> None:
    lay_vllm(bench, flags=[])
    facts = bench.root / "facts.json"
    port = str(ports.free_port())
    there = hosts(bench, "localhost")
    words = ("serve", model, "--nodes", there, "--port", port, "--", "--record", facts)
    process = bench.start(*words)
    told = recorded(facts)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130
    assert not alive(told["pid"]) and told["group"] != os.getpgrp()


def test_a_training_is_printed_for_each_machine(bench: Bench) -> None:
    script = bench.root / "mine.py"
    script.write_text("")
    there = hosts(bench, "10.0.0.1 slots=8", "10.0.0.2 slots=4")
    words = ("train", "x", "--script", script, "--nodes", there, "--dry-run")
    told = json.loads(bench.run(*words, "--json", "--", "--lr", "$(touch x)").ok().out)
    first, second = told["nodes"]
    assert first["argv"][3:8] == [
        *("--nnodes=2", "--node-rank=0", "--nproc-per-node=8"),
        *("--master-addr=10.0.0.1", "--master-port=29500"),
    ]
    assert "--nproc-per-node=4" in second["argv"]
    assert second["argv"][-3:] == [str(script), "--lr", "$(touch x)"]
    assert second["local"] == {"GLOO_SOCKET_IFNAME": "interface"}
    text = bench.run(*words, "--processes", "2").ok().out
    assert text.count("--nproc-per-node=2") == 2 and "# rank 1, on 10.0.0.2" in text
    assert [one["slots"] for one in told["record"]["nodes"]] == [8, 4]
