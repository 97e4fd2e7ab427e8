"""How long work tells where it is: one protocol, plain lines here, bars in `cli.live`."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO


class Reporter(Protocol):
    """What a stage calls; every method returns at once and never fails the work."""

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins; the one before it has ended."""

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """``done`` of ``total`` (None: unknown) in ``unit``: ``bytes``, ``files`` or ``steps``."""

    def note(self, text: str) -> None:
        """One line that is worth keeping."""


class Silent:
    """Says nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        """Ignore."""

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


def human(count: float, unit: str) -> str:
    """``count`` with its unit, bytes in decimal multiples: ``76.6 MB``, ``120 steps``."""
    if unit != "bytes":
        return f"{int(count)} {unit}"
    for name in ("B", "kB", "MB"):
        if count < 1000:
            return f"{int(count)} B" if name == "B" else f"{count:.1f} {name}"
        count /= 1000
    return f"{count:.2f} GB"


class Plain:
    """Plain lines for logs and pip: stages at once, progress at most every ``every`` seconds."""

    def __init__(self, stream: TextIO | None = None, every: float = 10.0) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._every = every
        self._last = time.monotonic()

    def _line(self, text: str) -> None:
        print(f"uniscale: {text}", file=self._stream, flush=True)

    def stage(self, name: str, detail: str = "") -> None:
        """One line."""
        self._last = time.monotonic()
        self._line(f"{name}: {detail}" if detail else name)

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """A line when the last one is old enough or the work is complete."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        share = f" of {human(total, unit)} ({100 * done // max(total, 1)} %)" if total else ""
        self._line(f"  {human(done, unit)}{share}")

    def note(self, text: str) -> None:
        """One line."""
        self._line(text)
