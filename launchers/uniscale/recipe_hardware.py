"""Kinds of hardware in the words of vLLM's recipes: a chip, its generation, its brand."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from uniscale_build.errors import SettingsError

# The names that recipes use, from the general to the particular: brand, generation, chip.
GENERATIONS: Mapping[str, tuple[str, ...]] = {
    "hopper": ("h100", "h200", "h20", "h800", "gh200"),
    "blackwell": ("b200", "b300", "gb200", "gb300", "dgx_spark_gb10", "rtx_pro_6000", "rtx_5090"),
    "ampere": ("a100", "a800", "a10", "a40"),
    "ada": ("l4", "l40", "l40s", "rtx_4090"),
}
AMD = ("mi250", "mi300x", "mi308x", "mi325x", "mi350x", "mi355x", "mi400x")


def lineage(name: str) -> tuple[str, ...]:
    """A kind of hardware with what it belongs to: ``h200`` → nvidia, hopper, h200.

    A name of one of our devices counts for all its names: vendors may write any of them.
    """
    word = name.lower()
    for generation, chips in GENERATIONS.items():
        if word == generation:
            return ("nvidia", generation)
        if word in chips:
            return ("nvidia", generation, word)
    if word in AMD:
        return ("amd", word)
    if word.startswith("ascend"):
        return tuple(dict.fromkeys(("ascend", word)))
    if word.startswith(("xeon", "epyc")):
        return ("cpu", word)
    from uniscale import devices

    try:
        device = devices.named(name)
    except SettingsError:
        return (word,)
    return tuple(dict.fromkeys((*device.aliases, device.label, device.name)))


def here() -> tuple[str, ...]:
    """The hardware of this machine in the recipes' words; () where it has several kinds."""
    from uniscale import chips, devices

    known = devices.known()
    found = chips.here(known)
    kinds = sorted({chip.device for chip in found.chips})
    if len(kinds) > 1:
        return ()
    if not kinds:
        return ("cpu",)
    names = {str(chip.name).lower().replace(" ", "_") for chip in found.chips if chip.name}
    exact = [
        word
        for chips_ in (*GENERATIONS.values(), AMD)
        for word in chips_
        if any(word in re.split(r"[^a-z0-9]+", name) for name in names)
    ]
    return lineage(exact[0]) if exact else lineage(kinds[0])


def count(names: Sequence[str]) -> int | None:
    """How many chips this machine has of the hardware called ``names``; None: nobody knows."""
    from uniscale import chips, devices

    found = chips.here(devices.known()).chips
    mine = [chip for chip in found if set(lineage(chip.device)) & set(names)]
    return len(mine) or None
