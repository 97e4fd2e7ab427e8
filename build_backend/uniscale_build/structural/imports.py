"""Merges runs of Python import statements that two sides changed: name by name."""

from __future__ import annotations

import ast
from collections import Counter
from dataclasses import dataclass

from uniscale_build.structural.celltext import inserted, joined
from uniscale_build.structural.elements import container
from uniscale_build.structural.pysource import Doubt, Excerpt, Source, Unit
from uniscale_build.structural.weaving import Edit, applied


@dataclass(frozen=True)
class Name:
    """One imported name: the statement's module (None for ``import x``), the name, its alias."""

    module: str | None
    name: str
    alias: str | None

    @property
    def binds(self) -> str:
        """The name that the file sees afterwards."""
        return self.alias or self.name


def is_import(unit: Unit) -> bool:
    """True for ``import …`` and ``from … import …``."""
    return isinstance(unit.node, ast.Import | ast.ImportFrom)


def names(unit: Unit) -> list[Name]:
    """What one import statement brings in."""
    node = unit.node
    if isinstance(node, ast.ImportFrom):
        module: str | None = "." * node.level + (node.module or "")
    elif isinstance(node, ast.Import):
        module = None
    else:
        raise Doubt("not an import")
    return [Name(module, alias.name, alias.asname) for alias in node.names]


class _Run:
    """The import statements of one version."""

    def __init__(self, side: Excerpt) -> None:
        self.side = side
        self.source = side.source
        self.units = side.units if side.text.strip() else []

    def all(self) -> list[Name]:
        return [name for unit in self.units for name in names(unit)]

    def unit_from(self, module: str | None) -> Unit | None:
        """The statement that imports from ``module`` (never a plain ``import``)."""
        if module is None:
            return None
        return next((u for u in self.units if names(u)[0].module == module), None)


def merge_runs(base: Excerpt, ours: Excerpt, theirs: Excerpt) -> str:
    """The lines of ours with what theirs added and removed; `Doubt` if unsure."""
    b, o, t = _Run(base), _Run(ours), _Run(theirs)
    added = list((Counter(t.all()) - Counter(b.all())).elements())
    removed = list((Counter(b.all()) - Counter(t.all())).elements())
    _check(b, o, added, removed)
    added = [name for name in added if name not in o.all()]
    removed = [name for name in removed if name in o.all()]
    edits = _taken_out(o, removed) + _put_in(b, o, t, added)
    text = applied(ours.text, edits, o.source.starts[ours.shift])
    _verify(o, text, added, removed)
    return text


def _check(b: _Run, o: _Run, added: list[Name], removed: list[Name]) -> None:
    here, before = o.all(), b.all()
    for name in added:
        if name.module == "__future__" and o.unit_from("__future__") is None:
            raise Doubt("a __future__ import must come first")
        known = name.module is not None and b.unit_from(name.module) is not None
        if known and o.unit_from(name.module) is None:
            raise Doubt("one side moved away from the module that the other imports more from")
        others = [n for n in here if n.binds == name.binds and n != name and n not in removed]
        if others:
            raise Doubt(f"{name.binds} would be imported twice")
    gone = {name.binds for name in removed if name not in here}
    if gone & {name.binds for name in here if name not in before}:
        raise Doubt("one side moved a name that the other removed")


def _taken_out(o: _Run, removed: list[Name]) -> list[Edit]:
    edits = []
    for unit in o.units:
        kept = [name for name in names(unit) if name not in removed]
        if len(kept) == len(names(unit)):
            continue
        if kept:
            raise Doubt("a name leaves a statement that the other side changed")
        edits.append(Edit(o.source.starts[unit.start], o.source.starts[unit.end], ""))
    return edits


def _put_in(b: _Run, o: _Run, t: _Run, added: list[Name]) -> list[Edit]:
    edits: dict[int, Edit] = {}
    for unit in t.units:
        new = [name for name in names(unit) if name in added]
        if not new:
            continue
        target = o.unit_from(new[0].module)
        if target is not None:
            edit = _into(o.source, target, t.source, unit, new)
        elif len(new) == len(names(unit)):
            at = o.source.starts[_place(o, t, unit)]
            edit = Edit(at, at, _with_notes(b, t, unit))
        else:
            raise Doubt("a statement that is only partly new")
        if edit.start != edit.end and edit.start in edits:
            raise Doubt("two statements go into one")
        earlier = edits.get(edit.start)
        edits[edit.start] = Edit(
            edit.start, edit.end, (earlier.text if earlier else "") + edit.text
        )
    return list(edits.values())


def _into(ours: Source, target: Unit, theirs: Source, unit: Unit, new: list[Name]) -> Edit:
    """Ours' statement with names added, in order when its names are in order."""
    mine, yours = container(ours, target.node), container(theirs, unit.node)
    if mine is None or yours is None:
        raise Doubt("not a list of names")
    have = [name.name for name in names(target)]
    if "*" in have or any(name.name == "*" for name in new):
        raise Doubt("a star import")
    cells = list(mine.cells.cells)
    for name, cell in zip(names(unit), yours.cells.cells, strict=True):
        if name not in new:
            continue
        at = len(have)
        if have == sorted(have, key=str.casefold):
            at = sum(word.casefold() <= name.name.casefold() for word in have)
        elif have == sorted(have):
            at = sum(word <= name.name for word in have)
        cells = inserted(cells, at, cell, mine.cells)
        have.insert(at, name.name)
    text = joined(cells, mine.cells.tail, comma=mine.cells.cells[-1].comma)
    return Edit(mine.cells.start, mine.cells.end, text)


def _place(o: _Run, t: _Run, unit: Unit) -> int:
    """Ours' line before which a new statement goes: behind its predecessor in theirs."""
    at = t.units.index(unit)
    keys = {_key(mine): mine for mine in o.units}
    for before in reversed(t.units[:at]):
        if _key(before) in keys:
            return keys[_key(before)].end
    for after in t.units[at + 1 :]:
        if _key(after) in keys:
            return keys[_key(after)].start
    return o.side.end


def _key(unit: Unit) -> tuple[str | None, str]:
    first = names(unit)[0]
    return (first.module, "" if first.module is not None else first.name)


def _with_notes(b: _Run, t: _Run, unit: Unit) -> str:
    """A statement with the new comment lines directly above it, whole lines."""
    known = b.source.comments()
    start = unit.start
    while start > t.side.shift:
        above = t.source.lines[start - 1].strip()
        if not above.startswith("#") or above in known:
            break
        start -= 1
    text = t.source.slice(start, unit.end)
    return text if text.endswith("\n") else text + "\n"


def _verify(o: _Run, text: str, added: list[Name], removed: list[Name]) -> None:
    merged = _Run(o.side.replaced(text))
    if not all(is_import(unit) for unit in merged.units):
        raise Doubt("more than imports changed")
    if Counter(merged.all()) != Counter(o.all()) + Counter(added) - Counter(removed):
        raise Doubt("the text does not say what it should")
