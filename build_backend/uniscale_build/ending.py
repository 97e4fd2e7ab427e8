"""Being told to end is an interruption: what was started is stopped first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator

_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)


def ends_with(parent: int, number: int = signal.SIGKILL) -> None:
    """From here on this process is sent the signal ``number`` when its parent dies.

    ``parent`` is who that was when it was started; one that has died since ends it at once.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, number)
    if os.getppid() != parent:  # it has died before we could ask
        sys.exit(130)


@contextlib.contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `KeyboardInterrupt`, as Ctrl-C does, until the context ends.

    Where no signal can be caught (in a thread other than the main one) nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    # Once is enough: a second signal must not interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt
