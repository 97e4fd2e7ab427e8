# mypy: disable-error-code="import-not-found"
"""Pre-train a GPT with Megatron-Core; torchrun starts one of these for each process.

    python -m torch.distributed.run … -m uniscale.workers.gpt JOB_FOLDER [CHECKPOINT]

The payload's prefix stands first on PYTHONPATH. Data, tensor and pipeline parallel as the job's
record says. The processes talk by what the device's manifest names (gloo, nccl, hccl, …).
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state, tensor_parallel
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.models.gpt.gpt_model import GPTModel
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel.schedules import get_forward_backward_func
from megatron.core.transformer.transformer_config import TransformerConfig

from uniscale.training.pretraining import settings
from uniscale.training.trainjob import COLLECTIVE, TrainJob
from uniscale.workers.begin import die_with_parent, failures_kept
from uniscale.workers.corpus import Corpus
from uniscale.workers.gpt_state import Report, restore, save, save_model

_ROWS = 128  # the embedding has a multiple of these, as in Megatron's own script


def main() -> None:
    """Train, from a checkpoint when one is given, and save."""
    die_with_parent()
    job = TrainJob(Path(sys.argv[1]))
    start = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with failures_kept(job.failure):
        train(job, start)


def train(job: TrainJob, start: Path | None) -> None:
    """The whole training that the job's record says."""
    told = job.told()
    args = settings(told["arguments"])
    _begin(args)
    if torch.distributed.get_rank() == 0:
        job.say(phase="loading")
    corpus = Corpus.read(job.data, told["weights"], args["seq_length"], args["seed"])
    model = _model(args, corpus.vocabulary)
    optimizer = get_megatron_optimizer(_optimizer(args), [model])
    scheduler = _scheduler(args, optimizer)
    step = restore(start, model, optimizer, scheduler) if start is not None else 0
    report = Report(job, args, step, model)
    run = get_forward_backward_func()
    data = parallel_state.get_data_parallel_world_size()
    batch = args["global_batch_size"] or args["micro_batch_size"] * data
    micro = batch // (args["micro_batch_size"] * data)
    while step < args["train_iters"]:
        model.zero_grad_buffer()
        optimizer.zero_grad()
        losses = run(
            forward_step_func=forward_step,
            data_iterator=_batches(corpus, args, step * batch, micro, data),
            model=model,
            num_microbatches=micro,
            seq_length=args["seq_length"],
            micro_batch_size=args["micro_batch_size"],
            forward_only=False,
        )
        whole, norm, _ = optimizer.step()
        scheduler.step(increment=1)
        step += 1
        if step % args["log_interval"] == 0 or step == args["train_iters"]:
            rate = optimizer.param_groups[0]["lr"]
            report.log(step, losses, rate, norm, batch, skipped=not whole)
        if step % args["save_interval"] == 0 or step == args["train_iters"]:
            save(job, step, model, optimizer, scheduler)
    if torch.distributed.get_rank() == 0:
        job.say(phase="saving")
    save_model(job, args, corpus.vocabulary, model)
    torch.distributed.destroy_process_group()


def _begin(args: dict[str, Any]) -> None:
    usual = _choose_device(int(os.environ["LOCAL_RANK"]))
    torch.distributed.init_process_group(os.environ.get(COLLECTIVE, usual))
    parallel_state.initialize_model_parallel(
        args["tensor_model_parallel_size"], args["pipeline_model_parallel_size"]
    )
    tensor_parallel.model_parallel_cuda_manual_seed(args["seed"])
    torch.manual_seed(args["seed"])


def _choose_device(index: int) -> str:
    """Make chip ``index`` this process's own; gives the usual backend of what that is."""
    if torch.cuda.is_available():
        torch.cuda.set_device(index)
        return "nccl"
    if (chips := _vendors()) is not None:
        chips.set_device(index)
    return "gloo"


def _vendors() -> Any:
    """The module of Megatron's that knows a vendor's chips; None without our layer for them."""
    try:
        from megatron.core import device
    except ImportError:
        return None
    return device if getattr(device, "vendor_device", str)() else None


def _device() -> torch.device:
    """Where this process trains."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    chips = _vendors()
    where: torch.device = torch.device("cpu") if chips is None else chips.current_device()
    return where


def _model(args: dict[str, Any], vocabulary: int) -> Any:
    dtype = torch.bfloat16 if args["bf16"] else torch.float32
    config = TransformerConfig(
        num_layers=args["num_layers"],
        hidden_size=args["hidden_size"],
        ffn_hidden_size=args["ffn_hidden_size"],
        num_attention_heads=args["num_attention_heads"],
        num_query_groups=args["num_query_groups"],
        normalization=args["normalization"],
        layernorm_epsilon=args["norm_epsilon"],
        gated_linear_unit=args["swiglu"],
        activation_func=torch.nn.functional.silu if args["swiglu"] else torch.nn.functional.gelu,
        add_bias_linear=not args["disable_bias_linear"],
        init_method_std=args["init_method_std"],
        attention_dropout=args["attention_dropout"],
        hidden_dropout=args["hidden_dropout"],
        tensor_model_parallel_size=args["tensor_model_parallel_size"],
        pipeline_model_parallel_size=args["pipeline_model_parallel_size"],
        pipeline_dtype=dtype,
        bf16=args["bf16"],
        params_dtype=dtype,
        use_cpu_initialization=not torch.cuda.is_available(),
        gradient_accumulation_fusion=False,
        bias_activation_fusion=False,
        finalize_model_grads_func=finalize_model_grads,
    )
    # Rows that processes can share evenly, as many whatever their number: so the first weights, and
    # with them the whole training, are the same however it is shared.
    size = math.lcm(_ROWS, args["tensor_model_parallel_size"])
    gpt = GPTModel(
        config=config,
        transformer_layer_spec=get_gpt_layer_local_spec(normalization=args["normalization"]),
        vocab_size=-(-vocabulary // size) * size,
        max_sequence_length=args["max_position_embeddings"] or args["seq_length"],
        pre_process=parallel_state.is_pipeline_first_stage(),
        post_process=parallel_state.is_pipeline_last_stage(),
        position_embedding_type=args["position_embedding_type"],
        rotary_base=args["rotary_base"],
        share_embeddings_and_output_weights=not args["untie_embeddings_and_output_weights"],
    )
    gpt.to(_device())
    wrapped = DistributedDataParallel(
        config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), gpt
    )
    wrapped.broadcast_params()
    return wrapped


def _optimizer(args: dict[str, Any]) -> OptimizerConfig:
    return OptimizerConfig(
        optimizer="adam",
        lr=args["lr"],
        min_lr=args["min_lr"],
        weight_decay=args["weight_decay"],
        adam_beta1=args["adam_beta1"],
        adam_beta2=args["adam_beta2"],
        clip_grad=args["clip_grad"],
        bf16=args["bf16"],
        params_dtype=torch.bfloat16 if args["bf16"] else torch.float32,
        use_distributed_optimizer=False,
    )


def _scheduler(args: dict[str, Any], optimizer: Any) -> Any:
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=args["lr"],
        min_lr=args["min_lr"],
        lr_warmup_steps=args["lr_warmup_iters"],
        lr_decay_steps=max(args["train_iters"], args["lr_warmup_iters"] + 1),
        lr_decay_style=args["lr_decay_style"],
        start_wd=args["weight_decay"],
        end_wd=args["weight_decay"],
        wd_incr_steps=args["train_iters"],
        wd_incr_style="constant",
    )


def _batches(
    corpus: Corpus, args: dict[str, Any], first: int, micro: int, data: int
) -> Iterator[tuple[torch.Tensor, ...]]:
    """The micro batches of one step that are this process's; sample ``first`` begins the step."""
    rows, length = args["micro_batch_size"], args["seq_length"]
    device = _device()
    positions = torch.arange(length, device=device).expand(rows, -1)
    mask = torch.ones(1, 1, length, length, dtype=torch.bool, device=device).triu(1)
    for number in range(micro):
        place = first + (number * data + parallel_state.get_data_parallel_rank()) * rows
        block = corpus.block(place, rows).to(device)
        yield block[:, :-1].contiguous(), block[:, 1:].contiguous(), positions, mask


def forward_step(batches: Any, model: Any) -> tuple[torch.Tensor, Any]:
    """One micro batch through this process's part of the model."""
    tokens, labels, positions, mask = next(batches)
    output = model(tokens, positions, mask, labels=labels)

    def loss_of(losses: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = losses.float().mean()
        # A copy: the schedule divides the loss itself by the number of micro batches, in place.
        return loss, {"loss": loss.detach().clone()}

    return output, partial(loss_of)


if __name__ == "__main__":
    main()
