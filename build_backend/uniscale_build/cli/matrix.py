"""``uniscale-build matrix``: what there is to build, for people and for CI; ``--run`` builds it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Device, Json, Verbose
from uniscale_build.cli.build import Config

if TYPE_CHECKING:
    from rich.console import Console

    from uniscale_build.matrix.changed import Changed
    from uniscale_build.matrix.rows import Row
    from uniscale_build.plans.pairs import Pair
    from uniscale_build.project import Project

_MIDDLE = 60  # columns beside a build's name that tasks, pin and image need with the last one
Patterns = list[str] | None
Backend = Annotated[str | None, typer.Option("--backend", "-b", help="Only this backend.")]
Task = Annotated[str | None, typer.Option("--task", "-t", help="Only for this task.")]
Only = Annotated[
    Patterns, typer.Option(help="Builds such as 'vllm-*_MLU' or '{vllm,sglang}-cpu'; repeat.")
]
Skip = Annotated[Patterns, typer.Option(help="Builds to leave out; repeat.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="REV", help="Only builds whose plan differs from that at REV."),
]
Form = Annotated[
    str | None, typer.Option("--format", metavar="NAME", help="github, gitlab, jenkins or names.")
]
Run = Annotated[bool, typer.Option("--run", help="Build them.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for wheels and logs.")]
AtOnce = Annotated[
    int | None, typer.Option(min=1, help="Builds at a time (default: by cores and memory).")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Compile jobs for each build.")]
KeepGoing = Annotated[
    bool, typer.Option("--keep-going", "-k", help="Begin further builds after a failure.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run that --out holds.")]
Executor = Annotated[str, typer.Option(metavar="NAME", help="local, or ray: on a Ray cluster.")]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(matrix)


def matrix(
    backend: Backend = None,
    device: Device = None,
    task: Task = None,
    only: Only = None,
    skip: Skip = None,
    changed_since: Since = None,
    form: Form = None,
    run: Run = False,
    out: Out = Path("dist"),
    at_once: AtOnce = None,
    jobs: Jobs = None,
    keep_going: KeepGoing = False,
    resume: Resume = False,
    executor: Executor = "local",
    config: Config = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Every backend on every device: what can be built, and with --run: build it.

    Without options: all pairs and what they wait for. With --only, --skip, --task or
    --changed-since: the single builds, as a table, as JSON or in a CI service's own --format.
    """
    from uniscale_build.project import find_project

    _check_form(form)
    project = find_project()
    pairs = _pairs(project, backend, device)
    narrowed = bool(only or skip or task or changed_since)
    if not (narrowed or form or run or resume):
        _overview(pairs, json=json, details=bool(backend or device))
        return
    chosen = _Chosen(project, pairs, only or [], skip or [], task, changed_since)
    if not (run or resume):
        _list(project, chosen, form, json=json)
        return
    from uniscale_build.cli.matrixrun import Asked, run_matrix

    asked = Asked(out, at_once, jobs, keep_going, resume, executor, tuple(config or ()),
                  named=bool(only), narrowed=narrowed or bool(backend or device))  # fmt: skip
    run_matrix(project, chosen.rows, asked, json=json)


def _check_form(form: str | None) -> None:
    from uniscale_build.errors import SettingsError
    from uniscale_build.matrix.pipelines import FORMATS

    if form is not None and form not in FORMATS:
        raise SettingsError(f'there is no format "{form}"', hint=f"known: {', '.join(FORMATS)}",
                            slug="bad-value")  # fmt: skip


def _pairs(project: Project, backend: str | None, device: str | None) -> list[Pair]:
    """The pairs of the backend and the device that are named, if any are."""
    from uniscale_build.plans.pairs import all_pairs

    only_backend = project.manifests.backend(backend).name if backend else None
    only_device = project.manifests.device(device).name if device else None
    return [
        pair for pair in all_pairs(project)
        if only_backend in (None, pair.backend) and only_device in (None, pair.device)
    ]  # fmt: skip


class _Chosen:
    """The rows that the options leave, and what changed when that was asked."""

    def __init__(
        self, project: Project, pairs: list[Pair], only: list[str], skip: list[str],
        task: str | None, revision: str | None,
    ) -> None:  # fmt: skip
        from uniscale_build.manifests.model import canonical_task
        from uniscale_build.matrix.changed import changed_since
        from uniscale_build.matrix.rows import all_rows
        from uniscale_build.matrix.selectors import select
        from uniscale_build.store import Store

        every = all_rows(project, pairs)
        self.rows: list[Row] = select(every, only, skip, pairs)
        if task:
            word = canonical_task(task)
            self.rows = [row for row in self.rows if word in row.tasks]
        self.changed: Changed | None = None
        if revision:
            self.changed = changed_since(project, Store(), self.rows, revision, every)
            self.rows = list(self.changed.rows)


def _list(project: Project, chosen: _Chosen, form: str | None, *, json: bool) -> None:
    import dataclasses
    import json as format_json
    import sys

    from uniscale_build.matrix.pipelines import render
    from uniscale_build.matrix.rows import read_settings

    rows, changed = chosen.rows, chosen.changed
    if changed is not None and changed.note:
        print(f"note: {changed.note}", file=sys.stderr)
    if form is not None:
        sys.stdout.write(render(rows, form, read_settings(project)))
        return
    if json:
        told = [row.as_json() for row in rows]
        if changed is not None:
            for about, row in zip(told, rows, strict=True):
                about["changes"] = [dataclasses.asdict(item) for item in changed.why[row.id]]
        print(format_json.dumps(told, indent=2, ensure_ascii=False))
        return
    _print_rows(rows)
    if changed is not None:
        _print_changes(changed)


def _console() -> Console:
    """A terminal's width on a terminal; files and pipes get every line whole."""
    import sys

    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 10_000)


def _print_rows(rows: list[Row]) -> None:
    from rich.table import Table

    if rows:
        console, widest = _console(), max(len(row.id) for row in rows)
        # What a narrow terminal has no room for is in --json.
        middle = ("tasks", "pin", "image") if console.width - widest >= _MIDDLE else ()
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column("build", no_wrap=True, min_width=widest)
        for name in (*middle, "on this machine"):
            table.add_column(name)
        for row in rows:
            told = {"tasks": ", ".join(row.tasks), "pin": row.pin, "image": row.image or "-"}
            table.add_row(row.id, *(told[name] for name in middle), row.obstacle or "can be built")
        console.print(table)
    here = sum(not row.obstacle for row in rows)
    print(f"{len(rows)} builds, {here} of them on this machine")
    if here:
        print("next: the same command with --run")


def _print_changes(changed: Changed) -> None:
    for build, changes in changed.why.items():
        print(f"{build}: {'new' if not changes else ', '.join(item.name for item in changes)}")
    for build in changed.gone:
        print(f"{build}: is built no more")
    if not changed.why:
        print(f"no plan differs from that at {changed.commit[:12]}")


def _overview(pairs: list[Pair], *, json: bool, details: bool) -> None:
    import json as format_json

    if json:
        print(format_json.dumps([pair.as_json() for pair in pairs], indent=2, ensure_ascii=False))
        return
    from rich.table import Table

    from uniscale_build.plans.pairs import STATES

    used = [state for state in STATES if state != "not-adapted"
            and any(pair.state == state for pair in pairs)]  # fmt: skip
    table = Table(
        "device", *(STATES[state] for state in used), box=None, header_style="bold", pad_edge=False
    )
    for name in dict.fromkeys(pair.device for pair in pairs):
        cells = [", ".join(p.backend for p in pairs if (p.device, p.state) == (name, state))
                 for state in used]  # fmt: skip
        table.add_row(name, *cells)
    _console().print(table)
    print()
    for pair in pairs:
        if details or pair.state == "broken":
            print(f"{pair.backend} on {pair.device}: {STATES[pair.state]}  {pair.what}")
            print(f"  --> {pair.where}   who: {pair.who}")
    counts = {state: sum(pair.state == state for pair in pairs) for state in STATES}
    print(
        f"{counts['buildable']} can be built here, {counts['needs-sdk']} need their SDK, "
        f"{counts['needs-layers']} wait for a vendor's layers, {counts['not-adapted']} are not "
        "adapted"
    )
    if not details:
        print(
            "more: uniscale-build matrix --device NAME, --backend NAME, or the builds: --only '*'"
        )
