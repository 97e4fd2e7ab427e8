"""What a port moves: which layers, onto what, and whom else they belong to.

Without a device the pin moves with every adaptation on it; with a device that adaptation alone;
with ``common`` the pin's own layers alone. Layers that somebody else goes on using stay as they
are, and a copy moves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LayerError, SettingsError, SourceError, did_you_mean, raise_all
from uniscale_build.git.db import GitDb, run_git
from uniscale_build.ids import check_name, is_object_id
from uniscale_build.layers.layer import Layer, apply_layer, find_layer
from uniscale_build.manifests.model import Adaptation, Backend, Origin, Pin
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sources.obtain import ON_INDEX, Found, obtain, obtain_version
from uniscale_build.store import digest


@dataclass(frozen=True)
class Request:
    """What a person asked for; ``to`` is empty to put layers back on what they stand on now."""

    backend: str
    to: str = ""
    device: str | None = None
    common: bool = False
    pin: str = ""  # the pin to move, by default the first (or the device's)
    commit: str = ""  # the new pin's commit, where ``to`` does not tell
    name: str = ""  # the new pin's version, where ``to`` does not tell
    offline: bool = False
    fresh: bool = False  # ask no remembered resolution


@dataclass(frozen=True)
class Step:
    """One layer to move; ``below`` is the index of the step that it stands on (None: the pin)."""

    layer: Layer
    below: int | None
    new_name: str
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A port, resolved."""

    project: Project
    backend: Backend
    pin: Pin
    movers: tuple[Adaptation, ...]
    steps: tuple[Step, ...]
    new: Pin
    start: str  # the tree that the first steps stand on
    label: str  # what ``start`` is, for markers and reports
    existing: bool  # the new pin is in the manifest already
    keep: bool  # the old pin stays in the manifest
    device: str  # "" when not for one device
    request: Request

    @property
    def key(self) -> str:
        """What a work tree for this port is called."""
        tail = f"-{check_name(self.device, what='device')}" if self.device else ""
        return f"{check_name(self.backend.name, what='backend')}{tail}"

    @property
    def digest(self) -> str:
        """Changes when the project's layers or manifests change under the port."""
        steps = [(s.layer.name, s.layer.base, s.layer.result, s.below, s.new_name)
                 for s in self.steps]  # fmt: skip
        return digest(steps, self.pin.tree, self.pin.version, self.new.tree, self.new.version,
                      self.new.commit, self.keep, self.existing)  # fmt: skip

    @property
    def restack(self) -> bool:
        """True when only the layers move, not the pin."""
        return self.existing and self.new.version == self.pin.version


def make_plan(
    db: GitDb, project: Project, request: Request, reporter: Reporter, known: Pin | None = None
) -> Plan:
    """Resolve the names, get both sources, verify the layers on what they were made on.

    ``known`` is the new pin that an earlier run has found; it is taken as long as the store has it.
    """
    backend = project.manifests.backend(request.backend)
    pin, movers, device = _who(project, backend, request)
    local = project.root / "third_party" / backend.name
    obtain(db, pin, local=local, reporter=reporter, offline=request.offline)
    target = backend.pin(request.to) if request.to else pin
    if target is not None:
        obtain(db, target, local=local, reporter=reporter, offline=request.offline)
        new = target
    elif known is not None and db.kept(f"pins/{known.tree}") == known.tree:
        new = known
    else:
        found = obtain_version(db, backend, request.to, reporter=reporter, offline=request.offline)
        new = new_pin(pin, found, request)
    existing = target is not None
    stayers = [
        item
        for item in project.manifests.adaptations.values()
        if item.backend == backend.name and item.pin and backend.pin(item.pin) is pin
        and item not in movers
    ]  # fmt: skip
    keep = existing or bool(stayers) or (request.common and bool(_all_on(project, backend, pin)))
    common = pin.layers if not existing or new is pin else ()
    steps = _steps(project, backend, pin, movers, common, new, keep)
    verify(db, pin, [step.layer for step in steps])
    start, label = new.tree, f"{backend.name} {new.version}"
    if existing and new is not pin and new.layers:
        below = [find_layer(project.patches, backend.name, name) for name in new.layers]
        verify(db, new, below)
        start, label = below[-1].result, f"{label} + {below[-1].name}"
    return Plan(project, backend, pin, movers, steps, new, start, label, existing, keep, device,
                request)  # fmt: skip


def _who(
    project: Project, backend: Backend, request: Request
) -> tuple[Pin, tuple[Adaptation, ...], str]:
    if request.device is not None:
        if request.common or request.pin:
            raise SettingsError("--device excludes --common and --pin")
        pin, adaptation = project.resolve(request.backend, request.device)
        if adaptation is None:
            raise SettingsError(f"{backend.name} has no adaptation", where=backend.where)
        return pin, (adaptation,), adaptation.device
    chosen = backend.pin(request.pin) if request.pin else next(iter(backend.pins), None)
    if chosen is None:
        raise SettingsError(
            f'{backend.name} has no pin "{request.pin}"' if request.pin else
            f"{backend.name} has no pin",
            where=backend.where,
            hint=did_you_mean(request.pin, [pin.version for pin in backend.pins]),
            slug="unknown-pin",
        )  # fmt: skip
    movers = () if request.common else _all_on(project, backend, chosen)
    return chosen, movers, "common" if request.common else ""


def _all_on(project: Project, backend: Backend, pin: Pin) -> tuple[Adaptation, ...]:
    return tuple(
        item
        for item in project.manifests.adaptations.values()
        if item.backend == backend.name and item.pin and backend.pin(item.pin) is pin
    )


def _steps(
    project: Project,
    backend: Backend,
    pin: Pin,
    movers: Sequence[Adaptation],
    common: Sequence[str],
    new: Pin,
    keep: bool,
) -> tuple[Step, ...]:
    """The moving layers, each after the one that it stands on; shared ones once."""
    chains = [(item.layers, item.device) for item in movers] or [((), "")]
    # What stands on the pin goes on standing there: all who use it see the same change.
    used = set() if new is pin else _used_by_others(project, backend, pin, movers, keep)
    steps: list[Step] = []
    place: dict[tuple[int | None, str], int] = {}
    errors = []
    for own, device in chains:
        below: int | None = None
        for name in (*common, *own):
            at = place.get((below, name))
            if at is None:
                layer = find_layer(project.patches, backend.name, name)
                if layer.sealed:
                    errors.append(_sealed(layer))
                new_name = _copy_name(name, pin, new) if name in used else name
                if new_name != name and (layer.folder.parent / new_name).exists():
                    errors.append(_taken(layer, new_name))
                at = place[below, name] = len(steps)
                steps.append(Step(layer, below, new_name, ()))
            if device and device not in steps[at].devices:
                step = steps[at]
                steps[at] = Step(step.layer, step.below, step.new_name, (*step.devices, device))
            below = at
    raise_all(errors)
    return tuple(steps)


def _used_by_others(
    project: Project, backend: Backend, pin: Pin, movers: Sequence[Adaptation], keep: bool
) -> set[str]:
    """Layers that pins and adaptations outside of the port go on using."""
    others: Iterable[str] = [
        name
        for item in project.manifests.adaptations.values()
        if item.backend == backend.name and item not in movers
        for name in item.layers
    ]
    pins = [p for p in backend.pins if p is not pin or keep]
    return {*others, *(name for item in pins for name in item.layers)}


def _copy_name(name: str, pin: Pin, new: Pin) -> str:
    stem = name.removesuffix(f"-{pin.version}")
    return check_name(f"{stem}-{new.version}", what="layer", error=LayerError)


def _sealed(layer: Layer) -> LayerError:
    return LayerError(
        f'layer "{layer.name}" is sealed: whoever ports it must open it first',
        where=layer.where,
        hint=f"uniscale-build unseal opens it with the key; its owner is {layer.owner}: "
        f"{layer.contact}",
        slug="sealed",
    )


def _taken(layer: Layer, new_name: str) -> LayerError:
    return LayerError(
        f'others go on using layer "{layer.name}", and its copy "{new_name}" exists already',
        where=f"patches/{layer.backend}/{new_name}",
        hint="remove or rename that folder",
        slug="layer-exists",
    )


def verify(db: GitDb, pin: Pin, layers: Sequence[Layer]) -> None:
    """Each layer makes its recorded result of its recorded base; errors of all of them at once."""
    errors = []
    for layer in layers:
        if layer.base != pin.tree and not db.has(layer.base):
            errors.append(
                LayerError(
                    f'layer "{layer.name}" was made on tree {layer.base[:12]}, '
                    "which is not in the store",
                    where=f"{layer.where}/layer.yaml",
                    hint="check out the revision of the project where its pin and the layers below "
                    "fit, run uniscale-build check there (it fills the store), then port",
                    slug="no-base",
                )
            )
            continue
        try:
            made = apply_layer(db, layer.base, layer)
        except LayerError as error:
            errors.extend(_layer_errors(error))
            continue
        if made != layer.result:
            errors.append(
                LayerError(
                    f'layer "{layer.name}" gives tree {made[:12]}, but records {layer.result[:12]}',
                    where=f"{layer.where}/layer.yaml",
                    hint=f"uniscale-build check --backend {layer.backend} names the files",
                    slug="result-differs",
                )
            )
    raise_all(errors)


def _layer_errors(error: LayerError) -> list[LayerError]:
    return [item for item in error.findings() if isinstance(item, LayerError)]


def new_pin(old: Pin, found: Found, request: Request) -> Pin:
    """The pin that takes the old one's place; `SourceError` when its commit has to be told."""
    commit = request.commit or found.commit or _head_of(request.to, found.tree)
    if commit and not is_object_id(commit):
        raise SettingsError(
            f"--commit {commit!r} is not a full commit id", hint="40 hexadecimal digits",
            slug="bad-commit",
        )  # fmt: skip
    version = request.name or found.version or commit[:12] or found.tree[:12]
    check_name(version, what="version")
    origins = tuple(_new_origins(old, found, request.to))
    if not origins:
        raise SourceError(
            f"{request.to} cannot be pinned: no origin of {old.backend} {old.version} has it too",
            where=old.where,
            hint="add a pin for it to the manifest by hand, then port to that pin's version",
            slug="no-origin",
        )
    # A pin says why it names no commit.
    note = "" if commit else old.note or "A source distribution does not tell its commit."
    return Pin(old.backend, version, commit, found.tree, origins, old.layers, note, old.where)


def _new_origins(old: Pin, found: Found, word: str) -> Iterable[Origin]:
    """The old pin's ways to the source, as far as they lead to the new one."""
    for origin in old.origins:
        if origin.kind == "git":
            yield origin
        elif origin.kind in ON_INDEX and found.origin is not None:
            if found.origin.kind == origin.kind:
                yield found.origin
        elif origin.kind == "folder" and found.origin is None and Path(word).is_dir():
            yield Origin("folder", url=os.path.abspath(word), path=origin.path)


def _head_of(word: str, tree: str) -> str:
    """The commit of a checkout that holds exactly ``tree``, or nothing."""
    folder = Path(word)
    if not (word and (folder / ".git").exists()):
        return ""
    ran = run_git(["rev-parse", "HEAD", "HEAD^{tree}"], cwd=folder, check=False)
    commit, _, has = ran.text.partition("\n")
    return commit if ran.code == 0 and has == tree else ""
