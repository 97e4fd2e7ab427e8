# mypy: disable-error-code="import-not-found"
"""Train a tiny GPT with Megatron on this machine's processors; started by torchrun.

Prints one line of JSON: the losses, and how many processes shared the work in which way.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.datasets import helpers_cpp  # the compiled helper must be there
from megatron.core.device import current_device
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.transformer.transformer_config import TransformerConfig

VOCABULARY, LENGTH, BATCH, MICRO = 64, 32, 4, 2


def model_of(tensor: int, pipeline: int) -> DistributedDataParallel:
    config = TransformerConfig(
        num_layers=2, hidden_size=32, num_attention_heads=4, use_cpu_initialization=True,
        tensor_model_parallel_size=tensor, pipeline_model_parallel_size=pipeline,
        pipeline_dtype=torch.float32, hidden_dropout=0.0, attention_dropout=0.0,
        gradient_accumulation_fusion=False, finalize_model_grads_func=finalize_model_grads,
    )  # fmt: skip
    gpt = GPTModel(
        config=config, transformer_layer_spec=get_gpt_layer_local_spec(), vocab_size=VOCABULARY,
        max_sequence_length=LENGTH, pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        share_embeddings_and_output_weights=False,
    )  # fmt: skip
    return DistributedDataParallel(
        config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), gpt.to(current_device())
    )


def batch_of(step: int) -> tuple[torch.Tensor, ...]:
    # Rising sequences: the next token is the last one plus one, which a model learns soon.
    generator = torch.Generator().manual_seed(1000 * step + parallel_state.get_data_parallel_rank())
    start = torch.randint(0, VOCABULARY, (BATCH, 1), generator=generator)
    rows = (start + torch.arange(LENGTH + 1)) % VOCABULARY
    positions = torch.arange(LENGTH).expand(BATCH, -1)
    mask = torch.ones(1, 1, LENGTH, LENGTH, dtype=torch.bool).triu(1)
    return rows[:, :-1], rows[:, 1:], positions, mask


def forward_step(batches: Any, model: Any) -> tuple[torch.Tensor, Any]:
    tokens, labels, positions, mask = next(batches)
    output = model(tokens, positions, mask, labels=labels)

    def loss_of(losses: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = losses.float().mean()
        # A copy: the schedule divides the loss itself by the number of micro batches, in place.
        return loss, {"loss": loss.detach().clone()}

    return output, partial(loss_of)


def trained(model: Any, steps: int, forward: Any = forward_step) -> list[float]:
    """The losses of ``steps`` steps, where the last pipeline stage is; else none."""
    model.broadcast_params()
    optimizer = get_megatron_optimizer(
        OptimizerConfig(optimizer="adam", lr=1e-2, use_distributed_optimizer=False, clip_grad=1.0),
        [model],
    )
    run, losses = get_forward_backward_func(), []
    for step in range(steps):
        model.zero_grad_buffer()
        optimizer.zero_grad()
        batches = iter([batch_of(2 * step), batch_of(2 * step + 1)])
        told = run(
            forward_step_func=forward, data_iterator=batches, model=model,
            num_microbatches=MICRO, seq_length=LENGTH, micro_batch_size=BATCH, forward_only=False,
        )  # fmt: skip
        done, norm, _ = optimizer.step()
        assert done and norm is not None
        losses += [sum(item["loss"].item() for item in told) / MICRO] if told else []
    return losses


def main() -> None:
    parser = argparse.ArgumentParser()
    for name, default in (("tensor", 1), ("pipeline", 1), ("steps", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    torch.distributed.init_process_group(backend="gloo")
    parallel_state.initialize_model_parallel(args.tensor, args.pipeline)
    tensor_parallel.model_parallel_cuda_manual_seed(7)
    torch.manual_seed(7)
    losses = trained(model_of(args.tensor, args.pipeline), args.steps)
    shape = {
        "data": parallel_state.get_data_parallel_world_size(),
        "tensor": args.tensor,
        "pipeline": args.pipeline,
        "helper": helpers_cpp.__file__,
    }
    last = parallel_state.is_pipeline_last_stage()
    first = parallel_state.get_tensor_model_parallel_rank() == 0
    if last and first and parallel_state.get_data_parallel_rank() == 0:
        print(json.dumps({"losses": losses, **shape}), flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
