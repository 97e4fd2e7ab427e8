"""Merges one Python statement (or the header of one) whose three versions differ.

Goes down the three syntax trees together to the place where they part; there the elements of
containers are woven, and the text of ours is edited at exactly those elements. What comes out is
parsed again and compared with what it must mean.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

from uniscale_build.structural.celltext import indent_of, inserted, joined, on_own_line, shifted
from uniscale_build.structural.elements import Container, Pick, container, weave
from uniscale_build.structural.pysource import BODIES, Cell, Doubt, Excerpt, Source, Unit, shape


@dataclass(frozen=True)
class Edit:
    """Characters ``start`` to ``end`` of ours become ``text``."""

    start: int
    end: int
    text: str


def merge_statement(base: Excerpt, ours: Excerpt, theirs: Excerpt) -> str:
    """The merged text of one statement or header, whole lines; `Doubt` when it is not sure."""
    b, o, t = (_only_unit(side) for side in (base, ours, theirs))
    weaver = _Weaver(base.source, ours.source, theirs.source)
    edits = weaver.edits(b.node, o.node, t.node, header=True)
    start = ours.source.starts[ours.shift]
    end = ours.source.starts[ours.end]
    if any(edit.start < start or edit.end > end for edit in edits):
        raise Doubt("a change outside the statement")
    text = applied(ours.text, edits, start)
    merged = ours.replaced(text)
    weaver.verify(merged.source, b.node, o.node, t.node, _only_unit(merged).node, header=True)
    return text


def _only_unit(side: Excerpt) -> Unit:
    units = side.units
    if len(units) != 1 or (units[0].start, units[0].end) != (side.shift, side.end):
        raise Doubt("not one statement")
    return units[0]


@dataclass(frozen=True)
class _Weaver:
    """The three versions of one statement."""

    base: Source
    ours: Source
    theirs: Source

    def edits(self, b: ast.AST, o: ast.AST, t: ast.AST, *, header: bool = False) -> list[Edit]:
        """What turns the text of ``o`` into the merge of the three nodes."""
        was, mine, yours = (shape(node, header=header) for node in (b, o, t))
        if yours in (mine, was):
            return []
        if was == mine and not header:
            start, end = self.ours.span(o)
            text = self.theirs.text[slice(*self.theirs.span(t))]
            return [Edit(start, end, _moved(text, self.theirs, self.ours, t, o))]
        if not type(b) is type(o) is type(t) or isinstance(o, ast.JoinedStr):
            raise Doubt("all three differ")
        if isinstance(o, ast.ImportFrom) and _module(b) != _module(o) != _module(t):
            raise Doubt("one side moved to another module")
        sides = self._containers(b, o, t)
        done = sides[1].fields if sides else frozenset()
        found = self._fields(b, o, t, done, header)
        if sides is not None:
            found += self._woven(*sides)
        return found

    def _containers(
        self, b: ast.AST, o: ast.AST, t: ast.AST
    ) -> tuple[Container, Container, Container] | None:
        cb, co, ct = container(self.base, b), container(self.ours, o), container(self.theirs, t)
        return (cb, co, ct) if cb and co and ct else None

    def _fields(
        self, b: ast.AST, o: ast.AST, t: ast.AST, done: frozenset[str], header: bool
    ) -> list[Edit]:
        found: list[Edit] = []
        for name, mine in ast.iter_fields(o):
            if name in done or (header and name in BODIES):
                continue
            was, yours = getattr(b, name), getattr(t, name)
            if shape(yours) in (shape(mine), shape(was)):
                continue
            for triple in _children(was, mine, yours):
                found += self.edits(*triple)
        return found

    def _woven(self, b: Container, o: Container, t: Container) -> list[Edit]:
        picks = weave(b, o, t)
        cells = [self._cell(pick, b, o, t) for pick in picks]
        if [pick.ours for pick in picks] == list(range(len(o.items))) and cells == list(
            o.cells.cells
        ):
            return []
        out: list[Cell] = []
        for pick, cell in zip(picks, cells, strict=True):
            out = [*out, cell] if pick.ours is not None else inserted(out, len(out), cell, o.cells)
        if len(out) > 1 and picks[0].ours is None and picks[1].ours == 0 and not out[1].lead:
            out[1] = replace(out[1], lead=" ")
        comma = bool(o.cells.cells) and o.cells.cells[-1].comma
        return [Edit(o.cells.start, o.cells.end, joined(out, o.cells.tail, comma=comma))]

    def _cell(self, pick: Pick, b: Container, o: Container, t: Container) -> Cell:
        """The text of a woven element; what theirs alone has is still in theirs' layout."""
        if pick.ours is None:
            return t.cells.cells[pick.theirs or 0]
        mine = o.cells.cells[pick.ours]
        if pick.base is None or pick.theirs is None:
            return mine
        was, yours = b.cells.cells[pick.base], t.cells.cells[pick.theirs]
        items = b.items[pick.base], o.items[pick.ours], t.items[pick.theirs]
        text = mine.text
        if items[2].shape not in (items[0].shape, items[1].shape):
            if items[0].shape == items[1].shape:
                text = shifted(yours.text, indent_of(yours), indent_of(mine))
            else:
                text = self._inner(mine, o, pick.ours, items[0].inner, items[1].inner,
                                   items[2].inner)  # fmt: skip
        notes = _either(was.notes, mine.notes, yours.notes)
        remark = _either((was.remark,), (mine.remark,), (yours.remark,))[0]
        if notes != mine.notes or remark != mine.remark:
            return on_own_line(replace(mine, text=text, notes=notes, remark=remark), o.cells,
                               shift=False)  # fmt: skip
        return replace(mine, text=text)

    def _inner(
        self,
        cell: Cell,
        o: Container,
        at: int,
        b_node: ast.AST | None,
        o_node: ast.AST | None,
        t_node: ast.AST | None,
    ) -> str:
        if b_node is None or o_node is None or t_node is None:
            raise Doubt("both sides changed the same element")
        before = "".join(c.lead + c.text + c.post for c in o.cells.cells[:at]) + cell.lead
        start = o.cells.start + len(before)
        return applied(cell.text, self.edits(b_node, o_node, t_node), start)

    def verify(
        self,
        merged: Source,
        b: ast.AST,
        o: ast.AST,
        t: ast.AST,
        m: ast.AST,
        *,
        header: bool = False,
    ) -> None:
        """`Doubt` unless ``m`` means what the merge of the three must mean."""
        was, mine, yours, made = (shape(node, header=header) for node in (b, o, t, m))
        if yours in (mine, was) or was == mine:
            if made != (mine if yours in (mine, was) else yours):
                raise Doubt("the text does not say what it should")
            return
        if type(m) is not type(o):
            raise Doubt("the text does not say what it should")
        sides, after = self._containers(b, o, t), container(merged, m)
        done: frozenset[str] = frozenset()
        if sides is not None and after is not None:
            done = sides[1].fields
            self._verify_items(merged, *sides, after)
        for name, value in ast.iter_fields(o):
            if name in done or (header and name in BODIES):
                continue
            triple = getattr(b, name), value, getattr(t, name)
            self._verify_field(merged, *triple, getattr(m, name))

    def _verify_field(
        self, merged: Source, was: object, mine: object, yours: object, made: object
    ) -> None:
        if shape(yours) in (shape(mine), shape(was)):
            if shape(made) != shape(mine):
                raise Doubt("the text does not say what it should")
            return
        values = made if isinstance(made, list) else [made]
        triples = _children(was, mine, yours)
        if len(values) != len(triples):
            raise Doubt("the text does not say what it should")
        for triple, value in zip(triples, values, strict=True):
            self.verify(merged, *triple, value)

    def _verify_items(
        self, merged: Source, b: Container, o: Container, t: Container, m: Container
    ) -> None:
        picks = weave(b, o, t)
        if len(picks) != len(m.items):
            raise Doubt("the text does not say what it should")
        for pick, made in zip(picks, m.items, strict=True):
            was = b.items[pick.base] if pick.base is not None else None
            mine = o.items[pick.ours] if pick.ours is not None else None
            yours = t.items[pick.theirs] if pick.theirs is not None else None
            if was and mine and yours:
                nodes = was.inner, mine.inner, yours.inner, made.inner
                if all(nodes) and made.ident == mine.ident:
                    self.verify(merged, *nodes)  # type: ignore[arg-type]
                    continue
                wanted = mine.shape if yours.shape == was.shape else yours.shape
            else:
                wanted = mine.shape if mine else yours.shape if yours else None
            if made.shape != wanted:
                raise Doubt("the text does not say what it should")


def applied(text: str, edits: Sequence[Edit], start: int) -> str:
    """``text``, which begins at offset ``start``, with the edits made."""
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        text = text[: edit.start - start] + edit.text + text[edit.end - start :]
    return text


def _module(node: ast.AST) -> tuple[object, object]:
    return getattr(node, "level", None), getattr(node, "module", None)


def _children(was: object, mine: object, yours: object) -> list[tuple[ast.AST, ast.AST, ast.AST]]:
    sides = [value if isinstance(value, list) else [value] for value in (was, mine, yours)]
    if len({len(side) for side in sides}) != 1:
        raise Doubt("a list of parts changed its length")
    found = []
    for triple in zip(*sides, strict=True):
        if all(isinstance(part, ast.AST) for part in triple):
            found.append(triple)
        elif shape(triple[2]) not in (shape(triple[0]), shape(triple[1])):
            raise Doubt("a name or constant changed beside another change")
        else:
            raise Doubt("a part came or went")
    return found


def _either(was: tuple[str, ...], mine: tuple[str, ...], yours: tuple[str, ...]) -> tuple[str, ...]:
    if yours in (was, mine):
        return mine
    if mine == was:
        return yours
    raise Doubt("both sides changed a comment")


def _moved(text: str, old: Source, new: Source, t: ast.AST, o: ast.AST) -> str:
    def indent(source: Source, node: ast.AST) -> str:
        line = source.lines[getattr(node, "lineno", 1) - 1]
        return line[: len(line) - len(line.lstrip())]

    return shifted(text, indent(old, t), indent(new, o))
