"""``uniscale-build import-flagscale``, ``seal``, ``unseal`` and ``keygen``: for vendors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from uniscale_build.cli.app import Backend, Json, Verbose

if TYPE_CHECKING:
    from uniscale_build.errors import UniscaleError
    from uniscale_build.flagscale.meta import Quirk
    from uniscale_build.flagscale.plan import NewLayer, Planned
    from uniscale_build.flagscale.write import Outcome
    from uniscale_build.sealing.layer import Done

Layer = Annotated[str, typer.Option("--layer", "-l", help="Layer, e.g. acme-x1.")]
AgeKey = Annotated[
    Path | None, typer.Option("--key", help="Age key file (default: UNISCALE_AGE_KEY).")
]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is in the cache.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("import-flagscale")(import_flagscale)
    app.command()(seal)
    app.command()(unseal)
    app.command()(keygen)


def import_flagscale(
    folder: Annotated[
        Path,
        typer.Argument(help="A FlagScale checkout, or hardware/<Device>[/<backend>] in one."),
    ],
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="Only these backends.")
    ] = None,
    device: Annotated[
        list[str] | None, typer.Option("--device", "-d", help="Only these devices.")
    ] = None,
    as_device: Annotated[
        str | None, typer.Option(help="Our device that FlagScale's folder stands for.")
    ] = None,
    pin: Annotated[str | None, typer.Option(help="The pin it was made on (version).")] = None,
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="Name of its layer.")] = None,
    common_layer: Annotated[
        str | None, typer.Option(help="Name of the layer with FlagScale's own changes.")
    ] = None,
    contact: Annotated[str | None, typer.Option(help="Whom to ask about it.")] = None,
    key: Annotated[
        Path | None, typer.Option(help="Folder of private_key.pem, for encrypted sets.")
    ] = None,
    skip_failing: Annotated[
        bool, typer.Option("--skip-failing", help="Import the sets that hold, tell the others.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prove all, write nothing.")] = False,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Bring FlagScale's patches of a device in as layers and an adaptation, proven to apply."""
    from uniscale_build.cli.live import reporter
    from uniscale_build.errors import Problems
    from uniscale_build.flagscale.importing import make_context, plan_all
    from uniscale_build.flagscale.plan import Wishes
    from uniscale_build.flagscale.write import write
    from uniscale_build.project import find_project

    wishes = Wishes(tuple(backend or ()), tuple(device or ()), as_device, pin, layer, common_layer,
                    contact, offline)  # fmt: skip
    with reporter() as live:
        context = make_context(find_project(), folder, wishes, key, live)
        plans, quirks, errors = plan_all(context, skip_failing=skip_failing)
        outcome = write(context, plans, dry_run=dry_run)
    if json:
        _print_import_json(plans, quirks, outcome, errors, dry_run)
    else:
        _print_import(plans, quirks, outcome, dry_run)
    if errors and json:
        raise typer.Exit(errors[0].exit_code)
    if errors:
        raise Problems(errors)


def _print_import_json(
    plans: list[Planned],
    quirks: list[Quirk],
    outcome: Outcome,
    errors: list[UniscaleError],
    dry_run: bool,
) -> None:
    import dataclasses
    import json

    made = {
        "dry_run": dry_run,
        "sets": [_as_json(item) for item in plans],
        **dataclasses.asdict(outcome),
        "quirks": [quirk.as_json() for quirk in quirks],
        "errors": [error.as_json() for error in errors],
    }
    print(json.dumps(made, indent=2))


def _as_json(item: Planned) -> dict[str, object]:
    return {
        "source": item.source,
        "layout": item.layout,
        "backend": item.backend.name,
        "device": item.device.name,
        "pin": item.version,
        "tasks": list(item.tasks),
        "contact": item.contact,
        "encrypted": item.encrypted,
        "stored": {"files": item.stored.files, "lines": item.stored.lines},
        "layers": [
            {
                "name": layer.name,
                "role": layer.role,
                "base": layer.base,
                "result": layer.result if layer.role != "opaque" else None,
                "files": layer.size.files,
                "lines": layer.size.lines,
                "names": list(layer.files),
            }
            for layer in item.layers
        ],
    }


def _print_import(
    plans: list[Planned], quirks: list[Quirk], outcome: Outcome, dry_run: bool
) -> None:
    for item in plans:
        what = f"{item.backend.name} {item.version} on {item.device.name}"
        size = f"{item.stored.files} files, {item.stored.lines} lines"
        print(f"{item.source} ({item.layout}): {what}, {size}")
        for layer in item.layers:
            print(f"  {layer.role:<7} {layer.name}: {_sized(layer)}")
    if quirks:
        print("oddities in what was read:")
        for quirk in dict.fromkeys(quirks):
            print(f"  {quirk.where}: {quirk.what}")
    words = {"would write": outcome.written, "would replace": outcome.replaced} if dry_run else {
        "wrote": outcome.written, "replaced": outcome.replaced}  # fmt: skip
    for word, paths in {**words, "there already": outcome.present}.items():
        for path in paths:
            print(f"{word}: {path}")
    if not plans:
        print("nothing to import")
    elif dry_run:
        print("next: the same command without --dry-run")
    else:
        _print_next(plans)


def _sized(layer: NewLayer) -> str:
    if layer.role == "opaque":
        return f"{len(layer.files)} encrypted files, by name"
    return f"{layer.size.files} files, {layer.size.lines} lines"


def _print_next(plans: list[Planned]) -> None:
    first = plans[0]
    words = f"--backend {first.backend.name}"
    print(f"next: uniscale-build check {words}")
    secret = [(p, x) for p in plans if p.encrypted for x in p.layers if x.role == "vendor"]
    if secret:
        plan, layer = secret[0]
        print(f"      it was encrypted, and lies here in plain: uniscale-build seal --backend "
              f"{plan.backend.name} --layer {layer.name}")  # fmt: skip
    elif any(layer.role == "opaque" for plan in plans for layer in plan.layers):
        print("      with the vendor's key: the same command and --key FOLDER")


def seal(
    backend: Backend,
    layer: Layer,
    to: Annotated[list[str], typer.Option("--to", help="Recipient in the keyring; repeatable.")],
    sign_key: Annotated[Path, typer.Option("--sign-key", help="The owner's ed25519 key (PEM).")],
    key: AgeKey = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Encrypt a layer for named recipients and sign it; its files and trees stay readable."""
    from uniscale_build.cli.live import reporter
    from uniscale_build.git.db import GitDb
    from uniscale_build.project import find_project
    from uniscale_build.sealing import layer as seal_layer
    from uniscale_build.store import Store

    project = find_project()
    names = tuple(name.strip() for word in to for name in word.split(",") if name.strip())
    with reporter() as live:
        done = seal_layer.seal(GitDb(Store()), project, project.manifests.backend(backend), layer,
                               names, sign_key, key, live, offline=offline)  # fmt: skip
    _tell(done, "sealed", json)
    if not json:
        if done.published:
            print(f"note: commit {done.published} has its plain files; sealing does not take them "
                  "out of the history of this repository")  # fmt: skip
        print(f"next: git add -A {done.layer.where}, and commit")


def unseal(
    backend: Backend,
    layer: Layer,
    key: AgeKey = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Put a sealed layer's plain files back; its owner's signature is verified first."""
    from uniscale_build.cli.live import reporter
    from uniscale_build.git.db import GitDb
    from uniscale_build.project import find_project
    from uniscale_build.sealing import layer as seal_layer
    from uniscale_build.store import Store

    project = find_project()
    with reporter() as live:
        done = seal_layer.unseal(GitDb(Store()), project, project.manifests.backend(backend), layer,
                                 key, live)  # fmt: skip
    _tell(done, "unsealed", json)
    if not json:
        print(f"next: edit it (uniscale-build unpatch --backend {done.layer.backend}), then seal "
              "it again before you commit")  # fmt: skip


def _tell(done: Done, word: str, as_json: bool) -> None:
    import json

    if as_json:
        made = {
            "layer": done.layer.name,
            "backend": done.layer.backend,
            "sealed": done.layer.sealed,
            "files": list(done.files),
            "recipients": list(done.recipients),
            "signer": done.layer.signer or None,
            "plain_in_history": done.published or None,
        }
        print(json.dumps(made, indent=2))
    else:
        print(f"{word} {done.layer.where}: {len(done.files)} files, "
              f"for {', '.join(done.recipients)}")  # fmt: skip


def keygen(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; a new file.")],
    signing: Annotated[
        bool, typer.Option("--signing", help="A key that signs, for an owner of layers.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a key that opens sealed layers (age), or one that signs them (ed25519)."""
    import json as format_json

    from uniscale_build.sealing import keys as seal_keys

    seal_keys.outside_projects(file)
    public = seal_keys.new_signing_key(file) if signing else seal_keys.new_identity(file)
    section = "signers" if signing else "recipients"
    if json:
        print(format_json.dumps({"file": str(file), "public": public, "kind": section}, indent=2))
        return
    print(f"wrote {file}, readable by you alone; keep it secret, and keep a copy")
    print(f"next: add its public part to patches/keyring.yaml:\n{section}:\n  YOUR NAME: {public}")
