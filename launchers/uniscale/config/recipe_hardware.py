"""Kinds of hardware in the words of vLLM's recipes: a chip, its generation, its brand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from uniscale_build.errors import SettingsError

# The names that recipes use, from the general to the particular: brand, generation, chip.
GENERATIONS: Mapping[str, tuple[str, ...]] = {
    "hopper": ("h100", "h200", "h20", "h800", "gh200"),
    "blackwell": (
        "dgx_spark_gb10",
        "dgx_station_gb300",
        "rtx_pro_6000",
        "rtx_pro_5000",
        "rtx_5090",
        "gb200",
        "gb300",
        "b200",
        "b300",
    ),
    "ampere": ("a100", "a800", "a10", "a40"),
    "ada": ("l4", "l40", "l40s", "rtx_4090"),
}
TPU = ("trillium", "ironwood")
_SEVERAL = re.compile(r"_\d+x$")
AMD = ("mi250", "mi300x", "mi308x", "mi325x", "mi350x", "mi355x", "mi400x")


def lineage(name: str) -> tuple[str, ...]:
    """A kind of hardware with what it belongs to: ``h200`` → nvidia, hopper, h200.

    A name of one of our devices counts for all its names: vendors may write any of them.
    """
    word = _SEVERAL.sub("", name.lower())  # rtx_5090_2x is the same chip, twice
    for generation, chips in GENERATIONS.items():
        if word == generation:
            return ("nvidia", generation)
        if word in chips:
            return ("nvidia", generation, word)
    if word in AMD:
        return ("amd", word)
    if word.startswith("ascend"):
        return tuple(dict.fromkeys(("huawei", "ascend", "npu", word)))
    if word.startswith("xeon"):
        return ("intel", "cpu", word)
    if word.startswith("epyc"):
        return ("cpu", word)
    if word.startswith("arc_"):
        return ("intel", "xpu", word)
    if word in TPU:
        return ("google", "tpu", word)
    from uniscale.devices import devices

    try:
        device = devices.named(name)
    except SettingsError:
        return (word,)
    return tuple(dict.fromkeys((*device.aliases, device.label, device.name)))


def here() -> tuple[str, ...]:
    """The hardware of this machine in the recipes' words; () where it has several kinds."""
    from uniscale.devices import chips, devices

    known = devices.known()
    found = chips.here(known)
    kinds = sorted({chip.device for chip in found.chips})
    if len(kinds) > 1:
        return ()
    if not kinds:
        return ("cpu",)
    plain = (re.sub(r"[^a-z0-9]+", "_", chip.name.lower()) for chip in found.chips if chip.name)
    names = {f"_{name}_" for name in plain}
    exact = [
        word
        for chips_ in (*GENERATIONS.values(), AMD)
        for word in chips_
        if any(f"_{word}_" in name for name in names)
    ]
    return lineage(exact[0]) if exact else lineage(kinds[0])


def memory(names: Sequence[str]) -> float | None:
    """GB of one chip of the hardware called ``names`` here; None: nobody knows."""
    from uniscale.devices import chips, devices

    found = chips.here(devices.known()).chips
    sizes = [one.memory for one in found if one.memory and set(lineage(one.device)) & set(names)]
    return min(sizes) * (1 << 20) / 1e9 if sizes else None


def count(names: Sequence[str]) -> int | None:
    """How many chips this machine has of the hardware called ``names``; None: nobody knows."""
    from uniscale.devices import chips, devices

    found = chips.here(devices.known()).chips
    mine = [chip for chip in found if set(lineage(chip.device)) & set(names)]
    return len(mine) or None
