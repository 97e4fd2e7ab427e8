"""Two machines with a real sshd each (network namespaces): serving, a real training, and ends."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale import ports

from . import netlab
from .helpers import Bench, alive, recorded, until
from .test_serve_nodes import lay_vllm

WHY = netlab.missing()
pytestmark = pytest.mark.skipif(WHY is not None, reason=f"no two machines here: {WHY}")

ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|\n-x"
TRAIN = """
import os, sys
import torch
import torch.distributed as distributed

distributed.init_process_group("gloo")
rank, world = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(rank)  # each has samples of its own
wanted = torch.tensor([[3.0], [-2.0]])
model = torch.nn.Linear(2, 1, bias=False)
torch.nn.init.zeros_(model.weight)
model = torch.nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(60):
    samples = torch.randn(32, 2)
    loss = ((model(samples) - samples @ wanted) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
weights = [round(one, 3) for one in model.module.weight.flatten().tolist()]
print("trained", world, weights, os.environ["ODD"] == sys.argv[1], flush=True)
distributed.destroy_process_group()
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[netlab.Lab]:
    with netlab.laboratory(tmp_path_factory.mktemp("lab") / "net") as lab:
        yield lab


def start(bench: Bench, lab: netlab.Lab, *words: str | Path) -> subprocess.Popen[bytes]:
    """`uniscale words…` at the machine that launches."""
    command = [*lab.at("head"), *bench.words(*words)]
    process = subprocess.Popen(
        command, env={**bench.environ, **lab.environ}, cwd=bench.root,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    bench.started.append(process)
    return process


def hostfile(bench: Bench, lab: netlab.Lab) -> Path:
    path = bench.root / "hosts"
    path.write_text("".join(f"{host} slots=1 python={sys.executable}\n" for host in lab.hosts))
    return path


def served(bench: Bench, lab: netlab.Lab, model: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """One engine over both machines; its ports are free there, nothing else runs there."""
    prefix = lay_vllm(bench, argv=["bin/node"])
    node = prefix / "bin" / "node"
    node.write_text(
        "#!/bin/sh\n"
        'case "$*" in *--headless*) rank=1;; *) rank=0;; esac\n'
        f'exec "{prefix}/bin/engine" --model x --host 0.0.0.0 --port 8123 '
        f"--record {bench.root}/facts$rank.json --worker {bench.root}/worker$rank\n"
    )
    node.chmod(0o755)
    words = ("serve", model, "--nodes", hostfile(bench, lab), "--host", "0.0.0.0")
    return start(bench, lab, *words, "--port", "8123"), prefix


def pids(bench: Bench) -> list[int]:
    """What runs on the two machines: engines, and workers that they started."""
    engines = [recorded(bench.root / f"facts{rank}.json")["pid"] for rank in (0, 1)]
    return [*engines, *(int((bench.root / f"worker{rank}").read_text()) for rank in (0, 1))]


def test_one_engine_over_two_machines(bench: Bench, lab: netlab.Lab, model: Path) -> None:
    process, _ = served(bench, lab, model)
    running = pids(bench)
    told = recorded(bench.root / "facts1.json")["environ"]
    assert told["VLLM_HOST_IP"] == lab.hosts[1] and told["GLOO_SOCKET_IFNAME"] == "wire0"
    assert "SSH_CONNECTION" in told, "it came by ssh"
    until(lambda: _states(bench)[:1] == ["ready"], "the first machine answers")
    bench.run("stop", "small").ok()
    assert process.wait() == 0
    assert process.stderr is not None
    assert f"ready: small at http://{lab.hosts[0]}:8123/v1" in process.stderr.read().decode()
    until(lambda: not any(map(alive, running)), "nothing is left on either machine")


def _states(bench: Bench) -> list[str]:
    jobs = json.loads(bench.run("ps", "--json").ok().out)["jobs"]
    return [one["state"] for job in jobs for one in job["processes"]]


def test_a_killed_launcher_leaves_nothing_there(bench: Bench, lab: netlab.Lab, model: Path) -> None:
    process, _ = served(bench, lab, model)
    running = pids(bench)
    process.kill()
    process.wait()
    until(lambda: not any(map(alive, running)), "both machines end their part")


def test_an_engine_killed_on_one_machine_ends_the_other(
    bench: Bench, lab: netlab.Lab, model: Path
) -> None:
    process, _ = served(bench, lab, model)
    running = pids(bench)
    os.kill(running[1], signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == 13 and b"error[node-died]" in told, told
    assert f"{lab.hosts[1]} ended early (killed by SIGKILL)" in told.decode()
    assert not any(map(alive, running))


@pytest.mark.engine  # a minute of waiting, and more
def test_a_machine_whose_plug_is_pulled(bench: Bench, lab: netlab.Lab, model: Path) -> None:
    process, _ = served(bench, lab, model)
    running = pids(bench)
    with lab.cut("2"):
        _, told = process.communicate(timeout=150)
        assert process.returncode == 13, told
        assert f"the connection to {lab.hosts[1]} broke off" in told.decode()
        assert not alive(running[0]) and not alive(running[2]), "the other one has ended"
        deadline = time.monotonic() + 90  # it notices by itself that nobody speaks to it
        while any(map(alive, running)) and time.monotonic() < deadline:
            time.sleep(0.5)
        assert not any(map(alive, running))
    assert b"make sure with uniscale stop small" in told
    environ = {**bench.environ, **lab.environ}
    words = [*lab.at("head"), *bench.words("stop", "small")]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "stopped small" in done.stdout, done


def test_machines_that_cannot_be_reached(bench: Bench, lab: netlab.Lab, model: Path) -> None:
    lay_vllm(bench)
    path = bench.root / "hosts"
    refused = f"{lab.hosts[0]} port={ports.free_port()}\n"
    path.write_text(f"{refused}nobody@{lab.hosts[1]}\n")
    process = start(bench, lab, "serve", model, "--nodes", path)
    _, told = process.communicate()
    assert told.count(b"error[no-node]: ssh does not reach") == 2, told
    assert b"Connection refused" in told and b"Permission denied" in told
    assert process.returncode == 13 and b"Traceback" not in told
    path.write_text(f"{lab.hosts[0]} python=/no/such/python\n{lab.hosts[1]}\n")
    process = start(bench, lab, "serve", model, "--nodes", path)
    _, told = process.communicate()
    assert b"has no Python that runs our agent" in told and b"python=/path" in told


@pytest.mark.engine
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_real_training_on_two_machines(bench: Bench, lab: netlab.Lab) -> None:
    script = bench.root / "train me.py"
    script.write_text(TRAIN)
    there = hostfile(bench, lab)
    bench.environ["ODD"] = "not this one"  # of the launching machine: it stays there
    path = bench.root / "run.yaml"
    path.write_text(
        f"experiment: {{name: together, nodes: hosts, env: {{ODD: {json.dumps(ODD)}}}}}\n"
        f"train: {{script: {json.dumps(str(script))}, flags: [{json.dumps(ODD)}]}}\n"
    )
    assert there.exists()
    process = start(bench, lab, "train", path)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told.decode()
    assert b"trained 2 [3.0, -2.0] True" in told, told.decode()
    other = (bench.root / "state" / "together" / "node-1.log").read_text()
    assert "trained 2 [3.0, -2.0] True" in other
    assert not (bench.root / "x").exists()
    assert "training together on 10.77.0.1, 10.77.0.2" in told.decode()


@pytest.mark.engine
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_a_training_that_fails_on_one_machine(bench: Bench, lab: netlab.Lab) -> None:
    script = bench.root / "fail.py"
    script.write_text(
        "import os, time\n"
        "if os.environ['RANK'] == '1':\n    raise SystemExit('rank 1 has no luck')\n"
        "time.sleep(600)\n"
    )
    words = ("train", "x", "--script", script, "--nodes", hostfile(bench, lab))
    process = start(bench, lab, *words)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 13 and b"Traceback" not in told, told
    assert f"{lab.hosts[1]} ended early" in told.decode()
    assert b"rank 1 has no luck" in told, told.decode()
