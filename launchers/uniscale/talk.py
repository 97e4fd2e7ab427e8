"""What people are told while a command works, beside its output."""

from __future__ import annotations

import sys


def note(text: str) -> None:
    """One line for people on standard error; that nobody reads it stops nothing."""
    try:
        print(f"uniscale: {text}", file=sys.stderr, flush=True)
    except OSError:
        return
