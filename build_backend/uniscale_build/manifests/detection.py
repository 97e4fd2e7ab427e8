"""Finds the devices of this machine by what their manifests say; nothing is started or imported."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterable, Mapping

from uniscale_build.manifests.devices import Device


def detected(device: Device, environ: Mapping[str, str] | None = None) -> str | None:
    """What shows that the device is in this machine, or None.

    Of every kind that the manifest names (nodes, commands, environment) one must be there: a
    management program alone can be another vendor's (``xpu-smi`` is Intel's and Kunlunxin's).
    """
    env = os.environ if environ is None else environ
    detect = device.detect
    if any(glob.glob(pattern) for pattern in detect.absent):
        return None
    kinds: list[list[str]] = []
    if detect.nodes:
        kinds.append([node for pattern in detect.nodes for node in sorted(glob.glob(pattern))])
    if detect.commands:
        paths = (shutil.which(name, path=env.get("PATH")) for name in detect.commands)
        kinds.append([path for path in paths if path])
    if detect.environment:
        kinds.append([name for name in detect.environment if env.get(name)])
    if not kinds or not all(kinds):
        return None
    return kinds[0][0]


def find_devices(
    devices: Iterable[Device], environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Name → what shows it, for every device that is in this machine."""
    found = ((device.name, detected(device, environ)) for device in devices)
    return {name: seen for name, seen in found if seen is not None}
