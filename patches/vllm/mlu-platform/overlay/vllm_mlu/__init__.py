# SPDX-License-Identifier: Apache-2.0
"""Cambricon MLU as a platform of vLLM, by vLLM's own plugin route.

Entry points: ``vllm.platform_plugins`` names :func:`register`, ``vllm.general_plugins`` names
:func:`register_models`. Nothing of vLLM is replaced at run time.
"""

from typing import Optional

PLATFORM = "vllm_mlu.platform.MluPlatform"


def register() -> Optional[str]:
    """The platform's class where torch_mlu sees a chip, else None: others may be the platform."""
    from vllm_mlu import device

    return PLATFORM if device.count() > 0 else None


def register_models() -> None:
    """Models that this vLLM release has not yet; safe to call again."""
    from vllm import ModelRegistry

    if "Qwen3ForCausalLM" not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model("Qwen3ForCausalLM", "vllm_mlu.qwen3:Qwen3ForCausalLM")
