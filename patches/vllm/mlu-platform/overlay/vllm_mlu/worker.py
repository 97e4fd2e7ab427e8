# SPDX-License-Identifier: Apache-2.0
"""A vLLM worker on one MLU: its chip, its process group, its share of memory."""

import gc
from typing import Tuple

import torch

from vllm.distributed import ensure_model_parallel_initialized, init_distributed_environment
from vllm.distributed.parallel_state import set_custom_all_reduce
from vllm.logger import init_logger
from vllm.model_executor import set_random_seed
from vllm.platforms import current_platform
from vllm.worker.worker import Worker
from vllm.worker.worker_base import LoRANotSupportedWorkerBase
from vllm_mlu import device

logger = init_logger(__name__)


class MluWorker(LoRANotSupportedWorkerBase, Worker):
    """vLLM's worker with everything that it says to CUDA said to the MLU."""

    def init_device(self) -> None:
        """Take the chip, join the group; RuntimeError where there is no such chip."""
        if self.device_config.device_type != current_platform.device_type:
            raise RuntimeError(f"not an MLU: {self.device_config.device}")
        self.device = device.select(self.local_rank)
        gc.collect()
        device.start_measuring()
        self.free_at_start = device.memory(self.local_rank)[0]
        self._join()
        set_random_seed(self.model_config.seed)

    def _join(self) -> None:
        parallel = self.parallel_config
        set_custom_all_reduce(False)
        init_distributed_environment(
            parallel.world_size, self.rank, self.distributed_init_method, self.local_rank,
            backend=device.COLLECTIVE,
        )  # fmt: skip
        ensure_model_parallel_initialized(
            parallel.tensor_parallel_size, parallel.pipeline_parallel_size
        )

    @torch.inference_mode()
    def determine_num_available_blocks(self) -> Tuple[int, int]:
        """Blocks of KV cache on the chip and on the host, after a run with made-up input.

        The chip's share is what gpu_memory_utilization leaves after the weights, the largest use
        of that run, and what others than PyTorch took since the start.
        """
        device.start_measuring()
        self.model_runner.profile_run()
        device.module().synchronize()
        free, total = device.memory(self.local_rank)
        taken = self.free_at_start - free
        if taken <= 0:
            raise RuntimeError(
                f"the MLU has more free memory ({free} bytes) than when this worker started "
                f"({self.free_at_start}): another process gave memory back meanwhile; start again"
            )
        outside = max(0, taken - device.allocated())
        available = blocks_of(
            total, self.cache_config.gpu_memory_utilization, device.peak() + outside,
            self.get_cache_block_size_bytes(),
        )  # fmt: skip
        host = int(self.cache_config.swap_space_bytes // self.get_cache_block_size_bytes())
        logger.info("MLU: %d blocks of KV cache on the chip, %d on the host", available, host)
        gc.collect()
        module = device.module()
        module.empty_cache()
        return available, host


def blocks_of(total: int, share: float, used: int, block: int) -> int:
    """How many blocks of ``block`` bytes fit in ``share`` of ``total`` beside ``used`` bytes."""
    return max(0, int((total * share - used) // block))
