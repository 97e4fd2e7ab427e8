# SPDX-License-Identifier: Apache-2.0
"""Communication between MLUs: PyTorch's collectives over CNCL, on this worker's own chip."""

from typing import Optional

import torch
from torch.distributed import ProcessGroup

from vllm.distributed.device_communicators.base_device_communicator import (
    DeviceCommunicatorBase,
)
from vllm_mlu import device as mlu


class MluCommunicator(DeviceCommunicatorBase):
    """vLLM gives platforms that it does not know the processor as their device: put that right."""

    def __init__(
        self, cpu_group: ProcessGroup, device: Optional[torch.device] = None,
        device_group: Optional[ProcessGroup] = None, unique_name: str = "",
    ) -> None:  # fmt: skip
        own = torch.device("mlu", mlu.module().current_device())
        super().__init__(cpu_group, own, device_group, unique_name)
