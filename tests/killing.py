"""Runs a command in a forked process and kills it (SIGKILL) at a chosen step.

A step is anything that changes the disk or starts git, as Python's audit events tell it; so every
moment can be hit, and the same one again.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.upstreams import Lab

_CHANGES = {"os.rename", "os.remove", "os.link", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod",
            "os.truncate", "shutil.rmtree", "subprocess.Popen", "tempfile.mkdtemp"}  # fmt: skip


@dataclass
class Steps:
    """Counts the steps of a process, and ends it at one of them."""

    fatal: int  # 0: never
    count: int = 0

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        """The audit hook."""
        if event == "open":
            flags = args[2]
            if not (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
                return
            if str(args[0]).startswith(("/dev/", "/tmp/tmp")):
                return
        elif event not in _CHANGES:
            return
        self.count += 1
        if self.count == self.fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def fork(lab: Lab, argv: tuple[str, ...], fatal: int, code: int = 0) -> tuple[bool, int]:
    """Run a command in a child; gives whether it was killed, and its number of steps.

    A command that is not killed must end with ``code``.
    """
    return fork_call(lambda: lab.run(*argv).code, fatal, code)


def fork_call(call: Callable[[], int], fatal: int, code: int = 0) -> tuple[bool, int]:
    """The same for a function that gives an exit code."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        steps = Steps(fatal)
        sys.addaudithook(steps)
        ended = 1
        try:
            ended = call()
        finally:
            steps.fatal = 0
            os.write(writer, b"%d" % steps.count)
            os._exit(ended)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True, 0
    assert os.WEXITSTATUS(status) == code, status
    return False, int(told)


def moments(total: int, wanted: int) -> Iterator[int]:
    """About ``wanted`` of the steps 1 to ``total``, evenly spread, the last ones all."""
    late = range(max(1, total - wanted // 3 + 1), total + 1)
    early = max(1, total - len(late))
    step = max(1, early // max(1, wanted - len(late)))
    yield from range(1, early + 1, step)
    yield from late
