"""The commands that train and export: words to a request, as `uniscale.cli.app` does it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from uniscale.cli.words import Action, Device, Json, Set, Verbose


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("train")(_train)
    app.command("export")(_export)


_Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL|CONFIG|FOLDER",
        help="demo, a Hugging Face folder, owner/name; a .yaml file; or a job to --resume.",
    ),
]
_Data = Annotated[
    str | None, typer.Option(metavar="FILE", help="JSON, JSONL, CSV, Parquet, Hugging Face.")
]
_EvalData = Annotated[
    str | None, typer.Option(metavar="FILE", help="Its loss is measured after each epoch.")
]
_DataFormat = Annotated[
    str | None,
    typer.Option("--format", metavar="NAME", help="openai, sharegpt, alpaca, prompt, text."),
]
_Column = Annotated[
    list[str] | None, typer.Option(metavar="NAME=COLUMN", help="The data's own column names.")
]
_Method = Annotated[
    str | None,
    typer.Option("--method", "-m", metavar="NAME", help="full, lora, dora, … (default: lora)"),
]
_Arg = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="The trainer's argument, e.g. max_steps=100."),
]
_MethodArg = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="The method's own, e.g. r=16.")
]
_Backend = Annotated[
    str | None,
    typer.Option("--backend", "-b", metavar="NAME", help="Pre-train with it: Megatron-LM."),
]
_Devices = Annotated[
    str | None, typer.Option(metavar="0,2|N", help="Chips that the processes may see.")
]
_Processes = Annotated[
    str | None, typer.Option("--processes", "-n", metavar="N", help="A number, or gpu.")
]
_Nodes = Annotated[
    str | None, typer.Option(metavar="FILE", help="Hostfile: train on these machines.")
]
_Script = Annotated[
    str | None, typer.Option(metavar="FILE", help="Run a script of your own; flags after --.")
]
_Name = Annotated[str | None, typer.Option(metavar="NAME", help="Of the job.")]
_Out = Annotated[
    str | None, typer.Option("--out", "-o", metavar="FOLDER", help="(default: outputs/NAME)")
]
_Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last checkpoint, if there is one.")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print exactly what would run and start nothing.")
]


def _train(
    ctx: typer.Context,
    model: _Model,
    data: _Data = None,
    eval_data: _EvalData = None,
    data_format: _DataFormat = None,
    column: _Column = None,
    method: _Method = None,
    arg: _Arg = None,
    method_arg: _MethodArg = None,
    backend: _Backend = None,
    device: Device = None,
    devices: _Devices = None,
    processes: _Processes = None,
    nodes: _Nodes = None,
    script: _Script = None,
    name: _Name = None,
    out: _Out = None,
    settings: Set = None,
    resume: _Resume = False,
    dry_run: _DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Fine-tune a model on your data, or pre-train one."""
    from uniscale.training.trainfile import TrainAsked, train_asked

    asked = TrainAsked(
        word=model,
        data=data,
        eval_data=eval_data,
        format=data_format,
        columns=tuple(column or ()),
        method=method,
        arguments=tuple(arg or ()),
        method_arguments=tuple(method_arg or ()),
        backend=backend,
        device=device,
        devices=devices,
        processes=processes,
        nodes=nodes,
        script=script,
        name=name,
        out=out,
        settings=tuple(settings or ()),
        raw=ctx.obj["raw"],
    )
    return partial(train_asked, asked, resume=resume, dry_run=dry_run, as_json=as_json)


def _export(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="A training, an adapter, or a model's folder.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", "-o", metavar="FILE", help="(default: FOLDER/model.gguf)"),
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Of the matrices: f32, f16, bf16, q8_0.")
    ] = "f16",
    only_hf: Annotated[
        bool, typer.Option("--merge-only", help="Merge the adapter; write no GGUF.")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Merge what was trained into its model, and write it as GGUF for llama.cpp."""
    from uniscale.training.export import export

    return partial(export, folder, out=out, kind=kind, only_hf=only_hf, as_json=as_json)
