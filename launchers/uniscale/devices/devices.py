"""Devices at run time: what this installation knows of them, and which one is in this machine.

The manifests are the ones that the wheel carries (or the checkout, when it runs from there), read
by what reads them for builds: there is one set of names, one way to look for chips.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError
from uniscale_build.manifests.detection import find_devices
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.load import load_devices
from uniscale_build.manifests.model import device_named

FALLBACK = "cpu"  # what is left when no chip is found; its manifest names nothing to look for
VARIABLE = "UNISCALE_MANIFESTS"


def folders(environ: Mapping[str, str] | None = None) -> tuple[Path, ...]:
    """The manifest folders: ours, then a site's own; `SettingsError` when one is not there."""
    import uniscale_build

    env = os.environ if environ is None else environ
    package = Path(uniscale_build.__file__).resolve().parent
    ours = package / "data" / "manifests"
    if not ours.is_dir():  # a checkout, or an editable install of one
        ours = package.parents[1] / "manifests"
    found = [ours]
    for word in filter(None, env.get(VARIABLE, "").split(os.pathsep)):
        folder = Path(word).expanduser().absolute()
        if not folder.is_dir():
            raise SettingsError(
                f"{VARIABLE} names a folder that is not there", where=str(folder), slug="no-folder"
            )
        found.append(folder)
    return tuple(found)


def known(environ: Mapping[str, str] | None = None) -> dict[str, Device]:
    """Every device by its name; takes some 30 ms, so a command reads them once and only if asked.

    Raises what a broken manifest of a site raises, all faults at once.
    """
    return load_devices(folders(environ))


def named(word: str, devices: Mapping[str, Device] | None = None) -> Device:
    """The device called ``word``, by name or alias in any spelling; `SettingsError` if none is."""
    return device_named(word, known() if devices is None else devices)


def present(
    devices: Mapping[str, Device] | None = None, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Name of each chip that is in this machine → what shows it (a device file, a program)."""
    return find_devices((known(environ) if devices is None else devices).values(), environ)


def here(
    devices: Mapping[str, Device] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Device, str]:
    """The device of this machine and what shows it ("" for the processor, which is not looked for).

    `LaunchError` when there are chips of several kinds: nobody but the user can choose.
    """
    devices = known(environ) if devices is None else devices
    seen = present(devices, environ)
    if len(seen) > 1:
        told = "\n".join(f"--device {name}  ({what})" for name, what in seen.items())
        raise LaunchError(
            f"this machine has chips of {len(seen)} kinds: {', '.join(seen)}",
            hint=f"say which one you mean:\n{told}",
            slug="several-devices",
        )
    for name, what in seen.items():
        return devices[name], what
    return named(FALLBACK, devices), ""
