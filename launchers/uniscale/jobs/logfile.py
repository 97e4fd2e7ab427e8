"""Logs of what runs for months: one file of a limited size, and the one before it.

An engine holds its log open, so the file is copied and emptied where it is; it was opened for
appending, so the engine goes on at its new end.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MOST = 64 << 20  # bytes of a log before it is put aside


def before(log: Path) -> Path:
    """Where the older half of ``log`` is put: ``engine-0.log.1``."""
    return log.with_name(f"{log.name}.1")


def rotate(log: Path, most: int = MOST) -> bool:
    """Put ``log`` aside when it is larger than ``most`` bytes; True when that was done.

    What is written between the copy and the emptying (microseconds) is copied too, unless it
    comes in between the last look and the cut. A full disk leaves the log as it is.
    """
    try:
        if log.stat().st_size <= most:
            return False
        old = before(log)
        part = old.with_name(f".{old.name}.part")
        with open(log, "rb") as source, open(part, "wb") as target:
            os.fchmod(target.fileno(), 0o600)
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            shutil.copyfileobj(source, target)  # what came meanwhile
            os.truncate(log, 0)
        part.replace(old)
    except OSError:
        return False
    return True


def resumed(log: Path, place: int) -> int:
    """Where to go on reading ``log`` after ``place``: at 0 when it was put aside since."""
    try:
        return place if log.stat().st_size >= place else 0
    except OSError:
        return place
