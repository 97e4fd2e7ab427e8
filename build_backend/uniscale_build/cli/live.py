"""Progress for people: rich bars on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from uniscale_build.progress import Plain, Reporter

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Live:
    """One line for each stage, with a bar while it counts; finished stages keep their time."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task: TaskID | None = None
        self._name = ""
        self._began = 0.0

    def stage(self, name: str, detail: str = "") -> None:
        """Close the line of the last stage and open one for this."""
        from rich.markup import escape

        self.close()
        self._name = f"{escape(name)} [dim]{escape(detail)}[/]" if detail else escape(name)
        self._began = time.monotonic()
        self._task = self._progress.add_task(self._name, total=None, count="")

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Move the bar."""
        from uniscale_build.progress import human

        if self._task is None:
            self.stage("work")
        assert self._task is not None
        count = human(done, unit) if total is None else f"{human(done, unit)}/{human(total, unit)}"
        self._progress.update(self._task, completed=done, total=total, count=count)

    def note(self, text: str) -> None:
        """A line above the bars."""
        from rich.markup import escape

        self._progress.console.print(f"[yellow]note:[/] {escape(text)}")

    def close(self) -> None:
        """Turn the open line into a finished one."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            seconds = time.monotonic() - self._began
            self._progress.console.print(f"[green]✓[/] {self._name} [dim]{seconds:.1f} s[/]")
            self._task = None


@contextlib.contextmanager
def reporter(quiet: bool = False) -> Iterator[Reporter]:
    """Bars when standard error is a terminal and nobody asked for quiet, else plain lines."""
    from uniscale_build.progress import Silent

    if quiet:
        yield Silent()
        return
    if not sys.stderr.isatty() or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        yield Plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=30),
        TextColumn("{task.fields[count]}"), TimeElapsedColumn(),
        console=Console(stderr=True, highlight=False), transient=True,
    ) as progress:  # fmt: skip
        live = Live(progress)
        try:
            yield live
        finally:
            live.close()
