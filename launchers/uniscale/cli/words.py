"""What several commands have in common: what parsing gives, and the options they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

Action = Callable[[], int]

Device = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NAME", help="Device, e.g. cpu.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=VALUE", help="Change the configuration; repeatable."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts, errors too.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the traceback of an error.")]
