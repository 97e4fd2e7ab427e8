"""A PyTorch device called ``mlu`` that computes on the processor, operator by operator.

PyTorch keeps a device for others; here it has a Python backend: every operator that is asked of it
runs on the processor with the tensors behind. What makes a tensor elsewhere by mistake mixes
devices, which PyTorch refuses. It stands in for torch_mlu; nothing of an MLU is in it.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "mlu"


class Chips:
    """``torch.mlu``: one chip, whose functions count their calls."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def set_device(self, device: Any) -> None:
        self.calls["set_device"] += 1

    def synchronize(self, device: Any = None) -> None:
        self.calls["synchronize"] += 1

    def manual_seed(self, seed: int) -> None:
        self.calls["manual_seed"] += 1
        torch.default_generator.manual_seed(seed)

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        self.calls["get_rng_state"] += 1
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self.calls["set_rng_state"] += 1
        torch.set_rng_state(state)


# PyTorch would work out the strides of these by itself, from those that a tensor here has not.
VIEWS = (
    "as_strided", "view", "_unsafe_view", "_reshape_alias", "transpose.int", "permute", "t",
    "unsqueeze", "squeeze", "squeeze.dim", "squeeze.dims", "select.int", "slice.Tensor", "expand",
    "split.Tensor", "split_with_sizes", "unbind.int", "diagonal", "view.dtype",
    # And these make an empty tensor that they give its size in place.
    "arange", "arange.start", "arange.start_step",
)  # fmt: skip

_behind: dict[int, torch.Tensor] = {}  # storage of a tensor of the device → the processor's tensor
_kept: list[torch.library.Library] = []
operators: Counter[str] = Counter()


def _wrapped(behind: torch.Tensor) -> torch.Tensor:
    made = torch._C._acc.create_empty_tensor(behind.shape, behind.dtype)
    _behind[made.untyped_storage()._cdata] = behind
    return made


def _of(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != NAME:
        return tensor
    behind = _behind[tensor.untyped_storage()._cdata]
    assert behind.shape == tensor.shape, (behind.shape, tensor.shape)
    return behind


def _on_the_processor(op: Any, *args: Any, **words: Any) -> Any:
    operators[str(op)] += 1
    given: dict[int, torch.Tensor] = {}

    def inside(one: Any) -> Any:
        if isinstance(one, torch.device) and one.type == NAME:
            return torch.device("cpu")
        if not isinstance(one, torch.Tensor):
            return one
        if one.device.type == "cpu" and one.dim():
            raise RuntimeError(f"{op} was given a tensor of the processor beside one of {NAME}")
        given[id(_of(one))] = one
        return _of(one)

    def outside(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return one
        return given[id(one)] if id(one) in given else _wrapped(one)

    args, words = pytree.tree_map(inside, (args, words))
    # Here every tensor looks contiguous, so that what has other strides behind may be asked for.
    if op in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        op = torch.ops.aten.reshape.default
    return pytree.tree_map(outside, op(*args, **words))


def _copied(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _of(target).copy_(_of(source))
    return target


def register() -> Chips:
    """From here on there is ``torch.mlu`` and the device ``mlu``."""
    chips = Chips()
    _setup_privateuseone_for_python_backend(NAME, backend_module=chips)
    every, aten = torch.library.Library("_", "IMPL"), torch.library.Library("aten", "IMPL")
    every.fallback(_on_the_processor, "PrivateUse1")
    aten.impl("_copy_from", _copied, "PrivateUse1")
    for name in VIEWS:
        packet, _, overload = name.partition(".")
        op = getattr(getattr(torch.ops.aten, packet), overload or "default")
        aten.impl(name, partial(_on_the_processor, op), "PrivateUse1")
    _kept.extend([every, aten])
    return chips
