# SPDX-License-Identifier: Apache-2.0
"""vLLM's IR operators in uniscale's fused kernels: provider ``uniscale``."""

import torch
from torch import Tensor

from vllm import ir, uniscale_ops

AVAILABLE = uniscale_ops.available()


def _weight_fits(x: Tensor, weight: Tensor | None) -> bool:
    return weight is None or weight.dtype in (x.dtype, torch.float32)


def norm_fits(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> bool:
    """What rms_norm takes; the rest goes to the next provider."""
    return uniscale_ops.fits(x) and _weight_fits(x, weight)


def add_norm_fits(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> bool:
    """What fused_add_rms_norm takes; the rest goes to the next provider."""
    return (
        uniscale_ops.fits(x)
        and _weight_fits(x, weight)
        and x_residual.dtype == x.dtype
        and x_residual.shape == x.shape
        and x_residual.stride(-1) == 1
    )


@ir.ops.rms_norm.register_impl("uniscale", supported=AVAILABLE, supports_args=norm_fits)
def rms_norm(
    x: Tensor, weight: Tensor | None, epsilon: float, variance_size: int | None = None
) -> Tensor:
    return torch.ops.uniscale.rms_norm(x, weight, epsilon, variance_size)


@ir.ops.fused_add_rms_norm.register_impl(
    "uniscale", supported=AVAILABLE, supports_args=add_norm_fits, inplace=True
)
def fused_add_rms_norm(
    x: Tensor,
    x_residual: Tensor,
    weight: Tensor | None,
    epsilon: float,
    variance_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    torch.ops.uniscale.fused_add_rms_norm_(x, x_residual, weight, epsilon, variance_size)
    return x, x_residual
