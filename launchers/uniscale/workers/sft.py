"""Fine-tune one model with TRL and PEFT; torchrun starts one of these for each process.

    python -m torch.distributed.run … -m uniscale.workers.sft JOB_FOLDER [CHECKPOINT]

Everything comes from the job folder (`uniscale.training.trainjob`) and goes there.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from uniscale.training.methods import METHODS, Method
from uniscale.training.trainjob import COLLECTIVE, WHOLE, TrainJob
from uniscale.workers.begin import die_with_parent, failures_kept

_REPORT = 0.2  # seconds between two reports of where we are


def main() -> None:
    """Train, from a checkpoint when one is given, and save."""
    die_with_parent()
    job = TrainJob(Path(sys.argv[1]))
    start = sys.argv[2] if len(sys.argv) > 2 else None
    with failures_kept(job.failure):
        train(job, start)


def train(job: TrainJob, start: str | None) -> None:
    """Load, train and save what the job's record says."""
    import transformers
    from datasets import Dataset, disable_progress_bars

    told = job.told()
    method = METHODS[told["method"]]
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()
    transformers.set_seed(int(told["arguments"].get("seed", 42)))
    first = int(os.environ.get("RANK", "0")) == 0
    if first:
        job.say(phase="loading")
    model, tokenizer, dtype = load(told)
    cache = str(job.folder / "cache")
    data = Dataset.from_json(str(job.data), cache_dir=cache)
    measured = None
    if job.eval_data.exists():
        measured = Dataset.from_json(str(job.eval_data), cache_dir=cache)
    settings = arguments(job, told, method, model, measured is not None)
    trainer = trainer_class(method)(
        model=model,
        args=settings,
        train_dataset=data,
        eval_dataset=measured,
        processing_class=tokenizer,
        peft_config=peft_config(told, method, settings, len(data)),
        callbacks=[callback(job, method)],
    )
    trainer.train(resume_from_checkpoint=start)
    if first:
        job.say(phase="saving")
    save(trainer, job, method, dtype)


def load(told: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The model ready for training, its tokenizer, and the data type that it was stored in."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(told["weights"])
    if told["chat_template"]:
        tokenizer.chat_template = Path(told["chat_template"]).read_text(encoding="utf-8")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    # Small steps vanish in 16 bits: all weights are trained in 32 unless the user says otherwise;
    # weights that stay as they are may be short where the device computes so.
    accelerated = torch.accelerator.is_available()
    short = torch.bfloat16 if accelerated and told["method"] != "full" else torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(told["weights"], dtype=short)
    return (
        model,
        tokenizer,
        getattr(model.config, "_stored_dtype", None) or _stored(told["weights"]),
    )


def _stored(weights: str) -> Any:
    import torch
    from transformers import AutoConfig

    dtype = getattr(AutoConfig.from_pretrained(weights), "dtype", None)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, None)
    return dtype or torch.float32


def arguments(
    job: TrainJob, told: dict[str, Any], method: Method, model: Any, measured: bool
) -> Any:
    """The trainer's arguments: the user's, then ours where these are mute."""
    import torch
    from trl import SFTConfig

    given = dict(told["arguments"])
    longest = getattr(model.config, "max_position_embeddings", None) or 1024
    usual: dict[str, Any] = {
        "learning_rate": method.learning_rate,
        "logging_steps": 1,
        "logging_first_step": True,
        "save_steps": 100,
        "save_total_limit": 2,
        "max_length": min(1024, longest),
        "eval_strategy": "epoch" if measured else "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 42,
    }
    if not torch.accelerator.is_available():
        usual |= {"use_cpu": True, "bf16": False, "gradient_checkpointing": False}
        usual |= {"dataloader_pin_memory": False}
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and COLLECTIVE in os.environ:
        usual["ddp_backend"] = os.environ[COLLECTIVE]
    return SFTConfig(output_dir=str(job.checkpoints), **{**usual, **given})


def peft_config(told: dict[str, Any], method: Method, settings: Any, rows: int) -> Any:
    """The adapter's configuration; None when all weights are trained."""
    if method.config is None:
        return None
    import peft

    chosen = {**method.usual, **told["method_arguments"], **method.fixed}
    if method.config[1] == "AdaLoraConfig":
        # Rank is moved over a tenth of all steps at the beginning and kept for the last fifth.
        batch = settings.train_batch_size * settings.gradient_accumulation_steps
        batch *= int(os.environ.get("WORLD_SIZE", "1"))
        steps = settings.max_steps
        if steps <= 0:
            steps = math.ceil(math.ceil(rows / batch) * settings.num_train_epochs)
        chosen = {"total_step": steps, "tinit": steps // 10, "tfinal": steps // 5, **chosen}
    if not method.plain_loss:
        chosen.setdefault("task_type", "CAUSAL_LM")
    else:
        chosen["task_type"] = "CAUSAL_LM"
    config: Any = getattr(peft, method.config[1])(**chosen)
    if method.plain_loss and config.adapter_layers is None:
        from transformers import AutoConfig

        config.adapter_layers = AutoConfig.from_pretrained(told["weights"]).num_hidden_layers
    return config


def trainer_class(method: Method) -> Any:
    """TRL's trainer; for models that give no per-token outputs, with transformers' own loss."""
    from transformers import Trainer
    from trl import SFTTrainer

    if not method.plain_loss:
        return SFTTrainer

    class PlainLoss(SFTTrainer):  # type: ignore[misc]
        """TRL's preparation of the data, transformers' loss."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return Trainer.compute_loss(self, model, inputs, *args, **kwargs)

    return PlainLoss


def callback(job: TrainJob, method: Method) -> Any:
    """The trainer's callback that writes metrics and state, and marks whole checkpoints."""
    from transformers import TrainerCallback

    class Report(TrainerCallback):  # type: ignore[misc]
        """Counts on the first process; every process moves AdaLoRA's ranks."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began, self.first = time.monotonic(), state.global_step
            self.told, self.tokens = 0.0, None  # type: float, float | None
            if state.is_world_process_zero:
                weights = list(kwargs["model"].parameters())
                job.say(
                    phase="training", step=state.global_step, steps=state.max_steps,
                    first_step=state.global_step, parameters=sum(one.numel() for one in weights),
                    trained=sum(one.numel() for one in weights if one.requires_grad),
                )  # fmt: skip

        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            move = getattr(
                getattr(kwargs["model"], "base_model", None), "update_and_allocate", None
            )
            if move is not None:
                move(state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any
        ) -> None:
            if not state.is_world_process_zero or not logs or "train_runtime" in logs:
                return
            facts = self.facts(state, logs)
            with job.metrics.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(facts) + "\n")
            if time.monotonic() - self.told > _REPORT or state.global_step >= state.max_steps:
                self.told = time.monotonic()
                job.say(**facts)

        def facts(self, state: Any, logs: dict[str, Any]) -> dict[str, Any]:
            seconds = time.monotonic() - self.began
            done = state.global_step - self.first
            facts: dict[str, Any] = {"step": state.global_step, "steps": state.max_steps}
            names = {"num_tokens": "tokens", "mean_token_accuracy": "accuracy"}
            for key, value in logs.items():
                if isinstance(value, (int, float)) and math.isfinite(value):
                    facts[names.get(key, key)] = value
                elif isinstance(value, float):
                    facts[names.get(key, key)] = None  # nan is no JSON
            facts["seconds"] = round(seconds, 3)
            tokens = facts.get("tokens")
            if isinstance(tokens, (int, float)):
                if self.tokens is None:  # resumed runs go on counting
                    self.tokens, self.counted = tokens, time.monotonic()
                elif time.monotonic() > self.counted:
                    speed = (tokens - self.tokens) / (time.monotonic() - self.counted)
                    facts["tokens_per_second"] = round(speed, 1)
            if done > 0:
                facts["eta"] = round(seconds / done * (state.max_steps - state.global_step), 1)
            return facts

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                (place / WHOLE).write_bytes(b"")

    return Report()


def save(trainer: Any, job: TrainJob, method: Method, dtype: Any) -> None:
    """Write the adapter, or all weights in the data type that they were stored in."""
    target = job.weights if method.config is None else job.adapter
    part = target.with_name(f".{target.name}.part")
    if method.config is None and not trainer.is_fsdp_enabled and not trainer.is_deepspeed_enabled:
        trainer.model.to(dtype)
    trainer.save_model(str(part))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        trainer.processing_class.save_pretrained(str(part))
        (part / "training_args.bin").unlink(missing_ok=True)  # a pickle; train.json says it all
        (part / "README.md").unlink(missing_ok=True)
        shutil.rmtree(target, ignore_errors=True)
        part.rename(target)
        shutil.rmtree(job.folder / "cache", ignore_errors=True)


if __name__ == "__main__":
    main()
