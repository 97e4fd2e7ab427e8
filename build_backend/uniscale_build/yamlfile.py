"""YAML as we read it: every scalar stays text, every key and value knows its line.

PyYAML's own rules turn ``0.10`` into a float, ``no`` into False and ``12:30`` into 750, and the
last of two equal keys wins in silence. Here scalars are text until a field asks for a number or
a boolean; duplicate keys, anchors and unknown keys are errors; all errors come at once.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError, UniscaleError, did_you_mean, raise_all
from uniscale_build.ids import whole_number

if TYPE_CHECKING:
    import yaml

MAX_BYTES = 1 << 20
MAX_DEPTH = 32  # of nested lists and mappings; libyaml's composer would overflow the stack


@dataclass(frozen=True)
class Value:
    """A YAML value with its place: ``data`` is text, None, a list of values or a dict of them."""

    data: str | list[Value] | dict[str, Value] | None
    file: str
    line: int
    quoted: bool = False

    @property
    def where(self) -> str:
        """``file:line`` for errors."""
        return f"{self.file}:{self.line}"

    def plain(self) -> object:
        """Text, None, lists and dicts without places, for hashing and printing."""
        if isinstance(self.data, list):
            return [item.plain() for item in self.data]
        if isinstance(self.data, dict):
            return {key: item.plain() for key, item in self.data.items()}
        return self.data


def load(path: Path, *, shown: str | None = None, told: list[UniscaleError] | None = None) -> Value:
    """The one document in ``path``; `ManifestError` (or `Problems`) says what is wrong where.

    ``told`` is as for `parse`.
    """
    name = shown or os.fspath(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ManifestError(
            f"cannot be read: {os.strerror(error.errno or 0).lower()}", where=name, slug="no-file"
        ) from error
    return parse(raw, name, told)


def parse(raw: bytes, name: str, told: list[UniscaleError] | None = None) -> Value:
    """The one document in ``raw``; ``name`` is used in errors.

    Faults that leave the rest readable (keys given twice, tags) go into ``told`` where it is given:
    the first of two is read on. Otherwise they are raised.
    """
    import yaml

    if len(raw) > MAX_BYTES:
        raise ManifestError(f"is larger than {MAX_BYTES} bytes", where=name, slug="too-large")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ManifestError("is not UTF-8", where=f"{name}:{line}", slug="encoding") from error
    # libyaml reads ten times faster than PyYAML's own code; not every wheel of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader), name)
        node = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ManifestError(
            f"is not valid YAML: {error.problem or error.context}",
            where=f"{name}:{mark.line + 1}" if mark else name,
            slug="yaml",
        ) from error
    except yaml.YAMLError as error:
        raise ManifestError(f"is not valid YAML: {error}", where=name, slug="yaml") from error
    if node is None:
        raise ManifestError("is empty", where=name, slug="yaml")
    errors: list[UniscaleError] = []
    value = _convert(node, name, errors)
    if told is None:
        raise_all(errors)
    else:
        told.extend(errors)
    return value


def _check_events(events: Iterable[yaml.Event], name: str) -> None:
    """Refuse anchors and deep nesting before anything that recurses sees the document."""
    import yaml

    depth = 0
    for event in events:
        mark = event.start_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ManifestError(
                    f"is nested more than {MAX_DEPTH} levels deep", where=where, slug="too-deep"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise ManifestError(
                "uses an anchor or alias",
                where=where,
                hint="write the value out where it is needed",
                slug="yaml-anchor",
            )


def _convert(node: yaml.Node, name: str, errors: list[UniscaleError]) -> Value:
    import yaml

    line = node.start_mark.line + 1
    if node.tag not in _TAGS:
        errors.append(
            ManifestError(f"the tag {node.tag} is not used here", where=f"{name}:{line}",
                          slug="yaml-tag")
        )  # fmt: skip
    if isinstance(node, yaml.SequenceNode):
        return Value([_convert(item, name, errors) for item in node.value], name, line)
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Value] = {}
        for key, item in node.value:
            word, at = str(key.value), key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                errors.append(
                    ManifestError("a key must be plain text", where=f"{name}:{at}", slug="yaml-key")
                )
            elif word in found:
                errors.append(
                    ManifestError(
                        f'"{word}" is given twice',
                        where=f"{name}:{at}",
                        hint=f"the first one is in line {found[word].line}",
                        slug="duplicate-key",
                    )
                )
            else:
                found[word] = _convert(item, name, errors)
        return Value(found, name, line)
    quoted = isinstance(node, yaml.ScalarNode) and node.style in ("'", '"', "|", ">")
    empty = not quoted and node.value in ("", "~", "null")
    return Value(None if empty else str(node.value), name, line, quoted)


_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}"
    for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value", "map", "seq")
)


class Fields:
    """A mapping read field by field; collects every error, then `finish` names unknown keys."""

    def __init__(self, value: Value, errors: list[UniscaleError], what: str = "") -> None:
        self.value = value
        self.errors = errors
        self.what = what
        self._known: set[str] = set()
        self._data: dict[str, Value] = {}
        if isinstance(value.data, dict):
            self._data = value.data
        elif value.data is not None:
            self.fail(value, f"{what or 'this'} must be a mapping of keys to values")

    def fail(self, value: Value, what: str, hint: str | None = None, slug: str = "field") -> None:
        """Record an error at the place of ``value``."""
        self.errors.append(ManifestError(what, where=value.where, hint=hint, slug=slug))

    def get(self, key: str) -> Value | None:
        """The value of ``key``, or None when it is absent or empty."""
        self._known.add(key)
        value = self._data.get(key)
        return None if value is None or value.data is None else value

    def text(self, key: str, default: str | None = None) -> str:
        """Text; missing without a default is an error."""
        value = self.get(key)
        if value is None:
            if default is None:
                self.fail(self.value, f'"{key}" is missing', slug="missing-key")
            return default or ""
        if not isinstance(value.data, str):
            self.fail(value, f'"{key}" must be text')
            return default or ""
        if default is None and not value.data.strip():
            self.fail(value, f'"{key}" is empty', slug="missing-key")
        return value.data

    def maybe(self, key: str) -> str | None:
        """Text, or None when the key is absent."""
        return self.text(key, "") or None

    def number(self, key: str, default: int) -> int:
        """A whole number, 0 or more."""
        value = self.get(key)
        if value is None:
            return default
        number = whole_number(value.data) if isinstance(value.data, str) else None
        if number is None:
            self.fail(value, f'"{key}" must be a whole number, 0 or more', f"found {value.data!r}")
            return default
        return number

    def flag(self, key: str, default: bool) -> bool:
        """``true`` or ``false``, nothing else."""
        value = self.get(key)
        if value is None:
            return default
        if value.data not in ("true", "false"):
            self.fail(value, f'"{key}" must be true or false', f"found {value.data!r}")
            return default
        return value.data == "true"

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; empty when absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value.data, list):
            self.fail(value, f'"{key}" must be a list')
            return ()
        for item in value.data:
            if not isinstance(item.data, str):
                self.fail(item, f'"{key}" must be a list of texts')
        return tuple(item.data for item in value.data if isinstance(item.data, str))

    def pairs(self, key: str) -> dict[str, str]:
        """A mapping of text to text; empty when absent."""
        value = self.get(key)
        if value is None:
            return {}
        if not isinstance(value.data, dict):
            self.fail(value, f'"{key}" must be a mapping')
            return {}
        for name, item in value.data.items():
            if not isinstance(item.data, str):
                self.fail(item, f'"{key}.{name}" must be text')
        return {k: item.data for k, item in value.data.items() if isinstance(item.data, str)}

    def items(self, key: str) -> Sequence[Value]:
        """The entries of a list, with places; empty when absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value.data, list):
            self.fail(value, f'"{key}" must be a list')
            return ()
        return value.data

    def some_of(self, key: str, allowed: Sequence[str], slug: str = "field") -> tuple[str, ...]:
        """A list of texts out of a fixed set; empty when absent."""
        for item in self.items(key):
            if isinstance(item.data, str) and item.data not in allowed:
                hint = did_you_mean(item.data, allowed)
                self.fail(item, f'"{key}" cannot be {item.data!r}', hint, slug)
        return self.texts(key)

    def tree(self, key: str) -> dict[str, object]:
        """A mapping whose keys and values others check; empty when absent."""
        value = self.get(key)
        found = {} if value is None else value.plain()
        if not isinstance(found, dict):
            self.fail(self.value if value is None else value, f'"{key}" must be a mapping')
            return {}
        return found

    def tables(self, key: str) -> dict[str, dict[str, str]]:
        """A mapping of text to mappings of text to text; empty when absent."""
        inner = self.fields(key)
        return {name: inner.pairs(name) for name in inner.keys}

    def each(self, key: str, what: str) -> list[Fields]:
        """The entries of a list of mappings, each to be read and finished; ``what`` is one."""
        return [Fields(item, self.errors, what) for item in self.items(key)]

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that are there, in the file's order."""
        return tuple(self._data)

    @property
    def lines(self) -> dict[str, int]:
        """The line of each key's value."""
        return {key: value.line for key, value in self._data.items()}

    def fields(self, key: str) -> Fields:
        """A nested mapping (an empty one when absent)."""
        value = self.get(key)
        return Fields(value or Value({}, self.value.file, self.value.line), self.errors, f'"{key}"')

    def one_of(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Text out of a fixed set."""
        word = self.text(key, default)
        if word not in allowed and (value := self.get(key)) is not None:
            self.fail(value, f'"{key}" cannot be {word!r}', did_you_mean(word, allowed))
        return word

    def finish(self) -> None:
        """Every key that nobody asked for is an error, with the nearest known one."""
        for key, value in self._data.items():
            if key not in self._known:
                self.fail(
                    value,
                    f'unknown key "{key}"',
                    did_you_mean(key, self._known),
                    slug="unknown-key",
                )
