"""Killed at any moment: the index is valid, and the next run completes it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from uniscale_build.index import Request, publish

from tests.killing import fork_call, moments
from tests.payload_wheels import payload_wheel, plain_wheel
from tests.sitecheck import check_site, look

KILLS = int(os.environ.get("UNISCALE_TEST_KILLS", "8"))  # moments in each test


@pytest.fixture(autouse=True)
def _epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def _first(base: Path) -> Request:
    plain_wheel(base / "first")
    payload_wheel(base / "first", "vllm", "0.32.0")
    payload_wheel(base / "first", "vllm", "0.9.2", "Metax_C550")
    return Request(add=(base / "first",))


def _more(base: Path) -> Request:
    payload_wheel(base / "more", "vllm", "0.33.0")
    payload_wheel(base / "more", "llama.cpp", "0.5.0", "MUSA_S5000")
    return Request(add=(base / "more",))


def _less(base: Path) -> Request:
    return Request(
        remove=("uniscale_vllm-0.9.2+maca-py3-none-any.whl",),
        yank={"uniscale_vllm-0.32.0+cpu-py3-none-any.whl": "wrong answers"},
    )


def _other(base: Path) -> Request:
    made = payload_wheel(base / "other", "vllm", "0.32.0", content=b"x = 2\n")
    return Request(add=(made.path,), remove=(made.path.name,))


@pytest.mark.parametrize("change", [None, _more, _less, _other])
def test_killed_at_any_moment(change: Callable[[Path], Request] | None, tmp_path: Path) -> None:
    first = _first(tmp_path)
    before, goal = tmp_path / "before", tmp_path / "goal"
    request = first
    if change is not None:
        publish(before, first)
        request = change(tmp_path)
    else:
        before.mkdir()

    def start(name: str) -> Path:
        shutil.copytree(before, tmp_path / name, symlinks=True)
        return tmp_path / name

    def run(site: Path) -> Callable[[], int]:
        return lambda: publish(site, request).wheels * 0

    publish(start("goal"), request)
    wanted = look(goal)
    _, total = fork_call(run(start("count")), 0)
    assert total > 20
    for step in moments(total, KILLS):
        site = start(f"step{step}")
        killed, _ = fork_call(run(site), step)
        assert killed, f"step {step} of {total} was not reached"
        if change is not _other:  # there a name changes its content: the two cannot fit at once
            check_site(site, complete=False)
        again = request
        if change is not None and request.remove:
            left = {name for name in request.remove if (site / "packages" / name).exists()}
            again = Request(add=request.add, remove=tuple(left), yank=request.yank)
        publish(site, again)
        assert look(site) == wanted, f"after step {step}"
        assert check_site(site)
        shutil.rmtree(site)


def test_a_run_that_is_given_nothing_completes_it_too(tmp_path: Path) -> None:
    """What was stored before the kill is published; the rest waits for whoever has it."""
    request, site = _first(tmp_path), tmp_path / "site"
    _, total = fork_call(lambda: publish(tmp_path / "count", request).wheels * 0, 0)
    killed, _ = fork_call(lambda: publish(site, request).wheels * 0, total // 2)
    assert killed
    publish(site, Request())
    stored = {path.name for path in (site / "packages").glob("*.whl")}
    assert check_site(site) == stored
    publish(site, request)
    assert len(check_site(site)) == 3


def test_workers_of_a_killed_run_do_not_keep_the_lock(tmp_path: Path) -> None:
    """Many or large wheels are read by processes of their own, which inherit the open lock."""
    for number in range(200):
        payload_wheel(tmp_path / "dist", "vllm", f"0.{number}.0")
    words = [sys.executable, "-m", "uniscale_build", "index"]
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "build_backend")}
    first = subprocess.Popen([*words, str(tmp_path / "dist"), "--out", str(tmp_path / "site")],
                             env=environ, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
                             text=True)  # fmt: skip
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children")
    workers: list[str] = []
    while not workers and first.poll() is None:
        workers = children.read_text().split()
    if workers:
        first.kill()
    told = first.communicate()[1]
    assert workers, f"it was over before it could be killed: {told}"
    payload_wheel(tmp_path / "more", "llama.cpp", "0.5.0", "MUSA_S5000")
    ran = subprocess.run([*words, str(tmp_path / "more"), "--out", str(tmp_path / "site")],
                         env=environ, capture_output=True, text=True, timeout=60,
                         check=False)  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert check_site(tmp_path / "site") == {"uniscale_llama_cpp-0.5.0+musa43-py3-none-any.whl"}
