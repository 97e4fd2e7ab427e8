"""Reads ``payload.json`` (schema 1): what a payload is, and how its engine is started.

Every key is checked and every fault told at once; a payload that says nonsense is never started.
"""

from __future__ import annotations

import json
import os

from uniscale_build.errors import LaunchError
from uniscale_build.ids import check_name, leaves

from uniscale.engines.engines import Launch
from uniscale.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import TypeVar

    _T = TypeVar("_T")

SCHEMA = 1
FILE_NAME = "payload.json"
_LARGEST = 4_000_000  # bytes; a real one has some kB
_FORMATS = ("gguf", "hf")


class Upstream(Frozen):
    """Where the backend comes from."""

    version: str
    commit: str
    origin: str


class Verified(Frozen):
    """What was tried before the wheel was published."""

    built: bool
    ran: bool
    note: str


class Payload(Frozen):
    """A built backend in its prefix, as its own record describes it."""

    root: str  # its prefix, as text: see `prefix`
    backend: str
    device: str
    aliases: tuple[str, ...]  # other names of the device
    nodes: tuple[str, ...]  # globs of device files that show the device is there
    distribution: str
    version: str
    upstream: Upstream
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    launch: Mapping[str, Launch]
    device_environment: Mapping[str, str]
    visible: str | None  # variable that limits which chips a process sees
    verified: Verified
    python: str | None = None  # interpreter of an environment of its own; None: the running one

    @property
    def prefix(self) -> Path:
        """The folder that it lives in."""
        from pathlib import Path  # not on the way to exec: it takes 7 ms

        return Path(self.root)

    @property
    def library(self) -> bool:
        """True when its own test is all that it starts: others import it."""
        return self.launch.keys() == {"test"}

    @property
    def title(self) -> str:
        """The words for people: ``llama.cpp (cpu)``."""
        return f"{self.backend} ({self.device})"


class _Reader:
    """Typed look-ups in a JSON value; faults are collected, not raised."""

    def __init__(self, root: object) -> None:
        self.faults: list[str] = []
        self.root = root

    def get(self, path: str, kind: type[_T], default: _T | None = None) -> _T:
        """The value at the dotted ``path``; a missing or null one is the default, or a fault."""
        return self._typed(self._find(path), path, kind, default)

    def strings(self, path: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        items = self.get(path, list, None if default is None else list(default))
        return tuple(self._typed(item, f"{path}[]", str, None) for item in items)

    def table(self, path: str) -> dict[str, str]:
        entries: dict[str, object] = self.get(path, dict, {})
        return {key: self._typed(item, f"{path}.{key}", str, None) for key, item in entries.items()}

    def checked(self, found: _T, check: Callable[[_T], object], what: str) -> _T:
        if not check(found):
            self.faults.append(what)
        return found

    def _find(self, path: str) -> object:
        here, keys = self.root, path.split(".")
        for depth, key in enumerate(keys):
            if here is not None and not isinstance(here, dict):
                fault = f"{'.'.join(keys[:depth])} must be an object, not {here!r:.60}"
                if fault not in self.faults:
                    self.faults.append(fault)
                return None
            here = here.get(key) if here is not None else None
        return here

    def _typed(self, found: object, path: str, kind: type[_T], default: _T | None) -> _T:
        if found is None and default is not None:
            return default
        if not isinstance(found, kind) or (isinstance(found, str) and _unfit(found)):
            fault = "is missing" if found is None else f"must be {_KINDS[kind]}, not {found!r:.60}"
            self.faults.append(f"{path} {fault}")
            return default if default is not None else kind()
        return found


_KINDS: Mapping[type, str] = {str: "plain text", list: "a list", dict: "an object", int: "a number"}


def _unfit(text: str) -> bool:
    # Such a text can be neither printed on a line nor passed to a process.
    return not text.isprintable() and any(ord(char) < 32 or ord(char) == 127 for char in text)


def read(prefix: str) -> Payload:
    """The payload in the folder ``prefix``; `LaunchError` with every fault of its record."""
    path = os.path.join(prefix, FILE_NAME)
    try:
        if os.stat(path).st_size > _LARGEST:
            raise _broken(path, [f"it is larger than {_LARGEST // 1_000_000} MB"])
        with open(path, encoding="utf-8") as stream:
            root = json.load(stream)
    except OSError as error:
        raise _broken(path, [str(error.strerror)]) from error
    except UnicodeDecodeError as error:
        raise _broken(path, [f"it is not UTF-8 text (byte {error.start})"]) from error
    except json.JSONDecodeError as error:
        raise _broken(path, [f"it is not JSON: {error.msg}, line {error.lineno}"]) from error
    except RecursionError as error:
        raise _broken(path, ["it is nested too deeply"]) from error
    if not isinstance(root, dict):
        raise _broken(path, ["it must hold an object"])
    if root.get("schema") != SCHEMA:
        raise LaunchError(
            f"the payload has schema {root.get('schema')!r}; this uniscale reads {SCHEMA}",
            where=path,
            hint="install the uniscale that came with the payload, or a newer one",
            slug="payload-schema",
        )
    reader = _Reader(root)
    payload = _payload(reader, prefix)
    if reader.faults:
        raise _broken(path, reader.faults)
    return payload


def _broken(path: str, faults: list[str]) -> LaunchError:
    return LaunchError(
        f"the payload's record is broken: {'; '.join(faults)}",
        where=path,
        hint="install its wheel again: pip install --force-reinstall …",
        slug="broken-payload",
    )


def _payload(reader: _Reader, prefix: str) -> Payload:
    tasks = reader.strings("tasks")
    names = [task for task in reader.get("launch", dict, {}) if isinstance(task, str)]
    layers = reader.get("layers", list, [])
    if ":" in prefix:
        reader.faults.append(f"its folder cannot stand on PATH, its name has a colon: {prefix}")
    return Payload(
        root=prefix,
        backend=_name(reader, "backend"),
        device=_name(reader, "device"),
        aliases=reader.strings("device_environment.aliases", ()),
        nodes=reader.strings("device_environment.nodes", ()),
        distribution=reader.get("distribution", str, "?"),
        version=reader.get("version", str),
        upstream=Upstream(
            version=reader.get("upstream.version", str, "?"),
            commit=reader.get("upstream.commit", str, "?"),
            origin=reader.get("upstream.origin", str, "?"),
        ),
        layers=tuple(
            str(layer["name"]) if isinstance(layer, dict) and "name" in layer else "?"
            for layer in layers
        ),
        tasks=tasks,
        launch={name: _launch(reader, f"launch.{name}", prefix) for name in names},
        device_environment=reader.table("device_environment.set"),
        visible=reader.get("device_environment.visible", str, "") or None,
        verified=_verified(reader),
    )


def _name(reader: _Reader, path: str) -> str:
    text = reader.get(path, str)
    try:
        return check_name(text, what=path, error=LaunchError) if text else text
    except LaunchError as error:
        reader.faults.append(error.what)
        return text


def _launch(reader: _Reader, at: str, prefix: str) -> Launch:
    argv = reader.strings(f"{at}.argv")
    if not argv or not argv[0]:
        reader.faults.append(f"{at}.argv must begin with a program")
    elif "/" in argv[0] and leaves(prefix, os.path.join(prefix, argv[0])):
        reader.faults.append(f"{at}.argv leaves its folder")
    # Only a server must say what it takes; a trainer may start from nothing.
    formats = reader.strings(f"{at}.formats", None if at == "launch.serve" else ())
    for unknown in sorted(set(formats) - set(_FORMATS)):
        reader.faults.append(f"{at}.formats has {unknown!r}; known: {', '.join(_FORMATS)}")
    probe = reader.get(f"{at}.probe", str, "/health")
    return Launch(
        argv=argv,
        model=reader.get(f"{at}.model", str, ""),
        arguments=reader.table(f"{at}.arguments"),
        fixed=reader.strings(f"{at}.fixed", ()),
        formats=formats,
        probe=reader.checked(probe, lambda text: text.startswith("/"), f"{at}.probe is no path"),
        metrics=reader.get(f"{at}.metrics", str, "") or None,
        flags=reader.strings(f"{at}.flags", ()),
    )


def _verified(reader: _Reader) -> Verified:
    told = reader.get("verified", dict, {})
    # `built` and `ran` are true, or the non-empty list of what was built and run.
    note = told.get("note") or told.get("not_run") or ""
    return Verified(bool(told.get("built")), bool(told.get("ran")), str(note))
