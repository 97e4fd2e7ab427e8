"""The flags of an argparse parser, read off the source that builds it: nothing is imported or run.

A Python engine cannot print its help where its requirements are absent, as they are when its wheel
is made. Its source is there: from the function that fills the parser we follow the calls that hand
the parser on, and take the flags of each ``add_argument``. Flags that are made of the fields of a
dataclass (``**get_kwargs(ModelConfig)["dtype"]``, ``f"--{key}"`` in a loop over them) are read off
that class; a field that may be true or false has a ``--no-`` form then.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from uniscale_build.errors import ManifestError

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_HELP = ("-h", "--help")  # argparse's own
_NEGATED = "BooleanOptionalAction"


@dataclass(frozen=True, eq=False)
class _Module:
    """One source file and its dotted name."""

    name: str
    path: Path
    tree: ast.Module

    @cached_property
    def imports(self) -> dict[str, tuple[str, str]]:
        """What each imported name is: a module and a name there."""
        return _imports(self, self.tree)


@dataclass(frozen=True)
class _Class:
    """A class and the module that it is written in."""

    node: ast.ClassDef
    module: _Module


@dataclass
class _Reader:
    """Modules below ``root`` as they are read, and the flags found so far."""

    root: Path
    modules: dict[str, _Module | None] = field(default_factory=dict)
    seen: set[tuple[str, int, str]] = field(default_factory=set)
    flags: set[str] = field(default_factory=set)


def read_flags(root: Path, entry: str) -> tuple[str, ...]:
    """The flags, sorted, of the parser that ``entry`` (``package.module:Class.method``) fills.

    ``root`` is the folder that the package lies in. `ManifestError` when there is no such function
    or when it adds no flag. Parsers are known by their name: a variable with ``parser`` in it.
    """
    reader = _Reader(root)
    where, _, path = entry.partition(":")
    module = _module(reader, where)
    names = path.split(".")
    found = _find(reader, module, names[0]) if module else None
    owner = found if isinstance(found, _Class) else None
    if owner is not None and len(names) == 2:
        found = _method(reader, owner, names[1])
    if not isinstance(found, tuple):
        raise ManifestError(
            f"there is no function {entry}", where=str(root), slug="no-parser",
            hint="launch.serve.parser names the function that fills the engine's parser",
        )  # fmt: skip
    _walk(reader, found[0], found[1], owner)
    if not reader.flags:
        raise ManifestError(
            f"{entry} adds no flag to a parser", where=str(found[1].path), slug="no-parser"
        )
    return tuple(sorted(reader.flags | set(_HELP)))


def _walk(reader: _Reader, function: _Function, module: _Module, owner: _Class | None) -> None:
    """Take the flags of ``function`` and of all that it hands a parser to."""
    key = (module.name, function.lineno, owner.node.name if owner else "")
    if key in reader.seen:
        return
    reader.seen.add(key)
    scope = _Scope(reader, function, module, owner)
    for node in ast.walk(function):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            _add(scope, node)
        elif any(isinstance(arg, ast.Name) and "parser" in arg.id for arg in node.args):
            _follow(scope, node.func)


class _Scope:
    """Names within one function: what its variables took from which dataclass."""

    def __init__(
        self, reader: _Reader, function: _Function, module: _Module, owner: _Class | None
    ) -> None:
        self.reader, self.module, self.owner = reader, module, owner
        self.imports = {**module.imports, **_imports(module, function)}
        self.values: dict[str, ast.expr] = {}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.values.setdefault(node.targets[0].id, node.value)

    def find(self, name: str) -> _Class | tuple[_Function, _Module] | None:
        """The class or function that ``name`` stands for here."""
        if name in ("cls", "self"):
            return self.owner
        if name in self.imports:
            return _taken(self.reader, self.imports[name])
        return _find(self.reader, self.module, name)

    def class_of(self, value: ast.expr) -> _Class | None:
        """``f(Class)``, or a variable that holds such: that class."""
        if isinstance(value, ast.Name):
            value = self.values.get(value.id, value)
        if isinstance(value, ast.Call) and len(value.args) == 1:
            argument = value.args[0]
            found = self.find(argument.id) if isinstance(argument, ast.Name) else None
            return found if isinstance(found, _Class) else None
        return None

    def field_of(self, value: ast.expr) -> ast.expr | None:
        """``f(Class)["name"]``, or a variable that holds such: the annotation of that field."""
        if isinstance(value, ast.Name):
            value = self.values.get(value.id, value)
        if isinstance(value, ast.Dict):  # {**f(Class)["name"], "default": None}
            spread = [item for key, item in zip(value.keys, value.values, strict=True) if not key]
            return self.field_of(spread[0]) if len(spread) == 1 else None
        if not (isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Constant)):
            return None
        owner = self.class_of(value.value)
        fields = dict(_fields(self.reader, owner)) if owner else {}
        return fields.get(str(value.slice.value))


def _add(scope: _Scope, call: ast.Call) -> None:
    """The flags of one ``add_argument``."""
    negated = any(_negates(scope, keyword) for keyword in call.keywords)
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            if argument.value.startswith("-"):
                _take(scope, argument.value, negated=negated)
        elif isinstance(argument, ast.JoinedStr) and scope.owner is not None:
            # f"--{key.replace('_', '-')}" in a loop over the fields of the class at hand.
            for name, annotation in _fields(scope.reader, scope.owner):
                _take(scope, "--" + name.replace("_", "-"), negated=_is_switch(annotation))


def _take(scope: _Scope, flag: str, *, negated: bool) -> None:
    scope.reader.flags.add(flag)
    if negated and flag.startswith("--"):
        scope.reader.flags.add("--no-" + flag[2:])


def _negates(scope: _Scope, keyword: ast.keyword) -> bool:
    if keyword.arg == "action":
        value = keyword.value
        name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
        return name == _NEGATED
    if keyword.arg is None:
        annotation = scope.field_of(keyword.value)
        return annotation is not None and _is_switch(annotation)
    return False


def _is_switch(annotation: ast.expr) -> bool:
    """Does a field of this type become a pair of flags? Not where text may stand behind it."""
    kinds = set(_kinds(annotation))
    return "bool" in kinds and kinds != {"bool", "str", "None"}


def _kinds(annotation: ast.expr) -> Iterator[str]:
    """The names of a union's types; subscripted ones (``list[bool]``) by what they subscript."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        yield from _kinds(ast.parse(annotation.value, mode="eval").body)
    elif isinstance(annotation, ast.Constant):
        yield str(annotation.value)
    elif isinstance(annotation, ast.BinOp):
        yield from _kinds(annotation.left)
        yield from _kinds(annotation.right)
    elif isinstance(annotation, ast.Subscript):
        (name,) = _kinds(annotation.value)
        parts = annotation.slice
        inside = parts.elts if isinstance(parts, ast.Tuple) else [parts]
        if name == "Annotated":
            yield from _kinds(inside[0])
        elif name in ("Optional", "Union"):
            for part in inside:
                yield from _kinds(part)
            yield from ("None",) if name == "Optional" else ()
        else:
            yield name
    elif isinstance(annotation, ast.Attribute):
        yield annotation.attr
    elif isinstance(annotation, ast.Name):
        yield annotation.id


def _follow(scope: _Scope, called: ast.expr) -> None:
    """Go on in a function of the tree that was handed a parser; others are not ours to read."""
    if isinstance(called, ast.Name):
        found = scope.find(called.id)
        if isinstance(found, tuple):
            _walk(scope.reader, found[0], found[1], None)
    elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
        owner = scope.find(called.value.id)
        method = _method(scope.reader, owner, called.attr) if isinstance(owner, _Class) else None
        if method is not None and isinstance(owner, _Class):
            _walk(scope.reader, method[0], method[1], owner)


def _fields(reader: _Reader, owner: _Class) -> Iterator[tuple[str, ast.expr]]:
    """A dataclass's fields and their annotations, those of its bases first."""
    for base in _bases(reader, owner):
        yield from _fields(reader, base)
    for node in owner.node.body:
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        if not {"ClassVar", "InitVar"} & set(_kinds(node.annotation)):
            yield node.target.id, node.annotation


def _method(reader: _Reader, owner: _Class, name: str) -> tuple[_Function, _Module] | None:
    for node in owner.node.body:
        if isinstance(node, _Function) and node.name == name:
            return node, owner.module
    found = (_method(reader, base, name) for base in _bases(reader, owner))
    return next((one for one in found if one), None)


def _bases(reader: _Reader, owner: _Class) -> Iterator[_Class]:
    for base in owner.node.bases:
        found = _find(reader, owner.module, base.id) if isinstance(base, ast.Name) else None
        if isinstance(found, _Class):
            yield found


def _find(
    reader: _Reader, module: _Module, name: str, depth: int = 8
) -> _Class | tuple[_Function, _Module] | None:
    """The class or function ``name`` of ``module``, through its imports."""
    for node in module.tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _Class(node, module)
        if isinstance(node, _Function) and node.name == name:
            return node, module
    return _taken(reader, module.imports[name], depth) if name in module.imports else None


def _taken(
    reader: _Reader, source: tuple[str, str], depth: int = 8
) -> _Class | tuple[_Function, _Module] | None:
    """What an import brings, ``depth`` re-exports deep; None for what lies outside the tree."""
    module = _module(reader, source[0]) if depth else None
    return _find(reader, module, source[1], depth - 1) if module else None


def _imports(module: _Module, scope: ast.AST) -> dict[str, tuple[str, str]]:
    return {
        alias.asname or alias.name: (_absolute(module, node), alias.name)
        for node in ast.walk(scope)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def _absolute(module: _Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    # A package's own name counts as one level.
    keep = len(parts) - node.level + (module.path.name == "__init__.py")
    return ".".join([*parts[:keep], *([node.module] if node.module else [])])


def _module(reader: _Reader, name: str) -> _Module | None:
    if name not in reader.modules:
        base = reader.root.joinpath(*name.split("."))
        places = (base.with_suffix(".py"), base / "__init__.py")
        path = next((place for place in places if place.is_file()), None)
        reader.modules[name] = _Module(name, path, ast.parse(path.read_bytes())) if path else None
    return reader.modules[name]
