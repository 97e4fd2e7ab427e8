"""Merges requirement files: every line stands alone, known by its project and its marker."""

from __future__ import annotations

import re
from collections import Counter

from uniscale_build.structural.pysource import Doubt
from uniscale_build.structural.threeway import merge

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*([^;#]*)(;[^#]*)?(#.*)?\s*")


def merge_requirements(base: str, ours: str, theirs: str) -> tuple[str, list[str]]:
    """The merged text and a note for each conflict; `Doubt` where one stays."""
    sides = [_lines(text) for text in (base, ours, theirs)]
    regions = merge(*sides)
    out: list[str] = []
    notes: list[str] = []
    for region in regions:
        if region.kind != "conflict":
            at, span = (2, region.theirs) if region.kind == "theirs" else (1, region.ours)
            out += sides[at][slice(*span)]
            continue
        parts = [side[slice(*span)] for side, span in
                 zip(sides, (region.base, region.ours, region.theirs), strict=True)]  # fmt: skip
        if not all(line.endswith("\n") for part in parts for line in part):
            raise Doubt("no end of line")
        notes.append(f"requirements at line {region.ours[0] + 1}")
        out += _requirement_lines(*parts)
    if not notes:
        raise Doubt("git sees a conflict where we see none")
    named, before = (Counter(filter(None, map(_project, lines))) for lines in (out, sides[1]))
    if any(count > max(1, before[project]) for project, count in named.items()):
        raise Doubt("a project would be required twice")
    return "".join(out), notes


def _project(line: str) -> tuple[str, str] | None:
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    match = _REQUIREMENT.fullmatch(line.rstrip("\r\n"))
    if match is None:
        raise Doubt("not a plain requirement")
    marker = re.sub(r"\s+", "", match.group(3) or "")
    return re.sub(r"[-_.]+", "-", match.group(1)).lower(), marker


def _requirement_lines(base: list[str], ours: list[str], theirs: list[str]) -> list[str]:
    """Ours' lines, what theirs added behind them, without what theirs removed."""
    added = list((Counter(theirs) - Counter(base)).elements())
    removed = Counter(base) - Counter(theirs)
    mine = {_project(line) for line in (Counter(ours) - Counter(base))} - {None}
    gone = {_project(line) for line in (Counter(base) - Counter(ours))} - {None}
    for line in [*added, *removed]:
        if _project(line) in mine | gone and line not in ours:
            raise Doubt("both sides changed the same requirement")
    kept = []
    for line in ours:
        if removed[line] > 0:
            removed[line] -= 1
        else:
            kept.append(line)
    return kept + [line for line in added if line not in kept]


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)
