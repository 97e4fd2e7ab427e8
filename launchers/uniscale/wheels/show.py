"""``uniscale show``: all that is known of a backend: what is installed, and what an index has."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from uniscale_build.errors import SettingsError, UniscaleError, did_you_mean
from uniscale_build.ids import slug

from uniscale.wheels import payloads
from uniscale.wheels.record import FILE_NAME, Payload

_WIDTH = 14


def show(backend: str, *, device: str | None, index: str | None, as_json: bool) -> int:
    """Print the installed payloads of ``backend`` and, when an index is named, its wheels.

    `SettingsError` when neither has the backend.
    """
    from uniscale.wheels import catalog

    installed = _installed(backend, device)
    wanted = index or os.environ.get(catalog.VARIABLE)
    offered = _offered(backend, device, catalog.which(wanted)) if wanted else []
    if not (installed or offered):
        known = [one.backend for one in payloads.find().payloads]
        if wanted:
            known += catalog.read(wanted).backends()
        raise SettingsError(
            f"nothing is known of {backend}: it is not installed"
            + (", and the index has none" if wanted else ""),
            where=wanted, slug="unknown-backend",
            hint=did_you_mean(backend, known) if known else payloads.HOW_TO_GET,
        )  # fmt: skip
    if as_json:
        told = {"installed": installed, "offered": offered}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    for one in installed:
        _tell(one)
    if offered:
        print(f"in {wanted}:")
    for wheel in offered:
        print(f"  {wheel['file']}: {wheel['why'] or 'this is what install would take'}")
    return 0


def _installed(backend: str, device: str | None) -> list[dict[str, Any]]:
    try:
        found = payloads.named(backend, device)
    except UniscaleError as error:
        if error.slug in ("unknown-backend", "no-payload", "unknown-device"):
            return []
        raise
    return [_facts(one) for one in found]


def _facts(payload: Payload) -> dict[str, Any]:
    from uniscale.wheels.installplan import owner

    record: Mapping[str, Any] = json.loads((payload.prefix / FILE_NAME).read_text("utf-8"))
    brought = owner(payload)
    return {
        **record,
        "prefix": str(payload.prefix),
        "python": payload.python,
        "wheel": f"{brought.metadata['Name']} {brought.version}" if brought else None,
    }


def _offered(backend: str, device: str | None, index: str) -> list[dict[str, Any]]:
    """The index's wheels of the backend for the device (the one that is here), best first."""
    from uniscale.devices import devices
    from uniscale.wheels import catalog, choosing, machine
    from uniscale.wheels.offered import asked_device

    found = catalog.read(index)
    if not any(slug(backend) == slug(name) for name in found.backends()):
        return []
    chip, seen = asked_device(device, devices.known(), found.devices)
    try:
        choice = choosing.choose(found, backend, machine.inspect(chip, seen))
    except UniscaleError as error:
        rows = [wheel for wheel in found.wheels
                if any(slug(one.backend) == slug(backend) for one in wheel.payloads)]  # fmt: skip
        why = error.what
        return [{"file": wheel.file, "version": wheel.version, "why": why} for wheel in rows]
    best = {"file": choice.wheel.file, "version": choice.wheel.version, "why": None}
    return [best, *({**one.as_json(), "version": one.wheel.version} for one in choice.others)]


def _tell(info: Mapping[str, Any]) -> None:
    upstream, verified = info["upstream"], info.get("verified", {})
    print(f"{info['backend']} {info['version']} for {info['device']}")
    commit = f" at {upstream['commit'][:9]}" if upstream.get("commit") else ""
    rows = [
        ("prefix", info["prefix"]),
        ("wheel", info["wheel"] or "none brought it"),
        ("python", info["python"] or ""),
        ("tasks", ", ".join(info["tasks"])),
        ("upstream", f"{upstream.get('version')}{commit}"),
        ("from", upstream.get("origin") or ""),
        ("license", upstream.get("license") or ""),
        ("tree", info.get("patched_tree") or ""),
        ("plan", info.get("plan") or ""),
    ]
    for layer in info.get("layers", []):
        rows.append(("layer", f"{layer['name']}: {layer.get('title', '')}"))
        rows += [("", line) for line in str(layer.get("why", "")).splitlines()]
    rows += [("tool", f"{name} {version}") for name, version in info.get("toolchain", {}).items()]
    rows += [("needs", name) for name in info.get("external_libraries", [])]
    rows += [("built", text) for text in _texts(verified.get("built"))]
    rows += [("ran", text) for text in _texts(verified.get("ran"))]
    rows += [("partly", text) for text in _texts(verified.get("partly"))]
    rows += [("not run", text) for text in _texts(verified.get("not_run"))]
    for key, text in rows:
        if text:
            print(f"  {key:<{_WIDTH}}{text}")


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(one) for one in value]
    return [str(value)] if value else []
