"""``uniscale-build port``: layers move to a new upstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Backend, Device, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.porting.port import Outcome, Report
    from uniscale_build.porting.verdict import Verdict

Offline = Annotated[bool, typer.Option("--offline", help="Use only sources that are cached.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(port)


def port(
    backend: Backend,
    to: Annotated[
        str, typer.Option("--to", help="Version, commit or path; without it: the present pin.")
    ] = "",
    device: Device = None,
    common: Annotated[
        bool, typer.Option("--common", help="Move the pin's own layers; devices stay behind.")
    ] = False,
    pin: Annotated[str, typer.Option("--pin", help="The pin to move (default: the first).")] = "",
    commit: Annotated[str, typer.Option("--commit", help="The new version's commit id.")] = "",
    name: Annotated[str, typer.Option("--name", help="What to call the new version.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say it; write nothing.")] = False,
    go_on: Annotated[bool, typer.Option("--continue", help="Go on after resolving.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Give up the port in progress.")] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not reuse remembered resolutions.")
    ] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Move layers to a new upstream: in memory first, conflicts in a work tree."""
    from uniscale_build.errors import SettingsError
    from uniscale_build.porting import port as engine
    from uniscale_build.porting.plan import Request
    from uniscale_build.progress import Plain
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    if go_on + abort + dry_run > 1 or ((go_on or abort) and (to or common or pin)):
        raise SettingsError("--continue, --abort, --dry-run and --to exclude one another")
    project, store, reporter = find_project(), Store(), Plain()
    request = Request(backend, to, device, common, pin, commit, name, offline, fresh)
    if abort:
        _tell_aborted(*engine.abort(project, store, reporter, request), as_json=json)
        return
    if go_on:
        report = engine.resume(project, store, reporter, request)
    else:
        report = engine.start(project, store, reporter, request, dry_run=dry_run)
    if json:
        _print_json(_port_json(report))
    else:
        _tell_port(report, verbose=verbose)
    if report.status in ("open", "conflicts"):
        from uniscale_build.errors import ConflictError

        raise typer.Exit(ConflictError.exit_code)


def _tell_aborted(shown: str, aside: str, *, as_json: bool) -> None:
    if as_json:
        _print_json({"status": "aborted", "closed": shown, "kept": aside or None})
        return
    typer.echo(f"{shown} is closed; layers and manifests are as they were")
    if aside:
        typer.echo(f"what you had edited there is in {aside}: remove it when you do not need it")


def _port_json(report: Report) -> dict[str, object]:
    plan = report.plan
    return {
        "status": report.status,
        "backend": plan.backend.name if plan else None,
        "device": (plan.device or None) if plan else None,
        "from": {"version": plan.pin.version, "tree": plan.pin.tree} if plan else None,
        "to": {"version": plan.new.version, "commit": plan.new.commit or None,
               "tree": plan.new.tree} if plan else None,
        "layers": [_outcome_json(outcome) for outcome in report.outcomes],
        "work_tree": report.place or None,
        "written": {name: {"added": w.added, "changed": w.changed, "removed": w.removed,
                           "kept": w.kept} for name, w in (report.written or {}).items()},
        "todo": report.todo,
        "notes": report.notes,
    }  # fmt: skip


def _outcome_json(outcome: Outcome) -> dict[str, object]:
    return {
        "layer": outcome.step.layer.name,
        "moves_as": outcome.step.new_name,
        "devices": outcome.step.devices,
        "base": outcome.base,
        "result": None if outcome.replayed.conflicts else outcome.result,
        "empty": outcome.empty,
        "files": [verdict.as_json() for verdict in outcome.verdicts],
    }


def counted(verdicts: tuple[Verdict, ...]) -> str:
    """``3 files: 2 clean, 1 content conflict``."""
    from collections import Counter

    from uniscale_build.porting.verdict import KINDS

    count = Counter(verdict.kind for verdict in verdicts)
    parts = ", ".join(f"{count[kind]} {kind}" for kind in KINDS if count[kind])
    return f"{len(verdicts)} file{'s' if len(verdicts) != 1 else ''}: {parts or 'none'}"


def _tell_port(report: Report, *, verbose: bool) -> None:
    plan = report.plan
    if plan is None:
        typer.echo("the port had been finished; its work tree is closed now")
        return
    typer.echo(f"{plan.backend.name}: {plan.pin.version} ({plan.pin.tree[:12]}) -> {plan.label} "
               f"({plan.start[:12]})")  # fmt: skip
    for outcome in report.outcomes:
        layer, new = outcome.step.layer.name, outcome.step.new_name
        as_new = f" (moves as {new})" if new != layer else ""
        if not outcome.verdicts and outcome.step.layer.base != outcome.base:
            typer.echo(f"  {layer}{as_new}: settled before")
            continue
        typer.echo(f"  {layer}{as_new}: {counted(outcome.verdicts)}")
        for verdict in outcome.verdicts:
            if verdict.kind != "clean" or verdict.detail or verbose:
                _tell_verdict(verdict)
    for note in report.notes:
        typer.echo(f"note: {note}")
    for todo in report.todo:
        typer.echo(f"write this by hand into {todo}")
    _tell_next(report, plan.backend.name)


def _tell_verdict(verdict: Verdict) -> None:
    from uniscale_build.porting.verdict import CLEAN

    line = f"    {verdict.kind:22} {verdict.path}"
    typer.echo(line + (f": {verdict.detail}" if verdict.detail else ""))
    for part in verdict.parts:
        if part.kind != CLEAN:
            moved = f" -> line {part.new_line} ({part.offset:+d})" if part.new_line else ""
            heading = f"  {part.heading}" if part.heading else ""
            typer.echo(f"      {part.kind}: line {part.old_line}{moved}{heading}")


def _tell_next(report: Report, backend: str) -> None:
    words = f"uniscale-build port --backend {backend}"
    if report.status == "open":
        typer.echo(f"{report.place} is open: resolve the files with conflict markers there, then")
        typer.echo(f"next: {words} --continue   (or --abort)")
    elif report.status == "conflicts":
        typer.echo("nothing was written; without --dry-run a work tree opens for the conflicts")
    elif report.status == "clean":
        typer.echo("everything fits; nothing was written")
    elif report.status == "nothing":
        typer.echo("the layers are there already; nothing was written")
    else:
        for name, written in (report.written or {}).items():
            typer.echo(f"patches/{backend}/{name}: {len(written.added)} added, "
                       f"{len(written.changed)} changed, {len(written.removed)} removed, "
                       f"{written.kept} kept")  # fmt: skip
        typer.echo(f"next: uniscale-build check --backend {backend}; git diff patches manifests")


def _print_json(data: dict[str, object]) -> None:
    import json as format_json

    typer.echo(format_json.dumps(data, indent=2))
