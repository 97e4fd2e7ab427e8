"""Checks torch.ops.uniscale against PyTorch's own operators; run in an environment with torch.

``python ops_numbers.py LIBRARY DEVICE``; exits with an AssertionError that says what differs.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# One step in the last place where a sum in another order rounds the other way.
CLOSE = {
    torch.float32: {"rtol": 2e-6, "atol": 2e-6},
    torch.bfloat16: {"rtol": 8e-3, "atol": 1e-6},
    torch.float16: {"rtol": 2e-3, "atol": 1e-6},
}
SHAPES = ((1,), (1, 1), (3, 7), (5, 129), (64, 1000), (2, 3, 4096), (0, 8), (4, 0), (2, 0, 3))


def rms_norm(x: Tensor, weight: Tensor | None, epsilon: float, spread: int | None = None) -> Tensor:
    """As PyTorch would compute it, operator by operator."""
    wide = x.float()
    over = wide if spread is None else wide[..., :spread]
    wide = wide * torch.rsqrt(over.pow(2).mean(-1, keepdim=True) + epsilon)
    if weight is not None:
        wide = wide.to(weight.dtype) * weight
    return wide.to(x.dtype)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor | None, epsilon: float,
                 spread: int | None = None) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The norm of a sum, which is not rounded before, and the sum."""
    total = x.float() + residual.float()
    return rms_norm(total, weight, epsilon, spread).to(x.dtype), total.to(x.dtype)


def silu_and_mul(x: Tensor) -> Tensor:
    """As vLLM's SiluAndMul composes it."""
    half = x.shape[-1] // 2
    return torch.nn.functional.silu(x[..., :half]) * x[..., half:]


def weights(columns: int, dtype: torch.dtype) -> list[Tensor | None]:
    """None, of the row's own type, and float32."""
    return [None, torch.randn(columns).to(dtype), torch.randn(columns)]


def check_shapes(device: str) -> None:
    """Every shape, type and kind of weight, values of very different sizes."""
    ops: Any = torch.ops.uniscale
    for dtype, shape in itertools.product(DTYPES, SHAPES):
        close = CLOSE[dtype]
        x = (torch.randn(shape) * 4).to(device, dtype)
        added = torch.randn(shape).to(device, dtype)
        for weight in weights(shape[-1], dtype):
            w = None if weight is None else weight.to(device)
            for spread in {None, max(1, shape[-1] // 2)} if shape[-1] else {None}:
                got = ops.rms_norm(x, w, 1e-5, spread)
                torch.testing.assert_close(got, rms_norm(x, w, 1e-5, spread), **close)
                both = ops.fused_add_rms_norm(x, added, w, 1e-5, spread)
                wanted = add_rms_norm(x, added, w, 1e-5, spread)
                for have, want in zip(both, wanted, strict=True):
                    torch.testing.assert_close(have, want, **close)
                first, second = x.clone(), added.clone()
                assert ops.fused_add_rms_norm_(first, second, w, 1e-5, spread) is None
                assert torch.equal(first, both[0]) and torch.equal(second, both[1])
        pair = (torch.randn((*shape[:-1], 2 * shape[-1])) * 8).to(device, dtype)
        torch.testing.assert_close(ops.silu_and_mul(pair), silu_and_mul(pair), **close)


def check_views(device: str) -> None:
    """Views: columns of a wider tensor, every second number, transposed, expanded."""
    ops: Any = torch.ops.uniscale
    wide = torch.randn(6, 5, 64, device=device)
    weight = torch.randn(128, device=device)[::2]
    views = {
        "columns": wide[..., 16:48],
        "every second": wide[..., ::2],
        "transposed": wide.transpose(0, 1),
        "last two swapped": wide.transpose(1, 2),
        "expanded": wide[:1].expand(4, 5, 64),
        "rows left out": wide[::2, 1:4],
    }
    for name, view in views.items():
        w = weight[: view.shape[-1]] if view.shape[-1] <= 64 else None
        got = ops.rms_norm(view, w, 1e-6)
        assert got.is_contiguous(), name
        torch.testing.assert_close(got, rms_norm(view, w, 1e-6), **CLOSE[torch.float32])
        if view.shape[-1] % 2 == 0:
            silu = ops.silu_and_mul(view)
            torch.testing.assert_close(silu, silu_and_mul(view), **CLOSE[torch.float32])
    part = wide.clone()[..., 16:48]
    before, other = part.clone(), torch.randn(6, 5, 32, device=device)
    wanted = add_rms_norm(before, other, None, 1e-6)
    ops.fused_add_rms_norm_(part, other, None, 1e-6)
    torch.testing.assert_close(part, wanted[0], **CLOSE[torch.float32])
    torch.testing.assert_close(other, wanted[1], **CLOSE[torch.float32])


def check_every_number(device: str) -> None:
    """All 65536 numbers of both 16-bit types go through, infinities and NaNs among them."""
    ops: Any = torch.ops.uniscale
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = every.view(dtype).to(device)
        pair = torch.stack([numbers, torch.ones_like(numbers)], -1)
        got, want = ops.silu_and_mul(pair), silu_and_mul(pair)
        same = (got == want) | (got.isnan() & want.isnan())
        off = (got.float() - want.float()).abs() <= want.float().abs() * 0.008
        assert (same | off).all(), (dtype, numbers[~(same | off).flatten()])
        assert (~same).sum() < 200, (dtype, int((~same).sum()))
        # x * 1: what is read and written again is the same number.
        kept = ops.fused_add_rms_norm(pair, torch.zeros_like(pair), None, 0.0)[1]
        assert torch.equal(kept.isnan(), pair.isnan())
        assert torch.equal(kept[~kept.isnan()], pair[~pair.isnan()])


def check_threads() -> None:
    """The numbers do not depend on how many threads there are."""
    ops: Any = torch.ops.uniscale
    x = torch.randn(777, 513)
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(ops.rms_norm(x, None, 1e-5))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def check_refusals(device: str) -> None:
    """What cannot be computed is refused in words."""
    ops: Any = torch.ops.uniscale
    x = torch.randn(4, 6, device=device)
    ones, flat = torch.ones(6, device=device), torch.tensor(1.0, device=device)
    refused: list[tuple[str, Callable[[], object]]] = [
        ("must be float32, float16 or bfloat16", lambda: ops.rms_norm(x.double(), None, 1e-5)),
        ("must be float32, float16 or bfloat16", lambda: ops.silu_and_mul(x.int())),
        ("one dimension of 6", lambda: ops.rms_norm(x, ones[:5], 1e-5)),
        ("dtype of x, or float32", lambda: ops.rms_norm(x, ones.half(), 1e-5)),
        ("variance_size", lambda: ops.rms_norm(x, None, 1e-5, 7)),
        ("variance_size", lambda: ops.rms_norm(x, None, 1e-5, 0)),
        ("shape of x", lambda: ops.fused_add_rms_norm(x, x[:2], None, 1e-5)),
        ("dtype of x", lambda: ops.fused_add_rms_norm(x, x.half(), None, 1e-5)),
        ("side by side", lambda: ops.fused_add_rms_norm_(x.t(), x.t(), None, 1e-5)),
        ("must be even", lambda: ops.silu_and_mul(x[..., :5])),
        ("at least one dimension", lambda: ops.rms_norm(flat, None, 0.1)),
    ]  # fmt: skip
    for words, call in refused:
        try:
            call()
        except RuntimeError as error:
            assert words in str(error), (words, str(error))
        else:
            raise AssertionError(f"not refused: {words}")


def main(library: str, device: str) -> None:
    """All checks; a line at the end."""
    torch.manual_seed(0)
    torch.ops.load_library(library)
    check_shapes(device)
    check_views(device)
    check_every_number(device)
    if device == "cpu":
        check_threads()
    check_refusals(device)
    print("the numbers agree")


if __name__ == "__main__":
    main(*sys.argv[1:])
