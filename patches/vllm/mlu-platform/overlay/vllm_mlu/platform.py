# SPDX-License-Identifier: Apache-2.0
"""What vLLM asks of a platform, answered for Cambricon MLU."""

import os
from typing import TYPE_CHECKING, List, Optional, Tuple

import torch

from vllm.logger import init_logger
from vllm.platforms.interface import DeviceCapability, Platform, PlatformEnum, _Backend
from vllm_mlu import device

if TYPE_CHECKING:
    from vllm.config import ModelConfig, VllmConfig
else:
    ModelConfig = VllmConfig = None

logger = init_logger(__name__)

WORKER = "vllm_mlu.worker.MluWorker"
ATTENTION = "vllm_mlu.attention.PagedAttentionBackend"
COMMUNICATOR = "vllm_mlu.communicator.MluCommunicator"


class MluPlatform(Platform):
    """Cambricon's chips through torch_mlu, PyTorch's device for others renamed to ``mlu``."""

    _enum = PlatformEnum.OOT
    device_name: str = "mlu"
    device_type: str = "mlu"
    dispatch_key: str = "PrivateUse1"
    device_control_env_var: str = device.VISIBLE
    # What needs no kernel of vLLM's own; torch_mlu has none of the others.
    supported_quantization: List[str] = []

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> Optional[DeviceCapability]:
        """None: the numbers are NVIDIA's, and vLLM draws conclusions from them."""
        return None

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return str(device.module().get_device_name(device_id))

    @classmethod
    def get_device_uuid(cls, device_id: int = 0) -> str:
        """The chip's number on this machine: what MLU_VISIBLE_DEVICES counts."""
        visible = os.environ.get(device.VISIBLE, "")
        listed = [word.strip() for word in visible.split(",") if word.strip()]
        return f"mlu-{listed[device_id]}" if device_id < len(listed) else f"mlu-{device_id}"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return device.memory(device_id)[1]

    @classmethod
    def get_current_memory_usage(cls, device_: Optional[torch.types.Device] = None) -> float:
        return float(device.allocated(device_))

    @classmethod
    def is_async_output_supported(cls, enforce_eager: Optional[bool]) -> bool:
        return False

    @classmethod
    def is_pin_memory_available(cls) -> bool:
        """False: pinning asks CUDA's allocator in this PyTorch."""
        return False

    @classmethod
    def inference_mode(cls):
        return torch.no_grad()

    @classmethod
    def supports_v1(cls, model_config: ModelConfig) -> bool:
        return False

    @classmethod
    def get_device_communicator_cls(cls) -> str:
        return COMMUNICATOR

    @classmethod
    def get_attn_backend_cls(
        cls, selected_backend: Optional[_Backend], head_size: int, dtype: torch.dtype,
        kv_cache_dtype: Optional[str], block_size: int, use_v1: bool, use_mla: bool,
    ) -> str:  # fmt: skip
        if use_mla:
            raise NotImplementedError("MLU: latent attention (DeepSeek's) has no kernel here")
        if selected_backend is not None and selected_backend != _Backend.TORCH_SDPA:
            logger.warning("MLU: attention is TORCH_SDPA, not %s", selected_backend.name)
        return ATTENTION

    @classmethod
    def check_and_update_config(cls, vllm_config: VllmConfig) -> None:
        """Choose the worker and what goes with it; NotImplementedError names all that does not."""
        refused = cls._refused(vllm_config)
        if refused:
            raise NotImplementedError("MLU does not have: " + "; ".join(refused))
        parallel, cache = vllm_config.parallel_config, vllm_config.cache_config
        if parallel.worker_cls == "auto":
            parallel.worker_cls = WORKER
        if parallel.world_size > 1 and parallel.distributed_executor_backend is None:
            parallel.distributed_executor_backend = "mp"
        # A forked child cannot use a chip that its parent has touched.
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        if cache is not None and cache.block_size is None:
            cache.block_size = 16
        if vllm_config.model_config is not None and not vllm_config.model_config.enforce_eager:
            logger.info("MLU: graphs are not captured, --enforce-eager is taken")
            vllm_config.model_config.enforce_eager = True
        vllm_config.compilation_config.level = 0
        vllm_config.compilation_config.custom_ops = ["all"]

    @classmethod
    def _refused(cls, vllm_config: VllmConfig) -> Tuple[str, ...]:
        model, cache = vllm_config.model_config, vllm_config.cache_config
        given = {
            "speculative decoding": vllm_config.speculative_config is not None,
            "multi-step scheduling": vllm_config.scheduler_config.is_multi_step,
            "LoRA": vllm_config.lora_config is not None,
            "sleep mode": model is not None and model.enable_sleep_mode,
            "a KV cache of another type than the model's":
                cache is not None and cache.cache_dtype != "auto",
            "quantized weights": model is not None and model.quantization is not None,
        }  # fmt: skip
        return tuple(name for name, asked in given.items() if asked)
