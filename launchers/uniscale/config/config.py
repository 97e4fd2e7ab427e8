"""Composes a configuration: defaults lists as in Hydra, ``--set a.b=c``, ``${…}``; with places.

Every value keeps its file and line, so that errors and ``uniscale config`` can name them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError, did_you_mean, raise_all
from uniscale_build.yamlfile import Value, load, parse

_REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_DEEPEST = 16  # nested defaults lists, and references to references
_OVERRIDE = re.compile(r"(?P<place>[^=]*)=(?P<text>.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/-]*")


def compose(path: Path, overrides: Sequence[str] = ()) -> Value:
    """The merged configuration in ``path`` with ``overrides`` (``a.b=c``) applied, in order.

    Raises `ManifestError` for a file that cannot be read and `SettingsError` for an override or a
    reference that leads nowhere; all errors at once where they do not depend on each other.
    """
    root = _composed(path, 0)
    if isinstance(root.data, list):  # FlagScale's task file, given alone
        root = Value({"serve": root}, root.file, root.line)
    from uniscale.config import recipe

    if recipe.is_recipe(root):
        return override(root, overrides)  # its guide is a text with shell variables of its own
    return resolve(override(root, overrides))


def is_config(word: str) -> bool:
    """True when ``word`` names a configuration rather than a model."""
    return word.endswith((".yaml", ".yml"))


def override(root: Value, overrides: Sequence[str]) -> Value:
    """``root`` with each ``a.b.0.c=YAML`` set; mappings on the way are made where missing."""
    errors: list[UniscaleError] = []
    for word in overrides:
        match = _OVERRIDE.fullmatch(word)
        keys = match["place"].strip().split(".") if match else [""]
        if match is None or not all(keys):
            hint = "write it as a.b=value"
            errors.append(_bad_set(word, f"{word!r} sets nothing", hint))
            continue
        try:
            root = _put(root, keys, _value(match["text"], f"--set {match['place']}"), word)
        except UniscaleError as error:
            errors.append(error)
    raise_all(errors)
    return root


def _bad_set(word: str, what: str, hint: str | None = None) -> SettingsError:
    return SettingsError(what, where=f"--set {word}", hint=hint, slug="bad-set")


def _value(text: str, name: str) -> Value:
    if not text.strip():
        return Value("", name, 1, quoted=True)
    return parse(text.encode("utf-8", "surrogateescape"), name)


def _put(here: Value, keys: Sequence[str], value: Value, word: str) -> Value:
    key, *rest = keys
    if isinstance(here.data, list):
        if not key.isdigit() or int(key) >= len(here.data):
            known = f"0 to {len(here.data) - 1}" if here.data else "it is empty"
            raise _bad_set(word, f"the list has no entry {key!r}", known)
        items = list(here.data)
        items[int(key)] = _put(items[int(key)], rest, value, word) if rest else value
        return replace(here, data=items)
    if here.data is not None and not isinstance(here.data, dict):
        raise _bad_set(word, f"{key!r} cannot be set in a value", f"it is at {here.where}")
    entries = dict(here.data or {})
    if rest:
        below = entries.get(key, Value({}, value.file, value.line))
        entries[key] = _put(below, rest, value, word)
    else:
        entries[key] = value
    return replace(here, data=entries)


def _composed(path: Path, depth: int) -> Value:
    own = load(path)
    if not isinstance(own.data, dict) or "defaults" not in own.data:
        return own
    if depth >= _DEEPEST:
        raise _default(own, f"defaults are nested more than {_DEEPEST} deep")
    listed = own.data["defaults"]
    if not isinstance(listed.data, list):
        raise _default(listed, '"defaults" must be a list')
    body = replace(own, data={key: item for key, item in own.data.items() if key != "defaults"})
    merged: Value | None = None
    seen_self = False
    for entry in listed.data:
        if entry.data == "_self_":
            seen_self, part = True, body
        else:
            part = _entry(entry, path.parent, depth)
        merged = part if merged is None else _merged(merged, part)
    if merged is None:
        return body
    # As in Hydra: without _self_ the file itself comes last and wins.
    return merged if seen_self else _merged(merged, body)


def _default(value: Value, what: str, hint: str | None = None) -> SettingsError:
    return SettingsError(what, where=value.where, hint=hint, slug="bad-defaults")


def _entry(entry: Value, folder: Path, depth: int) -> Value:
    """What one entry of a defaults list brings, under its group's name."""
    group, name, optional = "", entry.data, False
    if isinstance(entry.data, dict) and len(entry.data) == 1:
        ((group, value),) = entry.data.items()
        name = value.data
        *words, group = group.split()
        optional = "optional" in words
        if name is None:
            return Value({}, entry.file, entry.line)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or ".." in f"{group}/{name}":
        raise _default(entry, "a default is a file's name, or group: name")
    path = folder / group / f"{name.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        if optional:
            return Value({}, entry.file, entry.line)
        there = [one.stem for one in sorted((folder / group).glob("*.yaml"))]
        hint = did_you_mean(name, there)
        raise _default(entry, f"there is no {path}", hint)
    part = _composed(path, depth + 1)
    for key in reversed([key for key in group.split("/") if key]):
        part = Value({key: part}, part.file, part.line)
    return part


def _merged(lower: Value, upper: Value) -> Value:
    """Mappings key by key; anything else, lists too, is replaced as a whole."""
    if not isinstance(lower.data, dict) or not isinstance(upper.data, dict):
        return upper
    entries = dict(lower.data)
    for key, item in upper.data.items():
        entries[key] = _merged(entries[key], item) if key in entries else item
    return replace(upper, data=entries)


def resolve(root: Value) -> Value:
    """``root`` with ``${a.b}`` and ``${oc.env:NAME,default}`` replaced; ``hydra`` stays as it is.

    Raises `SettingsError` for each reference that leads nowhere or in a circle.
    """
    errors: list[UniscaleError] = []

    def walk(value: Value) -> Value:
        if isinstance(value.data, dict):
            return replace(value, data={key: walk(item) for key, item in value.data.items()})
        if isinstance(value.data, list):
            return replace(value, data=[walk(item) for item in value.data])
        try:
            return _referred(root, value, 0)
        except SettingsError as error:
            errors.append(error)
            return value

    if not isinstance(root.data, dict):
        return root
    entries = {key: item if key == "hydra" else walk(item) for key, item in root.data.items()}
    raise_all(errors)
    return replace(root, data=entries)


def _referred(root: Value, value: Value, depth: int) -> Value:
    if not isinstance(value.data, str) or "${" not in value.data:
        return value
    if depth > _DEEPEST:
        raise SettingsError(
            f"{value.data} refers to itself", where=value.where, slug="bad-reference"
        )
    whole = _REFERENCE.fullmatch(value.data)
    if whole is not None:
        found = _found(root, whole[1], value)
        return replace(_referred(root, found, depth + 1), file=value.file, line=value.line)

    def text(match: re.Match[str]) -> str:
        found = _referred(root, _found(root, match[1], value), depth + 1)
        return "" if found.data is None else str(found.plain())

    filled = _REFERENCE.sub(text, value.data)
    return replace(value, data=filled)


def _found(root: Value, reference: str, asker: Value) -> Value:
    resolver, colon, rest = reference.partition(":")
    if colon and resolver == "oc.env":
        name, comma, default = rest.partition(",")
        text = os.environ.get(name.strip(), default if comma else None)
        if text is not None:
            return replace(asker, data=text)
        what, hint = f"the environment variable {name} is not set", f"${{oc.env:{name},default}}"
    elif colon:
        what, hint = f"${{{reference}}} is not understood", "known: ${a.b} and ${oc.env:NAME}"
    else:
        here: Value | None = root
        for key in reference.strip().split("."):
            here = _child(here, key)
        if here is not None:
            return here
        what, hint = f"${{{reference}}} leads nowhere", "it is read from the top of the file"
    raise SettingsError(what, where=asker.where, hint=hint, slug="bad-reference")


def _child(here: Value | None, key: str) -> Value | None:
    if here is None:
        return None
    if isinstance(here.data, dict):
        return here.data.get(key)
    if isinstance(here.data, list) and key.isdigit() and int(key) < len(here.data):
        return here.data[int(key)]
    return None


def leaves(value: Value, place: str = "") -> Iterator[tuple[str, Value]]:
    """Every scalar (and empty list or mapping) with its dotted place, in the file's order."""
    if isinstance(value.data, dict) and value.data:
        for key, item in value.data.items():
            yield from leaves(item, f"{place}.{key}" if place else key)
    elif isinstance(value.data, list) and value.data:
        for number, item in enumerate(value.data):
            yield from leaves(item, f"{place}.{number}")
    else:
        yield place, value
