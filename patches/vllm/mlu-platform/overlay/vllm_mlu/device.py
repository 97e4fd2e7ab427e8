# SPDX-License-Identifier: Apache-2.0
"""The only caller of torch_mlu: what is asked of the chips, in the words of ``torch.mlu``.

torch_mlu gives PyTorch a device of its own called ``mlu`` and the module ``torch.mlu``, whose
functions have the names of ``torch.cuda``'s.
"""

import functools
import importlib
from typing import Any, Optional, Tuple

import torch

VISIBLE = "MLU_VISIBLE_DEVICES"
COLLECTIVE = "cncl"


@functools.lru_cache(maxsize=None)
def _load() -> Optional[str]:
    """Import torch_mlu; None when that went well, else why not."""
    if hasattr(torch, "mlu"):
        return None
    try:
        importlib.import_module("torch_mlu")
    except ImportError as error:
        return str(error)
    return None if hasattr(torch, "mlu") else "torch_mlu is there, but torch.mlu is not"


def module() -> Any:
    """``torch.mlu``; RuntimeError with what is missing."""
    missing = _load()
    if missing is not None:
        raise RuntimeError(
            f"vLLM for MLU needs Cambricon's torch_mlu ({missing}): run in the image that "
            "Cambricon provides, or install torch_mlu for this PyTorch"
        )
    return torch.mlu  # type: ignore[attr-defined]


def count() -> int:
    """How many chips this process sees; 0 without torch_mlu."""
    if _load() is not None:
        return 0
    mlu = module()
    return int(mlu.device_count()) if mlu.is_available() else 0


def select(index: int) -> torch.device:
    """Make chip ``index`` this process's own; RuntimeError where there are fewer."""
    have = count()
    if index >= have:
        raise RuntimeError(
            f"this worker needs MLU {index}, and {have} are visible: see {VISIBLE} and cnmon"
        )
    chosen = torch.device("mlu", index)
    module().set_device(chosen)
    return chosen


def memory(index: Optional[int] = None) -> Tuple[int, int]:
    """Free and total memory of a chip, in bytes."""
    free, total = module().mem_get_info(index) if index is not None else module().mem_get_info()
    return int(free), int(total)


def start_measuring() -> None:
    """Give unused memory back and begin to watch for the largest use."""
    mlu = module()
    mlu.synchronize()
    mlu.empty_cache()
    mlu.reset_peak_memory_stats()


def peak() -> int:
    """The most that PyTorch had allocated since `start_measuring`, in bytes."""
    return int(module().max_memory_allocated())


def allocated(device: Optional[Any] = None) -> int:
    """What PyTorch has allocated now, in bytes."""
    return int(module().memory_allocated(device))
