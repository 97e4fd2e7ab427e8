"""``uniscale list``: the payloads of this environment, as a table, as lines, or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from uniscale.wheels.payloads import HOW_TO_GET, Found, find
from uniscale.wheels.record import Payload

_COLUMNS = ("backend", "device", "version", "upstream", "layers", "tasks", "verified")


def listing(*, as_json: bool) -> int:
    """Print all payloads, the broken and the unreachable with the reason; 0 also for none."""
    found = find()
    if as_json:
        print(json.dumps({"payloads": [*_json(found)]}, indent=2))
    elif not (found.payloads or found.broken):
        print(f"no payload is installed in this environment ({sys.prefix})")
        print(HOW_TO_GET)
    elif sys.stdout.isatty():
        _table(found)
    else:
        _lines(found)
    return 0


def _json(found: Found) -> list[Mapping[str, object]]:
    reached = [(one, None) for one in found.payloads]
    hidden = [(one.payload, str(one.by.prefix)) for one in found.hidden]
    rows: list[Mapping[str, object]] = [
        {
            "prefix": str(one.prefix),
            "backend": one.backend,
            "device": one.device,
            "distribution": one.distribution,
            "version": one.version,
            "upstream": vars(one.upstream),
            "layers": list(one.layers),
            "tasks": list(one.tasks),
            "verified": vars(one.verified),
            "hidden_by": by,
            "broken": None,
        }
        for one, by in [*reached, *hidden]
    ]
    broken = [{"prefix": str(one.prefix), "broken": one.error.what} for one in found.broken]
    return [*rows, *broken]


def _cells(payload: Payload) -> tuple[str, ...]:
    return (
        payload.backend,
        payload.device,
        payload.version,
        _upstream(payload),
        ", ".join(payload.layers) or "-",
        ", ".join(payload.tasks),
        _verified(payload),
    )


def _upstream(payload: Payload) -> str:
    # An archive that does not tell its commit is pinned by its tree alone.
    version, commit = payload.upstream.version, payload.upstream.commit
    return f"{version} @ {commit[:9]}" if commit else version


def _verified(payload: Payload) -> str:
    verified = payload.verified
    words = [word for word, done in (("built", verified.built), ("run", verified.ran)) if done]
    told = " and ".join(words) or "not verified"
    return f"{told} ({verified.note})" if verified.note else told


def _remarks(found: Found) -> list[str]:
    return [
        *(f"broken: {one.prefix}: {one.error.what}" for one in found.broken),
        *(
            f"hidden: {one.payload.title} in {one.payload.prefix} comes after {one.by.prefix}"
            for one in found.hidden
        ),
    ]


def _lines(found: Found) -> None:
    rows = [_COLUMNS, *map(_cells, found.payloads)] if found.payloads else []
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    for remark in _remarks(found):
        print(remark)


def _table(found: Found) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if found.payloads:
        table = Table(*_COLUMNS, box=box.SIMPLE_HEAD)
        for payload in found.payloads:
            # Text, not str: a record's words are no markup.
            table.add_row(*map(Text, _cells(payload)))
        console.print(table)
    for remark in _remarks(found):
        console.print(Text(remark, style="red" if remark.startswith("broken") else "dim"))
