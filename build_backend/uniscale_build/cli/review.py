"""``uniscale-build check``, ``drift`` and ``identify``: what layers are, how far they can go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Backend, Device, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.errors import UniscaleError
    from uniscale_build.porting.drift import Drift
    from uniscale_build.porting.identify import Match, PatchSet
    from uniscale_build.review.check import Checked

Offline = Annotated[bool, typer.Option("--offline", help="Use only sources that are cached.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(check)
    app.command()(drift)
    app.command()(identify)


def check(
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Only this backend (default: all).")
    ] = None,
    device: Device = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write layers anew that apply but are not in form.")
    ] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Verify every layer, patch and pin; all findings at once, with the cure."""
    from uniscale_build.errors import SettingsError
    from uniscale_build.progress import Plain
    from uniscale_build.project import find_project
    from uniscale_build.review import check as engine
    from uniscale_build.review.fix import fix as write_anew
    from uniscale_build.store import Store

    if device is not None and backend is None:
        raise SettingsError("--device needs --backend")
    project, store, reporter = find_project(), Store(), Plain()

    def look() -> engine.Checked:
        return engine.check(
            project, store, reporter, backend=backend, device=device, offline=offline
        )

    done = look()
    if fix and done.fixable:
        fixed = write_anew(project, store, reporter, done.fixable)
        done = look()
        done.fixed.extend(fixed)
    if json:
        _print_json(_checked_json(done))
    else:
        _tell_checked(done)
    if done.errors:
        raise typer.Exit(done.errors[0].exit_code)


def _checked_json(done: Checked) -> dict[str, object]:
    return {
        "errors": [error.as_json() for error in done.errors],
        "warnings": [error.as_json() for error in done.warnings],
        "stacks": done.stacks,
        "layers": done.layers,
        "patches": done.patches,
        "overlay_files": done.files,
        "patch_lines": done.lines,
        "fixed": done.fixed,
    }


def _tell_checked(done: Checked) -> None:
    def place(error: UniscaleError) -> str:
        return error.where or ""

    for name in done.fixed:
        typer.echo(f"{name}: written anew")
    for error in sorted(done.errors, key=place):
        typer.echo(error.render())
    for warning in sorted(done.warnings, key=place):
        typer.echo(warning.render().replace("error[", "warning[", 1))
    said = f"{len(done.errors)} errors, {len(done.warnings)} warnings"
    typer.echo(
        f"checked {done.layers} layers ({done.patches} patches, {done.files} added files, "
        f"{done.lines} patch lines) of {done.stacks} stacks: {said}"
    )
    if any(error.slug in _FIXED_BY for error in done.errors):
        typer.echo("next: uniscale-build check --fix, when the edits are meant; else git restore")


_FIXED_BY = ("edited", "result-differs", "form")


def drift(
    backend: Backend,
    device: Device = None,
    version: Annotated[
        list[str] | None,
        typer.Option("--version", help="A version to look at (several: say it again)."),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", help="All known versions from this one on.")
    ] = "",
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download versions from the package index.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a report with a picture here.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Do not reuse remembered resolutions.")
    ] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show how far the layers can go: what applies, merges and conflicts on each version."""
    from uniscale_build.git.db import GitDb
    from uniscale_build.porting import drift as engine
    from uniscale_build.porting.drift_report import page, sentences, table
    from uniscale_build.porting.plan import Request
    from uniscale_build.progress import Plain
    from uniscale_build.project import find_project
    from uniscale_build.store import Store, write_atomic

    project, db = find_project(), GitDb(Store()).open()
    owner = project.manifests.backend(backend)
    # A version that somebody names may be fetched; of the others only what is there is used.
    versions = engine.versions_to_look_at(db, owner, version or (), since, fetch=fetch)
    request = Request(backend, "", device, offline=offline, fresh=fresh)
    found = engine.measure(db, project, request, versions, Plain(), fetch=fetch or bool(version))
    if html is not None:
        write_atomic(html.absolute(), page(found).encode())
    if json:
        _print_json(_drift_json(found))
        return
    for line in (sentences(found)[0], "", *table(found), "", *sentences(found)[1:]):
        typer.echo(line)
    if html is not None:
        typer.echo(f"written: {html}")
    typer.echo(f"next: uniscale-build port --backend {owner.name} --to VERSION --dry-run")


def _drift_json(found: Drift) -> dict[str, object]:
    return {
        "backend": found.backend,
        "device": found.device or None,
        "pin": found.pin,
        "layers": found.layers,
        "newest_that_applies": found.newest(lambda column: column.everything_applies),
        "newest_without_conflict": found.newest(lambda column: column.nobody_needed),
        "versions": [
            {
                "version": column.version,
                "tree": column.tree or None,
                "error": column.error.as_json() if column.error else None,
                "counts": dict(column.counts),
                "files": [
                    {"layer": f.layer, "path": f.path, "state": f.state, "kind": f.kind,
                     "detail": f.detail or None}
                    for f in column.files
                ],
            }
            for column in found.columns
        ],
    }  # fmt: skip


def identify(
    patches: Annotated[list[Path], typer.Argument(help="Patch files, or folders of them.")],
    backend: Annotated[
        str | None, typer.Option("--backend", "-b", help="Compare with this backend only.")
    ] = None,
    version: Annotated[
        list[str] | None,
        typer.Option("--version", help="A version to compare with too (several: say it again)."),
    ] = None,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Download versions until one fits.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Name the upstream version that patches were made against, from their blob ids."""
    from uniscale_build.errors import ConflictError, SettingsError
    from uniscale_build.git.db import GitDb
    from uniscale_build.porting import identify as engine
    from uniscale_build.progress import Plain
    from uniscale_build.project import find_project
    from uniscale_build.store import Store

    if (fetch or version) and backend is None:
        raise SettingsError("--fetch and --version need --backend")
    manifests, db = find_project().manifests, GitDb(Store()).open()
    backends = [manifests.backend(backend)] if backend else list(manifests.backends.values())
    found = engine.read_patches(patches)
    ranked = engine.identify(db, found, backends, version or (), Plain(), fetch=fetch)
    if json:
        _print_json(_identified_json(found, ranked))
    else:
        _tell_identified(found, ranked)
    if not any(match.exact for match in ranked):
        raise typer.Exit(ConflictError.exit_code)


def _identified_json(found: PatchSet, ranked: list[Match]) -> dict[str, object]:
    return {
        "patches": found.patches,
        "blobs": len(found.images),
        "unreadable": found.unreadable,
        "exact": [match.candidate.version for match in ranked if match.exact],
        "ranked": [
            {"backend": m.candidate.backend, "version": m.candidate.version,
             "tree": m.candidate.tree, "matched": m.matched, "total": m.total,
             "other_content": m.other, "missing": m.missing}
            for m in ranked
        ],
    }  # fmt: skip


def _tell_identified(found: PatchSet, ranked: list[Match]) -> None:
    typer.echo(f"{found.patches} patches name {len(found.images)} upstream files by blob id")
    for name in found.unreadable:
        typer.echo(f"not read: {name}")
    exact = [match for match in ranked if match.exact]
    for match in exact:
        typer.echo(f"made against {match.candidate.backend} {match.candidate.version}: "
                   f"all {match.total} fit")  # fmt: skip
    if exact:
        typer.echo(f"next: uniscale-build drift --backend {exact[0].candidate.backend} "
                   "--since VERSION")  # fmt: skip
        return
    for match in ranked[:8]:
        share = 100 * match.matched / match.total
        typer.echo(f"  {match.candidate.backend} {match.candidate.version}: {match.matched} of "
                   f"{match.total} fit ({share:.0f} %)")  # fmt: skip
    if ranked and ranked[0].matched:
        first = (*ranked[0].other, *ranked[0].missing)[:5]
        typer.echo(f"what does not fit {ranked[0].candidate.version}: {', '.join(first)}")
    typer.echo("no version that is known here fits exactly; with --backend NAME --fetch those of "
               "the package index are tried")  # fmt: skip


def _print_json(data: dict[str, object]) -> None:
    import json as format_json

    typer.echo(format_json.dumps(data, indent=2))
