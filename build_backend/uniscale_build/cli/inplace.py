"""``uniscale-build unpatch``, ``patch`` and ``status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Backend, Device, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.inplace.capture import Captured, Request
    from uniscale_build.inplace.status import Row
    from uniscale_build.inplace.unpatch import Unpatched

Offline = Annotated[bool, typer.Option("--offline", help="Use only sources that are cached.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(unpatch)
    app.command()(patch)
    app.command()(status)


def unpatch(
    backend: Backend,
    device: Device = None,
    check: Annotated[bool, typer.Option("--check", help="Compare only; write nothing.")] = False,
    discard: Annotated[
        bool, typer.Option("--discard", help="Set unsaved edits aside (they can be got back).")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Keep unsaved edits on top of layers that changed.")
    ] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put the patched tree in place to work in, as a git work tree."""
    from uniscale_build.cli.live import reporter
    from uniscale_build.errors import SettingsError
    from uniscale_build.inplace.stack import find_target
    from uniscale_build.inplace.unpatch import Options
    from uniscale_build.inplace.unpatch import unpatch as run
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    if check + discard + merge > 1:
        raise SettingsError("--check, --discard and --merge exclude one another")
    target = find_target(find_project(), backend, device)
    with reporter() as live:
        done = run(target, Store(), live, Options(check, discard, merge, offline))
    if json:
        _print_json(_unpatched_json(done))
    else:
        _tell_unpatched(done)


def _unpatched_json(done: Unpatched) -> dict[str, object]:
    return {
        "action": done.action,
        "backend": done.target.backend,
        "device": done.target.device or None,
        "path": str(done.target.root),
        "pin": {"version": done.target.pin.version, "tree": done.target.pin.tree},
        "layers": [{"layer": item.name, "tree": item.result} for item in done.stack.layers],
        "tree": done.stack.top,
        "written": done.written,
        "removed": done.removed,
        "recover": done.saved or None,
        "kept": done.kept or None,
        "merged": done.merged,
    }


def _tell_unpatched(done: Unpatched) -> None:
    target = done.target
    layers = ", ".join(layer.name for layer in done.stack.layers) or "no layers"
    said = {
        "created": f"{done.written} files are in place",
        "updated": f"{done.written} files written, {done.removed} removed",
        "refreshed": "the files were right already; commits renewed",
        "unchanged": "in place already, nothing to do",
        "verified": "in place, and exactly what pin and layers make",
    }[done.action]
    typer.echo(f"{target.shown}: {target.backend} {target.pin.version} + {layers}: {said}")
    if done.merged:
        typer.echo("your edits are kept on top of it; before the merge they are also in:")
    if done.saved:
        typer.echo(f"to get back what was set aside: {done.saved}")
    if done.kept:
        typer.echo(f"commits that no layer holds are kept as {done.kept}")
    if done.action != "verified":
        typer.echo(f"next: edit there, then uniscale-build patch {target.words}")


def patch(
    backend: Backend,
    device: Device = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="Layer to capture into (default: topmost).")
    ] = None,
    new_layer: Annotated[
        str | None, typer.Option("--new-layer", help="Start a layer with this name on top.")
    ] = None,
    title: Annotated[str, typer.Option("--title", help="New layer: what it does.")] = "",
    why: Annotated[str, typer.Option("--why", help="New layer: why it is needed.")] = "",
    owner: Annotated[str, typer.Option("--owner", help="New layer: who looks after it.")] = "",
    contact: Annotated[str, typer.Option("--contact", help="New layer: where to ask.")] = "",
    upstream: Annotated[
        str, typer.Option("--upstream", help="pending, submitted, backport or inappropriate.")
    ] = "pending",
    include_ignored: Annotated[
        list[str] | None,
        typer.Option("--include-ignored", help="Capture this ignored file or folder too."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show it; write nothing.")] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Capture what was changed in the in-place tree into a layer."""
    from uniscale_build.cli.live import reporter
    from uniscale_build.errors import SettingsError
    from uniscale_build.inplace.capture import Request, capture
    from uniscale_build.inplace.newlayer import about
    from uniscale_build.inplace.stack import find_target
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    if layer and new_layer:
        raise SettingsError("--layer and --new-layer exclude one another")
    if not new_layer and (title or why or owner or contact):
        raise SettingsError(
            "--title, --why, --owner and --contact describe a new layer",
            hint="add --new-layer NAME; those of a layer that exists are in its layer.yaml",
        )
    target = find_target(find_project(), backend, device)
    request = Request(
        layer=new_layer or layer,
        about=about(title, why, owner, contact, upstream) if new_layer else None,
        force=tuple(include_ignored or ()),
        dry_run=dry_run,
        offline=offline,
    )
    with reporter() as live:
        done = capture(target, Store(), live, request)
    if json:
        _print_json(_captured_json(done))
    else:
        _tell_captured(done, request)


def _captured_json(done: Captured) -> dict[str, object]:
    return {
        "backend": done.target.backend,
        "device": done.target.device or None,
        "path": str(done.target.root),
        "layers": [
            {
                "layer": item.name,
                "base": item.base,
                "result": item.result,
                "added": item.written.added,
                "changed": item.written.changed,
                "removed": item.written.removed,
                "kept": item.written.kept,
            }
            for item in done.layers
        ],
        "ignored": done.ignored,
        "kept": done.kept or None,
        "todo": done.todo or None,
        "warnings": [item.as_json() for item in done.warnings],
    }


def _tell_captured(done: Captured, request: Request) -> None:
    target = done.target
    verb = "would be captured" if request.dry_run else "captured"
    for item in done.layers:
        where = f"patches/{target.backend}/{item.name}"
        typer.echo(f"{where}: {verb}")
        for sign, names in (("+", item.written.added), ("~", item.written.changed),
                            ("-", item.written.removed)):  # fmt: skip
            for name in names:
                typer.echo(f"  {sign} {name}")
    if not done.layers:
        typer.echo(f"{target.shown} holds nothing that its layers do not; edit there, then repeat")
    if done.ignored:
        first = ", ".join(done.ignored[:6]) + (", …" if len(done.ignored) > 6 else "")
        typer.echo(f"not captured, ignored by .gitignore: {len(done.ignored)} ({first})")
        typer.echo("  --include-ignored PATH captures one all the same")
    for warning in done.warnings:
        typer.echo(f"review: {warning.where}: {warning.what}")
    if done.kept:
        typer.echo(f"your commits are kept as {done.kept}")
    if done.todo:
        typer.echo(f"add it by hand to the list of layers: {done.todo}")
    if done.layers and not request.dry_run:
        typer.echo(f"next: git add patches manifests; uniscale-build check --backend "
                   f"{target.backend}")  # fmt: skip


def status(
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="One backend (default: all).")
    ] = None,
    device: Device = None,
    files: Annotated[
        bool, typer.Option("--files", help="Say which layer owns which file.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show pins, layers, who owns what, and which in-place trees have unsaved edits."""
    from uniscale_build.inplace.status import read_status
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    rows = read_status(find_project(), Store(), backend, device)
    if json:
        _print_json({"rows": [_row_json(row) for row in rows]})
    else:
        for row in rows:
            _tell_row(row, files)


def _row_json(row: Row) -> dict[str, object]:
    from dataclasses import asdict

    data = asdict(row)
    data["errors"] = [error.as_json() for error in row.errors]
    data["owners"] = row.owners
    data["device"] = row.device or None
    return data


def _tell_row(row: Row, files: bool) -> None:
    from uniscale_build.inplace.status import age

    name = f"{row.backend} on {row.device}" if row.device else row.backend
    if row.missing:
        typer.echo(f"{name}: not ready: {row.missing}")
        return
    typer.echo(f"{name}: {row.version} ({row.commit[:12] or row.tree[:12]})")
    for error in row.errors:
        typer.echo("  " + error.render().replace("\n", "\n  "))
    for layer in row.layers:
        sealed = ", sealed" if layer.sealed else ""
        typer.echo(
            f"  {layer.name}: {_count(layer.patches, 'patch', 'es')}, "
            f"{_count(layer.files, 'file')}, +{layer.added} "
            f"-{layer.removed}, {age(layer.changed)}, {layer.upstream}{sealed}; {layer.owner}"
        )
        if layer.problems:
            typer.echo(
                f"    {_count(layer.problems, 'problem')}: uniscale-build check -b {row.backend}"
            )
    if files:
        for path, owners in row.owners.items():
            typer.echo(f"    {path}  {' + '.join(owners)}")
    if row.in_place is not None and row.in_place.state != "absent":
        typer.echo(f"  {row.in_place.path}: {row.in_place.state}")
        for edit in row.in_place.edits[:20]:
            typer.echo(f"    {edit}")
        if len(row.in_place.edits) > 20:
            typer.echo(f"    and {len(row.in_place.edits) - 20} more")


def _count(number: int, what: str, plural: str = "s") -> str:
    return f"{number} {what}{'' if number == 1 else plural}"


def _print_json(data: dict[str, object]) -> None:
    import json as format_json

    typer.echo(format_json.dumps(data, indent=2))
