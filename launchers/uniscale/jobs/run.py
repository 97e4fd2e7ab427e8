"""An engine as a child, for as long as it is needed.

A child runs in its own process group, so that Ctrl-C reaches us first and stopping it reaches its
workers too, and with a parent-death signal, so that not even ``kill -9`` of us leaves it behind.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError

from uniscale.engines.engines import Command
from uniscale.jobs.handover import full, refused

if TYPE_CHECKING:
    import subprocess

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL: engines stop their own workers in that time
_TAIL_LINES, _TAIL_BYTES = 20, 16384
_DEATHS: dict[int, str] = {
    signal.SIGILL: "this CPU lacks an instruction that the payload was built with",
    signal.SIGKILL: "something killed it: often the kernel, when memory is short (see dmesg)",
}


@dataclass(frozen=True)
class Child:
    """A running engine and its log."""

    title: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait_ready(self, probe: Callable[[float], bool], timeout: float) -> None:
        """Wait until ``probe(seconds)`` holds; `LaunchError` if it dies or ``timeout`` (s) is up.

        Both errors carry the last lines of the engine's log.
        """
        deadline = time.monotonic() + timeout
        pause = 0.01
        while True:
            left = deadline - time.monotonic()
            if probe(max(min(left, 2.0), 0.1)):
                return
            self.check_alive("while starting")
            if left <= 0:
                raise self._failure(
                    f"{self.title} was not ready after {timeout:g} s",
                    "give it more time with --start-timeout SECONDS",
                    "not-ready",
                )
            time.sleep(pause)
            pause = min(pause * 1.3, 0.25)

    def check_alive(self, when: str, *, patience: float = 0.0) -> None:
        """Raise `LaunchError` if the engine has died, or does within ``patience`` seconds."""
        code = self.ended(patience)
        if code is None:
            return
        if code >= 0:
            told, hint = f"exit code {code}", ""
        else:
            told, hint = f"killed by {signal_name(-code)}", _DEATHS.get(-code, "")
        raise self._failure(f"{self.title} died {when} ({told})", hint, "engine-died")

    def _failure(self, what: str, hint: str, slug: str) -> LaunchError:
        last = tail(self.log)
        told = ["its last lines:", *last] if last else ["it wrote no log"]
        hints = "\n".join(filter(None, [hint, *told]))
        return LaunchError(what, where=str(self.log), hint=hints, slug=slug)

    def stop(self) -> None:
        """End the engine and its process group: SIGTERM, then SIGKILL; returns when it is gone."""
        try:
            if self.ended() is None:
                os.killpg(self.process.pid, signal.SIGTERM)
                self.ended(_GRACE)
        finally:  # also when a second Ctrl-C ends the wait
            # The group still bears the pid of its leader, which is not reaped yet: it can be
            # nobody else's. Workers that outlived their engine end here.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def ended(self, patience: float = 0.0) -> int | None:
        """Its exit code (negative: the signal) if it ends within ``patience`` s; not reaped."""
        deadline = time.monotonic() + patience
        pause = 0.002
        while True:
            state = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if state is not None:
                exited = state.si_code == os.CLD_EXITED
                return int(state.si_status if exited else -state.si_status)
            if time.monotonic() >= deadline:
                return None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.05)


@contextmanager
def child(command: Command, *, title: str) -> Iterator[Child]:
    """A child that runs ``command`` and is stopped at the end, whatever the end is.

    Its output goes to a temporary file that stays only when a `LaunchError` names it. SIGTERM and
    SIGHUP of this process become `SystemExit` meanwhile, so that they stop the child too.
    """
    with ending_signals(), _log_file(title) as log:
        engine = spawn(command, title, log)
        try:
            yield engine
        finally:
            engine.stop()


def spawn(command: Command, title: str, log: Path) -> Child:
    """Start ``command`` in its own process group, its output appended to ``log``.

    It dies when this process does. Raises `LaunchError` when the system refuses to start it.
    """
    import subprocess  # not on the way to exec: it takes longer than all that is ours

    with log.open("ab") as stream:
        try:
            process = subprocess.Popen(
                command.argv,
                env=full(command),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                # Safe: this process has one thread.
                preexec_fn=bound(),
            )
            return Child(title, process, log)
        except OSError as error:
            raise refused(command, error) from error
        except subprocess.SubprocessError as error:
            raise LaunchError(f"the engine cannot be started: {error}", slug="launch") from error


def bound() -> Callable[[], None]:
    """What a child does first: it leads a process group of its own, and dies when we do."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def in_child() -> None:
        os.setpgid(0, 0)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # we died before the request: nobody would send the signal
            os._exit(1)

    return in_child


@contextmanager
def _log_file(title: str) -> Iterator[Path]:
    import tempfile

    try:
        number, name = tempfile.mkstemp(prefix="uniscale-", suffix=".log")
    except OSError as error:
        raise LaunchError(
            f"there is no place for the log of {title}: {error.strerror}",
            where=None if error.filename is None else str(error.filename),
            hint="point TMPDIR to a folder that you may write to",
            slug="no-log",
        ) from error
    os.close(number)
    log = Path(name)
    try:
        yield log
    except LaunchError as error:
        if error.where != name:
            log.unlink(missing_ok=True)
        raise
    except BaseException:
        log.unlink(missing_ok=True)
        raise
    log.unlink(missing_ok=True)


@contextmanager
def ending_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP become `SystemExit` meanwhile, unless they are ignored (nohup)."""

    def end(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    # An ignored signal (nohup) stays ignored.
    taken = [
        number
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL
    ]
    for number in taken:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9."""
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"


def tail(log: Path, *, keep: int = _TAIL_LINES) -> list[str]:
    """The last ``keep`` lines of a log, without the control sequences that terminals obey."""
    with log.open("rb") as stream:
        stream.seek(max(log.stat().st_size - _TAIL_BYTES, 0))
        text = stream.read().decode("utf-8", "replace")
    # Colours and other control sequences of a log do not belong on the user's terminal.
    lines = ["".join(c for c in line if c.isprintable() or c == "\t") for line in text.splitlines()]
    return [line for line in lines if line.strip()][-keep:]
