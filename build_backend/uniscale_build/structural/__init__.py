"""Resolves conflicts that lines cannot: Python imports, lists, dicts, arguments, requirements.

Where both sides added elements to one container, or names to one block of imports, there is no
conflict of meaning. Anything that is not certain stays a conflict, and what comes out compiles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from uniscale_build.structural.imports import is_import, merge_runs
from uniscale_build.structural.pysource import (
    BODIES,
    Doubt,
    Excerpt,
    Source,
    Unit,
    check_compiles,
    excerpt,
)
from uniscale_build.structural.requirements import merge_requirements
from uniscale_build.structural.threeway import Hunk, Region, diff, merge_hunks
from uniscale_build.structural.weaving import merge_statement

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


@dataclass(frozen=True)
class _Three:
    """The three versions of one file."""

    base: Source
    ours: Source
    theirs: Source

    @property
    def sides(self) -> tuple[Source, Source, Source]:
        return self.base, self.ours, self.theirs


_Span = tuple[int, int]
_Spans = tuple[_Span, _Span, _Span]
# A line that begins a statement which is neither an import nor a value: no container holds it, and
# vendors' changes mostly have one. Seeing that first spares the parsing of whole files.
_HOPELESS = re.compile(
    r"\s*(if|elif|else|for|while|with|try|except|finally|return|raise|assert|del|pass|break"
    r"|continue|yield|global|nonlocal|match|case)\b"
)


def _python(base: str, ours: str, theirs: str) -> tuple[str, list[str]]:
    three = _Three(Source(base), Source(ours), Source(theirs))
    notes: list[str] = []
    for _ in range(_MOST):
        hunks = tuple(diff(three.base.lines, side.lines) for side in three.sides[1:])
        regions = merge_hunks(three.ours.lines, three.theirs.lines, len(three.base.lines), *hunks)
        open_regions = [region for region in regions if region.kind == "conflict"]
        if not open_regions:
            break
        if any(_hopeless(three, region) for region in open_regions):
            raise Doubt("statements, not elements")
        three, note = _resolved(three, open_regions[0], hunks)
        notes.append(note)
    else:
        raise Doubt("too many conflicts")
    if not notes:
        raise Doubt("git sees a conflict where we see none")
    text = "".join(_pieces(three, regions))
    check_compiles(text)
    return text, notes


def _hopeless(three: _Three, region: Region) -> bool:
    places = (region.base, region.ours, region.theirs)
    return any(
        _HOPELESS.match(line)
        for source, span in zip(three.sides, places, strict=True)
        for line in source.lines[slice(*span)]
    )


def _pieces(three: _Three, regions: list[Region]) -> list[str]:
    return [
        three.theirs.slice(*region.theirs)
        if region.kind == "theirs"
        else three.ours.slice(*region.ours)
        for region in regions
    ]


def _resolved(three: _Three, region: Region, hunks: tuple[list[Hunk], ...]) -> tuple[_Three, str]:
    """The three texts with the place of ``region`` made equal, and what was done there."""
    try:
        spans, text, note = _one_statement(three, region)
    except Doubt:
        spans, text, note = _import_run(three, region)
    _check_aligned(spans, hunks)
    base, ours, theirs = (
        Source(side.replaced(*span, text)) for side, span in zip(three.sides, spans, strict=True)
    )
    return _Three(base, ours, theirs), f"{note} at line {spans[1][0] + 1}"


_Resolution = tuple[_Spans, str, str]


def _one_statement(three: _Three, region: Region) -> _Resolution:
    places = (region.ours, region.theirs, region.base)
    # Ours first: where it says no, the others need not be parsed.
    units = [_unit_over(side, span) for side, span in
             zip((three.ours, three.theirs, three.base), places, strict=True)]  # fmt: skip
    ours, theirs, base = units
    spans = ((base.start, base.end), (ours.start, ours.end), (theirs.start, theirs.end))
    parts = _excerpts(three, spans, header=any(hasattr(ours.node, field) for field in BODIES))
    text = merge_statement(*parts)
    _check_comments(*parts, text)
    kind = "imported names" if is_import(ours) else "elements of one statement"
    return spans, text, kind


def _excerpts(
    three: _Three, spans: _Spans, *, header: bool = False
) -> tuple[Excerpt, Excerpt, Excerpt]:
    b, o, t = (
        excerpt(side, *span, header=header) for side, span in zip(three.sides, spans, strict=True)
    )
    return b, o, t


def _unit_over(source: Source, span: _Span) -> Unit:
    """The one statement or header that holds all of ``span``."""
    for unit in source.units:
        inside = unit.start < span[0] < unit.end if span[0] == span[1] else (
            unit.start <= span[0] and span[1] <= unit.end
        )  # fmt: skip
        if inside:
            return unit
    raise Doubt("the conflict is not in one statement")


def _import_run(three: _Three, region: Region) -> _Resolution:
    ours, theirs, base = (
        _run_over(side, span)
        for side, span in (
            (three.ours, region.ours), (three.theirs, region.theirs), (three.base, region.base),
        )
    )  # fmt: skip
    spans = (base, ours, theirs)
    parts = _excerpts(three, spans)
    text = merge_runs(*parts)
    _check_comments(*parts, text)
    return spans, text, "import block"


def _run_over(source: Source, span: _Span) -> _Span:
    """The lines of the import statements that ``span`` touches; `Doubt` for other lines."""
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
    return start, end


def _check_aligned(spans: _Spans, hunks: tuple[list[Hunk], ...]) -> None:
    """`Doubt` unless the spans begin and end at corresponding places in all three texts."""
    for other, side in zip(spans[1:], hunks, strict=True):
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


def _check_comments(base: Excerpt, ours: Excerpt, theirs: Excerpt, text: str) -> None:
    """`Doubt` when a comment of either side would be lost, or one that was removed come back."""
    was, mine, yours, made = (
        side.source.comments() for side in (base, ours, theirs, ours.replaced(text))
    )
    for note in {*was, *mine, *yours, *made}:
        b, o, t = was[note], mine[note], yours[note]
        wanted = {t} if o == b else {o} if t == b else {o, o + t - b} if o == t else {o + t - b}
        if made[note] not in wanted:
            raise Doubt("a comment would be lost")
