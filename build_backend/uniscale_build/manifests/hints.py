"""The way forward, told where a name or a pair is not known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from uniscale_build.errors import did_you_mean

if TYPE_CHECKING:
    from uniscale_build.manifests.devices import Device
    from uniscale_build.manifests.model import Backend


def way_in(backend: Backend, device: Device) -> str:
    """What is known of how ``backend`` could come to ``device``, which has no adaptation of it."""
    known = _known_way(backend, device)
    unpinned = [pin for pin in backend.pins if not pin.tree]
    if len(unpinned) < len(backend.pins):
        return known or (
            "nothing is known here; uniscale-build unpatch is where an adaptation begins"
        )
    why = f"its source is not pinned: {unpinned[-1].note}"
    return f"{known}; {why}" if known else why


def _known_way(backend: Backend, device: Device) -> str:
    if device.parts:
        return f"its parts are {' and '.join(device.parts)}"
    if backend.name == "vllm" and device.vllm.route != "none":
        package = f" ({device.vllm.package})" if device.vllm.package else ""
        return f"vLLM comes to it by: {device.vllm.route}{package}"
    if backend.recipe.family == "ggml":
        if device.llama_cpp:
            return f"upstream's CMake has {device.llama_cpp} for it"
        return "upstream has no backend for it"
    if backend.name == "FlagCX" and device.collective.flagcx:
        return f"upstream's Makefile has {device.collective.flagcx} for it"
    return ""


def which_device(word: str, devices: Mapping[str, Device], spellings: Mapping[str, str]) -> str:
    """A hint for ``word``, which names no device: those that are called so elsewhere, or the
    nearest of ``spellings``.

    PyTorch's names, Chinese names, chips and the beginnings of variables fit several devices, so
    that none of them is an alias.
    """
    meant = [name for name, device in devices.items() if word.casefold() in _also(device)]
    if not meant:
        return did_you_mean(word, spellings)
    return f'"{word}" could be {" or ".join(meant)}: give the device\'s own name'


def _also(device: Device) -> set[str]:
    variables = [name.partition("_VISIBLE_")[0] for name in (device.visible, *device.visible_more)
                 if name]  # fmt: skip
    words = (device.label, device.torch.device, device.vendor, *device.names, *device.chips)
    return {word.casefold() for word in (*words, *variables) if word}
