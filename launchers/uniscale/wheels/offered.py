"""The device that a command is about: one that we know, or one that only the index knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from uniscale_build.errors import SettingsError
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.model import device_named

from uniscale.devices import devices


def asked_device(
    word: str | None, known: Mapping[str, Device], told: Sequence[Mapping[str, Any]] = ()
) -> tuple[Device, str]:
    """The device that a word names, or the one that is here; and what shows it ("" if nothing).

    ``told`` are the devices of a catalog: an index may have wheels for a chip that is newer than
    this installation. Such a chip cannot be found here, only asked for.
    """
    if word is None:
        return devices.here(known)
    try:
        device = devices.named(word, known)
    except SettingsError:
        more = {one.name: one for one in map(_device, told) if one.name}
        return device_named(word, {**more, **known}), ""
    return device, devices.present({device.name: device}).get(device.name, "")


def _device(told: Mapping[str, Any]) -> Device:
    name = _text(told, "device")
    return Device(
        name=name,
        title=_text(told, "title") or name,
        vendor="",
        aliases=_texts(told, "aliases"),
        label=_text(told, "label"),
        visible=_text(told, "visible") or None,
        names=_texts(told, "names"),
        image_packages=_texts(told, "image_packages"),
    )


def _text(told: Mapping[str, Any], key: str) -> str:
    found = told.get(key)
    return found if isinstance(found, str) and found.isprintable() else ""


def _texts(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = told.get(key)
    words = found if isinstance(found, list) else []
    return tuple(word for word in words if isinstance(word, str) and word.isprintable())
