"""Live progress of a training or a batch: one moving line on a terminal, plain lines in a log."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from uniscale.talk import note

_EVERY = 10.0  # seconds between plain lines


class Meter:
    """Shows how far a job is; `show` it again and again, as often as you like.

    ``numbers`` makes the words of the facts; those of a training where it is not given.
    """

    def __init__(self, numbers: Callable[[Mapping[str, Any]], str] | None = None) -> None:
        self._numbers = numbers or told
        self._live = sys.stderr.isatty() and not os.environ.get("CI")
        self._shown: tuple[object, object] = (None, None)
        self._next = 0.0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Meter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, facts: Mapping[str, Any], *, last: bool = False) -> None:
        """Show ``facts``: phase, step, steps, loss, tokens_per_second and eta (s) where known."""
        if self._live:
            self._move(facts)
        else:
            self._print(facts, last)

    def _print(self, facts: Mapping[str, Any], last: bool) -> None:
        phase, step = facts.get("phase"), facts.get("step")
        if (phase, step) == self._shown:
            return
        begins = phase != self._shown[0] or (step and self._shown[1] == facts.get("first_step"))
        if begins or last or time.monotonic() >= self._next:
            self._shown = (phase, step)
            self._next = time.monotonic() + _EVERY
            note(words(facts, self._numbers))

    def _move(self, facts: Mapping[str, Any]) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        if self._bar is None:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[told]}", markup=False),
                console=Console(stderr=True),
            )
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, told="")
        steps = facts.get("steps")
        self._bar.update(
            self._task,
            description=str(facts.get("phase", "starting")),
            total=steps,
            completed=facts.get("step") or 0,
            told=self._numbers(facts),
        )


def words(
    facts: Mapping[str, Any], numbers: Callable[[Mapping[str, Any]], str] | None = None
) -> str:
    """One line for a log."""
    return f"{facts.get('phase', 'starting')}  {(numbers or told)(facts)}".rstrip()


def told(facts: Mapping[str, Any]) -> str:
    """The numbers: ``step 12/60  loss 1.234  812 tokens/s  14 s left``."""
    parts = []
    if facts.get("steps"):
        parts.append(f"step {facts.get('step', 0)}/{facts['steps']}")
    if isinstance(facts.get("loss"), (int, float)):
        parts.append(f"loss {facts['loss']:.4g}")
    if facts.get("tokens_per_second"):
        parts.append(f"{facts['tokens_per_second']:,.0f} tokens/s")
    if facts.get("eta") is not None and facts.get("phase") == "training":
        parts.append(f"{duration(facts['eta'])} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 20 s``, ``5 h 12 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
