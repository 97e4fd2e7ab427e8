"""Python source with exact places: statements, containers, their elements and their comments.

The structural merge works on elements (a list item, an argument, an imported name). ``ast`` tells
what they mean, ``tokenize`` where their text, commas and comments are; both are joined here.
"""

from __future__ import annotations

import ast
import functools
import io
import tokenize
import warnings
from collections import Counter
from dataclasses import dataclass


class Doubt(Exception):
    """Going on would be a guess: the conflict stays one."""


# A canonical form of a syntax tree: equal for equal meaning, whatever the layout.
Shape = object

BODIES = ("body", "orelse", "finalbody", "handlers", "cases")


@dataclass(frozen=True)
class Token:
    """One token by character offsets."""

    kind: int
    string: str
    start: int
    end: int


@dataclass(frozen=True)
class Unit:
    """A simple statement, or the header of a compound one; lines from 0, half open."""

    node: ast.stmt
    start: int
    end: int


class Source:
    """One Python file, or an excerpt of one; parsed when its tree is asked for.

    Raises `Doubt` where it is not Python, or its places cannot be told.
    """

    def __init__(self, text: str) -> None:
        if text.replace("\r\n", "").count("\r") or "\0" in text or text.startswith("\ufeff"):
            raise Doubt("line ends or bytes that Python and we may count differently")
        self.text = text
        self.lines = text.split("\n")
        self.lines = [line + "\n" for line in self.lines[:-1]] + self.lines[-1:]
        if not self.lines[-1]:
            self.lines.pop()
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line))

    @functools.cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(self.text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise Doubt("is not Python") from error

    def offset(self, line: int, column: int) -> int:
        """Characters before a place that ``ast`` gives: lines from 1, columns in UTF-8 bytes."""
        if line > len(self.lines):
            return len(self.text)
        text = self.lines[line - 1]
        if not text.isascii():
            column = len(text.encode()[:column].decode())
        return self.starts[line - 1] + column

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Where the text of an expression, argument or alias is."""
        line, column = getattr(node, "lineno", None), getattr(node, "col_offset", None)
        end, last = getattr(node, "end_lineno", None), getattr(node, "end_col_offset", None)
        if line is None or column is None or end is None or last is None:
            raise Doubt(f"{type(node).__name__} has no place")
        return self.offset(line, column), self.offset(end, last)

    @functools.cached_property
    def tokens(self) -> list[Token]:
        """Every token that has text."""
        try:
            found = list(tokenize.generate_tokens(io.StringIO(self.text).readline))
        except (tokenize.TokenError, SyntaxError) as error:
            raise Doubt("does not tokenize") from error
        starts = [*self.starts, len(self.text)]
        return [
            Token(t.type, t.string, starts[t.start[0] - 1] + t.start[1],
                  starts[t.end[0] - 1] + t.end[1])
            for t in found
            if t.string
        ]  # fmt: skip

    @functools.cached_property
    def brackets(self) -> dict[int, int]:
        """For the offset of each closing bracket, the offset of the one that opens it."""
        open_at: list[int] = []
        pairs = {}
        for token in self.tokens:
            if token.kind == tokenize.OP and token.string in "([{":
                open_at.append(token.start)
            elif token.kind == tokenize.OP and token.string in ")]}" and open_at:
                pairs[token.start] = open_at.pop()
        return pairs

    @functools.cached_property
    def units(self) -> list[Unit]:
        """Statements and headers by place; those that share a line with anything are left out."""
        found: list[Unit] = []
        self._collect(self.tree.body, found)
        found.sort(key=lambda unit: (unit.start, unit.end))
        return [
            unit
            for at, unit in enumerate(found)
            if (at == 0 or found[at - 1].end <= unit.start)
            and (at + 1 == len(found) or unit.end <= found[at + 1].start)
            and self._alone(unit)
        ]

    def _alone(self, unit: Unit) -> bool:
        """False for the body of ``if x: y`` and for what a semicolon ends."""
        before = self.lines[unit.start].strip()
        first = self.text[self.offset(unit.node.lineno, unit.node.col_offset) :]
        decorated = bool(getattr(unit.node, "decorator_list", None))
        if not decorated and not first.startswith(before):
            return False
        if any(getattr(unit.node, field, None) for field in BODIES):
            return True
        rest = self.text[self.span(unit.node)[1] : self.starts[unit.end]].strip()
        return not rest or rest.startswith("#")

    def _collect(self, body: list[ast.stmt], found: list[Unit]) -> None:
        for node in body:
            inner = [item for field in BODIES for item in getattr(node, field, None) or []]
            start = first_line(node)
            if isinstance(node, ast.stmt) and not inner:
                found.append(Unit(node, start, node.end_lineno or start + 1))
            elif isinstance(node, ast.stmt):
                below = min(first_line(item) for item in inner)
                if below > start:
                    found.append(Unit(node, start, below))
            for field in BODIES:
                self._collect(getattr(node, field, None) or [], found)

    def comments(self) -> Counter[str]:
        """All comments."""
        return Counter(t.string for t in self.tokens if t.kind == tokenize.COMMENT)

    def slice(self, start: int, end: int) -> str:
        """The text of lines ``start`` to ``end``."""
        return "".join(self.lines[start:end])

    def replaced(self, start: int, end: int, text: str) -> str:
        """The whole text with lines ``start`` to ``end`` replaced."""
        return self.text[: self.starts[start]] + text + self.text[self.starts[end] :]


def check_compiles(text: str) -> None:
    """`Doubt` unless a whole file compiles (parsing alone lets a parameter be given twice)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<merge>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Doubt("does not compile") from error


@dataclass(frozen=True)
class Excerpt:
    """Some whole statements of a file as a source of their own; ``shift`` lines stand before."""

    source: Source
    shift: int
    end: int  # the line behind the last one, in the excerpt

    @property
    def text(self) -> str:
        """The lines of the file, without what was put around them."""
        return self.source.slice(self.shift, self.end)

    @property
    def units(self) -> list[Unit]:
        """The statements in it."""
        return [unit for unit in self.source.units if self.shift <= unit.start < self.end]

    def replaced(self, text: str) -> Excerpt:
        """With another text in place of the lines of the file."""
        whole = self.source.replaced(self.shift, self.end, text)
        size = text.count("\n") + (bool(text) and not text.endswith("\n"))
        return Excerpt(Source(whole), self.shift, self.shift + size)


def excerpt(source: Source, start: int, end: int, *, header: bool = False) -> Excerpt:
    """Lines ``start`` to ``end``; a ``header`` gets a body, and indented lines a block to be in.

    Parsing and tokenising a few lines instead of the file makes the merge of many files quick.
    """
    text = source.slice(start, end)
    first = next((line for line in source.lines[start:end] if line.strip()), "")
    indent = first[: len(first) - len(first.lstrip())]
    lead = "if 1:\n" if indent else ""
    body = f"{indent} pass\n" if header else ""
    if body and not text.endswith("\n"):
        raise Doubt("a header without a body")
    shift = 1 if lead else 0
    return Excerpt(Source(lead + text + body), shift, shift + end - start)


def first_line(node: ast.AST) -> int:
    """The first line of a statement, decorators included, from 0."""
    lines = [getattr(node, "lineno", 0)]
    lines += [item.lineno for item in getattr(node, "decorator_list", None) or []]
    if isinstance(node, ast.match_case):
        lines = [node.pattern.lineno]
    return min(lines) - 1


def shape(value: object, *, header: bool = False) -> Shape:
    """The canonical form of a node, a list or a constant; ``header`` leaves bodies out."""
    if isinstance(value, ast.AST):
        fields = [
            (name, shape(item))
            for name, item in ast.iter_fields(value)
            if not (header and name in BODIES)
        ]
        return (type(value).__name__, tuple(fields))
    if isinstance(value, list):
        return tuple(shape(item) for item in value)
    return (type(value).__name__, repr(value))


@dataclass(frozen=True)
class Cell:
    """The text of one element: what is before it, itself, and comma and comment after it."""

    lead: str
    text: str
    post: str
    comma: bool
    notes: tuple[str, ...]  # comments before it, on lines of their own
    remark: str  # the comment after it, on its line


@dataclass(frozen=True)
class Cells:
    """The elements of a container; ``start`` and ``end`` bound what is inside its brackets."""

    start: int
    end: int
    cells: tuple[Cell, ...]
    tail: str


def cells_between(source: Source, start: int, end: int) -> Cells:
    """Cut the text between two brackets at its commas."""
    groups: list[list[Token]] = [[]]
    ends: list[int] = []  # where the text of each group ends, comma and remark included
    tokens = [t for t in source.tokens if start <= t.start and t.end <= end]
    depth, at = 0, 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token.kind == tokenize.OP and token.string in "([{":
            depth += 1
        elif token.kind == tokenize.OP and token.string in ")]}":
            depth -= 1
        groups[-1].append(token)
        if depth == 0 and token.kind == tokenize.OP and token.string == ",":
            if at < len(tokens) and tokens[at].kind == tokenize.COMMENT:
                groups[-1].append(tokens[at])
                at += 1
            ends.append(groups[-1][-1].end)
            groups.append([])
    last = _meaningful(groups[-1])
    if last:
        rest = groups[-1][groups[-1].index(last[-1]) + 1 :]
        ends.append(rest[0].end if rest and rest[0].kind == tokenize.COMMENT else last[-1].end)
    else:
        groups.pop()
    found = []
    begin = start
    for group, stop in zip(groups, ends, strict=True):
        found.append(_cell(source, begin, group, stop))
        begin = stop
    return Cells(start, end, tuple(found), source.text[begin:end])


def _meaningful(group: list[Token]) -> list[Token]:
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    return [token for token in group if token.kind not in skip]


def _cell(source: Source, begin: int, group: list[Token], stop: int) -> Cell:
    parts = _meaningful(group)
    comma = bool(parts) and parts[-1].string == "," and len(parts) > 1
    body = parts[:-1] if comma else parts
    if not body:
        raise Doubt("an empty element")
    first, last = body[0].start, body[-1].end
    comments = [token for token in group if token.kind == tokenize.COMMENT]
    return Cell(
        lead=source.text[begin:first],
        text=source.text[first:last],
        post=source.text[last:stop],
        comma=comma,
        notes=tuple(token.string for token in comments if token.start < first),
        remark=" ".join(t.string for t in comments if last <= t.start < stop),
    )
