"""The chips of this machine, one by one, and which of them are close to each other.

``gpustack-runtime`` asks the vendors' own libraries where it is installed; without it the device
files that the manifests name are counted, which tells how many there are and no more.
"""

from __future__ import annotations

import glob
import importlib.util
import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import LaunchError, SettingsError

if TYPE_CHECKING:
    from uniscale_build.manifests.devices import Device

LIBRARY = "gpustack_runtime"
_FEW = 20_000  # subsets that are all compared; beyond, the set grows from the best pair
_NUMBER = re.compile(r"[1-9]\d{0,3}")
_LISTED = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:/_-]*(,[A-Za-z0-9][A-Za-z0-9.:/_-]*)*,?")


@dataclass(frozen=True)
class Chip:
    """One chip; what nobody tells is None."""

    device: str  # name of its manifest, or the vendor as gpustack-runtime calls it
    index: int  # as the vendor counts
    name: str | None = None
    memory: int | None = None  # MiB
    driver: str | None = None
    runtime: str | None = None  # newest version of the SDK that the driver runs

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class Chips:
    """All chips of this machine, and where the knowledge is from."""

    chips: tuple[Chip, ...]
    source: str  # gpustack-runtime, or manifests
    note: str = ""  # why the better source was not used

    def of(self, device: str) -> tuple[Chip, ...]:
        """Those of one device."""
        return tuple(chip for chip in self.chips if chip.device == device)


def here(devices: Mapping[str, Device]) -> Chips:
    """The chips of this machine; nothing here raises: a broken vendor library is a note."""
    if importlib.util.find_spec(LIBRARY) is None:
        return Chips(_counted(devices), "manifests", "gpustack-runtime is not installed")
    try:
        from gpustack_runtime.detector import detect_devices

        told = detect_devices(fast=False, usage=False)
    except Exception as error:  # noqa: BLE001  (drivers' libraries fail in ways of their own)
        note = f"gpustack-runtime failed: {type(error).__name__}: {error}"
        return Chips(_counted(devices), "manifests", note)
    known = tuple(_chip(one, devices) for one in told)
    # It does not know every vendor: what the manifests see besides is counted.
    seen = {chip.device for chip in known}
    return Chips(
        known + tuple(one for one in _counted(devices) if one.device not in seen),
        "gpustack-runtime",
    )


def _chip(one: Any, devices: Mapping[str, Device]) -> Chip:
    return Chip(
        device=_device_of(str(one.manufacturer.value), devices),
        index=int(one.index),
        name=one.name or None,
        memory=one.memory or None,
        driver=one.driver_version,
        runtime=one.runtime_version_original or one.runtime_version,
    )


def _device_of(vendor: str, devices: Mapping[str, Device]) -> str:
    if vendor in devices:
        return vendor
    return next((name for name, one in devices.items() if vendor in one.aliases), vendor)


def _counted(devices: Mapping[str, Device]) -> tuple[Chip, ...]:
    from uniscale_build.manifests.detection import detected

    found: list[Chip] = []
    for name, device in devices.items():
        if device.parts or detected(device) is None:
            continue
        patterns = device.detect.nodes
        numbered = [
            node
            for pattern in patterns
            for node in sorted(glob.glob(pattern))
            if node[-1].isdigit()
        ]
        found += [Chip(name, place) for place in range(max(len(numbered), 1))]
    return tuple(found)


def distances(device: str, devices: Mapping[str, Device]) -> list[list[int]] | None:
    """How far the chips of ``device`` are from each other (0 itself, larger is farther).

    None when nobody tells it. gpustack-runtime's scale: 5 a fast link, 10 one PCIe bridge, 20
    several, 30 a host bridge, 40 within a NUMA node, 50 between them.
    """
    if importlib.util.find_spec(LIBRARY) is None:
        return None
    try:
        from gpustack_runtime.detector import get_devices_topologies

        for one in get_devices_topologies(fast=False):
            if _device_of(str(one.manufacturer.value), devices) == device:
                return [list(row) for row in one.devices_distances]
    except Exception:  # noqa: BLE001  (drivers' libraries fail in ways of their own)
        return None
    return None


def closest(table: Sequence[Sequence[int]], number: int) -> tuple[int, ...]:
    """The ``number`` rows of ``table`` with the smallest sum of distances; a pure function.

    Of equal sets the one with the lowest indexes. Exact up to some thousand subsets; beyond, the
    set grows from the closest pair by the nearest chip.
    """
    every = range(len(table))
    if number <= 1:
        return tuple(every[:number])
    subsets = 1
    for place in range(number):
        subsets = subsets * (len(table) - place) // (place + 1)
    if subsets <= _FEW:
        return min(itertools.combinations(every, number), key=lambda one: (_sum(table, one), one))
    chosen = list(min(itertools.combinations(every, 2), key=lambda one: (_sum(table, one), one)))
    while len(chosen) < number:
        rest = [one for one in every if one not in chosen]
        chosen.append(min(rest, key=lambda one: (sum(table[one][two] for two in chosen), one)))
    return tuple(sorted(chosen))


def _sum(table: Sequence[Sequence[int]], chosen: Iterable[int]) -> int:
    return sum(table[one][two] for one, two in itertools.combinations(chosen, 2))


def no_choice(title: str) -> LaunchError:
    """The error for ``--devices`` where no variable limits what ``title`` sees."""
    return LaunchError(
        f"{title} has no way to choose chips",
        where="--devices",
        hint="no variable is known that limits what it sees; numactl or taskset around the "
        "whole command choose processors",
        slug="no-devices",
    )


def chosen(word: str, device: str) -> tuple[str, str | None]:
    """What ``--devices word`` means for ``device``: its visible-devices value, and a remark.

    ``0,2`` are these chips, ``2,`` is the one of index 2, ``2`` is any two: the two that are
    closest to each other where that is known. Raises `SettingsError` for a word that is neither,
    `LaunchError` when there are fewer chips.
    """
    text = "".join(word.split())
    if not _LISTED.fullmatch(text):
        raise SettingsError(
            f"{word!r} chooses no chips",
            where="--devices",
            hint="0,2 are the chips 0 and 2; 2, is chip 2 alone; 2 is any two, close to each other",
            slug="bad-devices",
        )
    if not _NUMBER.fullmatch(text):
        return _listed(text), None
    from uniscale.devices import devices as known_devices

    devices = known_devices.known()
    number = int(text)
    chips = here(devices).of(device)
    if chips and len(chips) < number:
        raise LaunchError(
            f"this machine has {len(chips)} chips of {device}, not {number}",
            where="--devices", slug="no-devices",
        )  # fmt: skip
    table = distances(device, devices) if number > 1 else None
    if table is not None and len(table) == len(chips):
        rows = closest(table, number)
        indexes = [chips[row].index for row in rows]
        apart = _sum(table, rows)
        remark = f"chips {','.join(map(str, indexes))}: the closest {number} (distance {apart})"
        return ",".join(map(str, indexes)), remark
    indexes = [chip.index for chip in chips[:number]] or list(range(number))
    if number == 1:
        return str(indexes[0]), None
    what = f"chips {','.join(map(str, indexes))}: the first {number}, how close they are is unknown"
    return ",".join(map(str, indexes)), what


def shared(value: str, which: int, parts: int, *, each: int = 1) -> str:
    """The chips of engine ``which`` (from 0) of ``parts`` that have those of ``value`` together.

    Neighbours stay together. A pure function; raises `SettingsError` where the chips cannot be
    shared out equally, or a share is not a multiple of the ``each`` that one engine spans.
    """
    words = value.split(",")
    if parts == 1:
        return value
    size, left = divmod(len(words), parts)
    if left or size == 0 or size % max(each, 1):
        spans = f", each over {each}" if each > 1 else ""
        raise SettingsError(
            f"{len(words)} chips cannot be shared out to {parts} engines{spans}",
            where="--devices",
            hint=f"{parts * max(each, 1)} chips, or a multiple; engines that are to share a chip "
            "are entries of their own in a configuration",
            slug="bad-devices",
        )
    return ",".join(words[which * size : (which + 1) * size])


def _listed(text: str) -> str:
    words = text.rstrip(",").split(",")
    twice = sorted({word for word in words if words.count(word) > 1})
    if twice:
        raise SettingsError(
            f"the chip {', '.join(twice)} is named twice", where="--devices", slug="bad-devices"
        )
    return ",".join(words)
