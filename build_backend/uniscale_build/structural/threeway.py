"""Line diffs and three-way merges of sequences, where positions on every side are needed.

git merges whole files and says only that they conflict. The structural merge has to know which
lines of base, ours and theirs a conflict covers; that is what this module gives.
"""

from __future__ import annotations

import bisect
import difflib
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

# difflib is quadratic where lines repeat: above this many pairs a gap is one whole change.
_GAP_PAIRS = 250_000


@dataclass(frozen=True)
class Hunk:
    """``a[a0:a1]`` became ``b[b0:b1]``; indices from 0, half open."""

    a0: int
    a1: int
    b0: int
    b1: int


@dataclass(frozen=True)
class Region:
    """One part of a three-way merge: index ranges in base, ours and theirs.

    ``kind`` is ``same`` (nobody changed it), ``ours``, ``theirs``, ``both`` (the same change on
    both sides) or ``conflict``.
    """

    kind: str
    base: tuple[int, int]
    ours: tuple[int, int]
    theirs: tuple[int, int]


def diff(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[Hunk]:
    """The changes from ``a`` to ``b``, in order, never touching each other.

    Anchored on what is unique on both sides (patience), difflib between the anchors.
    """
    hunks: list[Hunk] = []
    _diff(a, b, 0, len(a), 0, len(b), hunks)
    joined: list[Hunk] = []
    for hunk in hunks:
        if joined and joined[-1].a1 == hunk.a0 and joined[-1].b1 == hunk.b0:
            last = joined.pop()
            hunk = Hunk(last.a0, hunk.a1, last.b0, hunk.b1)
        joined.append(hunk)
    return joined


def _diff(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    a0: int,
    a1: int,
    b0: int,
    b1: int,
    out: list[Hunk],
) -> None:
    while a0 < a1 and b0 < b1 and a[a0] == b[b0]:
        a0, b0 = a0 + 1, b0 + 1
    while a0 < a1 and b0 < b1 and a[a1 - 1] == b[b1 - 1]:
        a1, b1 = a1 - 1, b1 - 1
    if a0 == a1 or b0 == b1:
        if a0 != a1 or b0 != b1:
            out.append(Hunk(a0, a1, b0, b1))
        return
    anchors = _anchors(a, b, a0, a1, b0, b1)
    if not anchors:
        _gap(a, b, a0, a1, b0, b1, out)
        return
    for left, right in anchors:
        _diff(a, b, a0, left, b0, right, out)
        a0, b0 = left + 1, right + 1
    _diff(a, b, a0, a1, b0, b1, out)


def _gap(
    a: Sequence[Hashable],
    b: Sequence[Hashable],
    a0: int,
    a1: int,
    b0: int,
    b1: int,
    out: list[Hunk],
) -> None:
    if (a1 - a0) * (b1 - b0) > _GAP_PAIRS:
        out.append(Hunk(a0, a1, b0, b1))
        return
    matcher = difflib.SequenceMatcher(None, a[a0:a1], b[b0:b1], autojunk=False)
    for tag, i0, i1, j0, j1 in matcher.get_opcodes():
        if tag != "equal":
            out.append(Hunk(a0 + i0, a0 + i1, b0 + j0, b0 + j1))


def _anchors(
    a: Sequence[Hashable], b: Sequence[Hashable], a0: int, a1: int, b0: int, b1: int
) -> list[tuple[int, int]]:
    """Pairs of equal items that are unique on both sides, as long a rising run as there is."""
    count_a, count_b = Counter(a[a0:a1]), Counter(b[b0:b1])
    place = {item: at for at, item in enumerate(b[b0:b1], b0) if count_b[item] == 1}
    pairs = [
        (at, place[item])
        for at, item in enumerate(a[a0:a1], a0)
        if count_a[item] == 1 and item in place
    ]
    tops: list[int] = []  # smallest end of a rising run of each length
    ends: list[int] = []  # index into pairs of that end
    back: list[int] = []
    for index, (_, right) in enumerate(pairs):
        length = bisect.bisect_left(tops, right)
        back.append(ends[length - 1] if length else -1)
        if length == len(tops):
            tops.append(right)
            ends.append(index)
        else:
            tops[length], ends[length] = right, index
    run: list[tuple[int, int]] = []
    at = ends[-1] if ends else -1
    while at >= 0:
        run.append(pairs[at])
        at = back[at]
    return run[::-1]


def merge(
    base: Sequence[Hashable], ours: Sequence[Hashable], theirs: Sequence[Hashable]
) -> list[Region]:
    """The three-way merge as regions that cover all three sides in order.

    Changes of the two sides that overlap or touch are one region, as in git.
    """
    return merge_hunks(ours, theirs, len(base), diff(base, ours), diff(base, theirs))


def merge_hunks(
    ours: Sequence[Hashable],
    theirs: Sequence[Hashable],
    size: int,
    mine_all: Sequence[Hunk],
    yours_all: Sequence[Hunk],
) -> list[Region]:
    """`merge` for who has both diffs already; ``size`` is the length of the base."""
    left, right = list(mine_all), list(yours_all)
    regions: list[Region] = []
    at = [0, 0, 0]
    while left or right:
        low, high = _first(left, right)
        mine, yours = [], []
        while True:
            if left and left[0].a0 <= high:
                mine.append(left.pop(0))
                high = max(high, mine[-1].a1)
            elif right and right[0].a0 <= high:
                yours.append(right.pop(0))
                high = max(high, yours[-1].a1)
            else:
                break
        _same(regions, at, low)
        ours_end = at[1] + (high - low) + _growth(mine)
        theirs_end = at[2] + (high - low) + _growth(yours)
        region = Region("", (low, high), (at[1], ours_end), (at[2], theirs_end))
        regions.append(_named(region, bool(mine), bool(yours), ours, theirs))
        at[:] = [high, ours_end, theirs_end]
    _same(regions, at, size)
    return regions


def _first(left: list[Hunk], right: list[Hunk]) -> tuple[int, int]:
    hunk = min((hunks[0] for hunks in (left, right) if hunks), key=lambda h: (h.a0, h.a1))
    return hunk.a0, hunk.a1


def _growth(hunks: list[Hunk]) -> int:
    return sum((hunk.b1 - hunk.b0) - (hunk.a1 - hunk.a0) for hunk in hunks)


def _same(regions: list[Region], at: list[int], upto: int) -> None:
    size = upto - at[0]
    if size:
        regions.append(Region("same", (at[0], upto), (at[1], at[1] + size), (at[2], at[2] + size)))
        at[:] = [upto, at[1] + size, at[2] + size]


def _named(
    region: Region,
    mine: bool,
    yours: bool,
    ours: Sequence[Hashable],
    theirs: Sequence[Hashable],
) -> Region:
    if not (mine and yours):
        kind = "ours" if mine else "theirs"
    elif list(ours[slice(*region.ours)]) == list(theirs[slice(*region.theirs)]):
        kind = "both"
    else:
        kind = "conflict"
    return Region(kind, region.base, region.ours, region.theirs)
