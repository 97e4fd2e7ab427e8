"""The commands about wheels and payloads: install, show, uninstall, upgrade, verify, test, pull.

As in `uniscale.cli.app`, only typer is imported here; a command's module when that command runs.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from uniscale.cli.words import Action, Json, Verbose

_Backend = Annotated[str, typer.Argument(metavar="BACKEND", help="E.g. vllm, llama.cpp.")]
_Device = Annotated[
    str | None, typer.Option("--device", "-d", metavar="NAME", help="Default: the one found here.")
]
_Index = Annotated[
    str | None,
    typer.Option(metavar="URL|DIR", help="The wheel index. (default: UNISCALE_INDEX)"),
]
_Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network: all from the index folder.")
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell all and change nothing.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("install")(_install)
    app.command("show")(_show)
    app.command("uninstall")(_uninstall)
    app.command("upgrade")(_upgrade)
    app.command("verify")(_verify)
    app.command("test")(_test)
    app.command("pull")(_pull)


def _install(
    backend: _Backend,
    device: _Device = None,
    version: Annotated[
        str | None, typer.Option(metavar="V", help="0.32.0, or bounds: '>=0.31,<0.33'.")
    ] = None,
    index: _Index = None,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Into an environment of its own, found by serve.")
    ] = False,
    offline: _Offline = False,
    dry_run: _DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Install the prebuilt wheel that fits this machine."""
    from uniscale.wheels.install import InstallRequest, install

    request = InstallRequest(
        backend=backend, device=device, version=version, index=index, isolated=isolated,
        offline=offline, dry_run=dry_run, as_json=as_json,
    )  # fmt: skip
    return partial(install, request)


def _show(
    backend: _Backend,
    device: _Device = None,
    index: _Index = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Show what is installed of a backend, and what an index has."""
    from uniscale.wheels.show import show

    return partial(show, backend, device=device, index=index, as_json=as_json)


def _uninstall(
    backend: _Backend,
    device: _Device = None,
    dry_run: _DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Take a payload out: its wheel, or its environment."""
    from uniscale.wheels.uninstall import uninstall

    return partial(uninstall, backend, device=device, dry_run=dry_run, as_json=as_json)


def _upgrade(
    backends: Annotated[
        list[str] | None, typer.Argument(metavar="[BACKEND]…", help="Default: all that are here.")
    ] = None,
    index: _Index = None,
    offline: _Offline = False,
    dry_run: _DryRun = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Bring payloads to the newest wheels of an index."""
    from uniscale.wheels.upgrade import upgrade

    return partial(
        upgrade, tuple(backends or ()), index=index, offline=offline, dry_run=dry_run,
        as_json=as_json,
    )  # fmt: skip


def _verify(
    what: Annotated[
        str, typer.Argument(metavar="WHEEL|BACKEND", help="A wheel file, or what is installed.")
    ],
    device: _Device = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build it again, and compare every byte.")
    ] = False,
    offline: _Offline = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Check hashes, SBOM, provenance, and that pins and layers give the same tree."""
    from uniscale.wheels.verify import verify

    return partial(verify, what, device=device, rebuild=rebuild, offline=offline, as_json=as_json)


def _test(
    backends: Annotated[
        list[str] | None, typer.Argument(metavar="[BACKEND]…", help="Default: all that are here.")
    ] = None,
    device: _Device = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Only start it; ask the demo model nothing.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="Time for an engine to load.")
    ] = 600,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Try the installed payloads: each starts, and what serves answers a question."""
    from uniscale.wheels.smoke import smoke

    return partial(
        smoke, tuple(backends or ()), device=device, quick=quick, timeout=timeout, as_json=as_json
    )


def _pull(
    what: Annotated[
        str, typer.Argument(metavar="IMAGE|MODEL", help="host/name:tag, or owner/name.")
    ],
    image: Annotated[bool, typer.Option("--image", help="It is a container image.")] = False,
    model: Annotated[bool, typer.Option("--model", help="It is a model.")] = False,
    source: Annotated[
        str | None, typer.Option("--from", metavar="HUB", help="huggingface or modelscope.")
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="REV", help="Of the model: a branch, tag or commit.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the model goes. (default: hub's cache)")
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> Action:
    """Fetch a container image, or a model."""
    from uniscale.models.pull import PullRequest, pull

    request = PullRequest(
        what=what, image=image, model=model, source=source, revision=revision, to=to,
        as_json=as_json,
    )  # fmt: skip
    return partial(pull, request)
