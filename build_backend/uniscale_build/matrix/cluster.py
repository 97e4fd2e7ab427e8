"""Runs builds on a Ray cluster: each asks for the resource that its device names.

Ray begins a build again on another node when its own has died, also when only the finished wheel
was lost with it.
"""

from __future__ import annotations

import logging
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uniscale_build.errors import SettingsError, ToolchainError, UniscaleError
from uniscale_build.manifests.model import ANY_PYTHON
from uniscale_build.matrix.rows import Row, this_platform, this_python
from uniscale_build.matrix.state import Build, Folder
from uniscale_build.matrix.work import Event, Job
from uniscale_build.project import Project

_JOBS = 4  # compile jobs of a build where nobody says, and nodes have as many processors
_TRIES = 3  # more, after the first, when nodes die
_WAIT = 60.0  # seconds that a build waits for a node to come back that has its resource
_LOOK = 2.0  # seconds between two looks at the nodes
_EVERYWHERE = "cpu"  # the device that every node has


class RayExecutor:
    """Builds as tasks of the cluster that ``RAY_ADDRESS`` names, or that this machine is in."""

    def __init__(
        self,
        project: Project,
        folder: Folder,
        config: Mapping[str, str],
        plain: Path,
        plain_sha256: str,
        jobs: int | None = None,
        wait: float = _WAIT,
    ) -> None:
        if project.site:
            raise SettingsError(
                "manifests of UNISCALE_MANIFESTS do not travel to a cluster",
                where=", ".join(str(path) for path in project.site),
                hint="put them into the project's own manifests folder",
                slug="site-manifests",
            )
        self._ray = connect()
        self._folder = folder
        self._config = config
        self._jobs = jobs
        self._wait = wait
        self._tasks: dict[Any, Build] = {}  # by the reference to what the task will give
        self._absent: dict[str, float] = {}  # id → since when no node has its resources
        self._looked = 0.0
        from uniscale_build.matrix import remote

        # By value: the nodes have no uniscale.
        self._ray.cloudpickle.register_pickle_by_value(remote)
        here = self._ray.get_runtime_context().get_node_id()
        # Beside us: then it cannot be lost with a node that builds.
        self._mailbox = (
            self._ray.remote(remote.Mailbox).options(num_cpus=0, scheduling_strategy=_on(here))
        ).remote()
        self._plain = self._ray.put(plain.read_bytes())
        self._key = plain_sha256
        self._build = self._ray.remote(remote.build)

    def obstacle(self, row: Row) -> str:
        """Why the cluster cannot build a row; "" when it can."""
        if row.python not in (ANY_PYTHON, this_python()):
            return f"is for Python {row.python}, and the cluster's is {this_python()}"
        needs = self._needs(row)
        if not any(_has(node, needs) for node in self._nodes()):
            names = " and ".join(needs)
            return f"needs a node with {names}, and the cluster has none"
        return ""

    def ready(self, build: Build) -> bool:
        """Always: Ray knows what runs where."""
        return True

    def begin(self, build: Build, waiting: int) -> None:
        """Hand a build to the cluster."""
        row = build.row
        biggest = max(
            (node["Resources"].get("CPU", 0) for node in self._nodes()
             if _has(node, self._needs(row))), default=1,
        )  # fmt: skip
        jobs = self._jobs or max(1, min(_JOBS, int(biggest)))
        job = Job(build.id, row.backend, row.device, "", jobs, self._config)
        options: dict[str, Any] = {
            "num_cpus": jobs,
            "resources": self._needs(row),
            "max_retries": _TRIES,
            "name": build.id,
        }
        if row.image:
            options["runtime_env"] = {"image_uri": row.image}
        task = self._build.options(**options).remote(
            job.as_json(), self._plain, self._key, self._mailbox
        )
        build.stage = "waits for a node"
        self._tasks[task] = build

    def withdraw(self, build: Build) -> bool:
        """Take back a build that no node has begun."""
        if build.node:
            return False
        for task, other in list(self._tasks.items()):
            if other is build:
                self._ray.cancel(task)
                del self._tasks[task]
        return True

    def events(self, timeout: float) -> Iterator[tuple[str, Event]]:
        """What the nodes have reported, and what has ended."""
        if not self._tasks:
            return
        ended, _ = self._ray.wait(list(self._tasks), num_returns=1, timeout=timeout)
        yield from self._ray.get(self._mailbox.take.remote())
        for task in ended:
            build = self._tasks.pop(task)
            yield build.id, self._result(task, build)
        yield from self._given_up()

    def wheels(self, build: Build) -> Path:
        """The folder with the wheels that came from the node."""
        return self._folder.parts / build.id

    def stop(self) -> None:
        """Cancel everything, wait for the nodes to stop, and leave the cluster."""
        tasks = list(self._tasks)
        for task in tasks:
            self._ray.cancel(task)
        if tasks:
            self._ray.wait(tasks, num_returns=len(tasks), timeout=20)
        self._tasks.clear()

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()

    def _nodes(self) -> list[Any]:
        return [node for node in self._ray.nodes() if node["Alive"]]

    def _needs(self, row: Row) -> dict[str, float]:
        """The resources that a row asks for; its platform's only where nodes declare platforms."""
        needs = {} if row.device == _EVERYWHERE else {row.device: 1.0}
        declared = any(row.platform in node["Resources"] for node in self._nodes())
        if declared or row.platform != this_platform():
            needs[row.platform] = 0.001
        return needs

    def _result(self, task: Any, build: Build) -> Event:
        try:
            result = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            lost = ToolchainError(
                f"the cluster lost the build {_TRIES + 1} times: {lines[0]}",
                hint="look at the nodes with: ray status",
                slug="node-died",
            )
            return {"event": "failed", "errors": [lost.as_json()], "exit_code": lost.exit_code}
        part = self._folder.parts / build.id
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        self._folder.log(build.id).write_bytes(result["log"])
        for name, data in result["files"].items():
            (part / Path(name).name).write_bytes(data)
        last: Event = result["last"]
        return last

    def _given_up(self) -> Iterator[tuple[str, Event]]:
        """A failure for each build that has waited too long for a node with its resources."""
        now = time.monotonic()
        if now - self._looked < _LOOK:
            return
        self._looked = now
        nodes = self._nodes()
        for task, build in list(self._tasks.items()):
            needs = self._needs(build.row)
            if any(_has(node, needs) for node in nodes):
                self._absent.pop(build.id, None)
                continue
            if now - self._absent.setdefault(build.id, now) < self._wait:
                continue
            self._ray.cancel(task, force=True)
            del self._tasks[task]
            error = ToolchainError(
                f"no node with {' and '.join(needs)} is left in the cluster",
                hint=f"ray start --address … --resources '{{\"{build.row.device}\": 1}}'",
                slug="no-node",
            )
            failed = {"event": "failed", "errors": [error.as_json()], "exit_code": error.exit_code}
            yield build.id, failed


def connect() -> Any:
    """The ray module, connected; `UniscaleError` when it is not there, or no cluster is."""
    try:
        import ray
    except ModuleNotFoundError:
        raise ToolchainError(
            "Ray is not installed",
            hint="pip install 'uniscale[cluster]', of the same version as the cluster's",
            slug="no-ray",
        ) from None
    address = os.environ.get("RAY_ADDRESS") or "auto"
    try:
        _reach(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        lines = str(error).strip().splitlines() or ["no reason given"]
        raise UniscaleError(
            f"there is no Ray cluster to connect to: {lines[0]}",
            where=f"RAY_ADDRESS={address}",
            hint="start one here with: ray start --head, or name one with RAY_ADDRESS=host:6379; "
            "a cluster that asks for a token wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN here too",
            slug="no-cluster",
        ) from None
    return ray


def _reach(address: str) -> None:
    """Raise `OSError` when nobody listens: Ray itself would go on trying for minutes."""
    host, sign, port = address.rpartition(":")
    if sign and port.isdigit() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _on(node_id: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


def _has(node: Any, needs: Mapping[str, float]) -> bool:
    """True when a node has CPUs and all the resources, in use or not."""
    have = node["Resources"]
    return have.get("CPU", 0) >= 1 and all(have.get(name, 0) >= n for name, n in needs.items())
