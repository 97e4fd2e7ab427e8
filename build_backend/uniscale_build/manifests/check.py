"""Checks between manifests: names claimed once, references known, layers there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from uniscale_build.errors import LayerError, ManifestError, UniscaleError, did_you_mean
from uniscale_build.ids import slug
from uniscale_build.manifests.model import Adaptation, Backend, Device, Manifests


def cross_check(found: Manifests, *, broken: bool = False) -> list[UniscaleError]:
    """Every error between manifests; ``broken`` when some could not be read.

    Then names that are not there may be in those, and are not reported.
    """
    errors: list[UniscaleError] = []
    errors += _names_once([*found.backends.values()])
    errors += _names_once([*found.devices.values()])
    for device in found.devices.values():
        errors += _parts(found, device)
    for backend in found.backends.values():
        errors += _pins_once(backend)
        for pin in backend.pins:
            errors += _layers(found.root, backend.name, pin.layers, pin.where)
    for pair in found.adaptations.values():
        errors += _references(found, pair, broken)
        errors += _layers(found.root, pair.backend, pair.layers, pair.at("layers"))
    return errors


def _names_once(items: Iterable[Backend | Device]) -> Iterator[UniscaleError]:
    owner: dict[str, str] = {}
    labels: dict[str, str] = {}
    for item in items:
        for spelling in dict.fromkeys(slug(word) for word in (item.name, *item.aliases)):
            if spelling in owner:
                yield ManifestError(
                    f'"{spelling}" means both {owner[spelling]} and {item.name}',
                    where=item.at("aliases"),
                    hint="take it out of one of the two",
                    slug="alias-twice",
                )
            owner.setdefault(spelling, item.name)
        if item.label in labels:
            yield ManifestError(
                f"the label \"{item.label}\" is both {labels[item.label]}'s and {item.name}'s",
                where=item.at("label"),
                hint="wheels are told apart by it: choose another",
                slug="label-twice",
            )
        labels.setdefault(item.label, item.name)


def _parts(found: Manifests, device: Device) -> Iterator[UniscaleError]:
    for part in device.parts:
        known = found.devices.get(part)
        if known is None:
            yield ManifestError(
                f'there is no device "{part}"',
                where=device.at("parts"),
                hint=did_you_mean(part, found.devices),
                slug="unknown-device",
            )
        elif known.parts:
            yield ManifestError(
                f"{part} is itself made of parts",
                where=device.at("parts"),
                hint="name the devices that are in the machine",
                slug="cyclic",
            )


def _pins_once(backend: Backend) -> Iterator[UniscaleError]:
    seen: set[str] = set()
    for pin in backend.pins:
        for word in {pin.version, pin.commit} - {""}:
            if word in seen:
                yield ManifestError(
                    f"two pins are called {word}", where=pin.where, slug="pin-twice"
                )
        seen |= {pin.version, pin.commit}


def _layers(root: Path, backend: str, names: Iterable[str], where: str) -> Iterator[UniscaleError]:
    folder = root.parent / "patches" / backend
    for name in names:
        if "/" in name or name.startswith("."):
            yield LayerError(
                f"{name!r} cannot be the name of a layer",
                where=where,
                hint=f"a layer is a folder below patches/{backend}",
                slug="path-escape",
            )
        elif not (folder / name / "layer.yaml").is_file():
            have = sorted(path.parent.name for path in folder.glob("*/layer.yaml"))
            yield LayerError(
                f'{backend} has no layer "{name}"',
                where=where,
                hint=f"it has: {', '.join(have) or 'none'}",
                slug="no-layer",
            )


def _references(found: Manifests, pair: Adaptation, broken: bool) -> Iterator[UniscaleError]:
    backend = found.backends.get(pair.backend)
    if backend is None and not broken:
        yield _unknown(pair, "backend", pair.backend, found.backends)
    if backend is not None and pair.ready and backend.pin(pair.pin) is None:
        yield _unknown(pair, "pin", pair.pin, [pin.version for pin in backend.pins])
    if pair.device not in found.devices and not broken:
        yield _unknown(pair, "device", pair.device, found.devices)


def _unknown(pair: Adaptation, what: str, word: str, known: Iterable[str]) -> ManifestError:
    return ManifestError(
        f'there is no {what} "{word}"',
        where=pair.at(what),
        hint=did_you_mean(word, known),
        slug=f"unknown-{what}",
    )
