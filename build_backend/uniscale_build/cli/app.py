"""The typer application: command modules are imported for their signatures alone."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="uniscale-build",
    help="Build any LLM backend for any chip into one verified wheel.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

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


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _register() -> None:
    # The order here is the order in --help: bring up, build, keep, publish.
    from uniscale_build.cli import build, devices, inplace, matrix, port, publish, review, vendor

    for module in (build, matrix, devices, inplace, review, port, vendor, publish):
        module.register(app)


_register()
