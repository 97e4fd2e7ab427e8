"""Lays out the text of container elements: lines, indentation, commas and comments."""

from __future__ import annotations

import io
import tokenize
from collections.abc import Sequence
from dataclasses import replace

from uniscale_build.structural.pysource import Cell, Cells, Doubt


def indent_of(cell: Cell) -> str | None:
    """The white space before an element that begins its line, else None."""
    return cell.lead.rsplit("\n", 1)[1] if "\n" in cell.lead else None


def on_own_line(cell: Cell, ours: Cells, *, shift: bool) -> Cell:
    """``cell`` on a line of its own with its comments, indented as elements of ``ours`` are."""
    style = next((c for c in ours.cells if indent_of(c) is not None), None)
    if style is None:
        raise Doubt("no line of its own for a comment")
    indent = indent_of(style) or ""
    end = "\r\n" if "\r\n" in style.lead else "\n"
    lead = end + indent + "".join(note + end + indent for note in cell.notes)
    text = shifted(cell.text, indent_of(cell), indent) if shift else cell.text
    post = ("," if cell.comma else "") + (f"  {cell.remark}" if cell.remark else "")
    return replace(cell, lead=lead, text=text, post=post)


def inserted(cells: Sequence[Cell], at: int, cell: Cell, ours: Cells) -> list[Cell]:
    """``cells`` with ``cell`` (from another file) at ``at``, laid out like its neighbour."""
    near = cells[at - 1] if at else ours.cells[0] if ours.cells else None
    remark = bool(at and cells[at - 1].remark)
    if cell.notes or cell.remark or remark or (near is not None and indent_of(near) is not None):
        new = on_own_line(cell, ours, shift=True)
    elif "\n" in cell.text:
        raise Doubt("an element of several lines in a line")
    else:
        lead = " " if at else ours.cells[0].lead if ours.cells else ""
        new = replace(cell, lead=lead, post="," if cell.comma else "")
    rest = list(cells[at:])
    if at == 0 and rest and not rest[0].lead:
        rest[0] = replace(rest[0], lead=" ")
    return [*cells[:at], new, *rest]


def joined(cells: Sequence[Cell], tail: str, *, comma: bool) -> str:
    """The text between two brackets; ``comma`` says whether one follows the last element."""
    last = len(cells) - 1
    return "".join(_with_comma(cell, comma or at < last) for at, cell in enumerate(cells)) + tail


def _with_comma(cell: Cell, wanted: bool) -> str:
    post = cell.post
    if wanted and not cell.comma:
        post = "," + post
    elif cell.comma and not wanted:
        if not post.lstrip().startswith(","):
            raise Doubt("a comment before the comma")
        post = post.replace(",", "", 1)
    return cell.lead + cell.text + post


def shifted(text: str, old: str | None, new: str | None) -> str:
    """Text of several lines moved from one indentation to another; `Doubt` where bytes would."""
    if "\n" not in text or old == new:
        return text
    if old is None or new is None or not _plain_lines(text):
        raise Doubt("an element of several lines at another indentation")
    first, *rest = text.split("\n")
    if any(line.strip() and not line.startswith(old) for line in rest):
        raise Doubt("an element of several lines at another indentation")
    return "\n".join([first, *(new + line[len(old) :] if line.strip() else line for line in rest)])


def _plain_lines(text: str) -> bool:
    """True when no string goes over a line end: its content must not change."""
    ends = (tokenize.NL, tokenize.NEWLINE)
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(f"({text}\n)\n").readline))
    except (tokenize.TokenError, SyntaxError):
        return False
    return not any(t.type not in ends and "\n" in t.string for t in tokens)
