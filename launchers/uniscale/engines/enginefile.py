"""Engine files: what an engine is and how it says vLLM's words, as YAML that anybody may add.

A file ``<engine>.yaml`` is looked for in ``UNISCALE_ENGINES`` (folders, as in PATH), then in
``$XDG_CONFIG_HOME/uniscale/engines``, then among those that are shipped; the first one counts.
Those are read from one JSON file that `uniscale.engines.engineyaml` makes of them: importing a
YAML parser takes longer than everything else before an engine starts.
"""

from __future__ import annotations

import json
import os

from uniscale_build.ids import slug

from uniscale import folders
from uniscale.engines.engines import Launch
from uniscale.frozen import NONE, Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

SHIPPED = os.path.dirname(__file__)
TOGETHER = os.path.join(SHIPPED, "shipped.json")
VARIABLE = "UNISCALE_ENGINES"


class Spread(Frozen):
    """How an engine spreads over machines: ``nodes`` of its engine file.

    In the words, ``{nodes}``, ``{rank}``, ``{head}`` (the first machine), ``{port}`` and
    ``{head_port}`` (both, as an address is written) stand for what they say.
    """

    every: tuple[str, ...] = ()  # flags on every machine
    others: tuple[str, ...] = ()  # flags on all but the first, which answers clients
    ray: tuple[str, ...] = ()  # flags with which it runs on a Ray cluster instead
    local: Mapping[str, str] = NONE  # variable -> interface or address


class Rule(Frozen):
    """How an engine takes one common argument; the empty rule takes it not at all."""

    flags: tuple[str, ...] = ()  # each gets the value
    key: str = ""  # instead of flags: the dotted place in the engine's configuration document
    convert: str = ""  # "size": 8K becomes 8192
    values: Mapping[str, str] = NONE  # value -> the engine's; "": omit
    only: bool = False  # values that are not listed are refused
    lists: str | None = None  # how a list is written; None: as the engine does by default
    parts: Mapping[str, str] = NONE  # key of a mapping -> flag
    also: tuple[str, ...] = ()  # passed beside it
    approximate: Mapping[str, str] = NONE  # value (or *) -> what differs
    beside: str = ""  # approximate only when this argument is given too
    ignored: str = ""  # why nothing is passed: a warning
    impossible: str = ""  # why it is refused


class EngineFile(Frozen):
    """An engine: how it is started where no payload says it, and its words for common ones."""

    name: str
    title: str
    aliases: tuple[str, ...]
    serve: Launch | None
    arguments: Mapping[str, Rule]
    passthrough: bool  # names without a rule become its flags as they are spelt
    lists: str
    negation: bool  # --no-x turns x off, also where its flags are not known
    underscores: bool  # flags are spelt --max_seq_len
    nodes: Spread  # over several machines
    variable: str | None  # environment variable that names its configuration document
    document: Mapping[str, object]  # what that document holds before arguments are filled in
    path: str


def find(name: str) -> EngineFile | None:
    """The engine that ``name`` (or an alias, in any spelling) means; None when nobody knows it.

    Raises `ManifestError` for a file that cannot be used and `SettingsError` for a folder in
    ``UNISCALE_ENGINES`` that is none.
    """
    wanted = slug(name)
    own, shipped = _own(), _shipped()
    if wanted in own:
        return _read(own[wanted])
    if wanted in shipped:
        return _made(shipped[wanted])
    engines = [*map(_read, own.values())]
    engines += [_made(told) for stem, told in shipped.items() if stem not in own]
    return next((one for one in engines if wanted in map(slug, one.aliases)), None)


def names() -> list[str]:
    """The names of all engines that have a file, for hints."""
    files = [*_own().values(), *(told["path"] for told in _shipped().values())]
    return sorted({os.path.basename(path).removesuffix(".yaml") for path in files})


def _own() -> dict[str, str]:
    """The files that are not shipped, by name; the first of a name counts."""
    found: dict[str, str] = {}
    for folder in _folders():
        try:
            files = sorted(name for name in os.listdir(folder) if name.endswith(".yaml"))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in files:
            found.setdefault(slug(name.removesuffix(".yaml")), os.path.join(folder, name))
    return found


def _folders() -> Iterator[str]:
    yield from folders.named(VARIABLE, "<engine>.yaml files")
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield os.path.join(home, "uniscale", "engines")


def _shipped() -> dict[str, dict[str, Any]]:
    with open(TOGETHER, encoding="utf-8") as stream:
        return {slug(stem): told for stem, told in json.load(stream).items()}


def _read(path: str) -> EngineFile:
    from uniscale.engines import engineyaml

    return engineyaml.read(path)


def _made(told: Mapping[str, Any]) -> EngineFile:
    """An engine as `uniscale.engines.engineyaml.together` wrote it."""
    plain = _tuples(told)
    serve = told["serve"]
    plain["serve"] = None if serve is None else Launch(**_tuples(serve))
    plain["arguments"] = {name: Rule(**_tuples(one)) for name, one in told["arguments"].items()}
    plain["nodes"] = Spread(**_tuples(told["nodes"]))
    plain["path"] = os.path.join(SHIPPED, told["path"])
    return EngineFile(**plain)


def _tuples(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(one) if isinstance(one, list) else one for key, one in told.items()}
