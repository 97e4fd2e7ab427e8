"""Building a matrix here: results, failures, interruptions, going on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.cli.matrixview import Table
from uniscale_build.errors import UniscaleError
from uniscale_build.matrix import remote
from uniscale_build.matrix.rows import Row, all_rows
from uniscale_build.matrix.runner import Runner
from uniscale_build.matrix.state import Build, Folder
from uniscale_build.matrix.work import Event
from uniscale_build.project import Project

from .matrix_lab import adapt, copy_lab, make_lab, processes, record, start, states, until
from .native import Native
from .wheels import Listener

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
# A time that nothing else on the machine sleeps.
SLEEP = f"61.{os.getpid()}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """The project with everything built once."""
    native = make_lab(tmp_path_factory.mktemp("matrix-run"))
    ran = native.run("matrix", "--run", "--json", "-o", "first")
    assert ran.returncode == 0, ran.stderr
    return native


@pytest.fixture
def lab(built: Native, tmp_path: Path) -> Native:
    return copy_lab(built, tmp_path)


def told(text: str) -> dict[str, dict[str, Any]]:
    return {build["device"]: build for build in json.loads(text)["builds"]}


def test_every_build_gives_its_wheel_log_and_record(built: Native) -> None:
    builds = record(built, "first")
    assert list(builds) == ["Acme_X1", "Acme_X2", "cpu"]
    names = {path.name for path in (built.root / "first").glob("*.whl")}
    given = {wheel["name"] for build in builds.values() for wheel in build["wheels"]}
    assert names == {"uniscale-0.1.0-py3-none-any.whl", *given} and len(names) == 4
    for build in builds.values():
        assert build["state"] == "done" and not build["reused"]
        log = (built.root / "first" / build["log"]).read_text(encoding="utf-8")
        # What we did, and what upstream's build has said.
        assert "uniscale: wheel: uniscale-mini" in log and "Building C object" in log
        for wheel in build["wheels"]:
            data = (built.root / "first" / wheel["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == wheel["sha256"]
            assert len(data) == wheel["size"]
    assert [path.name for path in (built.root / "first" / ".parts").iterdir()] == ["lock"]


def test_again_is_from_the_cache_and_says_so(built: Native) -> None:
    ran = built.run("matrix", "--run", "--skip", "*-cpu", "-o", "again")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("from the cache") == 2
    assert "3 wheels in again" in ran.stdout and ran.stdout.count("SHA256") == 3
    assert "next: uniscale-build index again" in ran.stdout
    first, again = record(built, "first"), record(built, "again")
    assert "cpu" not in again
    for name, build in again.items():
        assert build["wheels"] == first[name]["wheels"]


def test_one_failure_loses_no_other_build(lab: Native) -> None:
    adapt(lab, "Acme_X1", MINI_FAIL="the chip is not amused")
    ran = lab.run("matrix", "--run", "--keep-going")
    assert ran.returncode == 7
    assert states(lab) == {"Acme_X1": "failed", "Acme_X2": "done", "cpu": "done"}
    assert "the chip is not amused" in ran.stdout and "error[compile]" in ran.stdout
    assert "log: dist/logs/mini-Acme_X1-py3-" in ran.stdout
    assert "go on with: uniscale-build matrix --resume --out dist" in ran.stdout


def test_nothing_new_begins_after_a_failure_and_resume_does_the_rest(lab: Native) -> None:
    adapt(lab, "Acme_X2", MINI_FAIL="not yet")
    ran = lab.run("matrix", "--run", "--at-once", "1")
    assert ran.returncode == 7 and "1 builds were not begun" in ran.stdout
    assert states(lab) == {"Acme_X1": "done", "Acme_X2": "failed", "cpu": "waiting"}
    adapt(lab, "Acme_X2")
    ran = lab.run("matrix", "--resume", "--json")
    assert ran.returncode == 0, ran.stderr
    builds = told(ran.stdout)
    assert {build["state"] for build in builds.values()} == {"done"}
    assert "Acme_X1" not in ran.stderr


def begin_and_reach_the_compiler(lab: Native) -> subprocess.Popen[str]:
    """A run that has one build done and sleeps in the configuration of another."""
    adapt(lab, "Acme_X2", MINI_SLEEP=SLEEP)
    process = start(lab, "--run", "--at-once", "1")
    until(lambda: processes(f"sleep {SLEEP}"))
    assert states(lab) == {"Acme_X1": "done", "Acme_X2": "running", "cpu": "waiting"}
    return process


def go_on(lab: Native) -> None:
    adapt(lab, "Acme_X2")
    ran = lab.run("matrix", "--resume")
    assert ran.returncode == 0, ran.stderr
    assert set(states(lab).values()) == {"done"}
    assert "Acme_X1" not in ran.stderr and "from before" in ran.stdout


def test_an_interruption_stops_everything_and_says_how_to_go_on(lab: Native) -> None:
    process = begin_and_reach_the_compiler(lab)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert not processes(f"sleep {SLEEP}")
    assert "interrupted: 1 of 3 builds are done" in err and "Traceback" not in err
    assert "go on with: uniscale-build matrix --resume --out dist" in err
    assert states(lab) == {"Acme_X1": "done", "Acme_X2": "stopped", "cpu": "waiting"}
    go_on(lab)


def test_a_killed_run_leaves_no_process_and_goes_on(lab: Native) -> None:
    process = begin_and_reach_the_compiler(lab)
    process.kill()
    process.communicate()
    until(lambda: not processes(f"sleep {SLEEP}"), 30)
    go_on(lab)


def test_a_worker_that_is_killed_fails_alone(lab: Native) -> None:
    adapt(lab, "Acme_X1", MINI_SLEEP=SLEEP)
    process = start(lab, "--run", "--at-once", "1", "--keep-going")
    until(lambda: processes(f"sleep {SLEEP}"))
    for worker in processes("uniscale_build.matrix.work"):
        if Path(f"/proc/{worker}/cwd").resolve() == lab.root.resolve():
            os.kill(worker, signal.SIGKILL)
    for left in processes(f"sleep {SLEEP}"):
        os.kill(left, signal.SIGKILL)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "error[worker-died]" in out
    assert states(lab) == {"Acme_X1": "failed", "Acme_X2": "done", "cpu": "done"}


def test_a_wheel_that_was_damaged_or_removed_is_made_again(lab: Native) -> None:
    assert lab.run("matrix", "--run").returncode == 0
    wheels = sorted((lab.root / "dist").glob("uniscale_mini*.whl"))
    before = [path.read_bytes() for path in wheels]
    wheels[0].unlink()
    wheels[1].write_bytes(before[1][:-1] + b"?")
    ran = lab.run("matrix", "--resume", "--json")
    assert ran.returncode == 0 and set(told(ran.stdout)) == {"Acme_X1", "Acme_X2", "cpu"}
    assert [path.read_bytes() for path in wheels] == before


@pytest.mark.parametrize(
    ("args", "slug"),
    [
        (("--resume",), "nothing-to-resume"),
        (("--resume", "--only", "*"), "bad-value"),
        (("--resume", "-C", "strip=false"), "bad-value"),
        (("--run", "-C", "nonsense=1"), "unknown-setting"),
        (("--run", "-C", "device=cpu"), "bad-value"),
        (("--run", "-C", "strip"), "bad-value"),
        (("--run", "--executor", "slurm"), "bad-value"),
        (("--run", "--only", "max-*"), "unknown-build"),
    ],
)
def test_bad_command_lines(built: Native, args: tuple[str, ...], slug: str) -> None:
    ran = built.run("matrix", *args, "-o", "none")
    assert ran.returncode == 2 and f"error[{slug}]" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99, "builds": []}', '{"schema": 1}'])
def test_records_that_are_none(built: Native, tmp_path: Path, text: str) -> None:
    (tmp_path / "matrix.json").write_text(text, encoding="utf-8")
    ran = built.run("matrix", "--resume", "-o", str(tmp_path))
    assert ran.returncode == 2 and "error[bad-record]" in ran.stderr


def test_two_runs_in_one_folder(built: Native) -> None:
    with Folder(built.root / "twice").ours():
        ran = built.run("matrix", "--run", "-o", "twice")
    assert ran.returncode == 9 and "error[busy]" in ran.stderr


def test_a_folder_that_cannot_be_written(built: Native) -> None:
    (built.root / "file").write_text("", encoding="utf-8")
    ran = built.run("matrix", "--run", "-o", "file/dist")
    assert ran.returncode == 9
    assert "hint: a file is where a folder must be: move it away, or give --out" in ran.stderr


def test_what_is_for_another_machine_is_skipped_or_refused_by_name(lab: Native) -> None:
    device = lab.root / "manifests" / "devices" / "Acme_X1.yaml"
    other = "linux_aarch64" if os.uname().machine == "x86_64" else "linux_x86_64"
    device.write_text(f"{device.read_text('utf-8')}platforms: [{other}]\n", encoding="utf-8")
    ran = lab.run("matrix", "--run")
    assert ran.returncode == 0 and f"is for {other}" in ran.stdout
    assert states(lab) == {"Acme_X1": "skipped", "Acme_X2": "done", "cpu": "done"}
    ran = lab.run("matrix", "--run", "--only", "mini-Acme_X1", "-o", "other")
    assert ran.returncode == 6 and "error[not-here]" in ran.stdout


def test_a_live_table_on_a_terminal(lab: Native) -> None:
    # Words in brackets are no markup: unknown tags would vanish, and closing ones end the run.
    adapt(lab, "Acme_X1", MINI_FAIL="oh [/usr/bin/x] [bold]")
    env = {**lab.env, "TERM": "xterm-256color", "COLUMNS": "110", "LINES": "30"}
    del env["CI"]
    master, slave = pty.openpty()
    command = [sys.executable, "-m", "uniscale_build", "matrix", "--run", "--keep-going"]
    with subprocess.Popen(command, cwd=lab.root, env=env, stdin=slave, stdout=slave,
                          stderr=slave) as process:  # fmt: skip
        os.close(slave)
        seen = b""
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:
                break
            if not data:
                break
            seen += data
    os.close(master)
    text = seen.decode()
    assert process.returncode == 7
    assert "stage" in text and "progress" in text and "waiting" in text
    assert "✗" in text and text.count("✓") >= 2
    live = " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text[: text.rindex("progress")]).split())
    assert "failed: error[compile]: " in live and "oh [/usr/bin/x] [bold]" in live
    assert text.rindex("wheels in dist") > text.rindex("progress")


@pytest.mark.parametrize("width", [50, 60, 80, 140])
def test_the_table_fits_narrow_terminals(built: Native, width: int) -> None:
    """Marks, shares and times are there whatever the width; stages, bars and names give way."""
    from rich.console import Console

    day = time.monotonic() - 86_400 + 10
    rows = [replace(row, names=(f"a-backend-with-a-long-name-{row.device}-py3-{row.platform}",))
            for row in all_rows(Project(built.root, True))]  # fmt: skip
    builds = [Build(row) for row in rows]
    running = builds[0]
    running.state, running.stage, running.began = "running", "compile: x[/y] and z", day
    running.done, running.total, running.unit = 40, 193, "steps"
    console = Console(width=width, height=20, file=io.StringIO())
    table = Table.__new__(Table)  # without its own live display
    table._builds, table._began = builds, day
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    (line,) = [line for line in lines if line.startswith("▶")]
    assert " 20 %" in line and "comp" in line and " 23:59:5" in line
    assert ("━" in line) is (width == 140)


class Given:
    """An executor whose one build gives the wheels that lie in a folder."""

    def __init__(self, folder: Path, sha256: str = "") -> None:
        self._folder = folder
        self._sha256 = sha256
        self._begun: list[str] = []

    def obstacle(self, row: Row) -> str:
        """None."""
        return ""

    def ready(self, build: Build) -> bool:
        """Always."""
        return True

    def begin(self, build: Build, waiting: int) -> None:
        """Nothing to start: the wheels are there."""
        self._begun.append(build.id)

    def withdraw(self, build: Build) -> bool:
        """It is as good as done."""
        return False

    def events(self, timeout: float) -> Iterable[tuple[str, Event]]:
        """Done."""
        wheels = [
            {"name": path.name, "size": path.stat().st_size,
             "sha256": self._sha256 or hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in self._folder.glob("*.whl")
        ]  # fmt: skip
        begun, self._begun = self._begun, []
        return [(name, {"event": "done", "wheels": wheels, "reused": False}) for name in begun]

    def wheels(self, build: Build) -> Path:
        """The folder."""
        return self._folder

    def stop(self) -> None:
        """Nothing runs."""

    def close(self) -> None:
        """Nothing is open."""


class Watcher(Listener):
    """Sees nothing."""

    def changed(self, build: Build, what: str) -> None:
        """Ignore."""

    def tick(self) -> None:
        """Ignore."""


@pytest.mark.parametrize(
    ("name", "sha256", "slug"),
    [
        ("uniscale_mini-1.2.3+cpu-cp311-cp311-linux_x86_64.whl", "", "not-any-python"),
        ("uniscale_mini-1.2.3+cpu-py3-none-linux_x86_64.whl", "0" * 64, "bad-wheel"),
    ],
)
def test_wheels_that_are_not_what_was_promised(
    built: Native, tmp_path: Path, name: str, sha256: str, slug: str
) -> None:
    row = all_rows(Project(built.root, True))[0]
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / name).write_bytes(b"a wheel")
    folder, build = Folder(tmp_path / "out"), Build(row)
    with folder.ours():
        Runner([build], Given(tmp_path / "made", sha256), folder, Watcher(), {}).run()
    assert build.state == "failed" and build.errors[0]["slug"] == slug
    assert not list((tmp_path / "out").glob("*.whl"))


def test_two_builds_that_give_different_files_of_one_name(built: Native, tmp_path: Path) -> None:
    rows = all_rows(Project(built.root, True))[:2]
    (tmp_path / "made").mkdir()
    made = tmp_path / "made" / "uniscale_mini-1.2.3+cpu-py3-none-linux_x86_64.whl"
    folder, builds = Folder(tmp_path / "out"), [Build(row) for row in rows]

    class Twice(Given):
        def ready(self, build: Build) -> bool:
            if any(other.state == "running" for other in builds):
                return False
            made.write_text(build.id, encoding="utf-8")
            return True

    with folder.ours():
        Runner(builds, Twice(tmp_path / "made"), folder, Watcher(), {}).run()
    assert [build.state for build in builds] == ["done", "failed"]
    assert builds[1].errors[0]["slug"] == "wheel-twice"
    assert (folder.path / made.name).read_text(encoding="utf-8") == rows[0].id


def test_the_error_of_a_folder_in_use_is_one_of_ours(tmp_path: Path) -> None:
    with Folder(tmp_path).ours(), pytest.raises(UniscaleError), Folder(tmp_path).ours():
        pass


def test_a_node_without_a_home_to_write_to(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in an image, whose user has a home in name alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert remote.cache_folder() == tmp_path / "home" / ".cache" / "uniscale"
    monkeypatch.setenv("HOME", "/dev/null/home")  # not even root writes there
    folder = remote.cache_folder()
    assert folder.parent == tmp_path and folder.stat().st_mode & 0o777 == 0o700
    assert remote.cache_folder() == folder
