"""Resolves conflicts that lines cannot: Python imports, lists, dicts, arguments, requirements.

Where both sides added elements to one container, or names to one block of imports, there is no
conflict of meaning. Anything that is not certain stays a conflict, and what comes out compiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from uniscale_build.structural.imports import is_import, merge_runs
from uniscale_build.structural.pysource import Doubt, Source, Unit, parse
from uniscale_build.structural.requirements import merge_requirements
from uniscale_build.structural.threeway import Hunk, Region, diff, merge
from uniscale_build.structural.weaving import Three

# A file with more conflicts than this was rewritten: a person has to look at it anyway.
_MOST = 40


@dataclass(frozen=True)
class Merged:
    """What the structural merge made: the whole text, and for each conflict what it was."""

    data: bytes
    notes: tuple[str, ...]


def merge_file(path: str, base: bytes, ours: bytes, theirs: bytes) -> Merged | None:
    """The merge of three versions of ``path``, or None when any conflict in it stays one."""
    try:
        texts = [data.decode("utf-8") for data in (base, ours, theirs)]
        if path.endswith((".py", ".pyi")):
            text, notes = _python(*texts)
        elif re.search(r"(^|/)requirements[^/]*(/[^/]+)?\.(txt|in)$", path):
            text, notes = merge_requirements(*texts)
        else:
            return None
    except (Doubt, UnicodeDecodeError, RecursionError):
        return None
    return Merged(text.encode("utf-8"), tuple(notes))


def _python(base: str, ours: str, theirs: str) -> tuple[str, list[str]]:
    three = Three(Source(base), Source(ours), Source(theirs))
    notes: list[str] = []
    for _ in range(_MOST):
        regions = merge(three.base.lines, three.ours.lines, three.theirs.lines)
        region = next((region for region in regions if region.kind == "conflict"), None)
        if region is None:
            break
        three, note = _resolved(three, region)
        notes.append(note)
    else:
        raise Doubt("too many conflicts")
    if not notes:
        raise Doubt("git sees a conflict where we see none")
    text = "".join(_pieces(three, regions))
    parse(text)
    return text, notes


def _pieces(three: Three, regions: list[Region]) -> list[str]:
    return [
        three.theirs.slice(*region.theirs)
        if region.kind == "theirs"
        else three.ours.slice(*region.ours)
        for region in regions
    ]


_Span = tuple[int, int]


def _resolved(three: Three, region: Region) -> tuple[Three, str]:
    """The three texts with the place of ``region`` made equal, and what was done there."""
    hunks = (diff(three.base.lines, three.ours.lines), diff(three.base.lines, three.theirs.lines))
    try:
        spans, text, note = _one_statement(three, region)
    except Doubt:
        spans, text, note = _import_run(three, region)
    _check_aligned(spans, hunks)
    _check_comments(three, spans, text)
    done = Three(
        Source(three.base.replaced(*spans[0], text)),
        Source(three.ours.replaced(*spans[1], text)),
        Source(three.theirs.replaced(*spans[2], text)),
    )
    return done, f"{note} at line {spans[1][0] + 1}"


_Resolution = tuple[tuple[_Span, _Span, _Span], str, str]


def _one_statement(three: Three, region: Region) -> _Resolution:
    sides = (three.base, three.ours, three.theirs)
    places = (region.base, region.ours, region.theirs)
    units = [_unit_over(source, span) for source, span in zip(sides, places, strict=True)]
    text = three.statement(*units)
    spans = [(unit.start, unit.end) for unit in units]
    kind = "imported names" if is_import(units[1]) else "elements of one statement"
    return (spans[0], spans[1], spans[2]), text, kind


def _unit_over(source: Source, span: _Span) -> Unit:
    """The one statement or header that holds all of ``span``."""
    for unit in source.units:
        inside = unit.start < span[0] < unit.end if span[0] == span[1] else (
            unit.start <= span[0] and span[1] <= unit.end
        )  # fmt: skip
        if inside:
            return unit
    raise Doubt("the conflict is not in one statement")


def _import_run(three: Three, region: Region) -> _Resolution:
    sides = (three.base, three.ours, three.theirs)
    places = (region.base, region.ours, region.theirs)
    runs = [_run_over(source, span) for source, span in zip(sides, places, strict=True)]
    spans = (runs[0][0], runs[1][0], runs[2][0])
    text = merge_runs(
        (three.base, runs[0][1]), (three.ours, runs[1][1]), (three.theirs, runs[2][1]), spans[1]
    )
    return spans, text, "import block"


def _run_over(source: Source, span: _Span) -> tuple[_Span, list[Unit]]:
    """The import statements that ``span`` touches, and their lines; `Doubt` for other lines."""
    start, end = span
    units = [u for u in source.units if u.start < end and start < u.end]
    if not all(is_import(unit) for unit in units):
        raise Doubt("more than imports changed")
    if units:
        start, end = min(start, units[0].start), max(end, units[-1].end)
    covered = {line for unit in units for line in range(unit.start, unit.end)}
    for line in range(start, end):
        text = source.lines[line].strip()
        if line not in covered and text and not text.startswith("#"):
            raise Doubt("more than imports changed")
    return (start, end), units


def _check_aligned(spans: tuple[_Span, _Span, _Span], hunks: tuple[list[Hunk], list[Hunk]]) -> None:
    """`Doubt` unless the spans begin and end at corresponding places in all three texts."""
    for other, side in ((spans[1], hunks[0]), (spans[2], hunks[1])):
        for here, there in zip(spans[0], other, strict=True):
            shift = 0
            for hunk in side:
                if hunk.a1 <= here and hunk.b1 <= there:
                    shift = hunk.b1 - hunk.a1
                elif hunk.a0 < here or hunk.b0 < there:
                    raise Doubt("the statements are not at the same place")
                elif hunk.a0 >= here and hunk.b0 >= there:
                    break
            if here + shift != there:
                raise Doubt("the statements are not at the same place")


def _check_comments(three: Three, spans: tuple[_Span, _Span, _Span], text: str) -> None:
    """`Doubt` when a comment of either side would be lost, or one that was removed come back."""
    was, mine, yours = (
        source.comments(*span)
        for source, span in zip((three.base, three.ours, three.theirs), spans, strict=True)
    )
    source = Source(three.ours.replaced(*spans[1], text))
    size = text.count("\n") + (not text.endswith("\n"))
    made = source.comments(spans[1][0], spans[1][0] + size)
    for note in {*was, *mine, *yours, *made}:
        b, o, t = was[note], mine[note], yours[note]
        wanted = {t} if o == b else {o} if t == b else {o, o + t - b} if o == t else {o + t - b}
        if made[note] not in wanted:
            raise Doubt("a comment would be lost")
