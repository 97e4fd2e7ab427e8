"""A small process that outlives its maker for a moment: to end the engines' process groups.

The parent-death signal reaches an engine, not the workers that it started. The warden holds one
end of a pipe; when the supervisor is gone, however it went, the pipe says so and the groups end.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import dataclass

from uniscale.jobs import state


@dataclass(frozen=True)
class Warden:
    """The supervisor's end: `watch` a group from its start, `release` it after its end."""

    pid: int
    pipe: int

    def watch(self, group: int) -> None:
        """End the process group ``group``, led by the live process of that pid, after us."""
        os.write(self.pipe, f"+{group} {state.started(group) or 0}\n".encode())

    def release(self, group: int) -> None:
        """Forget ``group``: it has ended."""
        os.write(self.pipe, f"-{group} 0\n".encode())

    def dismiss(self) -> None:
        """Close the pipe and wait until the warden has gone."""
        os.close(self.pipe)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def post() -> Warden:
    """Start a warden; call it before any thread and any engine is started."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reader)
        return Warden(pid, writer)
    try:
        os.close(writer)
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        _quiet()
        _stand(reader)
    finally:
        os._exit(0)


def _quiet() -> None:
    # Whoever reads our standard streams must see their end when the supervisor ends.
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)


def _stand(reader: int) -> None:
    groups: dict[int, int] = {}
    with os.fdopen(reader, "r", encoding="ascii") as lines:
        for line in lines:
            group, start = (int(word) for word in line[1:].split())
            if line[0] == "+":
                groups[group] = start
            else:
                groups.pop(group, None)
    for group, start in groups.items():
        # A leader of another start time is a new process: the old group has wholly gone.
        if state.started(group) in (None, start):
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)
