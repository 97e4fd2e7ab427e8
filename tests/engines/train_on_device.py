# mypy: disable-error-code="import-not-found"
"""``train_gpt``'s small GPT in one process, on the device called ``mlu`` or on the processor.

``train_on_device.py mlu|cpu`` prints one line of JSON: the losses, where the model was, and what
the device was asked.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

WHERE = sys.argv[1]
if WHERE == "mlu":
    import private_device

    CHIPS = private_device.register()
    # What the device's own collective library would do among one process: nothing.
    GROUPS = "cpu:gloo,mlu:fake"
    import torch.testing._internal.distributed.fake_pg
else:
    GROUPS = "gloo"

import train_gpt  # noqa: E402
from megatron.core import device, parallel_state, tensor_parallel  # noqa: E402
from megatron.core.transformer.module import (  # noqa: E402
    float16_to_fp32,
    fp32_to_float16,
)


def forward_step(batches: Any, model: Any) -> tuple[torch.Tensor, Any]:
    here = [tensor.to(device.current_device()) for tensor in next(batches)]
    return train_gpt.forward_step(iter([here]), model)  # type: ignore[no-any-return]


def main() -> None:
    torch.distributed.init_process_group(
        GROUPS, rank=0, world_size=1, store=torch.distributed.HashStore()
    )
    parallel_state.initialize_model_parallel(1, 1)
    tensor_parallel.model_parallel_cuda_manual_seed(7)
    torch.manual_seed(7)
    device.set_device(0)
    model = train_gpt.model_of(1, 1)
    losses = train_gpt.trained(model, 10, forward_step)
    device.synchronize()
    told = {"losses": losses, "devices": sorted({str(one.device) for one in model.parameters()})}
    if WHERE == "mlu":
        half = fp32_to_float16(torch.ones(2, 2, device="mlu"), torch.Tensor.bfloat16)
        told["types"] = [str(half.dtype), str(float16_to_fp32(half).dtype)]
        told["asked"] = sorted(CHIPS.calls)
        told["operators"] = sum(private_device.operators.values())
    print(json.dumps(told))


if __name__ == "__main__":
    main()
