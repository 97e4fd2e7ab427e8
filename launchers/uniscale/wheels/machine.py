"""What this machine and this Python can run: tags, glibc, the device, its SDK and its driver."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass

from uniscale_build.errors import UniscaleError
from uniscale_build.manifests.devices import Device


@dataclass(frozen=True)
class Machine:
    """Everything that a wheel is measured against; ``""`` is what could not be found out."""

    python: str  # 3.11.7
    tags: Mapping[str, int]  # every tag that this Python takes → its rank, 0 the best
    architecture: str  # as uname -m has it
    glibc: str
    device: Device
    seen: str = ""  # what shows the device
    sdk: str = ""  # version of the device's SDK
    sdk_note: str = ""  # why it is not known
    driver: str = ""  # newest SDK version that the driver runs

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``."""
        return {
            "python": self.python,
            "architecture": self.architecture,
            "glibc": self.glibc or None,
            "device": self.device.name,
            "seen": self.seen or None,
            "sdk": self.sdk or None,
            "driver": self.driver or None,
        }


def inspect(device: Device, seen: str = "", environ: Mapping[str, str] | None = None) -> Machine:
    """This machine, for a device that was found or asked for.

    The SDK's compiler and the driver's program are asked for their versions: seconds at most.
    """
    from packaging.tags import sys_tags
    from uniscale_build.manifests.sdk import driver_version, find_sdk

    env = os.environ if environ is None else environ
    version, note = "", ""
    if device.sdk is not None:
        try:
            version = find_sdk(device, env).version
        except UniscaleError as error:
            note = error.findings()[0].what
    return Machine(
        python=platform.python_version(),
        tags={str(tag): rank for rank, tag in reversed(list(enumerate(sys_tags())))},
        architecture=platform.machine(),
        glibc=_glibc(),
        device=device,
        seen=seen,
        sdk=version,
        sdk_note=note,
        driver=driver_version(device, env),
    )


def _glibc() -> str:
    try:
        told = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
    except (AttributeError, OSError, ValueError):  # another libc
        return ""
    return told.rpartition(" ")[2]
