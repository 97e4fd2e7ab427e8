"""Shows drift: a table for terminals, and one HTML file with a picture that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape

from uniscale_build.porting.drift import (
    APPLIES,
    CONFLICT,
    MERGES,
    STATES,
    TAKEN,
    Column,
    Drift,
    File,
)

_WORDS = {
    APPLIES: "applies as it is",
    MERGES: "merges",
    TAKEN: "upstream has it",
    CONFLICT: "conflicts",
}
# Told apart without colour too: every state has a letter, and the bars have numbers.
_LETTERS = {APPLIES: "", MERGES: "m", TAKEN: "u", CONFLICT: "c"}
_COLOURS = {APPLIES: "#2e7d5b", MERGES: "#d9a520", TAKEN: "#5b7db1", CONFLICT: "#b3392f"}
_INK = {APPLIES: "#fff", MERGES: "#1d2327", TAKEN: "#fff", CONFLICT: "#fff"}


def sentences(drift: Drift) -> list[str]:
    """What the table says, in words."""
    where = f"{drift.backend} {drift.pin}" + (f" for {drift.device}" if drift.device else "")
    layers = ", ".join(drift.layers) or "no layers"
    applies = drift.newest(lambda column: column.everything_applies)
    merges = drift.newest(lambda column: column.nobody_needed)
    return [
        f"{where}: {layers}",
        f"the newest version where everything applies as it is: {applies or 'none of these'}",
        f"the newest version that needs no decision by a person: {merges or 'none of these'}",
    ]


def table(drift: Drift) -> list[str]:
    """Lines for a terminal, one for each version."""
    head = ["version", *STATES]
    rows = [
        [column.version, *(str(column.counts[state]) for state in STATES)]
        if column.error is None
        else [column.version, *("?" for _ in STATES)]
        for column in drift.columns
    ]
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(len(head))]
    lines = []
    for row, column in zip((head, *rows), (None, *drift.columns), strict=True):
        line = row[0].ljust(widths[0]) + "".join(
            "  " + cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)
        )
        if column is not None:
            line += "   " + (column.error.what if column.error else _bar(column))
        lines.append(line.rstrip())
    return lines


def _bar(column: Column) -> str:
    total = max(1, len(column.files))
    marks = {APPLIES: "=", MERGES: "+", TAKEN: ".", CONFLICT: "!"}
    return "".join(
        marks[state] * (-(-30 * column.counts[state] // total) if column.counts[state] else 0)
        for state in STATES
    )[:34]


def page(drift: Drift) -> str:
    """The report as one HTML page."""
    first, *rest = sentences(drift)
    title = f"Drift of {drift.backend}" + (f" on {drift.device}" if drift.device else "")
    body = "\n".join(
        [
            f"<h1>{escape(title)}</h1>",
            f"<p>{escape(first)}</p>",
            "".join(f"<p class=answer>{escape(text[0].upper() + text[1:])}.</p>" for text in rest),
            _legend(),
            "<figure>" + picture(drift.columns) + "</figure>",
            *_failures(drift.columns),
            _matrix(drift),
            *_conflicts(drift.columns),
        ]
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>\n"
        f"<body><main>{body}</main></body></html>\n"
    )


_STYLE = """
:root{--ink:#1d2327;--soft:#5c666d;--line:#d9dee2;--paper:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaed;--soft:#9aa5ad;--line:#3a4248;--paper:#15191c}}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:76rem;margin:2rem auto;padding:0 1.25rem}
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
p{margin:.2rem 0}.answer{font-weight:600}figure{margin:1.5rem 0;overflow-x:auto}
svg text{fill:var(--ink);font:13px system-ui,sans-serif}svg .soft{fill:var(--soft)}
svg .in{font-weight:600}svg line{stroke:var(--line)}
.key{display:inline-flex;align-items:center;margin:1rem 1.5rem 0 0;color:var(--soft)}
.key b{display:inline-block;width:1rem;height:1rem;border-radius:3px;margin-right:.4rem}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}
th,td{border:1px solid var(--line);padding:.15rem .5rem;text-align:left;vertical-align:top}
td.s{text-align:center;font-weight:600;min-width:2.2rem}td.none{background:none}
code{font-size:12.5px;overflow-wrap:anywhere}
"""


def _legend() -> str:
    return "<div>" + "".join(
        f'<span class=key><b style="background:{_COLOURS[state]}"></b>{_WORDS[state]}'
        + (f" ({_LETTERS[state]})" if _LETTERS[state] else "")
        + "</span>"
        for state in STATES
    ) + "</div>"  # fmt: skip


def picture(columns: Sequence[Column]) -> str:
    """Bars of files for each version, as SVG."""
    left, width, step, bar = 120, 760, 34, 24
    most = max((len(column.files) for column in columns), default=1) or 1
    height = step * len(columns) + 46
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 60} {height}" '
        f'width="{left + width + 60}" height="{height}" role="img" '
        'aria-label="Files of the layers that apply, merge or conflict, by version">'
    ]
    for files in range(0, most + 1, _round_step(most)):
        x = left + width * files / most
        parts.append(f'<line x1="{x:.1f}" y1="8" x2="{x:.1f}" y2="{height - 34}"/>')
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{height - 14}" text-anchor="middle">{files}</text>'
        )
    for number, column in enumerate(columns):
        y = 12 + number * step
        parts.append(
            f'<text x="{left - 12}" y="{y + 17}" text-anchor="end">{escape(column.version)}</text>'
        )
        if column.error is not None:
            parts.append(f'<text class="soft" x="{left + 8}" y="{y + 17}">not looked at</text>')
        parts += _segments(column.counts, left, y, width / most, bar)
    parts.append("</svg>")
    return "".join(parts)


def _round_step(most: int) -> int:
    """The distance of grid lines: 1, 2 or 5 times a power of ten, at most six of them."""
    step = 1
    while most / step > 6:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _segments(
    counts: Mapping[str, int], left: float, y: int, scale: float, bar: int
) -> Iterator[str]:
    x = left
    for state in STATES:
        wide = counts[state] * scale
        if not wide:
            continue
        yield (
            f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{bar}" rx="2" '
            f'fill="{_COLOURS[state]}"><title>{counts[state]} {_WORDS[state]}</title></rect>'
        )
        if wide > 9 * len(str(counts[state])) + 4:
            yield (
                f'<text class="in" style="fill:{_INK[state]}" x="{x + wide / 2:.1f}" '
                f'y="{y + 17}" text-anchor="middle">{counts[state]}</text>'
            )
        x += wide


def _failures(columns: Iterable[Column]) -> Iterator[str]:
    for column in columns:
        if column.error is not None:
            yield f"<p>{escape(column.version)}: {escape(column.error.what)}</p>"


def _matrix(drift: Drift) -> str:
    """The files that do not simply apply everywhere, with a cell for each version."""
    columns = [column for column in drift.columns if column.error is None]
    cells: dict[tuple[str, str], dict[str, File]] = {}
    for column in columns:
        for file in column.files:
            cells.setdefault((file.layer, file.path), {})[column.version] = file
    rows = {
        key: found
        for key, found in sorted(cells.items())
        if any(file.state != APPLIES for file in found.values())
    }
    calm = len(cells) - len(rows)
    head = "".join(f"<th>{escape(column.version)}</th>" for column in columns)
    lines = []
    for (layer, path), found in rows.items():
        line = "".join(_cell(found.get(column.version)) for column in columns)
        lines.append(f"<tr><td>{escape(layer)}</td><td><code>{escape(path)}</code></td>{line}</tr>")
    return (
        f"<h2>Files</h2><p>{calm} of {len(cells)} files apply as they are on every version and are "
        "not listed.</p>"
        + (
            f"<div class=wide><table><thead><tr><th>layer</th><th>file</th>{head}</tr></thead>"
            f"<tbody>{''.join(lines)}</tbody></table></div>"
            if rows
            else ""
        )
    )


def _cell(file: File | None) -> str:
    if file is None:
        return '<td class="none"></td>'
    title = escape(f"{file.kind}: {file.detail}" if file.detail else file.kind, quote=True)
    return (
        f'<td class=s style="background:{_COLOURS[file.state]};color:{_INK[file.state]}" '
        f'title="{title}">'
        f"{_LETTERS[file.state]}</td>"
    )


def _conflicts(columns: Iterable[Column]) -> Iterator[str]:
    for column in columns:
        found = [file for file in column.files if file.state == CONFLICT]
        if not found:
            continue
        items = "".join(
            f"<li><code>{escape(file.path)}</code>: {escape(file.kind)}"
            + (f", {escape(file.detail)}" if file.detail else "")
            + "</li>"
            for file in found
        )
        yield f"<h2>Conflicts with {escape(column.version)}</h2><ul>{items}</ul>"
