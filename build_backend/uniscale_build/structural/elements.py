"""Containers of Python elements and how two sides' changes to one are woven together.

A container is a list, set, dict, tuple, argument list, parameter list, list of bases or list of
imported names. Its elements are matched by what they are (a key, a keyword, a name, else their
whole meaning), so that additions of both sides stand side by side.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from uniscale_build.structural.pysource import Cells, Doubt, Shape, Source, cells_between, shape
from uniscale_build.structural.threeway import Hunk, diff


@dataclass(frozen=True)
class Item:
    """One element: ``ident`` matches it on other sides, ``inner`` is the node to go down into."""

    ident: Hashable
    shape: Shape
    inner: ast.AST | None = None
    ordered: bool = False  # its position has a meaning (a positional argument)
    free: bool = True  # it may be added beside what the other side adds


@dataclass(frozen=True)
class Container:
    """The elements of one node; ``fields`` are the node's fields that they stand for."""

    node: ast.AST
    items: tuple[Item, ...]
    cells: Cells
    fields: frozenset[str]
    keyed: bool


def container(source: Source, node: ast.AST) -> Container | None:
    """The elements of ``node``, or None when it is no container (or not written as one)."""
    found = _find(source, node)
    if found is None:
        return None
    items, bounds, fields, keyed = found
    cells = cells_between(source, *bounds)
    if len(cells.cells) != len(items):
        raise Doubt("commas and elements differ in number")
    return Container(node, tuple(items), cells, frozenset(fields.split()), keyed)


_Found = tuple[list[Item], tuple[int, int], str, bool]


def _find(source: Source, node: ast.AST) -> _Found | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        items = [_alias(alias) for alias in node.names]
        return items, _name_list(source, node), "names", True
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        params = _parameters(node.args)
        return params, _after(source, node, params != []), "args", True
    if isinstance(node, ast.ClassDef):
        if not (node.bases or node.keywords):
            return None
        return _arguments(node.bases, node.keywords), _after(source, node, True), \
            "bases keywords", True  # fmt: skip
    if isinstance(node, ast.Call):
        return _arguments(node.args, node.keywords), _brackets(source, node), \
            "args keywords", True  # fmt: skip
    if isinstance(node, ast.Dict):
        pairs = [_pair(k, v) for k, v in zip(node.keys, node.values, strict=True)]
        return pairs, _brackets(source, node), "keys values", True
    if isinstance(node, ast.Set):
        return [_plain(e) for e in node.elts], _brackets(source, node), "elts", True
    if isinstance(node, ast.List):
        return [_plain(e) for e in node.elts], _brackets(source, node), "elts", False
    if isinstance(node, ast.Tuple) and source.text[source.span(node)[0]] == "(":
        alike = _alike(node.elts)
        return [_plain(e, free=alike) for e in node.elts], _brackets(source, node), "elts", False
    if isinstance(node, ast.Subscript) and not isinstance(node.slice, ast.Slice):
        parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        name = getattr(node.value, "attr", getattr(node.value, "id", ""))
        free = name in ("Literal", "Union")
        return [_plain(e, free=free) for e in parts], _brackets(source, node), "slice", free
    return None


def _alike(elements: Sequence[ast.expr]) -> bool:
    if all(isinstance(e, ast.Constant) and isinstance(e.value, str) for e in elements):
        return True
    return all(isinstance(e, ast.Name | ast.Attribute) for e in elements)


def _plain(node: ast.expr, *, free: bool = True) -> Item:
    return Item(shape(node), shape(node), None, False, free)


def _alias(alias: ast.alias) -> Item:
    return Item(("alias", alias.name, alias.asname), shape(alias))


def _pair(key: ast.expr | None, value: ast.expr) -> Item:
    whole = (shape(key), shape(value))
    if key is None:
        return Item(("**", shape(value)), whole, free=False)
    return Item(("key", shape(key)), whole, value)


def _arguments(args: Sequence[ast.expr], keywords: Sequence[ast.keyword]) -> list[Item]:
    found: list[Item] = []
    nodes: list[ast.expr | ast.keyword] = [*args, *keywords]
    for node in sorted(nodes, key=lambda n: (n.lineno, n.col_offset)):
        if isinstance(node, ast.keyword) and node.arg is not None:
            found.append(Item(("keyword", node.arg), shape(node), node.value))
        else:
            found.append(Item(("positional", shape(node)), shape(node), None, True, False))
    return found


def _parameters(args: ast.arguments) -> list[Item]:
    def one(arg: ast.arg, kind: str, default: ast.expr | None) -> Item:
        free = default is not None or kind == "keyword-only"
        return Item(("parameter", arg.arg), (kind, shape(arg), shape(default)), None, False, free)

    found: list[Item] = []
    plain = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(plain) - len(args.defaults)) + list(args.defaults)
    for at, (arg, default) in enumerate(zip(plain, defaults, strict=True)):
        found.append(one(arg, "plain", default))
        if at + 1 == len(args.posonlyargs):
            found.append(Item(("marker", "/"), "/", free=False))
    if args.vararg is not None:
        found.append(Item(("*", args.vararg.arg), shape(args.vararg), free=False))
    elif args.kwonlyargs:
        found.append(Item(("marker", "*"), "*", free=False))
    for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True):
        found.append(one(arg, "keyword-only", default))
    if args.kwarg is not None:
        found.append(Item(("**", args.kwarg.arg), shape(args.kwarg), free=False))
    return found


def _brackets(source: Source, node: ast.AST) -> tuple[int, int]:
    close = source.span(node)[1] - 1
    if close not in source.brackets:
        raise Doubt("no brackets")
    return source.brackets[close] + 1, close


def _name_list(source: Source, node: ast.Import | ast.ImportFrom) -> tuple[int, int]:
    start, end = source.span(node)
    if source.text[end - 1] == ")":
        return source.brackets[end - 1] + 1, end - 1
    words = [t for t in source.tokens if start <= t.start < end and t.string == "import"]
    return words[-1].end if isinstance(node, ast.ImportFrom) else words[0].end, end


def _after(source: Source, node: ast.stmt, wanted: bool) -> tuple[int, int]:
    """Inside the parentheses behind the name of a function or class."""
    line = getattr(node, "lineno", 1)
    start = source.offset(line, getattr(node, "col_offset", 0))
    named = getattr(node, "name", "")
    at = next(
        (i for i, t in enumerate(source.tokens) if t.start >= start and t.string == named), -1
    )
    closing = {opened: closed for closed, opened in source.brackets.items()}
    while 0 <= at < len(source.tokens) - 1:
        at += 1
        token = source.tokens[at]
        if token.string == "(":
            return token.end, closing[token.start]
        if token.string == "[":  # type parameters
            end = closing[token.start]
            at = next(i for i, t in enumerate(source.tokens) if t.start == end)
        elif token.string == ":" or not wanted:
            break
    raise Doubt("no parameter list")


@dataclass(frozen=True)
class Pick:
    """One element of the woven result, by its index on each side (None: it is not there)."""

    base: int | None
    ours: int | None
    theirs: int | None


def weave(base: Container, ours: Container, theirs: Container) -> list[Pick]:
    """The elements of the merge in order; `Doubt` where order or meaning is not certain."""
    b, o, t = ([item.ident for item in side.items] for side in (base, ours, theirs))
    left, right = _Side(diff(b, o), len(b), late=True), _Side(diff(b, t), len(b), late=False)
    _check_rivals(left, right, o, t)
    _check_removed(base, ours, theirs, left, right)
    picks: list[Pick] = []
    for gap in range(len(b) + 1):
        picks += [Pick(None, index, None) for index in left.added[gap]]
        picks += [Pick(None, None, index) for index in right.added[gap]]
        if gap < len(b) and left.kept[gap] is not None and right.kept[gap] is not None:
            picks.append(Pick(gap, left.kept[gap], right.kept[gap]))
    return _settled(picks, left, right, base, ours, theirs)


class _Side:
    """What one side did to the base's elements."""

    def __init__(self, hunks: list[Hunk], size: int, *, late: bool) -> None:
        self.hunks = hunks
        self.kept: list[int | None] = []
        self.added: list[list[int]] = [[] for _ in range(size + 1)]
        shift, at = 0, 0
        for hunk in [*hunks, Hunk(size, size, 0, 0)]:
            self.kept += [index + shift for index in range(at, hunk.a0)]
            self.kept += [None] * (hunk.a1 - hunk.a0)
            at = hunk.a1
            shift = hunk.b1 - hunk.a1
        # An element that replaces another stands between what the other side adds around it.
        for hunk in hunks:
            self.added[hunk.a1 if late else hunk.a0] += range(hunk.b0, hunk.b1)

    def hunk_over(self, index: int) -> Hunk | None:
        """The change that takes out the base's element ``index``."""
        return next((hunk for hunk in self.hunks if hunk.a0 <= index < hunk.a1), None)


def _check_rivals(left: _Side, right: _Side, o: Sequence[Hashable], t: Sequence[Hashable]) -> None:
    """`Doubt` when both sides replaced the same elements by different ones."""
    for index in range(len(left.kept)):
        mine, yours = left.hunk_over(index), right.hunk_over(index)
        if mine is None or yours is None or mine.b0 == mine.b1 or yours.b0 == yours.b1:
            continue
        if list(o[mine.b0 : mine.b1]) != list(t[yours.b0 : yours.b1]):
            raise Doubt("both sides replaced the same elements")


def _check_removed(
    base: Container, ours: Container, theirs: Container, left: _Side, right: _Side
) -> None:
    """`Doubt` when one side took out what the other changed."""
    for item, mine, yours in zip(base.items, left.kept, right.kept, strict=True):
        kept = [s.items[at] for s, at in ((ours, mine), (theirs, yours)) if at is not None]
        if len(kept) == 1 and kept[0].shape != item.shape:
            raise Doubt("one side removed what the other changed")


def _settled(
    picks: list[Pick],
    left: _Side,
    right: _Side,
    base: Container,
    ours: Container,
    theirs: Container,
) -> list[Pick]:
    """Without what both sides added, and only when nothing is moved, doubled or out of order."""
    mine = [i for added in left.added for i in added]
    yours = [i for added in right.added for i in added]
    known = Counter(item.ident for item in base.items)
    place = {ours.items[i].ident: gap for gap, added in enumerate(left.added) for i in added}
    doubled: set[int] = set()
    for gap, added in enumerate(right.added):
        for index in added:
            item = theirs.items[index]
            if item.ident in place:
                near = abs(place[item.ident] - gap) <= 1
                twin = next(ours.items[i] for i in mine if ours.items[i].ident == item.ident)
                if twin.shape != item.shape or not (near or base.keyed):
                    raise Doubt("both sides added it, but not alike")
                doubled.add(index)
    for side, added in ((ours, mine), (theirs, yours)):
        if any(known[side.items[i].ident] for i in added):
            raise Doubt("an element moved or is there twice")
    _check_free(ours, theirs, mine, [i for i in yours if i not in doubled], left, right)
    found = [
        p for p in picks if p.base is not None or p.ours is not None or p.theirs not in doubled
    ]
    idents = [_item(pick, ours, theirs).ident for pick in found]
    if base.keyed and any(n > 1 for ident, n in Counter(idents).items()):
        raise Doubt("a key is there twice")
    return found


def _check_free(
    ours: Container,
    theirs: Container,
    mine: list[int],
    yours: list[int],
    left: _Side,
    right: _Side,
) -> None:
    if mine and yours:
        rigid = [s.items[i] for s, at in ((ours, mine), (theirs, yours)) for i in at]
        if not all(item.free for item in rigid):
            raise Doubt("both sides added elements whose order has a meaning")
    if any(item.ordered for item in (*ours.items, *theirs.items)):
        moved = [_positions(side, added, s) for side, added, s in
                 ((ours, mine, left), (theirs, yours, right))]  # fmt: skip
        if all(moved):
            raise Doubt("both sides changed positional arguments")


def _positions(side: Container, added: list[int], change: _Side) -> bool:
    return any(side.items[i].ordered for i in added) or None in change.kept


def _item(pick: Pick, ours: Container, theirs: Container) -> Item:
    if pick.ours is not None:
        return ours.items[pick.ours]
    return theirs.items[pick.theirs or 0]
