"""The typer application: words to a request. What a command does is in the module named after it.

Only typer is imported here; a command's module is imported when that command runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from uniscale_build.errors import SettingsError

from uniscale.cli import training, wheels
from uniscale.cli.words import Action, Device, Json, Set, Verbose
from uniscale.ports import LARGEST

# click's base of all usage errors. Newer typers carry their own copy of click, so the class is
# reached through the one subclass that typer exports.
_UsageError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "UsageError"
)
_HELP = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="uniscale",
    help="Train, serve and infer with the LLM engines in this environment, the same on every chip.",
    epilog="The engine's own flags go after --, e.g.: uniscale serve demo -- --threads 2",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take longer than everything else together
    context_settings=_HELP,
)

_Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="demo, a .gguf file, or a Hugging Face folder.")
]
_Backend = Annotated[
    str | None, typer.Option("--backend", "-b", metavar="NAME", help="Engine, e.g. llama.cpp.")
]
_Arg = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE", help="Common argument (vLLM's name), e.g. max_model_len=8K."
    ),
]


training.register(app)
wheels.register(app)


def parse(argv: Sequence[str]) -> Action:
    """What the command line ``argv`` asks for; calling it does it and gives the exit code.

    Everything behind the first ``--`` is kept for the engine, word by word. Raises `SettingsError`
    for words that are no command, option or value.
    """
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    try:
        result: Any = typer.main.get_command(app).main(
            args=words[:cut],
            prog_name="uniscale",
            standalone_mode=False,
            obj={"raw": tuple(words[cut + 1 :])},
        )
    except _UsageError as error:
        raise _usage(error) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if isinstance(result, partial):
        return result
    return lambda: int(result or 0)  # --help and --version have answered already


def _usage(error: Any) -> SettingsError:
    path = error.ctx.command_path if error.ctx is not None else "uniscale"
    hint = f"see {path} --help"
    if path.endswith(("serve", "infer")) and hasattr(error, "option_name"):
        hint += f"\nthe engine's own flags go after --, e.g.: {path} MODEL … -- --threads 2"
    return SettingsError(error.format_message().rstrip("."), where=path, hint=hint, slug="usage")


def _version(value: bool) -> None:
    if value:
        from uniscale import __version__

        typer.echo(f"uniscale {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())
        raise typer.Exit


@app.command("list")
def _list(as_json: Json = False, verbose: Verbose = False) -> Action:
    """List the payloads in this environment."""
    from uniscale.wheels.listing import listing

    return partial(listing, as_json=as_json)


@app.command("doctor")
def _doctor(as_json: Json = False, verbose: Verbose = False) -> Action:
    """Say what this machine can run: chips, payloads, what cannot start and why."""
    from uniscale.wheels.doctor import doctor

    return partial(doctor, as_json=as_json)


_Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL|CONFIG…",
        help="demo, a .gguf file, a Hugging Face folder, owner/name; or a .yaml file.",
    ),
]
_Host = Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")]
_Port = Annotated[
    int | None, typer.Option(min=1, max=LARGEST, help="Port to listen on. (default: 8080)")
]
_Name = Annotated[str | None, typer.Option(metavar="NAME", help="What the API calls the model.")]
_Replicas = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Engines of each model, supervised.")
]
_EngineArg = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Argument in the engine's own words."),
]
_Devices = Annotated[
    str | None,
    typer.Option(metavar="0,2|N", help="Chips that the engine may see, or how many."),
]
_Nodes = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Hostfile: one engine over these machines."),
]
_ApiKeys = Annotated[
    str | None, typer.Option(metavar="FILE", help="Keys, KEY or NAME:KEY on each line.")
]
_DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the exact commands and start nothing.")
]


@app.command("serve")
def _serve(
    ctx: typer.Context,
    model: _Models,
    backend: _Backend = None,
    device: Device = None,
    host: _Host = None,
    port: _Port = None,
    name: _Name = None,
    replicas: _Replicas = None,
    arg: _Arg = None,
    engine_arg: _EngineArg = None,
    devices: _Devices = None,
    nodes: _Nodes = None,
    api_keys: _ApiKeys = None,
    settings: Set = None,
    dry_run: _DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Start OpenAI-compatible servers: one engine, or several behind one address."""
    from uniscale.serving.asked import Asked, serve_asked

    asked = Asked(
        models=tuple(model),
        backend=backend,
        device=device,
        host=host,
        port=port,
        name=name,
        replicas=replicas,
        arguments=tuple(arg or ()),
        engine_arguments=tuple(engine_arg or ()),
        devices=devices,
        nodes=nodes,
        api_keys=api_keys,
        settings=tuple(settings or ()),
        raw=ctx.obj["raw"],
    )
    return partial(serve_asked, asked, dry_run=dry_run, as_json=as_json)


@app.command("config")
def _config(
    path: Annotated[
        str, typer.Argument(metavar="MODEL|CONFIG", help="An experiment or task file, or a model.")
    ],
    settings: Set = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Print the merged configuration and where each value comes from."""
    from uniscale.cli.merged import show_config

    return partial(show_config, path, tuple(settings or ()), as_json=as_json)


@app.command("ps")
def _ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also what ended.")] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """List what runs."""
    from uniscale.cli.jobs import ps

    return partial(ps, everything=everything, as_json=as_json)


@app.command("logs")
def _logs(
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="See uniscale ps.")] = None,
    part: Annotated[str | None, typer.Argument(metavar="[PART]", help="gateway, …/0")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="Last lines of each.")] = 20,
    verbose: Verbose = False,
) -> Action:
    """Print the logs of the engines and the gateway of a job."""
    from uniscale.cli.jobs import logs

    return partial(logs, job, part, follow=follow, lines=lines)


@app.command("stop")
def _stop(
    job: Annotated[list[str] | None, typer.Argument(metavar="[JOB]…", help="uniscale ps")] = None,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All that run.")] = False,
    verbose: Verbose = False,
) -> Action:
    """End jobs and all that they started."""
    from uniscale.cli.jobs import stop

    return partial(stop, tuple(job or ()), everything=everything)


_Prompt = Annotated[
    str | None,
    typer.Argument(metavar="[PROMPT]", help="The question; - reads stdin. None: a chat."),
]
_Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="FILE", help="An image with the prompt; repeatable."),
]
_Rows = Annotated[
    str | None,
    typer.Option("--input", "-i", metavar="FILE", help="Ask each row: JSONL, CSV, Parquet."),
]
_Output = Annotated[
    str | None, typer.Option("--output", "-o", metavar="FILE", help="Rows with answers.")
]
_Concurrency = Annotated[
    int, typer.Option("--concurrency", "-c", metavar="N", min=1, help="Rows at a time.")
]
_AnswerColumn = Annotated[str, typer.Option(metavar="NAME", help="Where answers go in the output.")]
_System = Annotated[
    str | None, typer.Option(metavar="TEXT", help="System message before the prompt.")
]
_MaxTokens = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Most tokens of the answer.")
]
_Temperature = Annotated[
    float | None,
    typer.Option(metavar="T", min=0, help="0: always the likeliest token (demo's default)."),
]
_StartTimeout = Annotated[
    float, typer.Option(metavar="SECONDS", min=0.1, help="Time for the engine to load.")
]


@app.command("infer")
def _infer(
    ctx: typer.Context,
    model: _Model,
    prompt: _Prompt = None,
    images: _Images = None,
    rows: _Rows = None,
    output: _Output = None,
    concurrency: _Concurrency = 8,
    answer_column: _AnswerColumn = "answer",
    system: _System = None,
    max_tokens: _MaxTokens = None,
    temperature: _Temperature = None,
    backend: _Backend = None,
    device: Device = None,
    arg: _Arg = None,
    devices: _Devices = None,
    start_timeout: _StartTimeout = 600,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Ask a question, or every row of a file; without either, talk with the model."""
    from uniscale.inference.infer import InferRequest, infer

    arguments: dict[str, object] = {}
    if arg:
        from uniscale.serving.asked import pairs

        arguments = pairs(arg, "--arg")

    return partial(
        infer,
        InferRequest(
            model=model,
            backend=backend,
            device=device,
            raw=ctx.obj["raw"],
            arguments=arguments,
            devices=devices,
            prompt=prompt,
            system=system,
            max_tokens=max_tokens,
            temperature=temperature,
            start_timeout=start_timeout,
            as_json=as_json,
            images=tuple(images or ()),
            input=rows,
            output=output,
            concurrency=concurrency,
            answer_column=answer_column,
        ),
    )
