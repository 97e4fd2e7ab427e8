"""What every worker does first and last: it dies with its parent, and its failure is kept."""

from __future__ import annotations

import ctypes
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_parent() -> None:
    """Have the kernel end this process when its parent ends, however that happens.

    torchrun gives its workers sessions of their own: no signal to its group reaches them.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getppid()
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the request
        os._exit(1)


@contextmanager
def failures_kept(path: Path) -> Iterator[None]:
    """Write what an exception says to ``path``, for the launcher to tell; the first one stays."""
    try:
        yield
    except Exception as error:
        told = {"type": type(error).__name__, "message": str(error)}
        try:
            with path.open("x", encoding="utf-8") as stream:
                json.dump(told, stream)
        except FileExistsError:
            pass
        raise
