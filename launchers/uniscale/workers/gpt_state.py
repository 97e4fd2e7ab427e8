# mypy: disable-error-code="import-not-found"
"""What a pre-training writes: measurements, checkpoints that are whole, the model at the end."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from megatron.core import parallel_state

from uniscale.jobs import state
from uniscale.training.trainjob import WHOLE, TrainJob

_KEPT = 2  # checkpoints
_REPORT = 0.2  # seconds between two reports of where we are


class Report:
    """Writes metrics and state; the one process that knows the loss does."""

    def __init__(self, job: TrainJob, args: dict[str, Any], step: int, model: Any) -> None:
        self._job, self._args, self._first = job, args, step
        self._began, self._told = time.monotonic(), 0.0
        self._group = parallel_state.get_data_parallel_group()
        last = parallel_state.is_pipeline_last_stage()
        self._knows = last and parallel_state.get_tensor_model_parallel_rank() == 0
        self._writes = self._knows and parallel_state.get_data_parallel_rank() == 0
        if self._writes:
            own = sum(one.numel() for one in model.parameters())
            job.say(
                phase="training", step=step, steps=args["train_iters"], first_step=step,
                parameters_here=own,
            )  # fmt: skip

    def log(
        self, step: int, losses: list[Any], rate: float, norm: Any, batch: int, *, skipped: bool
    ) -> None:
        """Note one step: the mean loss of all processes that share the data."""
        if not self._knows:
            return
        loss = torch.stack([one["loss"] for one in losses]).mean()
        torch.distributed.all_reduce(loss, group=self._group)
        value = loss.item() / torch.distributed.get_world_size(self._group)
        if not self._writes:
            return
        seconds, done = time.monotonic() - self._began, step - self._first
        tokens = batch * self._args["seq_length"]
        facts = {
            "step": step,
            "steps": self._args["train_iters"],
            "loss": value if math.isfinite(value) else None,
            "learning_rate": rate,
            "grad_norm": None if norm is None else float(norm),
            "tokens": step * tokens,
            "tokens_per_second": round(done * tokens / seconds, 1),
            "seconds": round(seconds, 3),
            "eta": round(seconds / done * (self._args["train_iters"] - step), 1),
            **({"skipped": True} if skipped else {}),
        }
        with self._job.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(facts) + "\n")
        if time.monotonic() - self._told > _REPORT or step == self._args["train_iters"]:
            self._told = time.monotonic()
            self._job.say(**facts)


def _shape() -> dict[str, int]:
    return {
        "processes": torch.distributed.get_world_size(),
        "tensor": parallel_state.get_tensor_model_parallel_world_size(),
        "pipeline": parallel_state.get_pipeline_model_parallel_world_size(),
    }


def save(job: TrainJob, step: int, model: Any, optimizer: Any, scheduler: Any) -> None:
    """Write a checkpoint: a part from each process, then the mark that it is whole."""
    place = job.checkpoints / f"checkpoint-{step}"
    place.mkdir(parents=True, exist_ok=True)
    told = {
        "step": step,
        "shape": _shape(),
        "model": model.module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": torch.get_rng_state(),
    }
    torch.save(told, place / f"rank-{torch.distributed.get_rank():05}.pt")
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        (place / WHOLE).touch()
        whole = sorted(
            (one for one in job.checkpoints.iterdir() if (one / WHOLE).is_file()),
            key=lambda one: int(one.name.rpartition("-")[2]),
        )
        for old in whole[:-_KEPT]:
            shutil.rmtree(old, ignore_errors=True)
    torch.distributed.barrier()


def restore(place: Path, model: Any, optimizer: Any, scheduler: Any) -> int:
    """Take a checkpoint up again; its step. ValueError when other processes wrote it."""
    rank = torch.distributed.get_rank()
    part = place / f"rank-{rank:05}.pt"
    if not part.is_file():
        raise ValueError(f"{place.name} was written by fewer processes than there are now")
    # Our own file, of this very job: Megatron's state holds more than tensors.
    told: dict[str, Any] = torch.load(part, map_location="cpu", weights_only=False)
    if told["shape"] != _shape():
        raise ValueError(
            f"{place.name} was written by {told['shape']}, and now there are {_shape()}"
        )
    model.module.load_state_dict(told["model"])
    optimizer.load_state_dict(told["optimizer"])
    scheduler.load_state_dict(told["scheduler"])
    torch.set_rng_state(told["random"])
    return int(told["step"])


def save_model(job: TrainJob, args: dict[str, Any], vocabulary: int, model: Any) -> None:
    """Write the trained weights alone, a part from each tensor and pipeline rank."""
    folder = job.folder / "megatron"
    folder.mkdir(exist_ok=True)
    if parallel_state.get_data_parallel_rank() == 0:
        tensor = parallel_state.get_tensor_model_parallel_rank()
        pipeline = parallel_state.get_pipeline_model_parallel_rank()
        weights = {
            name: value
            for name, value in model.module.state_dict().items()
            if isinstance(value, torch.Tensor)
        }
        torch.save(weights, folder / f"weights-tensor{tensor:02}-pipeline{pipeline:02}.pt")
    torch.distributed.barrier()
    if torch.distributed.get_rank() == 0:
        told = {**args, "vocabulary": vocabulary, **_shape()}
        state.write(folder / "model.json", json.dumps(told, indent=2) + "\n")
