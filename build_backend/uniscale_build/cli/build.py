"""``uniscale-build plan``, ``wheel``, ``explain`` and ``cache``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Device, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.build.explain import Stage
    from uniscale_build.plans.plan import Plan
    from uniscale_build.project import Project
    from uniscale_build.wheels.bundle import Wheel

Backends = Annotated[
    list[str] | None,
    typer.Option("--backend", "-b", help="Backends, comma-separated or repeated."),
]
Task = Annotated[
    list[str] | None, typer.Option("--task", "-t", help="train, serve, infer (default: all).")
]
Config = Annotated[
    list[str] | None,
    typer.Option("--config-setting", "-C", metavar="KEY=VALUE", help="Any setting, as with pip."),
]
cache = typer.Typer(help="Show the cache and make it smaller.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(plan)
    app.command()(wheel)
    app.command()(explain)
    app.add_typer(cache, name="cache")


def resolve(
    backends: list[str] | None,
    device: str | None,
    tasks: list[str] | None,
    config: list[str] | None,
    more: Mapping[str, str | None] | None = None,
) -> tuple[Project, Plan]:
    """The project and the plan for a command line; the same settings as the hooks read."""
    from uniscale_build import settings
    from uniscale_build.errors import SettingsError
    from uniscale_build.plans.plan import make_plan
    from uniscale_build.project import find_project
    from uniscale_build.wheels.distribution import read_pyproject, tool_table

    given: dict[str, object] = {}
    for word in config or ():
        key, sign, value = word.partition("=")
        if not sign:
            raise SettingsError(f"{word!r} is not KEY=VALUE", slug="bad-value")
        given[key] = value
    given |= {key: value for key, value in (more or {}).items() if value is not None}
    if backends:
        given["backend"] = backends
    if device is not None:
        given["device"] = device
    if tasks:
        given["task"] = tasks
    project = find_project()
    defaults = tool_table(read_pyproject(project)).get("settings")
    return project, make_plan(project, settings.read(given, defaults=defaults))


def plan(
    backend: Backends = None,
    device: Device = None,
    task: Task = None,
    config: Config = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Print what a build would do, and why; nothing is fetched or built."""
    import json as format_json

    from uniscale_build.plans.together import check_together

    project, made = resolve(backend, device, task, config)
    check_together(project, made)
    if json:
        print(format_json.dumps({**made.as_json(), "digest": made.digest}, indent=2))
        return
    _print_plan(made)


def _print_plan(made: Plan) -> None:
    from rich.console import Console
    from rich.markup import escape

    out = Console(highlight=False)
    out.print(f"[bold]uniscale {made.version}[/]   plan {made.digest[:12]}")
    for line in made.why:
        out.print(f"  [dim]{escape(line)}[/]")
    for item in made.backends:
        out.print(f"\n[bold]{item.name}[/]   for {', '.join(item.tasks)}")
        out.print(f"  pin      {item.pin.version}, commit {item.pin.commit[:12] or 'not known'}")
        for origin in item.pin.origins:
            out.print(f"  from     {escape(origin.describe())}", soft_wrap=True)
        out.print(f"  tree     {item.pin.tree[:12]}")
        for layer in item.layers:
            out.print(f"  layer    {layer.name}: {escape(layer.title)} → {layer.result[:12]}")
        out.print(f"  recipe   {item.recipe.kind}: {', '.join(item.recipe.targets)}")
        for name, value in sorted(item.recipe.defines.items()):
            out.print(f"           {escape(f'{name}={value}')}", soft_wrap=True)
        for status, text in item.adaptation.verified.items():
            out.print(f"  {status:<8} {escape(text)}", soft_wrap=True)
    if not made.backends:
        out.print("  uniscale-build plan --backend NAME shows a build with a backend")


def wheel(
    backend: Backends = None,
    device: Device = None,
    task: Task = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the wheel.")] = Path("dist"),
    split: Annotated[
        bool, typer.Option("--split", help="One wheel for each backend, and the plain one.")
    ] = False,
    revision: Annotated[
        str | None,
        typer.Option(metavar="N|auto", help="With --split: of the wheels (auto: see --index)."),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(metavar="SITE", help="With --revision auto: the index to count on from."),
    ] = None,
    config: Config = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Build the wheel; what is in the cache is used, what was interrupted goes on."""
    import json as format_json

    from uniscale_build.build.pipeline import Context
    from uniscale_build.cli.live import reporter
    from uniscale_build.store import Store
    from uniscale_build.wheels.bundle import build_wheel
    from uniscale_build.wheels.split import build_split

    more = {"revision": revision, "index": index}
    project, made = resolve(backend, device, task, config, more)
    with reporter() as live:
        context = Context(project, Store(), live)
        built = build_split(context, made, out) if split else (build_wheel(context, made, out),)
    if json:
        told = [_summary(one) for one in built]
        print(format_json.dumps({"wheels": told} if split else told[0], indent=2))
        return
    for one in built:
        _print_summary(one)
    if split:
        print(f"next: uniscale-build index {out} --out site")
    else:
        print(f"next: pip install {built[0].path}")


def _summary(built: Wheel) -> dict[str, object]:
    return {
        "wheel": str(built.path),
        "size": built.size,
        "sha256": built.sha256,
        "seconds": round(built.seconds, 2),
        "reused": built.reused,
        "payloads": [
            {"name": item.name, "key": item.key, "reused": item.reused} for item in built.payloads
        ],
    }


def _print_summary(built: Wheel) -> None:
    from uniscale_build.progress import human

    for item in built.payloads:
        print(f"{item.name}: {'from the cache' if item.reused else 'built'}")
    reused = ", unchanged" if built.reused else ""
    print(f"{built.path}  {human(built.size, 'bytes')} in {built.seconds:.1f} s{reused}")
    print(f"SHA256 {built.sha256}")


def explain(
    backend: Backends = None,
    device: Device = None,
    task: Task = None,
    config: Config = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say which inputs changed since the last build, stage by stage."""
    import dataclasses
    import json as format_json

    from uniscale_build.build.explain import explain as compare
    from uniscale_build.build.pipeline import Context
    from uniscale_build.store import Store

    project, made = resolve(backend, device, task, config)
    stages = compare(Context(project, Store()), made)
    if json:
        print(format_json.dumps([dataclasses.asdict(stage) for stage in stages], indent=2))
        return
    if not stages:
        print("no backend, so nothing is built; name one with --backend")
    for stage in stages:
        _print_stage(stage)


def _print_stage(stage: Stage) -> None:
    print(f"{stage.backend}  {stage.stage:<13} {stage.state}")
    for change in stage.changes:
        print(f"    {change.name}: {change.before or '(none)'} → {change.now or '(none)'}")


@cache.command("show")
def cache_show(json: Json = False) -> None:
    """Print where the cache is and what takes how much."""
    import dataclasses
    import json as format_json

    from uniscale_build.cachetools import shares
    from uniscale_build.progress import human
    from uniscale_build.store import Store

    store = Store()
    found = shares(store)
    if json:
        about = {"cache": str(store.root), "shares": [dataclasses.asdict(item) for item in found]}
        print(format_json.dumps(about, indent=2))
        return
    print(store.root)
    for item in found:
        print(f"  {item.name:<10} {human(item.size, 'bytes'):>9}  {item.entries:>4}  {item.note}")
    print("next: uniscale-build cache gc --older 30 removes what was not used for 30 days")


@cache.command("gc")
def cache_gc(
    older: Annotated[float, typer.Option(help="Days since the last use.", min=0)] = 30.0,
    everything: Annotated[bool, typer.Option("--all", help="Whatever its age.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell.")] = False,
    json: Json = False,
) -> None:
    """Remove what was not used for a while; everything in the cache can be made again."""
    import json as format_json

    from uniscale_build.cachetools import collect, disk_use
    from uniscale_build.progress import human
    from uniscale_build.store import Store

    store = Store()
    before = disk_use(store.root)
    gone = collect(store, older_than=older * 86400, everything=everything, dry_run=dry_run)
    freed = 0 if dry_run else before - disk_use(store.root)
    if json:
        print(format_json.dumps({"removed": [str(path) for path in gone], "freed": freed}))
        return
    for path in gone:
        print(f"{'would remove' if dry_run else 'removed'} {path.relative_to(store.root)}")
    print(f"{len(gone)} entries, {human(freed, 'bytes')} freed")
