"""``catalog.json`` of a wheel index: every wheel with its device, SDK, tags, payloads and hash.

An index is an address (http, https, file) or a folder. What it says is checked whole before any of
it is used: a catalog that is half written, or that names files elsewhere, is refused.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urljoin, urlsplit

from uniscale_build.errors import IndexSiteError, SettingsError, UniscaleError, raise_all
from uniscale_build.ids import is_sha256
from uniscale_build.wheels import catalogfile
from uniscale_build.wheels.catalogfile import FILE_NAME, SCHEMA

VARIABLE = "UNISCALE_INDEX"
_MOST_FAULTS = 10  # told at once; a file of nonsense has more than anybody reads
_HINT = "the index is damaged or being written: try again, then tell who publishes it"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Sdk:
    """The device SDK that a wheel was built with."""

    name: str
    version: str
    label: str = ""


@dataclass(frozen=True)
class Held:
    """One payload that a wheel holds."""

    payload: str
    folder: str  # below uniscale_payloads
    backend: str
    version: str
    commit: str  # "" when the pin's archive tells none
    tree: str  # the patched one
    tasks: tuple[str, ...]
    layers: tuple[Mapping[str, str], ...]  # name, title, why
    verified: Mapping[str, Any]


@dataclass(frozen=True)
class Wheel:
    """One file of the index and what choosing it needs; ``device`` is "" without payloads."""

    file: str
    url: str  # relative to the catalog
    sha256: str
    size: int
    name: str
    version: str
    requires_python: str
    requires_dist: tuple[str, ...]
    tags: tuple[str, ...]
    glibc: str  # the oldest that runs it, "" for any
    device: str
    sdk: Sdk | None
    image_packages: tuple[str, ...]
    payloads: tuple[Held, ...]
    time: int  # seconds since 1970
    yanked: str = ""  # why nobody should choose it


@dataclass(frozen=True)
class Catalog:
    """What an index has."""

    where: str  # its address or folder, as it is told to people
    base: str  # address that the wheels' are relative to
    wheels: tuple[Wheel, ...]
    devices: tuple[Mapping[str, Any], ...] = ()  # as told; `offered` reads them

    def address(self, wheel: Wheel) -> str:
        """The absolute address of a wheel."""
        return urljoin(self.base, wheel.url)

    def local(self, wheel: Wheel) -> Path | None:
        """The wheel's file when the index is on this machine."""
        parts = urlsplit(self.address(wheel))
        return Path(unquote(parts.path)) if parts.scheme == "file" else None

    def backends(self) -> list[str]:
        """The backends of all payloads, each once."""
        return list(dict.fromkeys(one.backend for wheel in self.wheels for one in wheel.payloads))


def which(index: str | None, environ: Mapping[str, str] | None = None) -> str:
    """The index to read: what was asked for, else ``UNISCALE_INDEX``; `SettingsError` for none."""
    env = os.environ if environ is None else environ
    found = index or env.get(VARIABLE, "")
    if not found.strip():
        raise SettingsError(
            "no wheel index is named",
            where="--index",
            hint=f"--index URL or --index DIR, or set {VARIABLE}; a maintainer makes one with\n"
            "uniscale-build index DIST… --out DIR",
            slug="no-index",
        )
    return found.strip()


def read(index: str) -> Catalog:
    """The catalog of ``index`` (an address or a folder; the file itself may be named too).

    `IndexSiteError` when it cannot be reached, has no catalog, or says nonsense; all faults at
    once.
    """
    from uniscale_build.sources.download import without_secrets

    base = catalogfile.address(index)
    shown = without_secrets(base) if "://" in index else index
    raw = catalogfile.fetch(base, shown)
    try:
        root = json.loads(raw)
    except (ValueError, RecursionError) as error:
        place = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise IndexSiteError(
            f"its {FILE_NAME} is not whole JSON{place}", where=shown, hint=_HINT, slug="bad-catalog"
        ) from error
    if not isinstance(root, dict) or not isinstance(root.get("wheels"), list):
        raise IndexSiteError(
            f"its {FILE_NAME} does not list wheels", where=shown, hint=_HINT, slug="bad-catalog"
        )
    if root.get("schema") != SCHEMA:
        raise IndexSiteError(
            f"its catalog has schema {root.get('schema')!r}; this uniscale reads {SCHEMA}",
            where=shown, hint="install a newer uniscale", slug="catalog-schema",
        )  # fmt: skip
    told = root.get("devices")
    chips = tuple(one for one in told if isinstance(one, dict)) if isinstance(told, list) else ()
    return Catalog(shown, base, _wheels(root["wheels"], shown), chips)


class _Entry:
    """Typed look-ups in one object of the catalog; faults are gathered, not raised."""

    def __init__(self, value: object, at: str, faults: list[str]) -> None:
        self.at = at
        self.faults = faults
        if not isinstance(value, dict):
            faults.append(f"{at} must be an object")
        self.value: Mapping[str, Any] = value if isinstance(value, dict) else {}

    def get(self, key: str, kind: type[_T], default: _T | None = None) -> _T:
        """The value of ``key``; null or none is the default, or a fault without one."""
        found = self.value.get(key)
        if found is None and default is not None:
            return default
        if not isinstance(found, kind) or isinstance(found, bool):
            self.faults.append(f"{self.at}.{key} must be {_KINDS[kind]}, not {found!r:.40}")
            return kind() if default is None else default
        text = found if isinstance(found, str) else ""
        if not text.isprintable() and key not in ("title", "why"):
            self.faults.append(f"{self.at}.{key} holds control characters")
        return found

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts."""
        items: list[object] = self.get(key, list, [])
        if any(not isinstance(item, str) for item in items):
            self.faults.append(f"{self.at}.{key} must hold texts")
        return tuple(item for item in items if isinstance(item, str))

    def each(self, key: str) -> list[_Entry]:
        """The objects of a list."""
        items: list[object] = self.get(key, list, [])
        return [_Entry(item, f"{self.at}.{key}[{n}]", self.faults) for n, item in enumerate(items)]


_KINDS: Mapping[type, str] = {str: "text", int: "a number", list: "a list", dict: "an object"}


def _wheels(items: list[object], shown: str) -> tuple[Wheel, ...]:
    faults: list[str] = []
    wheels = [_wheel(_Entry(item, f"wheels[{n}]", faults)) for n, item in enumerate(items)]
    errors: list[UniscaleError] = [
        IndexSiteError(f"its catalog is wrong: {fault}", where=shown, hint=_HINT,
                       slug="bad-catalog")
        for fault in faults[:_MOST_FAULTS]
    ]  # fmt: skip
    raise_all(errors)
    return tuple(wheels)


def _wheel(entry: _Entry) -> Wheel:
    wheel = Wheel(
        file=entry.get("file", str),
        url=entry.get("url", str),
        sha256=entry.get("sha256", str),
        size=entry.get("size", int),
        name=entry.get("name", str),
        version=entry.get("version", str),
        requires_python=entry.get("requires_python", str, ""),
        requires_dist=entry.texts("requires_dist"),
        tags=entry.texts("tags"),
        glibc=entry.get("glibc", str, ""),
        device=entry.get("device", str, ""),
        sdk=_sdk(entry),
        image_packages=entry.texts("image_packages"),
        payloads=tuple(_held(one) for one in entry.each("payloads")),
        time=entry.get("time", int, 0),
        yanked=entry.get("yanked", str, ""),
    )
    entry.faults += [f"{entry.at}: {fault}" for fault in _faults(wheel)]
    return wheel


def _sdk(entry: _Entry) -> Sdk | None:
    if entry.value.get("sdk") is None:
        return None
    told = _Entry(entry.value["sdk"], f"{entry.at}.sdk", entry.faults)
    return Sdk(told.get("name", str), told.get("version", str, ""), told.get("label", str, ""))


def _held(entry: _Entry) -> Held:
    layers = tuple(
        {key: one.get(key, str, "") for key in ("name", "title", "why")}
        for one in entry.each("layers")
    )
    return Held(
        payload=entry.get("payload", str),
        folder=entry.get("folder", str),
        backend=entry.get("backend", str),
        version=entry.get("version", str),
        commit=entry.get("commit", str, ""),
        tree=entry.get("tree", str),
        tasks=entry.texts("tasks"),
        layers=layers,
        verified=entry.get("verified", dict, {}),
    )


def _faults(wheel: Wheel) -> list[str]:
    """What an entry says that cannot be so."""
    from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
    from packaging.version import InvalidVersion, Version

    found = []
    if not is_sha256(wheel.sha256):
        found.append(f"{wheel.sha256!r:.40} is no SHA-256")
    parts = urlsplit(wheel.url)
    path = unquote(parts.path)
    if parts.scheme or parts.netloc or path.startswith("/") or ".." in path.split("/"):
        found.append(f"{wheel.url!r:.80} leads out of the index")
    elif path.rpartition("/")[2] != wheel.file:
        found.append(f"{wheel.url!r:.80} is not the address of {wheel.file}")
    if _NAME.fullmatch(wheel.file) is None:
        found.append(f"{wheel.file!r:.80} is no file name")
    try:
        name, version, _, tags = parse_wheel_filename(wheel.file)
        if name != canonicalize_name(wheel.name) or version != Version(wheel.version):
            found.append(f"{wheel.file} is not of {wheel.name} {wheel.version}")
        if {str(tag) for tag in tags} != set(wheel.tags):
            found.append(f"{wheel.file} has other tags than {', '.join(wheel.tags) or 'none'}")
    except (InvalidWheelFilename, InvalidVersion) as error:
        found.append(f"{error}")
    if wheel.payloads and not wheel.device:
        found.append(f"{wheel.file} holds payloads for no device")
    return found
