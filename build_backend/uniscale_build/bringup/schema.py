"""JSON Schemas of the manifests for editors, taken from the functions that read them.

`Recorder` answers every question of a reader and notes what was asked: a key that is added to a
reader is in the schema at once; only a sentence for each key (`schema_help`) is written by hand.
The schemas are what an editor can check; the readers check more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

from uniscale_build.bringup.schema_help import about
from uniscale_build.errors import UniscaleError
from uniscale_build.manifests.devices import read_device
from uniscale_build.manifests.load import read_adaptation, read_backend
from uniscale_build.yamlfile import Fields, Value

Schema = dict[str, object]
# Unquoted, 0.10 and true are text to us; an editor that parses YAML sees a number or a boolean.
_TEXT: Schema = {"type": ["string", "number", "boolean"]}
_DRAFT = "https://json-schema.org/draft/2020-12/schema"


class Recorder(Fields):
    """`Fields` that hold nothing and note which keys are asked for, as what."""

    def __init__(self) -> None:
        super().__init__(Value({}, "schema", 0), [], "")
        self.properties: dict[str, Schema] = {}
        self.required: list[str] = []
        self.below: list[tuple[str, Recorder, bool]] = []  # key, its own keys, is it a list

    def _note(self, key: str, schema: Schema, *, required: bool = False) -> None:
        self.properties.setdefault(key, schema)
        if required and key not in self.required:
            self.required.append(key)

    def text(self, key: str, default: str | None = None) -> str:
        """Note a text."""
        self._note(key, _TEXT, required=default is None)
        return default or ""

    def number(self, key: str, default: int) -> int:
        """Note a whole number."""
        self._note(key, {"type": "integer", "minimum": 0})
        return default

    def flag(self, key: str, default: bool) -> bool:
        """Note a boolean."""
        self._note(key, {"type": "boolean"})
        return default

    def texts(self, key: str) -> tuple[str, ...]:
        """Note a list of texts."""
        self._note(key, {"type": "array", "items": _TEXT})
        return ()

    def some_of(self, key: str, allowed: Sequence[str], slug: str = "field") -> tuple[str, ...]:
        """Note a list of words."""
        del slug
        self._note(key, {"type": "array", "items": {"enum": list(allowed)}})
        return ()

    def one_of(self, key: str, allowed: Sequence[str], default: str | None = None) -> str:
        """Note a word."""
        self._note(key, {"enum": list(allowed)}, required=default is None)
        return default or allowed[0]

    def pairs(self, key: str) -> dict[str, str]:
        """Note a mapping of texts."""
        self._note(key, {"type": "object", "additionalProperties": _TEXT})
        return {}

    def tables(self, key: str) -> dict[str, dict[str, str]]:
        """Note a mapping of mappings of texts."""
        inner: Schema = {"type": "object", "additionalProperties": _TEXT}
        self._note(key, {"type": "object", "additionalProperties": inner})
        return {}

    def tree(self, key: str) -> dict[str, object]:
        """Note a mapping of which nothing more is known here."""
        self._note(key, {"type": "object"})
        return {}

    def each(self, key: str, what: str) -> list[Fields]:
        """Note a list of mappings, and record what is read of one."""
        del what
        return [self._inner(key, listed=True)]

    def fields(self, key: str) -> Fields:
        """Note a mapping, and record what is read of it."""
        return self._inner(key, listed=False)

    def _inner(self, key: str, *, listed: bool) -> Recorder:
        inner = Recorder()
        self._note(key, {})
        self.below.append((key, inner, listed))
        return inner

    @property
    def keys(self) -> tuple[str, ...]:
        """One key, so that readers go into mappings that may be absent."""
        return ("recorded",)

    def finish(self) -> None:
        """Nothing is unknown here."""

    def schema(self, path: str) -> Schema:
        """What was noted; ``path`` leads to the sentences in `schema_help`."""
        for key, inner, listed in self.below:
            made = inner.schema(f"{path}.{key}")
            self.properties[key] = {"type": "array", "items": made} if listed else made
        properties = {
            key: {**schema, "description": about(f"{path}.{key}")}
            for key, schema in self.properties.items()
        }
        return {
            "type": "object", "additionalProperties": False, "properties": properties,
            **({"required": self.required} if self.required else {}),
        }  # fmt: skip


_READERS = {"backend": read_backend, "device": read_device, "adaptation": read_adaptation}


def schemas() -> dict[str, Schema]:
    """File name → JSON Schema, for each kind of manifest."""
    made = {}
    for kind, reader in _READERS.items():
        recorder = Recorder()
        cast(Callable[[Fields, str], object], reader)(recorder, "")
        title = f"uniscale {kind} manifest"
        made[f"{kind}.json"] = {"$schema": _DRAFT, "title": title, **recorder.schema(kind)}
    return made


def texts() -> dict[str, str]:
    """File name → the text of the file in ``manifests/schema``."""
    return {
        name: json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in schemas().items()
    }


def write(folder: Path) -> list[str]:
    """Write the schemas that differ from what ``folder`` holds; gives their names."""
    from uniscale_build.store import write_atomic

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in texts().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text.encode())
            written.append(name)
    return written


def stale(folder: Path) -> list[UniscaleError]:
    """Errors for each schema in ``folder`` that is not what the readers say."""
    from uniscale_build.errors import ManifestError

    errors: list[UniscaleError] = []
    for name, text in texts().items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            errors.append(
                ManifestError(
                    "is not what the manifests' readers say",
                    where=f"manifests/schema/{name}",
                    hint="uniscale-build devices schema writes it",
                    slug="stale-schema",
                )
            )
    return errors
