"""Our fused operators against the composition of PyTorch's operators that they replace.

``ci/bench ops LIBRARY [--quick]``: LIBRARY is a vLLM payload's lib/libuniscale_ops.so, and Python
is one with torch. Also times what inductor makes of the composition where ``--compile`` is given.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchlib import save

EPSILON = 1e-5
HIDDEN, MLP = 4096, 11008  # of a 7-billion-parameter Llama
ROWS = (1, 16, 512)  # one sequence that decodes, a batch of them, a prompt


def best(function: Callable[..., object], given: Sequence[object], seconds: float) -> float:
    """The fastest of many runs, in microseconds: other programs only ever make it slower."""
    function(*given)
    found, end, runs = float("inf"), time.perf_counter() + seconds, 0
    while time.perf_counter() < end or runs < 15:
        runs += 1
        begin = time.perf_counter()
        function(*given)
        found = min(found, time.perf_counter() - begin)
    return found * 1e6


def compositions() -> dict[str, Callable[..., Any]]:
    """As vLLM 0.32.0 has them (vllm/ir/ops/layernorm.py, SiluAndMul.forward_native)."""
    import torch

    def norm(x: Any, weight: Any) -> Any:
        wide = x.to(torch.float32)
        wide = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + EPSILON)
        return (wide.to(weight.dtype) * weight).to(x.dtype)

    def add_norm(x: Any, residual: Any, weight: Any) -> Any:
        wide = x.to(torch.float32) + residual.to(torch.float32)
        total = wide.to(x.dtype)
        wide = wide * torch.rsqrt(wide.pow(2).mean(dim=-1, keepdim=True) + EPSILON)
        return (wide.to(weight.dtype) * weight).to(x.dtype), total

    def silu(x: Any) -> Any:
        half = x.shape[-1] // 2
        return torch.nn.functional.silu(x[..., :half]) * x[..., half:]

    return {"rms_norm": norm, "fused_add_rms_norm": add_norm, "silu_and_mul": silu}


def measure(seconds: float, compiled: bool) -> list[dict[str, object]]:
    """Microseconds of each operator, type and number of rows: eager, ours (and compiled)."""
    import torch

    ours: Any = torch.ops.uniscale
    eager = compositions()
    found: list[dict[str, object]] = []
    for dtype in (torch.bfloat16, torch.float32):
        weight = torch.randn(HIDDEN).to(dtype)
        for rows in ROWS:
            x, residual = (torch.randn(rows, HIDDEN).to(dtype) for _ in range(2))
            pair = torch.randn(rows, 2 * MLP).to(dtype)
            given = {"rms_norm": (x, weight), "fused_add_rms_norm": (x, residual, weight),
                     "silu_and_mul": (pair,)}  # fmt: skip
            for name, tensors in given.items():
                more = () if name == "silu_and_mul" else (EPSILON,)
                mine, theirs = getattr(ours, name), eager[name]
                took = {
                    "eager": best(theirs, tensors, seconds),
                    "ours": best(mine, (*tensors, *more), seconds),
                }
                if compiled:
                    made = torch.compile(theirs, dynamic=False)
                    took["inductor"] = best(made, tensors, seconds)
                item = {"operator": name, "dtype": str(dtype).removeprefix("torch."), "rows": rows}
                found.append({**item, **{key: round(value, 1) for key, value in took.items()},
                              "times_faster": round(took["eager"] / took["ours"], 2)})  # fmt: skip
                print(found[-1], flush=True)
    return found


def main() -> None:
    """Measure, print, keep the results."""
    parser = argparse.ArgumentParser(prog="ci/bench ops", description=__doc__)
    parser.add_argument("library", type=Path)
    parser.add_argument("--quick", action="store_true", help="less time for each, nothing is kept")
    parser.add_argument("--compile", action="store_true", help="what inductor makes, too")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    torch.ops.load_library(given.library)
    with torch.inference_mode():
        found = measure(0.05 if given.quick else 0.6, given.compile)
    if not given.quick:
        facts = {"torch": torch.__version__, "threads": given.threads, "hidden": HIDDEN,
                 "mlp": MLP, "unit": "microseconds, the fastest run"}  # fmt: skip
        print(save("ops", {**facts, "runs": found}))


if __name__ == "__main__":
    main()
