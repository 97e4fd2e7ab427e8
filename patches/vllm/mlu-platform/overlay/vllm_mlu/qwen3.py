# SPDX-License-Identifier: Apache-2.0
"""Qwen3 for this vLLM release, which has Qwen2: norms on queries and keys, heads of their own size.

Checkpoints are transformers' ``Qwen3ForCausalLM``.
"""

from typing import Any, Optional

import torch
from torch import nn

from vllm.attention import Attention
from vllm.config import CacheConfig, VllmConfig
from vllm.distributed import get_pp_group, get_tensor_model_parallel_world_size
from vllm.model_executor.layers.layernorm import RMSNorm
from vllm.model_executor.layers.linear import QKVParallelLinear, RowParallelLinear
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.quantization import QuantizationConfig
from vllm.model_executor.layers.rotary_embedding import get_rope
from vllm.model_executor.layers.sampler import get_sampler
from vllm.model_executor.layers.vocab_parallel_embedding import (
    ParallelLMHead,
    VocabParallelEmbedding,
)
from vllm.model_executor.models.qwen2 import (
    Qwen2DecoderLayer,
    Qwen2ForCausalLM,
    Qwen2MLP,
    Qwen2Model,
)
from vllm.model_executor.models.utils import (
    PPMissingLayer,
    make_empty_intermediate_tensors_factory,
    make_layers,
    maybe_prefix,
)


class Qwen3Attention(nn.Module):
    """Grouped attention whose queries and keys are normalised head by head before RoPE."""

    def __init__(
        self, config: Any, cache_config: Optional[CacheConfig],
        quant_config: Optional[QuantizationConfig], prefix: str,
    ) -> None:  # fmt: skip
        super().__init__()
        shares = get_tensor_model_parallel_world_size()
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        if heads % shares or (kv_heads % shares and shares % kv_heads):
            raise ValueError(f"{heads} heads and {kv_heads} KV heads cannot be shared by {shares}")
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        self.num_heads, self.num_kv_heads = heads // shares, max(1, kv_heads // shares)
        self.sizes = [self.num_heads * self.head_dim] + 2 * [self.num_kv_heads * self.head_dim]
        bias = getattr(config, "attention_bias", False)
        self.qkv_proj = QKVParallelLinear(
            config.hidden_size, self.head_dim, heads, kv_heads, bias=bias,
            quant_config=quant_config, prefix=f"{prefix}.qkv_proj",
        )  # fmt: skip
        self.o_proj = RowParallelLinear(
            heads * self.head_dim, config.hidden_size, bias=bias, quant_config=quant_config,
            prefix=f"{prefix}.o_proj",
        )  # fmt: skip
        self.q_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, eps=config.rms_norm_eps)
        self.rotary_emb = get_rope(
            self.head_dim, rotary_dim=self.head_dim, max_position=config.max_position_embeddings,
            base=getattr(config, "rope_theta", 1000000),
            rope_scaling=getattr(config, "rope_scaling", None),
        )  # fmt: skip
        self.attn = Attention(
            self.num_heads, self.head_dim, self.head_dim**-0.5, num_kv_heads=self.num_kv_heads,
            cache_config=cache_config, quant_config=quant_config, prefix=f"{prefix}.attn",
        )  # fmt: skip

    def forward(self, positions: torch.Tensor, hidden_states: torch.Tensor) -> torch.Tensor:
        """(tokens, hidden size) → the same."""
        q, k, v = self.qkv_proj(hidden_states)[0].split(self.sizes, dim=-1)
        q = self.q_norm(q.unflatten(-1, (self.num_heads, self.head_dim))).flatten(-2)
        k = self.k_norm(k.unflatten(-1, (self.num_kv_heads, self.head_dim))).flatten(-2)
        q, k = self.rotary_emb(positions, q, k)
        return self.o_proj(self.attn(q, k, v))[0]


class Qwen3DecoderLayer(Qwen2DecoderLayer):
    """Qwen2's layer with the other attention; its forward pass is the same."""

    def __init__(
        self, config: Any, cache_config: Optional[CacheConfig],
        quant_config: Optional[QuantizationConfig], prefix: str,
    ) -> None:  # fmt: skip
        nn.Module.__init__(self)
        self.hidden_size = config.hidden_size
        self.self_attn = Qwen3Attention(config, cache_config, quant_config, f"{prefix}.self_attn")
        self.mlp = Qwen2MLP(
            hidden_size=config.hidden_size, intermediate_size=config.intermediate_size,
            hidden_act=config.hidden_act, quant_config=quant_config, prefix=f"{prefix}.mlp",
        )  # fmt: skip
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Qwen3Model(Qwen2Model):
    """Qwen2's model with the other layers; forward pass and loading are the same."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        nn.Module.__init__(self)
        self.do_not_compile = True  # what support_torch_compile asks of every instance
        config = vllm_config.model_config.hf_config
        if getattr(config, "use_sliding_window", False):
            raise NotImplementedError("MLU: Qwen3 with a sliding window in some of its layers")
        self.config, self.quant_config = config, vllm_config.quant_config
        self.vocab_size = config.vocab_size
        group = get_pp_group()
        needs = group.is_first_rank or (config.tie_word_embeddings and group.is_last_rank)
        self.embed_tokens: nn.Module = PPMissingLayer()
        if needs:
            self.embed_tokens = VocabParallelEmbedding(
                config.vocab_size, config.hidden_size, quant_config=self.quant_config,
                prefix=f"{prefix}.embed_tokens",
            )  # fmt: skip
        self.start_layer, self.end_layer, self.layers = make_layers(
            config.num_hidden_layers,
            lambda prefix: Qwen3DecoderLayer(
                config, vllm_config.cache_config, self.quant_config, prefix
            ),
            prefix=f"{prefix}.layers",
        )
        self.make_empty_intermediate_tensors = make_empty_intermediate_tensors_factory(
            ["hidden_states", "residual"], config.hidden_size
        )
        self.norm: nn.Module = PPMissingLayer()
        if group.is_last_rank:
            self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)


class Qwen3ForCausalLM(Qwen2ForCausalLM):
    """Qwen3 with its language-model head; all methods are Qwen2's."""

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        nn.Module.__init__(self)
        config = vllm_config.model_config.hf_config
        self.config, self.quant_config = config, vllm_config.quant_config
        self.lora_config = vllm_config.lora_config
        self.model = Qwen3Model(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.lm_head: nn.Module = PPMissingLayer()
        if get_pp_group().is_last_rank:
            self.lm_head = self.model.embed_tokens
            if not config.tie_word_embeddings:
                self.lm_head = ParallelLMHead(
                    config.vocab_size, config.hidden_size, quant_config=self.quant_config,
                    prefix=maybe_prefix(prefix, "lm_head"),
                )  # fmt: skip
        self.logits_processor = LogitsProcessor(config.vocab_size)
        self.sampler = get_sampler()
        self.make_empty_intermediate_tensors = self.model.make_empty_intermediate_tensors
