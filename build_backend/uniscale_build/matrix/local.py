"""Runs builds as processes of this machine, as many at a time as its cores and memory allow."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import uniscale_build
from uniscale_build.build.toolchain import default_jobs
from uniscale_build.matrix.rows import Row
from uniscale_build.matrix.state import Build, Folder
from uniscale_build.matrix.work import Event, Job
from uniscale_build.project import Project

_PATIENCE = 20.0  # seconds that a worker has for stopping its compilers


@dataclass
class _Worker:
    build: Build
    process: subprocess.Popen[bytes]
    buffer: bytes = b""


class LocalExecutor:
    """Workers on this machine; native compiles share the cores."""

    def __init__(
        self,
        project: Project,
        folder: Folder,
        config: Mapping[str, str],
        at_once: int | None = None,
        jobs: int | None = None,
    ) -> None:
        self._project = project
        self._folder = folder
        self._config = config
        self._total = default_jobs()
        self._most = at_once or self._total
        self._jobs = jobs
        self._workers: dict[str, _Worker] = {}
        self._selector = selectors.DefaultSelector()

    def obstacle(self, row: Row) -> str:
        """What this machine lacks for a row."""
        return row.obstacle

    def ready(self, build: Build) -> bool:
        """True when ``build`` may begin: there is room, and its work folder is free."""
        if len(self._workers) >= self._most:
            return False
        return all(worker.build.row.pair != build.row.pair for worker in self._workers.values())

    def begin(self, build: Build, waiting: int) -> None:
        """Start the worker of a build; ``waiting`` others want to begin too."""
        sharing = min(self._most, len(self._workers) + 1 + waiting)
        jobs = self._jobs or max(1, self._total // max(1, sharing))
        part = self._folder.parts / build.id
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        row = build.row
        job = Job(build.id, row.backend, row.device, str(part), jobs, self._config)
        with self._folder.log(build.id).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "uniscale_build.matrix.work"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                cwd=self._project.root, env=worker_environment(self._project),
                start_new_session=True,
            )  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            stream.write(json.dumps(job.as_json()).encode())
        self._workers[build.id] = _Worker(build, process)
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, build.id)

    def withdraw(self, build: Build) -> bool:
        """Never: what was begun here runs."""
        return False

    def events(self, timeout: float) -> Iterator[tuple[str, Event]]:
        """What the workers have said, waiting ``timeout`` seconds at most for something."""
        if not self._workers:
            return
        for key, _ in self._selector.select(timeout):
            yield from self._read(str(key.data))

    def _read(self, name: str) -> Iterator[tuple[str, Event]]:
        worker = self._workers[name]
        assert worker.process.stdout is not None
        data = worker.process.stdout.read()
        if data is None:
            return
        *lines, worker.buffer = (worker.buffer + data).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                yield name, json.loads(line)
        if data == b"":
            self._selector.unregister(worker.process.stdout)
            worker.process.stdout.close()
            code = worker.process.wait()
            del self._workers[name]
            yield name, {"event": "ended", "code": code}

    def wheels(self, build: Build) -> Path:
        """The folder with the wheels of a build that is done."""
        return self._folder.parts / build.id

    def stop(self) -> None:
        """End all workers and what they started, and wait for them."""
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGTERM)
        until = time.monotonic() + _PATIENCE
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.process.pid, signal.SIGKILL)
                worker.process.wait()
        self._workers.clear()

    def close(self) -> None:
        """Nothing is kept open but the workers."""
        self._selector.close()


def worker_environment(project: Project) -> dict[str, str]:
    """The environment in which a worker finds our code and the project."""
    package = str(Path(uniscale_build.__file__).parent.parent)
    path = os.pathsep.join(word for word in (package, os.environ.get("PYTHONPATH", "")) if word)
    env = {**os.environ, "PYTHONPATH": path}
    if project.checkout:
        env["UNISCALE_PROJECT"] = str(project.root)
    return env
