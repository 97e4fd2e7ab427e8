"""Seals and unseals a layer in its place: proven first, then exchanged as a whole folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build import swap
from uniscale_build.errors import LayerError, SettingsError
from uniscale_build.git.db import GitDb, run_git
from uniscale_build.inplace.stack import Target, exclusive
from uniscale_build.layers.layer import Layer, apply_layer, find_layer, patched_tree
from uniscale_build.layers.layerfile import changes
from uniscale_build.manifests.model import Backend
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sealing.archive import Member, write_folder
from uniscale_build.sealing.keys import load_keyring, read_signing_key
from uniscale_build.sealing.sealed import identities_for, open_members, plain_layer, sealed_members
from uniscale_build.sources.obtain import obtain
from uniscale_build.store import disk_errors


@dataclass(frozen=True)
class Done:
    """What became of a layer; ``published`` is a commit that still has its plain files, or ""."""

    layer: Layer
    files: tuple[str, ...]
    recipients: tuple[str, ...]
    published: str = ""


def _target(project: Project, backend: Backend) -> Target:
    if not project.checkout:
        raise SettingsError(
            "an installed uniscale has no layers to write",
            hint="change into a checkout of uniscale, or set UNISCALE_PROJECT",
            slug="no-project",
        )
    if not backend.pins:
        raise SettingsError(f"{backend.name} has no pin", where=backend.where, slug="no-pin")
    return Target(project, backend.pins[0], None)


def seal(
    db: GitDb,
    project: Project,
    backend: Backend,
    name: str,
    recipients: tuple[str, ...],
    signing_key: Path,
    key: Path | None,
    reporter: Reporter,
    *,
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Done:
    """Replace the plain layer ``name`` by its sealed form for ``recipients``.

    Before that the layer is applied (its recorded trees must be true) and the sealed form is opened
    again with ``key`` (else ``UNISCALE_AGE_KEY``), so that nothing can be lost.
    """
    target = _target(project, backend)
    keyring = load_keyring(project.patches, environ)
    signer = read_signing_key(signing_key)
    with exclusive(target, db.store, reporter):
        layer = find_layer(project.patches, backend.name, name)
        if key is None and not (os.environ if environ is None else environ).get("UNISCALE_AGE_KEY"):
            raise SettingsError(
                "no key is given that opens the layer again, and its plain files will be removed",
                hint="--key FILE (or UNISCALE_AGE_KEY) names an age key of one of the recipients",
                slug="no-key",
            )
        identities, _ = identities_for(layer, environ, key)
        files = () if layer.sealed else _prove(db, project, backend, layer, reporter, offline)
        members = sealed_members(layer, files, recipients, keyring, signer, identities)
        _replace(target, name, members)
    sealed = find_layer(project.patches, backend.name, name)
    return Done(sealed, files, sealed.recipients, _published(project, sealed))


def _replace(target: Target, name: str, members: Sequence[Member]) -> None:
    fresh = swap.staged(target.home, name)
    with disk_errors(fresh):
        try:
            fresh.mkdir()
            write_folder(fresh, members)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        swap.commit(target.home, [name])


def _prove(
    db: GitDb, project: Project, backend: Backend, layer: Layer, reporter: Reporter, offline: bool
) -> tuple[str, ...]:
    """The upstream paths that the layer touches, when it makes the tree that it records."""
    _need_base(db, project, backend, layer, reporter, offline)
    made = apply_layer(db, layer.base, layer)
    if made != layer.result:
        raise LayerError(
            f'layer "{layer.name}" gives tree {made[:12]}, but records {layer.result[:12]}',
            where=f"{layer.where}/layer.yaml",
            hint=f"uniscale-build check --backend {backend.name} names the file; "
            "seal it when it is right",
            slug="result-differs",
        )
    found = changes(db, layer.base, layer.result)
    paths = dict.fromkeys(path for change in found for path in (change.old_path, change.path))
    return tuple(os.fsdecode(path) for path in paths)


def _need_base(
    db: GitDb, project: Project, backend: Backend, layer: Layer, reporter: Reporter, offline: bool
) -> None:
    """Make the tree below the layer, from the stack in which it lies."""
    db.open()
    if db.has(layer.base):
        return
    stacks = [(pin, None) for pin in backend.pins] + [
        (pin, item)
        for item in project.manifests.adaptations.values()
        if item.backend == backend.name and (pin := backend.pin(item.pin)) is not None
    ]
    for pin, item in stacks:
        names = [*pin.layers, *(item.layers if item is not None else ())]
        if layer.name in names or layer.base == pin.tree:
            obtain(db, pin, reporter=reporter, offline=offline)
            below = names[: names.index(layer.name)] if layer.name in names else []
            patched_tree(
                db, pin, [find_layer(project.patches, backend.name, word) for word in below]
            )
            if db.has(layer.base):
                return
    raise LayerError(
        f'the tree below layer "{layer.name}", {layer.base[:12]}, is that of no pin or layer',
        where=f"{layer.where}/layer.yaml",
        hint="name the layer in a pin or an adaptation first, so that it can be verified",
        slug="no-base",
    )


def _published(project: Project, layer: Layer) -> str:
    """The newest commit of the project that touched the layer's plain files, if there is one."""
    plain = [f"{layer.where}/{folder}" for folder in ("diff", "overlay")]
    ran = run_git(["log", "-1", "--format=%h", "--", *plain], cwd=project.root, check=False)
    return ran.text if ran.code == 0 else ""


def unseal(
    db: GitDb,
    project: Project,
    backend: Backend,
    name: str,
    key: Path | None,
    reporter: Reporter,
    *,
    environ: Mapping[str, str] | None = None,
) -> Done:
    """Replace the sealed layer ``name`` by the very files that were sealed."""
    target = _target(project, backend)
    keyring = load_keyring(project.patches, environ)
    with exclusive(target, db.store, reporter):
        layer = find_layer(project.patches, backend.name, name)
        if not layer.sealed:
            raise LayerError(f'layer "{name}" is not sealed', where=layer.where, slug="not-sealed")
        identities, key_name = identities_for(layer, environ, key)
        members = open_members(layer, keyring, identities, key_name)
        # Nothing plain reaches the checkout before it is known to be this layer.
        with db.store.scratch() as scratch:
            write_folder(scratch, members)
            plain_layer(scratch, layer)
        _replace(target, name, members)
    return Done(find_layer(project.patches, backend.name, name), layer.files, layer.recipients)
