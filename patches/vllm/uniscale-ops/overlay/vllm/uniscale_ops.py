# SPDX-License-Identifier: Apache-2.0
"""uniscale's fused operators: finds their library, loads it once, tells whether it is there.

The library is built beside vLLM (see ``uniscale_ops/`` in the source tree) and lies in the same
payload. Where it is missing, as in a checkout, vLLM's own implementations are used.
``UNISCALE_OPS=0`` leaves it out.
"""

import functools
import logging
import os
from pathlib import Path

import torch

# A child of vLLM's own logger, and importable without the rest of vLLM.
logger = logging.getLogger(__name__)

_FALSE = ("0", "false", "no", "off")
LIBRARY = Path("lib", "libuniscale_ops.so")
# What the kernels are worth it for: elsewhere PyTorch's own composition is as fast.
DTYPES = (torch.float32, torch.bfloat16)


def library() -> Path:
    """Where the payload has the library."""
    return Path(__file__).resolve().parents[1] / LIBRARY


@functools.cache
def available() -> bool:
    """True when ``torch.ops.uniscale`` has the operators; loads them when first asked."""
    path = library()
    if os.getenv("UNISCALE_OPS", "1").strip().lower() in _FALSE or not path.is_file():
        return False
    try:
        torch.ops.load_library(path)
    except OSError as error:
        # PyTorch before 2.10, for example, has not all functions of the stable interface.
        logger.warning("%s cannot be loaded (%s): vLLM's own operators are used", path, error)
        return False
    _register_shapes()
    logger.info("uniscale's fused operators are loaded from %s", path)
    return True


def _register_shapes() -> None:
    """What the operators give, for tracing without data."""

    @torch.library.register_fake("uniscale::rms_norm")
    def _(x, weight, epsilon, variance_size=None):
        return torch.empty(x.shape, dtype=x.dtype, device=x.device)

    @torch.library.register_fake("uniscale::fused_add_rms_norm")
    def _(x, residual, weight, epsilon, variance_size=None):
        made = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        return made, torch.empty_like(made)

    @torch.library.register_fake("uniscale::fused_add_rms_norm_")
    def _(x, residual, weight, epsilon, variance_size=None):
        return None

    @torch.library.register_fake("uniscale::silu_and_mul")
    def _(x):
        shape = (*x.shape[:-1], x.shape[-1] // 2)
        return torch.empty(shape, dtype=x.dtype, device=x.device)


def fits(x: torch.Tensor) -> bool:
    """True when the kernels take ``x`` as it is: a known type, rows that lie side by side."""
    return x.dtype in DTYPES and x.dim() > 0 and x.stride(-1) == 1
