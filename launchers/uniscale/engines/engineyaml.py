"""Reads an engine file, strictly; makes one JSON of those that are shipped.

``python -m uniscale.engines.engineyaml > launchers/uniscale/engines/shipped.json`` writes it anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from uniscale_build.errors import ManifestError, UniscaleError, raise_all
from uniscale_build.ids import slug
from uniscale_build.yamlfile import Fields, Value, load

from uniscale.engines.enginefile import SHIPPED, EngineFile, Rule, Spread
from uniscale.engines.engines import Launch
from uniscale.frozen import Frozen, told

FORMATS = ("gguf", "hf")
CONVERSIONS = ("", "size")
LISTS = ("values", "repeat", "comma", "json")
LOCAL = ("interface", "address")


@lru_cache(maxsize=64)
def read(path: str) -> EngineFile:
    """The engine that the file ``path`` describes; `ManifestError` with every fault of it."""
    errors: list[UniscaleError] = []
    file = Path(path)
    engine = _engine(Fields(load(file), errors, "an engine file"), file)
    raise_all(errors)
    return engine


def _engine(fields: Fields, path: Path) -> EngineFile:
    name = fields.text("engine")
    if name and slug(name) != slug(path.stem):
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
        path=str(path),
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


def together() -> str:
    """The shipped engines as JSON, without what is as it is by default."""
    files = sorted(Path(SHIPPED).glob("*.yaml"))
    engines = {path.stem: _plain(read(str(path))) for path in files}
    for path in files:
        engines[path.stem]["path"] = path.name
    return json.dumps(engines, indent=1, ensure_ascii=False) + "\n"


def _plain(record: Frozen) -> dict[str, Any]:
    def plain(value: object) -> object:
        if isinstance(value, Mapping):
            return {key: plain(one) for key, one in value.items()}
        return _plain(value) if isinstance(value, Frozen) else value

    usual = type(record)
    return {
        key: plain(value)
        for key, value in told(record).items()
        if not hasattr(usual, key) or getattr(usual, key) != value
    }


if __name__ == "__main__":
    print(together(), end="")
