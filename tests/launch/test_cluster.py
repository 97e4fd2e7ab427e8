"""Several machines under one job: here each is an agent on this one; ssh is in test_machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from uniscale import folders
from uniscale.cli import jobs
from uniscale.jobs import state
from uniscale.nodes import cluster, hostfile, nodes, ssh
from uniscale.nodes.hostfile import Host
from uniscale.nodes.nodes import Node
from uniscale_build.errors import UniscaleError

from .helpers import alive, until

HOSTS = (Host("localhost"), Host("127.0.0.1"))
ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|\n-x"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> state.Job:
    monkeypatch.setenv("UNISCALE_STATE", str(tmp_path / "state"))
    return state.create("several", kind="train", models=("m",), url="")


def plan(*codes: str, environment: Mapping[str, str] | None = None) -> list[Node]:
    """A node for each piece of Python."""
    return [
        Node(
            host, rank, (sys.executable, "-S", "-c", code), {"PATH": "/bin", **(environment or {})}
        )
        for rank, (host, code) in enumerate(zip(HOSTS, codes, strict=True))
    ]


def test_values_arrive_as_they_are_and_nothing_touches_a_shell(
    job: state.Job, tmp_path: Path
) -> None:
    code = "import os, sys, json; print(json.dumps([os.environ['ODD'], sys.argv[1], os.getcwd()]))"
    told = [
        Node(host, rank, (sys.executable, "-S", "-c", code, ODD), {"ODD": ODD})
        for rank, host in enumerate(HOSTS)
    ]
    lines: list[bytes] = []
    done = cluster.Cluster(job, told, folder=str(tmp_path), on_line=lines.append).run()
    assert done == 0
    assert json.loads(lines[0]) == [ODD, ODD, str(tmp_path)]
    second = (job.folder / "node-1.log").read_text()
    assert json.loads(second) == [ODD, ODD, str(tmp_path)]
    assert not (tmp_path / "x").exists() and not (job.folder / nodes.RECORD).exists()


def test_one_that_fails_ends_all_and_says_why(job: state.Job) -> None:
    waiting = "import time; time.sleep(600)"
    failing = "import sys, time; time.sleep(0.3); print('no luck'); sys.exit(7)"
    with pytest.raises(UniscaleError) as caught:
        cluster.Cluster(job, plan(waiting, failing)).run()
    (error,) = caught.value.findings()
    assert error.slug == "node-died" and "127.0.0.1 ended early (exit code 7)" in error.what
    assert "no luck" in str(error.hint)
    (first, second) = state.jobs()[0].processes
    assert (first.state, second.state) == ("ended", "ended")


def test_nothing_starts_where_one_machine_cannot(job: state.Job, tmp_path: Path) -> None:
    mark = tmp_path / "started"
    told = plan(f"open({str(mark)!r}, 'w')", "pass")
    broken = Node(HOSTS[1], 1, ("no-such-program",), {"PATH": "/bin"})
    with pytest.raises(UniscaleError) as caught:
        cluster.Cluster(job, [told[0], broken]).run()
    assert "127.0.0.1 cannot start it: there is no program no-such-program" in str(caught.value)
    assert not mark.exists()


def test_a_machine_without_python_and_one_without_a_folder(job: state.Job) -> None:
    hosts = (Host("localhost"), Host("127.0.0.1", python=str(job.folder / "none")))
    told = [Node(host, rank, ("true",), {}) for rank, host in enumerate(hosts)]
    with pytest.raises(UniscaleError, match="cannot be started"):
        cluster.Cluster(job, told).run()
    with pytest.raises(UniscaleError, match="there is no folder /no/such"):
        cluster.Cluster(job, told[:1], folder="/no/such").run()


def test_workers_that_left_their_group_end_too(job: state.Job, tmp_path: Path) -> None:
    away = (
        "import os, subprocess, sys\n"
        "one = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(one.pid))\n"
    )
    assert cluster.Cluster(job, plan(away, "pass")).run() == 0
    assert not alive(int((tmp_path / "pid").read_text()))


def test_the_end_of_the_first_ends_all_where_that_is_wanted(job: state.Job) -> None:
    told = plan("pass", "import time; time.sleep(600)")
    assert cluster.Cluster(job, told, together=True).run() == 0


SUPERVISOR = """
import sys
from uniscale.jobs import state
from uniscale.nodes import cluster
from uniscale.nodes.hostfile import Host
from uniscale.nodes.nodes import Node
code = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
told = [
    Node(Host(name), rank, (sys.executable, "-S", "-c", code, sys.argv[1] + str(rank)), {})
    for rank, name in enumerate(("localhost", "127.0.0.1"))
]
job = state.create("apart", kind="train", models=("m",), url="")
sys.exit(cluster.Cluster(job, told).run())
"""


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[int]]]:
    """A job of two machines in a process of its own: its pid, and those of what it started."""
    monkeypatch.setenv("UNISCALE_STATE", str(tmp_path / "state"))
    words = [sys.executable, "-c", SUPERVISOR, str(tmp_path / "pid")]
    process = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    files = [tmp_path / f"pid{rank}" for rank in (0, 1)]
    until(lambda: all(one.exists() and one.read_text() for one in files), "both run")
    yield process.pid, [int(one.read_text()) for one in files]
    process.kill()
    process.wait()


def test_stop_ends_all(
    supervised: tuple[int, list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    pid, children = supervised
    jobs.ps(everything=False, as_json=False)
    assert "localhost  starting" in capfd.readouterr().out
    assert jobs.stop(["apart"], everything=False) == 0
    assert not any(map(alive, [pid, *children]))


def test_a_killed_launcher_leaves_nothing(supervised: tuple[int, list[int]]) -> None:
    pid, children = supervised
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, children)), "the agents end what they started")


def test_stop_clears_up_after_a_launcher_and_an_agent_that_were_killed(
    supervised: tuple[int, list[int]], capfd: pytest.CaptureFixture[str]
) -> None:
    pid, children = supervised
    record = json.loads((Path(folders.jobs()) / "apart" / nodes.RECORD).read_text())
    assert sorted(one["pid"] for one in record["nodes"]) == sorted(children)
    # Something of the job that neither launcher nor agent knows any longer.
    left = subprocess.Popen(
        ["sleep", "600"], env={"UNISCALE_NODE": record["nodes"][1]["mark"]}, start_new_session=True
    )
    other = subprocess.Popen(["sleep", "600"], env={"UNISCALE_NODE": "0" * 32})
    os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(alive, [pid, *children])), "launcher and agents have gone")
    try:
        assert left.poll() is None
        jobs.ps(everything=False, as_json=False)
        assert "apart  broken off" in capfd.readouterr().out
        assert jobs.stop(["apart"], everything=False) == 0
        assert left.wait() == -signal.SIGKILL
        assert other.poll() is None, "a stranger was ended"
        assert not (Path(folders.jobs()) / "apart" / nodes.RECORD).exists()
        with pytest.raises(UniscaleError, match="there is no job"):
            jobs.stop(["apart"], everything=False)
    finally:
        for one in (left, other):
            one.kill()
            one.wait()


def test_the_remote_shell_sees_one_fixed_line() -> None:
    words = ssh.command(Host("gpu", user="me", port=2222), "/opt/py env/python")
    assert words[0] == "ssh" and words[-3:-1] == ["--", "gpu"]
    assert words[words.index("-p") + 1] == "2222" and words[words.index("-l") + 1] == "me"
    assert words[-1].startswith("exec '/opt/py env/python' -c 'import sys;")
    assert "'" not in ssh._FIRST and "\n" not in ssh._FIRST


def test_which_machine_is_this_one() -> None:
    assert ssh.is_here(Host("localhost")) and ssh.is_here(Host("127.0.0.1"))
    assert not ssh.is_here(Host("192.0.2.1"))
    assert not ssh.is_here(Host("localhost", port=2222)), "another server than ours"
    assert hostfile.parse("localhost", "h")[0] == Host("localhost")
