"""Engine files: what an engine is and how it says vLLM's words, as YAML that anybody may add.

A file ``<engine>.yaml`` is looked for in ``UNISCALE_ENGINES`` (folders, as in PATH), then in
``$XDG_CONFIG_HOME/uniscale/engines``, then among those that are shipped; the first one counts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from uniscale_build.errors import ManifestError, SettingsError, UniscaleError, raise_all
from uniscale_build.ids import slug
from uniscale_build.yamlfile import Fields, Value, load

from uniscale.engines import Launch
from uniscale.nodes import Spread

SHIPPED = Path(__file__).with_name("engines")
VARIABLE = "UNISCALE_ENGINES"
FORMATS = ("gguf", "hf")
CONVERSIONS = ("", "size")
LISTS = ("values", "repeat", "comma", "json")
LOCAL = ("interface", "address")


@dataclass(frozen=True)
class Rule:
    """How an engine takes one common argument; the empty rule takes it not at all."""

    flags: tuple[str, ...] = ()  # each gets the value
    key: str = ""  # instead of flags: the dotted place in the engine's configuration document
    convert: str = ""  # "size": 8K becomes 8192
    values: Mapping[str, str] = field(default_factory=dict)  # value -> the engine's; "": omit
    only: bool = False  # values that are not listed are refused
    lists: str | None = None  # how a list is written; None: as the engine does by default
    parts: Mapping[str, str] = field(default_factory=dict)  # key of a mapping -> flag
    also: tuple[str, ...] = ()  # passed beside it
    approximate: Mapping[str, str] = field(default_factory=dict)  # value (or *) -> what differs
    beside: str = ""  # approximate only when this argument is given too
    ignored: str = ""  # why nothing is passed: a warning
    impossible: str = ""  # why it is refused


@dataclass(frozen=True)
class EngineFile:
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
    path: Path


def find(name: str) -> EngineFile | None:
    """The engine that ``name`` (or an alias, in any spelling) means; None when nobody knows it.

    Raises `ManifestError` for a file that cannot be used and `SettingsError` for a folder in
    ``UNISCALE_ENGINES`` that is none.
    """
    wanted = slug(name)
    files = dict(reversed([(slug(path.stem), path) for path in _files()]))
    if wanted in files:
        return _load(files[wanted])
    return next((one for one in map(_load, files.values()) if _named(one, wanted)), None)


def _named(engine: EngineFile, wanted: str) -> bool:
    return wanted in {slug(alias) for alias in engine.aliases}


def names() -> list[str]:
    """The names of all engines that have a file, for hints."""
    return sorted({path.stem for path in _files()})


def _files() -> Iterator[Path]:
    for folder in _folders():
        yield from sorted(folder.glob("*.yaml"))


def _folders() -> Iterator[Path]:
    for entry in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        if not os.path.isdir(entry):
            raise SettingsError(
                f"{VARIABLE} names {entry!r}, which is not a folder",
                where=f"environment variable {VARIABLE}",
                hint="each entry is a folder that holds <engine>.yaml files",
                slug="no-folder",
            )
        yield Path(entry)
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    yield Path(home) / "uniscale" / "engines"
    yield SHIPPED


@lru_cache(maxsize=64)
def _load(path: Path) -> EngineFile:
    errors: list[UniscaleError] = []
    engine = _engine(Fields(load(path), errors, "an engine file"), path)
    raise_all(errors)
    return engine


def _engine(fields: Fields, path: Path) -> EngineFile:
    name = fields.text("engine")
    if slug(name) != slug(path.stem):
        fields.fail(fields.value, f"{path.name} describes {name!r}", f"name it {name}.yaml")
    document = fields.fields("document")
    words = fields.get("arguments") or Value({}, str(path), 1)
    if not isinstance(words.data, dict):
        fields.fail(words, '"arguments" must be a mapping')
        words = Value({}, str(path), 1)
    assert isinstance(words.data, dict)
    engine = EngineFile(
        name=name,
        title=fields.text("title", name),
        aliases=fields.texts("aliases"),
        serve=_serve(fields),
        arguments={key: _rule(key, value, fields) for key, value in words.data.items()},
        passthrough=fields.flag("passthrough", False),
        lists=fields.one_of("lists", LISTS, "values"),
        negation=fields.flag("negation", False),
        underscores=fields.flag("underscores", False),
        nodes=_spread(fields),
        variable=document.maybe("variable"),
        document=document.tree("base"),
        path=path,
    )
    document.finish()
    fields.finish()
    return engine


def _serve(fields: Fields) -> Launch | None:
    if fields.get("serve") is None:
        return None
    serve = fields.fields("serve")
    argv = serve.texts("argv")
    if not argv:
        serve.fail(serve.value, '"serve.argv" must begin with a program', slug="missing-key")
    probe = serve.text("probe", "/health")
    if not probe.startswith("/"):
        serve.fail(serve.value, f'"probe" must be a path, not {probe!r}')
    launch = Launch(
        argv=argv,
        model=serve.text("model", ""),
        arguments={},
        fixed=serve.texts("fixed"),
        formats=serve.some_of("formats", FORMATS),
        probe=probe,
        metrics=serve.maybe("metrics"),
        flags=serve.texts("flags"),
    )
    serve.finish()
    return launch


def _spread(parent: Fields) -> Spread:
    value = parent.get("nodes")
    if value is None or value.data == "none":
        return Spread()
    fields = parent.fields("nodes")
    local = fields.pairs("local")
    for name, what in local.items():
        if what not in LOCAL:
            fields.fail(fields.value, f'"nodes.local.{name}" must be {" or ".join(LOCAL)}')
    found = Spread(fields.texts("every"), fields.texts("others"), fields.texts("ray"), local)
    fields.finish()
    return found


def _rule(name: str, value: Value, parent: Fields) -> Rule:
    if isinstance(value.data, str):
        return Rule(flags=(value.data,))
    if isinstance(value.data, list):
        texts = tuple(item.data for item in value.data if isinstance(item.data, str))
        return Rule(flags=texts)
    fields = Fields(value, parent.errors, f'"arguments.{name}"')
    flag = fields.get("flag")
    several = flag is not None and isinstance(flag.data, list)
    approximate = fields.get("approximate")
    always = approximate is not None and isinstance(approximate.data, str)
    rule = Rule(
        flags=fields.texts("flag") if several else tuple(filter(None, [fields.maybe("flag")])),
        key=fields.text("key", ""),
        convert=fields.one_of("convert", CONVERSIONS, ""),
        values=_mapped(fields, "values"),
        only=fields.flag("only", False),
        lists=fields.one_of("lists", LISTS) if fields.get("lists") else None,
        parts=fields.pairs("parts"),
        also=fields.texts("also"),
        approximate={"*": fields.text("approximate")} if always else fields.pairs("approximate"),
        beside=fields.text("beside", ""),
        ignored=fields.text("ignored", ""),
        impossible=fields.text("impossible", ""),
    )
    if not (rule.flags or rule.key or rule.parts or rule.ignored or rule.impossible):
        fields.fail(value, f'"arguments.{name}" says neither a flag nor why there is none')
    fields.finish()
    return rule


def _mapped(fields: Fields, key: str) -> Mapping[str, str]:
    """A mapping of texts in which an empty value means: pass nothing."""
    value = fields.get(key)
    if value is None:
        return {}
    if not isinstance(value.data, dict):
        fields.errors.append(ManifestError(f'"{key}" must be a mapping', where=value.where))
        return {}
    return {word: str(item.data or "") for word, item in value.data.items()}
