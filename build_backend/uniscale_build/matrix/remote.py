"""What runs on a node of a cluster: a build in a process of its own, from the plain wheel.

Standard library only, and sent to the nodes by value: a node needs Ray and what ``uniscale[build]``
requires, and no uniscale. The plain wheel brings code, manifests and layers.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_LOOK = 0.5  # seconds between two looks at whether we were cancelled
_PATIENCE = 20.0  # seconds that a worker has for stopping its compilers


class Mailbox:
    """Keeps what the builds report until it is fetched; lives beside whoever fetches it."""

    def __init__(self) -> None:
        self._events: list[tuple[str, dict[str, Any]]] = []

    def put(self, build: str, event: dict[str, Any]) -> None:
        """One event of a build."""
        self._events.append((build, event))

    def take(self) -> list[tuple[str, dict[str, Any]]]:
        """All events since the last time."""
        events, self._events = self._events, []
        return events


def build(job: dict[str, Any], plain: bytes, key: str, mailbox: Any) -> dict[str, Any]:
    """Do one job; gives its last event, its log, and the wheels' bytes by name.

    ``plain`` is the plain wheel and ``key`` its SHA-256. A build that fails is a result like any
    other; what is raised here is the cluster's own trouble, and tried again elsewhere.
    """
    mailbox.put.remote(job["id"], {"event": "node", "name": _node_name()})
    code = _unpacked(plain, key)
    scratch = Path(tempfile.mkdtemp(prefix="uniscale-build-"))
    try:
        (scratch / "wheels").mkdir()
        last = _run({**job, "out": str(scratch / "wheels")}, code, scratch, mailbox)
        files = {path.name: path.read_bytes() for path in (scratch / "wheels").glob("*.whl")}
        log = (scratch / "log").read_bytes()
        return {"last": last, "log": log, "files": files if last["event"] == "done" else {}}
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _node_name() -> str:
    """The node's own name when it was given one, else the machine's."""
    import ray.util  # only where the task runs

    name = os.environ.get("UNISCALE_NODE")
    return name or f"{os.uname().nodename} ({ray.util.get_node_ip_address()})"


def _unpacked(plain: bytes, key: str) -> Path:
    """The folder of the unpacked plain wheel, made by whichever build is first on the node."""
    base = _own("code")
    target = base / key
    if not target.exists():
        fresh = Path(tempfile.mkdtemp(dir=base))
        with zipfile.ZipFile(io.BytesIO(plain)) as archive:
            archive.extractall(fresh)
        try:
            fresh.rename(target)
        except OSError:  # another build was first
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def _lines(pipe: Any) -> Iterator[bytes]:
    """The lines of a pipe as they come.

    Cancelling sets an exception that Python only raises between two of its own instructions, so
    nothing here may block for long.
    """
    os.set_blocking(pipe.fileno(), False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(_LOOK):
                continue
            data = pipe.read()
            if data == b"":
                return
            *lines, rest = (rest + (data or b"")).split(b"\n")
            yield from lines


def cache_folder() -> Path:
    """The cache of a node that names none: the user's, or a temporary folder where that cannot be
    written, as in most images."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    there = next(path for path in (user, *user.parents) if path.exists())
    return user / "uniscale" if os.access(there, os.W_OK | os.X_OK) else _own("cache")


def _own(name: str) -> Path:
    """A temporary folder of this user's, for all builds on the node."""
    folder = Path(tempfile.gettempdir()) / f"uniscale-{name}-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    return folder


def _run(job: dict[str, Any], code: Path, scratch: Path, mailbox: Any) -> dict[str, Any]:
    """The worker's last event; the others go to the mailbox as they come."""
    env = {name: text for name, text in os.environ.items() if name != "UNISCALE_PROJECT"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(code), env.get("PYTHONPATH"))))
    env.setdefault("UNISCALE_CACHE", str(cache_folder()))
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "uniscale_build.matrix.work"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=scratch, env=env,
            start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    last: dict[str, Any] | None = None
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin as stream:
            stream.write(json.dumps(job).encode())
        for line in _lines(process.stdout):
            event = json.loads(line)
            if event["event"] in ("done", "failed", "stopped"):
                last = event
            else:
                mailbox.put.remote(job["id"], event)
        code_of_end = process.wait()
    except BaseException:  # cancelled: the compilers must not go on without us
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return last or {"event": "ended", "code": code_of_end}
