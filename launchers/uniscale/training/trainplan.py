"""What is to be trained, however it was asked for; and the record of it that the processes read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from uniscale.nodes.hostfile import Host

SCHEMA = 1
_INTEGER = re.compile(r"[+-]?\d+")
_FLOAT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class TrainPlan:
    """One training: fine-tuning, pre-training with a payload, or a script of one's own."""

    model: str | None = None  # as the user wrote it
    data: str | None = None
    eval_data: str | None = None
    format: str | None = None  # of the data; None: told by its columns
    columns: Mapping[str, str] = field(default_factory=dict)
    split: str = "train"
    method: str = "lora"
    method_arguments: Mapping[str, object] = field(default_factory=dict)
    arguments: Mapping[str, object] = field(default_factory=dict)  # the trainer's own names
    chat_template: str | None = None  # a file
    backend: str | None = None  # a payload that trains; None: transformers, TRL and PEFT
    device: str | None = None
    devices: str | None = None
    script: str | None = None
    flags: tuple[str, ...] = ()  # for the script
    processes: str = "1"  # on this machine: a number, or "gpu": one for each
    environment: Mapping[str, str] = field(default_factory=dict)
    nodes: tuple[Host, ...] = ()  # machines that train together; (): this one
    master_port: int | None = None  # where these machines meet; None: torchrun's
    special: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # host or type → env
    name: str | None = None
    folder: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        """``script``, ``pretrain`` (a payload does it) or ``finetune``."""
        if self.script is not None:
            return "script"
        return "finetune" if self.backend is None else "pretrain"

    @property
    def title(self) -> str:
        """The job's name: what the user called it, or model and method."""
        if self.name:
            return self.name
        if self.script is not None:
            return Path(self.script).stem
        stem = Path(self.model or "model").name.removesuffix(".yaml")
        return f"{stem}-{self.method if self.kind == 'finetune' else 'pretrain'}"

    @property
    def place(self) -> Path:
        """The job folder."""
        return Path(self.folder or f"outputs/{self.title}")

    def numbers(self) -> TrainPlan:
        """The plan with texts that are numbers, lists or null as what they are."""
        return replace(
            self,
            arguments={key: plain(value) for key, value in self.arguments.items()},
            method_arguments={key: plain(value) for key, value in self.method_arguments.items()},
        )

    def document(self, model: str | None) -> dict[str, Any]:
        """The record ``train.json``; ``model`` is where the model's files are."""
        told = asdict(self.numbers())
        for volatile in ("warnings", "folder"):
            del told[volatile]
        told["flags"] = list(self.flags)
        return {"schema": SCHEMA, **told, "name": self.title, "weights": model}


def plain(value: object) -> object:
    """A configuration's text as the number, null or switch that it is; other values stay."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text in ("True", "False"):  # as Python writes them
        return text == "True"
    if text.lower() in ("null", "none"):
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return value
