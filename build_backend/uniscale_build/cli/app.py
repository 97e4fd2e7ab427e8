"""The typer application: command modules are imported for their signatures alone."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

# The modules and their commands, in the order of --help: bring up, build, keep, publish.
COMMANDS = {
    "build": ("plan", "wheel", "explain", "cache"),
    "matrix": ("matrix",),
    "devices": ("doctor", "new-device", "new-backend", "devices"),
    "inplace": ("unpatch", "patch", "status"),
    "review": ("check", "drift", "identify"),
    "port": ("port",),
    "vendor": ("import-flagscale", "seal", "unseal", "keygen"),
    "publish": ("index",),
}

Backend = Annotated[str, typer.Option("--backend", "-b", help="Backend, e.g. vllm or llama.cpp.")]
Device = Annotated[
    str | None, typer.Option("--device", "-d", help="Device, e.g. cpu or Cambricon_MLU.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show tracebacks and tool output.")]


def _version(value: bool) -> None:
    if value:
        from uniscale_build import __version__

        typer.echo(f"uniscale-build {__version__}")
        raise typer.Exit


def application(word: str = "") -> typer.Typer:
    """The command line, whose first word is ``word``.

    Where that is a command, only its module is read: all of them take a fifth of a second.
    """
    app = typer.Typer(
        name="uniscale-build",
        help="Build any LLM backend for any chip into one verified wheel.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    )
    app.callback()(_options)
    for module in [name for name in COMMANDS if word in COMMANDS[name]] or COMMANDS:
        import_module(f"uniscale_build.cli.{module}").register(app)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass
