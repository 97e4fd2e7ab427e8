"""``uniscale-build index``: publishes wheels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.index import Published


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command()(index)


def index(
    dist: Annotated[
        list[Path] | None, typer.Argument(help="Wheels to add, or folders of them.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="SITE", help="Folder of the index.")
    ] = Path("site"),
    remove: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Take a stored wheel out; repeat.")
    ] = None,
    yank: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE=WHY", help="Keep it, but let nobody choose it; repeat."),
    ] = None,
    unyank: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="Let it be chosen again; repeat.")
    ] = None,
    drift: Annotated[
        list[Path] | None,
        typer.Option(metavar="HTML", help="A report of `uniscale-build drift` to show; repeat."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every stored wheel again, and write all pages.")
    ] = False,
    variants: Annotated[
        bool,
        typer.Option(
            "--variants",
            help="Write variants/ too: the wheels of one backend as wheel variants "
            "(draft PEP 825, experimental). An index that has it keeps it.",
        ),
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a static package index: a channel for each device, a catalog, a page to pick from."""
    import json as format_json

    from uniscale_build.cli.live import reporter
    from uniscale_build.index import Request, publish

    request = Request(
        add=tuple(dist or ()),
        remove=tuple(remove or ()),
        yank=_reasons(yank or []),
        unyank=tuple(unyank or ()),
        drift=tuple(drift or ()),
        verify=verify,
        variants=variants,
    )
    with reporter() as live:
        made = publish(out, request, live)
    if json:
        print(format_json.dumps({**vars(made), "site": str(made.site)}, indent=2))
    else:
        _tell(made)


def _reasons(words: list[str]) -> dict[str, str]:
    from uniscale_build.errors import SettingsError

    found = {}
    for text in words:
        name, sign, why = text.partition("=")
        if not sign or not why.strip():
            raise SettingsError(f"--yank {text!r} gives no reason", slug="bad-value",
                                hint="--yank FILE=WHY; installers show why")  # fmt: skip
        found[name] = why.strip()
    return found


def _tell(made: Published) -> None:
    for word, names in (("added", made.added), ("known", made.known), ("removed", made.removed)):
        for name in names[:20]:
            print(f"{word}  {name}")
        if len(names) > 20:
            print(f"{word}  {len(names) - 20} more")
    channels = ", ".join(made.channels) or "no device yet"
    print(f"{made.site}: {made.wheels} wheels for {channels}; {made.pages} files written")
    print(f"next: look at {made.site}/index.html, or uniscale install BACKEND --index {made.site}")
