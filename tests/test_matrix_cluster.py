"""Building a matrix on a real Ray cluster: several nodes on this machine, each with a cache of its
own and the resources that it declares."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .matrix_lab import adapt, copy_lab, make_lab, processes, record, start, states, until
from .native import Native

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine"),
]
pytest.importorskip("ray", reason="ray is not installed (ci/requirements-cluster.txt)")
NODES: dict[str, dict[str, int]] = {"head": {}, "one": {"Acme_X1": 1}, "two": {"Acme_X2": 1}}
SLEEP = f"62.{os.getpid()}"
# Said, not left to Ray: it takes what an earlier cluster has left in the user's home for the head,
# and nothing for the nodes that join.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


class Cluster:
    """``ray start`` several times, in sessions of their own; nodes die as machines do."""

    def __init__(self, folder: Path, base: Native) -> None:
        self.folder = folder
        self._base = base
        self.nodes: dict[str, subprocess.Popen[bytes]] = {}
        self.address = ""
        self._resources: dict[str, dict[str, int]] = {}

    def add(self, name: str, **resources: int) -> None:
        """A node with one processor (the first, the head, has none) and some resources.

        Give it time with `begun`.
        """
        head = not self.nodes
        self._resources[name] = resources
        if head:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        where = [f"--address={self.address}"]
        if head:
            port = self.address.split(":")[1]
            where = ["--head", f"--port={port}", "--include-dashboard=false",
                     f"--temp-dir={self.folder / 'ray'}"]  # fmt: skip
        env = {
            **self._base.env,
            **TOKEN,
            "UNISCALE_CACHE": str(self.folder / f"cache-{name}"),
            "UNISCALE_NODE": name,
            "TMPDIR": str(self.folder / f"tmp-{name}"),
            "RAY_USAGE_STATS_ENABLED": "0",
            # The nodes must not find our sources: the plain wheel brings what they run.
            "PYTHONPATH": os.environ.get("PYTHONPATH_OF_RAY", ""),
        }
        (self.folder / f"tmp-{name}").mkdir()
        command = [
            sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start",
            "--block", *where, "--node-ip-address=127.0.0.1", f"--num-cpus={0 if head else 1}",
            f"--resources={json.dumps(resources)}", "--object-store-memory=80000000",
            "--disable-usage-stats",
        ]  # fmt: skip
        with (self.folder / f"{name}.log").open("wb") as log:
            self.nodes[name] = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def begun(self) -> None:
        """Wait until all nodes are in the cluster; begins one again that gave up.

        Ray's agents have 15 seconds for their start, too little on a machine with other work.
        """
        for _ in range(5):
            until(lambda: all(self._settled(name) for name in self.nodes), 120)
            lost = [name for name, process in self.nodes.items() if process.poll() is not None]
            for name in lost:
                resources = self._resources[name]
                self.kill(name)
                shutil.rmtree(self.folder / f"tmp-{name}")
                self.add(name, **resources)
            if not lost:
                return
        # The folder goes with the test: what the nodes said goes into the message.
        said = (f"{name}:\n{self._log(name)[-3000:]}" for name in self.nodes)
        raise AssertionError("Ray does not start\n" + "\n".join(said))

    def _settled(self, name: str) -> bool:
        return "Ray runtime started" in self._log(name) or self.nodes[name].poll() is not None

    def _log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def kill(self, name: str) -> None:
        """Everything of a node dies at once, as when its machine does."""
        parents = {}
        marked = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (path / "environ").read_bytes().split(b"\0")
                status = (path / "stat").read_text(encoding="utf-8", errors="replace")
                parents[int(path.name)] = int(status.rpartition(")")[2].split()[1])
                # The variables tell whose a process is, until it writes its title over them.
                if {f"UNISCALE_NODE={name}".encode(), self._mark(name)} <= {*words}:
                    marked.append(int(path.name))
        for process in (*marked, *(p for p in parents if parents[p] in marked)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.nodes.pop(name).wait()

    def _mark(self, name: str) -> bytes:
        return f"TMPDIR={self.folder / f'tmp-{name}'}".encode()

    def stop(self) -> None:
        """Kill the nodes, the head last."""
        for name in reversed(list(self.nodes)):
            self.kill(name)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """The project, built here once."""
    native = make_lab(tmp_path_factory.mktemp("matrix-cluster"))
    ran = native.run("matrix", "--run", "-o", "here")
    assert ran.returncode == 0, ran.stderr
    return native


@pytest.fixture(scope="module")
def cluster(base: Native) -> Iterator[Cluster]:
    """A head that builds nothing, and two nodes."""
    # Ray's sockets need a short path.
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    found = Cluster(folder, base)
    try:
        for name, resources in NODES.items():
            found.add(name, **resources)
            found.begun()
        yield found
    finally:
        found.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def lab(base: Native, cluster: Cluster, tmp_path: Path) -> Native:
    """A copy of the project whose commands find the cluster."""
    native = copy_lab(base, tmp_path)
    return replace(native, env={**native.env, **TOKEN, "RAY_ADDRESS": cluster.address})


def on_ray(native: Native, *args: str) -> subprocess.CompletedProcess[str]:
    return native.run("matrix", *args, "--executor", "ray", timeout=180)


def test_the_nodes_build_what_their_resources_allow(
    lab: Native, base: Native, cluster: Cluster
) -> None:
    ran = on_ray(lab, "--run")
    assert ran.returncode == 0, ran.stderr + ran.stdout
    builds = record(lab)
    assert builds["Acme_X1"]["node"] == "one" and builds["Acme_X2"]["node"] == "two"
    assert builds["cpu"]["node"] in ("one", "two")
    here = record(base, "here")
    for name, build in builds.items():
        # The same bytes as were built here: it is the same plan.
        assert build["wheels"] == here[name]["wheels"] and not build["reused"]
        for wheel in build["wheels"]:
            data = (lab.root / "dist" / wheel["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == wheel["sha256"]
        log = (lab.root / "dist" / build["log"]).read_text(encoding="utf-8")
        assert "Building C object" in log
    assert "on one" in ran.stderr
    # Each node has built in its own cache.
    assert list((cluster.folder / "cache-one" / "payloads").glob("*/mini-Acme_X1"))
    assert not list((cluster.folder / "cache-two").glob("payloads/*/mini-Acme_X1"))


def test_a_build_that_fails_there_fails_alone(lab: Native) -> None:
    adapt(lab, "Acme_X1", MINI_FAIL="not amused")
    ran = on_ray(lab, "--run", "--keep-going")
    assert ran.returncode == 7 and "not amused" in ran.stdout
    assert states(lab) == {"Acme_X1": "failed", "Acme_X2": "done", "cpu": "done"}
    adapt(lab, "Acme_X1")
    ran = lab.run("matrix", "--resume", timeout=180)
    assert ran.returncode == 0 and set(states(lab).values()) == {"done"}, ran.stdout


def test_a_resource_that_no_node_has(lab: Native) -> None:
    (lab.root / "manifests/devices/Acme_X9.yaml").write_text(
        "device: Acme_X9\ntitle: The X9\nvendor: Acme\nlabel: x9\n", encoding="utf-8"
    )
    adapt(lab, "Acme_X9")
    ran = on_ray(lab, "--run", "--only", "mini-Acme_X9")
    assert ran.returncode == 6 and "needs a node with Acme_X9" in ran.stdout
    ran = on_ray(lab, "--run", "--only", "mini-Acme_X9", "--only", "mini-Acme_X1")
    assert ran.returncode == 0
    assert states(lab) == {"Acme_X1": "done", "Acme_X9": "skipped"}


def test_the_clusters_token_is_missing(lab: Native) -> None:
    env = {name: lab.env[name] for name in lab.env if name not in TOKEN}
    ran = on_ray(replace(lab, env={**env, "RAY_AUTH_MODE": "disabled"}), "--run")
    assert ran.returncode == 1 and "error[no-cluster]" in ran.stderr, ran.stderr
    assert "RAY_AUTH_TOKEN" in ran.stderr and "Traceback" not in ran.stderr
    assert "done" not in states(lab).values()


def test_an_interruption_stops_the_nodes_compilers(lab: Native) -> None:
    adapt(lab, "Acme_X2", MINI_SLEEP=SLEEP)
    process = start(lab, "--run", "--executor", "ray")
    until(lambda: processes(f"sleep {SLEEP}"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "go on with" in err, err
    until(lambda: not processes(f"sleep {SLEEP}"), 20)
    assert states(lab)["Acme_X2"] == "stopped"


def test_a_killed_driver_leaves_no_compiler(lab: Native) -> None:
    adapt(lab, "Acme_X2", MINI_SLEEP=SLEEP)
    process = start(lab, "--run", "--executor", "ray")
    until(lambda: processes(f"sleep {SLEEP}"))
    process.kill()
    process.communicate()
    until(lambda: not processes(f"sleep {SLEEP}"), 180)
    adapt(lab, "Acme_X2")
    ran = lab.run("matrix", "--resume", timeout=180)
    assert ran.returncode == 0 and set(states(lab).values()) == {"done"}, ran.stderr


def test_the_death_of_a_node_only_moves_its_build(lab: Native, cluster: Cluster) -> None:
    cluster.add("spare", Acme_X3=1)
    cluster.begun()
    device = lab.root / "manifests/devices/Acme_X3.yaml"
    device.write_text("device: Acme_X3\ntitle: X3\nvendor: Acme\nlabel: x3\n", encoding="utf-8")
    adapt(lab, "Acme_X3", MINI_SLEEP=SLEEP)
    process = start(lab, "--run", "--executor", "ray", "--only", "mini-Acme_X{1,3}")

    def node() -> Any:
        return processes(f"sleep {SLEEP}") and states(lab).get("Acme_X1") == "done"

    until(node)
    cluster.kill("spare")
    assert states(lab)["Acme_X3"] == "running"
    cluster.add("fresh", Acme_X3=1)
    # It begins again there; end its sleep, as if that were the build's own time.
    until(lambda: [p for p in processes(f"sleep {SLEEP}") if b"fresh" in environment(p)])
    for sleeping in processes(f"sleep {SLEEP}"):
        os.kill(sleeping, signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err
    builds = record(lab)
    assert builds["Acme_X3"]["node"] == "fresh" and builds["Acme_X1"]["node"] == "one"
    assert "spare was lost; begins again on fresh" in err


def environment(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return b""


def test_no_cluster_and_no_ray(base: Native) -> None:
    nowhere = replace(base, env={**base.env, "RAY_ADDRESS": "127.0.0.1:1"})
    ran = on_ray(nowhere, "--run", "-o", "none")
    assert ran.returncode == 1 and "error[no-cluster]" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "image",
    ["ubuntu:24.04", "localhost:5000/vendor/sdk", f"example.org/a/b:1.2@sha256:{'0' * 64}"],
)
def test_ray_takes_the_images_that_manifests_may_name(image: str, tmp_path: Path) -> None:
    """What a build asks for passes our manifests' check and Ray's own."""
    from ray.runtime_env import RuntimeEnv
    from uniscale_build.manifests.load import load_manifests

    native = make_lab(tmp_path / "lab")
    path = native.root / "manifests" / "adaptations" / "Acme_X1" / "mini.yaml"
    path.write_text(f"{path.read_text()}image: {image}\n")
    manifests = load_manifests([native.root / "manifests"])
    (found,) = [one.image for one in manifests.adaptations.values() if one.image]
    assert found == image and RuntimeEnv(image_uri=found).image_uri() == image
