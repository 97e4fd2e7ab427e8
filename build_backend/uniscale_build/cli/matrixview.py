"""Who watches a matrix run: a live table on a terminal, plain lines everywhere else."""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from uniscale_build.progress import human

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

    from uniscale_build.matrix.state import Build

_EVERY = 10.0  # seconds between two plain lines about one build's progress
_BAR = 14  # characters
_SHARE = 9  # characters of progress without a bar: 100 %, 181.1 MB
_STAGE = 12  # characters that a stage should have
_RESULT = 300  # characters of a failure's first words
_MARKS = {
    "waiting": "[dim]…[/]", "running": "[cyan]▶[/]", "done": "[green]✓[/]", "failed": "[red]✗[/]",
    "stopped": "[yellow]■[/]", "skipped": "[dim]-[/]",
}  # fmt: skip


class Watching(Protocol):
    """A view that can be closed."""

    def changed(self, build: Build, what: str) -> None:
        """Something is new."""

    def tick(self) -> None:
        """Time has passed."""

    def close(self) -> None:
        """Nothing more will come."""


class Quiet:
    """Shows nothing."""

    def changed(self, build: Build, what: str) -> None:
        """Ignore."""

    def tick(self) -> None:
        """Ignore."""

    def close(self) -> None:
        """Ignore."""


class Lines:
    """A line for every stage and result, and for progress now and then."""

    def __init__(self) -> None:
        self._last: dict[str, float] = {}

    def changed(self, build: Build, what: str) -> None:
        """One line, unless it is progress and the last one is young."""
        if what == "advance":
            now = time.monotonic()
            if now - self._last.setdefault(build.id, now) < _EVERY:
                return
            self._last[build.id] = now
            text = _progress(build)
        elif what == "state":
            text = _result(build) or "begins"
        else:
            text = build.stage if what == "stage" else what
        print(f"uniscale: {build.id}: {text}", file=sys.stderr, flush=True)

    def tick(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class Table:
    """The builds that fit on the screen, running ones first, drawn anew several times a second."""

    def __init__(self, builds: Sequence[Build]) -> None:
        from rich.console import Console
        from rich.live import Live

        self._builds = builds
        self._began = time.monotonic()
        self._live = Live(
            self,
            console=Console(stderr=True, highlight=False),
            refresh_per_second=5,
            transient=True,
        )
        self._live.start()

    def changed(self, build: Build, what: str) -> None:
        """A line above the table for what is worth keeping."""
        from rich.markup import escape

        if what == "state" and build.state != "running":
            text = f"{_MARKS[build.state]} {build.id}  [dim]{escape(_result(build))}[/]"
            self._live.console.print(text)
        elif what not in ("state", "stage", "advance"):
            self._live.console.print(f"[yellow]note:[/] {build.id}: {escape(what)}")

    def tick(self) -> None:
        """The table draws itself."""

    def close(self) -> None:
        """Take the table away."""
        self._live.stop()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Rows, then one line of counts."""
        from rich.markup import escape
        from rich.table import Table as RichTable

        room = max(3, console.size.height - 4)
        order = ("running", "waiting")
        shown = [b for state in order for b in self._builds if b.state == state]
        table = RichTable(box=None, header_style="bold", pad_edge=False)
        same = len({build.row.platform for build in self._builds}) == 1
        names = [b.id.removesuffix(f"-{b.row.platform}") if same else b.id for b in self._builds]
        widest, stage, progress = _widths(options.max_width, max(map(len, names)))
        for name, width in (("", 1), ("build", widest), ("stage", stage), ("progress", progress)):
            table.add_column(name, no_wrap=True, width=width)
        table.add_column("time", no_wrap=True, justify="right", width=8)
        shown_as = dict(zip((b.id for b in self._builds), names, strict=True))
        for build in shown[:room]:
            table.add_row(
                _MARKS[build.state], shown_as[build.id], escape(build.stage), _bar(build, progress),
                _clock(time.monotonic() - build.began) if build.state == "running" else "",
            )  # fmt: skip
        yield table
        count = {state: sum(b.state == state for b in self._builds) for state in _MARKS}
        words = [f"{number} {state}" for state, number in count.items() if number]
        hidden = f", {len(shown) - room} not shown" if len(shown) > room else ""
        yield f"[dim]{', '.join(words)}{hidden}  {_clock(time.monotonic() - self._began)}[/]"


def _progress(build: Build) -> str:
    count = human(build.done, build.unit or "steps")
    return f"{build.stage}  {count}" + (f" of {human(build.total, build.unit)}"
                                        if build.total else "")  # fmt: skip


def _widths(room: int, widest: int) -> tuple[int, int, int]:
    """The widths of build, stage and progress on a terminal of ``room`` columns.

    The stage gives way first, then the bar (its percentage stays), then the names.
    """
    room -= 17  # mark, time, and what is between the columns
    if room - widest - _BAR - 6 >= _STAGE:
        return widest, room - widest - _BAR - 6, _BAR + 6
    widest = max(8, min(widest, room - _SHARE - _STAGE))
    return widest, max(8, room - widest - _SHARE), _SHARE


def _bar(build: Build, width: int) -> str:
    if not build.unit:
        return ""
    if not build.total:
        return human(build.done, build.unit)
    full = min(_BAR, _BAR * build.done // build.total)
    share = 100 * build.done // build.total
    if width < _BAR + 6:
        return f"{share:>3} %"
    return f"[green]{'━' * full}[/][dim]{'━' * (_BAR - full)}[/] {share:>3} %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _result(build: Build) -> str:
    if build.state == "done":
        size = human(sum(wheel.size for wheel in build.wheels[-1:]), "bytes")
        how = "from the cache" if build.reused else "built"
        where = f" on {build.node}" if build.node else ""
        return f"{how}{where} in {build.seconds:.1f} s, {size}"
    if build.state == "failed":
        first = build.errors[0] if build.errors else {"slug": "error", "what": "failed"}
        # The first line alone may say no more than that the reason follows.
        what = textwrap.shorten(str(first["what"]), _RESULT, placeholder=" …")
        return f"failed: error[{first['slug']}]: {what}"
    return "stopped" if build.state == "stopped" else ""


@contextlib.contextmanager
def view(builds: Sequence[Build], *, quiet: bool) -> Iterator[Watching]:
    """A table when standard error is a terminal and nobody asked for quiet, else plain lines."""
    if quiet:
        yield Quiet()
        return
    if not sys.stderr.isatty() or os.environ.get("CI") or os.environ.get("TERM") == "dumb":
        yield Lines()
        return
    table = Table(builds)
    try:
        yield table
    finally:
        table.close()
