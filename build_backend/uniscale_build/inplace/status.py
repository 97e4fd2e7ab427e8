"""``status``: what every backend and device stands on, who owns which file, what is unsaved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from uniscale_build import swap
from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.git.db import GitDb, run_git
from uniscale_build.inplace.stack import Target, exclusive
from uniscale_build.inplace.tree import InTree, tree_of
from uniscale_build.inplace.unpatch import unsaved
from uniscale_build.layers.layer import Layer
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.lint import lint_layer
from uniscale_build.manifests.model import Adaptation, Backend, Pin
from uniscale_build.progress import Silent
from uniscale_build.project import Project
from uniscale_build.store import Store


@dataclass(frozen=True)
class LayerStatus:
    """One layer in numbers; ``changed`` is when its files last changed (seconds since 1970)."""

    name: str
    title: str
    owner: str
    contact: str
    upstream: str
    sealed: bool
    patches: int
    files: int  # overlay files
    added: int  # lines, overlay files included
    removed: int
    changed: int
    paths: tuple[str, ...]  # upstream paths that it changes or adds
    problems: int  # what lint refuses


@dataclass(frozen=True)
class InPlace:
    """The in-place tree: ``absent``, ``clean``, ``edited``, ``outdated`` or ``foreign``."""

    path: str
    state: str
    edits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """One backend, alone or on one device."""

    backend: str
    device: str
    version: str = ""
    commit: str = ""
    tree: str = ""
    layers: tuple[LayerStatus, ...] = ()
    in_place: InPlace | None = None
    missing: str = ""  # what a pair lacks before it can be built
    errors: tuple[UniscaleError, ...] = field(default=())

    @property
    def owners(self) -> dict[str, list[str]]:
        """Each changed path and the layers that change it, lowest first."""
        owners: dict[str, list[str]] = {}
        for layer in self.layers:
            for path in layer.paths:
                owners.setdefault(path, []).append(layer.name)
        return dict(sorted(owners.items()))


def read_status(
    project: Project, store: Store, backend: str | None = None, device: str | None = None
) -> list[Row]:
    """A row for each backend and each of its devices, or for those asked for; fetches nothing."""
    found = project.manifests
    chosen = list(found.backends.values()) if backend is None else [found.backend(backend)]
    only = None if device is None else found.device(device).name
    known: dict[Path, LayerStatus] = {}
    rows = []
    for item in chosen:
        pairs: list[Adaptation | None] = [] if only else [None]
        pairs += [pair for (name, chip), pair in sorted(found.adaptations.items())
                  if name == item.name and only in (None, chip)]  # fmt: skip
        rows += [_row(project, store, item, pair, known) for pair in pairs]
    if not rows:
        raise SettingsError(
            f"nothing is adapted to {only}" if backend is None else f"{backend} is not on {only}",
            where="manifests/adaptations",
            slug="no-adaptation",
        )
    return rows


def _row(
    project: Project,
    store: Store,
    backend: Backend,
    pair: Adaptation | None,
    known: dict[Path, LayerStatus],
) -> Row:
    device = pair.device if pair is not None else ""
    pin = backend.pin(pair.pin) if pair is not None else next(iter(backend.pins), None)
    if pin is None or (pair is not None and not pair.ready):
        return Row(backend.name, device, missing=pair.missing if pair is not None else "a pin")
    target = Target(project, pin, pair)
    facts = (backend.name, device, pin.version, pin.commit, pin.tree)
    try:
        if project.checkout and swap.unfinished(target.home):
            with exclusive(target, store, Silent()):
                pass
        layers = project.layers(pin, pair)
        told = tuple(_layer_status(project, layer, known) for layer in layers)
        in_place = _in_place(store, target, pin, layers) if project.checkout else None
    except UniscaleError as error:
        return Row(*facts, errors=error.findings())
    return Row(*facts, layers=told, in_place=in_place)


def _layer_status(project: Project, layer: Layer, known: dict[Path, LayerStatus]) -> LayerStatus:
    """The numbers of a layer, read once for all devices that share it."""
    if layer.folder in known:
        return known[layer.folder]
    found = lint_layer(layer)
    overlay = layer.overlay
    root = layer.folder / "overlay"
    paths = [shown(name) for section in found.sections for name in section.names]
    paths += [shown(bytes(path.relative_to(root))) for path in overlay]
    lines = sum(path.read_bytes().count(b"\n") for path in overlay if path.is_file())
    known[layer.folder] = LayerStatus(
        layer.name, layer.title, layer.owner, layer.contact, layer.upstream, layer.sealed,
        patches=len(found.patches),
        files=len(overlay),
        added=lines + sum(len(section.added) for section in found.sections),
        removed=sum(len(section.removed) for section in found.sections),
        changed=_changed(project, layer.folder),
        paths=tuple(dict.fromkeys(layer.files if layer.sealed else paths)),
        problems=len(found.errors),
    )  # fmt: skip
    return known[layer.folder]


def _changed(project: Project, folder: Path) -> int:
    """When the layer was last committed; when its files were written, where there is no git."""
    ran = run_git(["log", "-1", "--format=%ct", "--", str(folder)], cwd=project.root, check=False)
    if ran.code == 0 and ran.text.isdigit():
        return int(ran.text)
    files = [path for path in folder.rglob("*") if path.is_file()]
    return int(max(path.lstat().st_mtime for path in files))


def _in_place(store: Store, target: Target, pin: Pin, layers: Sequence[Layer]) -> InPlace:
    tree = InTree(store, target.root)
    if tree.gitdir is None:
        there = target.root.is_dir() and any(target.root.iterdir())
        return InPlace(target.shown, "foreign" if there else "absent")
    db = GitDb(store).open()
    found = tree.scan(db)
    here = tree_of(db, found.entries)
    top = layers[-1].result if layers else pin.tree
    state = tree.state()
    edits = [] if here == top else unsaved(db, tree, found, saved=top if db.has(top) else "")
    if edits:
        return InPlace(target.shown, "edited", tuple(edits))
    levels = [level.tree for level in state.levels] if state is not None else []
    if here == top and levels == [pin.tree, *(layer.result for layer in layers)]:
        return InPlace(target.shown, "clean")
    return InPlace(target.shown, "foreign" if state is None else "outdated")


def age(changed: int) -> str:
    """How long ago that is, in the largest unit that fits."""
    days = (datetime.now(timezone.utc).timestamp() - changed) / 86400
    for size, unit in ((365.25, "year"), (30.44, "month"), (7, "week"), (1, "day")):
        if days >= size:
            count = int(days / size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "today"
