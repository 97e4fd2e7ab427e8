# SPDX-License-Identifier: Apache-2.0
"""Attention over vLLM's paged KV cache in PyTorch's own operators.

Every step is one that torch_mlu has for PyTorch: indexing, and scaled_dot_product_attention. A
kernel of Cambricon's that reads the pages itself takes the place of `_decode` and `_prefill`.
"""

from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple, Type

import torch
from torch.nn.functional import scaled_dot_product_attention

from vllm.attention.backends.abstract import (
    AttentionBackend,
    AttentionImpl,
    AttentionLayer,
    AttentionMetadata,
    AttentionType,
)
from vllm.attention.backends.utils import CommonAttentionState, CommonMetadataBuilder


@dataclass
class PagedAttentionMetadata(AttentionMetadata):
    """One batch: prefills first, then one token for each sequence that decodes."""

    seq_lens: Optional[List[int]]
    seq_lens_tensor: Optional[torch.Tensor]
    max_query_len: Optional[int]
    max_prefill_seq_len: int
    max_decode_seq_len: int
    query_start_loc: Optional[torch.Tensor]
    seq_start_loc: Optional[torch.Tensor]
    context_lens_tensor: Optional[torch.Tensor]
    block_tables: Optional[torch.Tensor]  # (sequences, most blocks of one)
    use_cuda_graph: bool

    # Filled once for all layers.
    spans: Optional[List[Tuple[int, int, int]]] = None

    @property
    def prefill_metadata(self) -> Optional["PagedAttentionMetadata"]:
        return self if self.num_prefills else None

    @property
    def decode_metadata(self) -> Optional["PagedAttentionMetadata"]:
        return self if self.num_decode_tokens else None

    def prefills(self) -> List[Tuple[int, int, int]]:
        """Of each prefill: its first token, how many, and how many are in the cache already."""
        if self.spans is None:
            assert self.query_start_loc is not None and self.context_lens_tensor is not None
            starts = self.query_start_loc[: self.num_prefills + 1].tolist()
            contexts = self.context_lens_tensor[: self.num_prefills].tolist()
            self.spans = [
                (starts[n], starts[n + 1] - starts[n], contexts[n])
                for n in range(self.num_prefills)
            ]
        return self.spans


class PagedAttentionMetadataBuilder(CommonMetadataBuilder[PagedAttentionMetadata]):
    _metadata_cls = PagedAttentionMetadata


class PagedAttentionBackend(AttentionBackend):
    """vLLM's names for the parts; pages are (keys and values, blocks, tokens, heads, size)."""

    @staticmethod
    def get_name() -> str:
        return "TORCH_SDPA"

    @staticmethod
    def get_impl_cls() -> Type["PagedAttentionImpl"]:
        return PagedAttentionImpl

    @staticmethod
    def get_metadata_cls() -> Type[PagedAttentionMetadata]:
        return PagedAttentionMetadata

    @staticmethod
    def get_builder_cls() -> Type[PagedAttentionMetadataBuilder]:
        return PagedAttentionMetadataBuilder

    @staticmethod
    def get_state_cls() -> Type[CommonAttentionState]:
        return CommonAttentionState

    @staticmethod
    def get_kv_cache_shape(
        num_blocks: int, block_size: int, num_kv_heads: int, head_size: int
    ) -> Tuple[int, ...]:
        return (2, num_blocks, block_size, num_kv_heads, head_size)

    @staticmethod
    def swap_blocks(
        src_kv_cache: torch.Tensor, dst_kv_cache: torch.Tensor, src_to_dst: torch.Tensor
    ) -> None:
        """Copy blocks between chip and host; each row of ``src_to_dst`` is (from, to)."""
        source, target = src_to_dst.cpu().unbind(1)
        taken = src_kv_cache[:, source.to(src_kv_cache.device)]
        dst_kv_cache[:, target.to(dst_kv_cache.device)] = taken.to(dst_kv_cache.device)

    @staticmethod
    def copy_blocks(kv_caches: List[torch.Tensor], src_to_dists: torch.Tensor) -> None:
        """Copy blocks within each layer's cache."""
        source, target = src_to_dists.unbind(1)
        for cache in kv_caches:
            cache[:, target] = cache[:, source]


class PagedAttentionImpl(AttentionImpl[PagedAttentionMetadata]):
    """Decoder self-attention: grouped heads, sliding windows, chunked and cached prompts."""

    def __init__(
        self, num_heads: int, head_size: int, scale: float, num_kv_heads: Optional[int] = None,
        alibi_slopes: Optional[List[float]] = None, sliding_window: Optional[int] = None,
        kv_cache_dtype: str = "auto", blocksparse_params: Optional[Dict[str, Any]] = None,
        logits_soft_cap: Optional[float] = None, attn_type: str = AttentionType.DECODER,
    ) -> None:  # fmt: skip
        given = {
            "ALiBi": alibi_slopes is not None,
            "block-sparse attention": blocksparse_params is not None,
            "a soft cap on logits": bool(logits_soft_cap),
            f"a KV cache of type {kv_cache_dtype}": kv_cache_dtype != "auto",
            f"attention of an {attn_type}": attn_type != AttentionType.DECODER,
        }
        refused = [name for name, asked in given.items() if asked]
        if refused:
            raise NotImplementedError("MLU does not have: " + "; ".join(refused))
        self.num_heads, self.head_size, self.scale = num_heads, head_size, float(scale)
        self.num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{num_heads} heads cannot share {self.num_kv_heads} of the cache")
        self.group = self.num_heads // self.num_kv_heads
        self.sliding_window = sliding_window

    def forward(
        self, layer: AttentionLayer, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        kv_cache: torch.Tensor, attn_metadata: PagedAttentionMetadata,
        output: Optional[torch.Tensor] = None,
    ) -> torch.Tensor:  # fmt: skip
        """(tokens, heads * size) in and out; the new keys and values go into the cache.

        An empty ``kv_cache`` is a run with made-up input, before there is a cache.
        """
        query = query.view(-1, self.num_heads, self.head_size)
        key = key.view(-1, self.num_kv_heads, self.head_size)
        value = value.view(-1, self.num_kv_heads, self.head_size)
        if kv_cache.numel():
            self._write(key, value, kv_cache, attn_metadata.slot_mapping)
        found = torch.empty_like(query) if output is None else output.view_as(query)
        for n, (start, length, context) in enumerate(attn_metadata.prefills()):
            span = slice(start, start + length)
            keys, values = key[span], value[span]
            if context and kv_cache.numel():
                assert attn_metadata.block_tables is not None
                pages = attn_metadata.block_tables[n]
                keys, values = self._read(kv_cache, pages, context + length)
            found[span] = self._prefill(query[span], keys, values)
        if attn_metadata.num_decode_tokens:
            first = attn_metadata.num_prefill_tokens
            found[first:] = self._decode(query[first:], kv_cache, attn_metadata)
        return found.view(-1, self.num_heads * self.head_size)

    def _write(
        self, key: torch.Tensor, value: torch.Tensor, kv_cache: torch.Tensor, slots: torch.Tensor
    ) -> None:
        """Put each token's key and value into its slot; a negative slot is padding."""
        slots = slots.flatten()
        keep = slots >= 0
        pages = kv_cache.view(2, -1, self.num_kv_heads, self.head_size)
        pages[0, slots[keep]] = key[keep].to(kv_cache.dtype)
        pages[1, slots[keep]] = value[keep].to(kv_cache.dtype)

    def _read(
        self, kv_cache: torch.Tensor, pages: torch.Tensor, length: int
    ) -> Tuple[torch.Tensor, torch.Tensor]:
        """The first ``length`` keys and values of the sequence that has ``pages``."""
        both = kv_cache[:, pages.long()].flatten(1, 2)[:, :length]
        return both[0], both[1]

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        """(…, tokens, KV heads, size) → (…, heads, tokens, size)."""
        return rows.repeat_interleave(self.group, dim=-2).transpose(-3, -2)

    def _prefill(
        self, query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> torch.Tensor:
        """One sequence; its queries are the last of its keys."""
        places = torch.arange(len(keys), device=query.device)
        own = places[len(keys) - len(query) :, None]
        seen = places <= own
        if self.sliding_window is not None:
            seen &= places > own - self.sliding_window
        out = scaled_dot_product_attention(
            query.transpose(0, 1)[None], self._heads(keys)[None], self._heads(values)[None],
            attn_mask=seen, scale=self.scale,
        )  # fmt: skip
        return out[0].transpose(0, 1)

    def _decode(
        self, query: torch.Tensor, kv_cache: torch.Tensor, metadata: PagedAttentionMetadata
    ) -> torch.Tensor:
        """The last token of each sequence, all sequences at once."""
        assert metadata.block_tables is not None and metadata.seq_lens_tensor is not None
        count = len(query)
        if not kv_cache.numel():
            return torch.zeros_like(query)
        pages = metadata.block_tables[metadata.num_prefills :].long()
        lengths = metadata.seq_lens_tensor[metadata.num_prefills :][:, None]
        both = kv_cache[:, pages].view(2, count, -1, self.num_kv_heads, self.head_size)
        places = torch.arange(both.shape[2], device=query.device)
        seen = places < lengths
        if self.sliding_window is not None:
            seen &= places >= lengths - self.sliding_window
        out = scaled_dot_product_attention(
            query[:, :, None], self._heads(both[0]), self._heads(both[1]),
            attn_mask=seen[:, None, None], scale=self.scale,
        )  # fmt: skip
        return out[:, :, 0]


