"""``check``: verifies every layer, offline, and tells all findings at once, by file, with the cure.

Each layer is read, linted, compared with its base file by file (blob ids), applied, compared with
what it records, and exported again: the export must be the files that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uniscale_build import swap
from uniscale_build.errors import LayerError, UniscaleError
from uniscale_build.git.db import GitDb
from uniscale_build.layers.layer import Layer, check_chain, find_layer
from uniscale_build.manifests.model import Adaptation, Backend, Pin
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.review.gitlinks import gitlink_findings
from uniscale_build.review.layer import Checker, Findings
from uniscale_build.sources.obtain import obtain

if TYPE_CHECKING:
    from uniscale_build.store import Store


@dataclass
class Checked:
    """What `check` looked at and found; ``stale`` are layers that ``--fix`` can write anew."""

    errors: list[UniscaleError] = field(default_factory=list)
    warnings: list[UniscaleError] = field(default_factory=list)
    stacks: int = 0
    layers: int = 0
    patches: int = 0
    files: int = 0
    lines: int = 0
    fixable: list[Layer] = field(default_factory=list)
    fixed: list[str] = field(default_factory=list)

    def add(self, found: Findings) -> None:
        """Take over what was found in one layer."""
        self.errors += found.errors
        self.warnings += found.warnings
        self.patches += found.patches
        self.files += found.files
        self.lines += found.lines
        if found.fixable:
            self.fixable.append(found.layer)


@dataclass(frozen=True)
class Stack:
    """A pin with the layers on it, common ones or those of one device."""

    backend: Backend
    pin: Pin
    adaptation: Adaptation | None
    layers: tuple[Layer, ...]


def check(
    project: Project,
    store: Store,
    reporter: Reporter,
    *,
    backend: str | None = None,
    device: str | None = None,
    offline: bool = False,
) -> Checked:
    """Verify all layers, or those of one backend (and device); nothing in the project changes."""
    db = GitDb(store).open()
    done = Checked()
    stacks = _stacks(project, backend, device, done)
    done.stacks = len(stacks)
    broken: set[str] = set()
    for stack in stacks:
        for error in check_chain(stack.pin, stack.layers):
            if error.what not in broken:
                broken.add(error.what)
                done.errors.append(error)
    unreachable = _obtain(db, project, stacks, reporter, offline, done)
    layers = _in_order(stacks, unreachable)
    done.layers = len(layers)
    reporter.stage("check", f"{len(layers)} layers of {len(stacks)} stacks")
    checker = Checker(db)
    # Threads: the work is in git processes; layers on another layer come after it.
    with ThreadPoolExecutor(max_workers=4) as pool:
        for level in layers_by_depth(layers, stacks):
            for found in pool.map(checker.check, level):
                done.add(found)
    if device is None:
        chosen = project.manifests.backend(backend).name if backend else None
        done.warnings += _orphans(project, chosen)
        errors, warnings = gitlink_findings(project, chosen)
        done.errors += errors
        done.warnings += warnings
    return done


def _stacks(
    project: Project, backend: str | None, device: str | None, done: Checked
) -> list[Stack]:
    manifests = project.manifests
    chosen = manifests.backend(backend) if backend is not None else None
    if device is not None and chosen is not None:
        pairs = [manifests.adaptation(chosen, manifests.device(device))]
    else:
        pairs = [a for a in manifests.adaptations.values()
                 if a.pin and (chosen is None or a.backend == chosen.name)]  # fmt: skip
    found: list[Stack] = []
    read: dict[tuple[str, str], Layer | None] = {}
    wanted: list[tuple[Backend, Pin, Adaptation | None, tuple[str, ...]]] = []
    for pair in pairs:
        owner = manifests.backends[pair.backend]
        pin = owner.pin(pair.pin)
        if pin is not None:
            wanted.append((owner, pin, pair, (*pin.layers, *pair.layers)))
    if device is None:
        backends = [chosen] if chosen is not None else list(manifests.backends.values())
        wanted += [(b, pin, None, pin.layers) for b in backends for pin in b.pins if pin.tree]
    for owner, pin, adaptation, names in wanted:
        layers = [_read(project, owner, name, read, done) for name in names]
        # Behind a layer that cannot be read, nothing is known.
        known = layers[: layers.index(None)] if None in layers else layers
        found.append(Stack(owner, pin, adaptation, tuple(x for x in known if x is not None)))
    return found


def _read(
    project: Project,
    backend: Backend,
    name: str,
    read: dict[tuple[str, str], Layer | None],
    done: Checked,
) -> Layer | None:
    key = (backend.name, name)
    if key not in read:
        try:
            read[key] = find_layer(project.patches, backend.name, name)
        except UniscaleError as error:
            done.errors += error.findings()
            read[key] = None
    return read[key]


def _obtain(
    db: GitDb,
    project: Project,
    stacks: Sequence[Stack],
    reporter: Reporter,
    offline: bool,
    done: Checked,
) -> set[str]:
    """Get the sources of pins that carry layers; gives the trees that could not be had."""
    missing: set[str] = set()
    for pin in {stack.pin.tree: stack.pin for stack in stacks if stack.layers}.values():
        local = project.root / "third_party" / pin.backend
        try:
            obtain(db, pin, local=local, reporter=reporter, offline=offline)
        except UniscaleError as error:
            done.errors += error.findings()
            missing.add(pin.tree)
    return missing


def _in_order(stacks: Iterable[Stack], missing: set[str]) -> list[Layer]:
    layers: dict[str, Layer] = {}
    for stack in stacks:
        if stack.pin.tree not in missing:
            layers.update((layer.where, layer) for layer in stack.layers)
    return list(layers.values())


def layers_by_depth(layers: Sequence[Layer], stacks: Iterable[Stack]) -> list[list[Layer]]:
    """The layers in groups that do not stand on each other, lowest first."""
    depth = {
        layer.where: max(
            (stack.layers.index(layer) for stack in stacks if layer in stack.layers), default=0
        )
        for layer in layers
    }
    groups: dict[int, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(depth[layer.where], []).append(layer)
    return [groups[at] for at in sorted(groups)]


def _orphans(project: Project, backend: str | None) -> list[UniscaleError]:
    """Layers that nothing names, and what a killed run left."""
    used: dict[str, set[str]] = {name: set() for name in project.manifests.backends}
    for owner in project.manifests.backends.values():
        for pin in owner.pins:
            used[owner.name].update(pin.layers)
    for pair in project.manifests.adaptations.values():
        used[pair.backend].update(pair.layers)
    found: list[UniscaleError] = []
    for home in sorted(path for path in project.patches.glob("*") if path.is_dir()):
        if backend is not None and home.name != backend:
            continue
        if swap.unfinished(home):
            found.append(
                LayerError(
                    "an earlier run was killed while it put layers in place",
                    where=f"patches/{home.name}",
                    hint=f"uniscale-build status --backend {home.name} finishes it",
                    slug="unfinished",
                )
            )
        for path in sorted(home.glob("[!.]*/layer.yaml")):
            if path.parent.name not in used.get(home.name, set()):
                found.append(
                    LayerError(
                        "no pin and no adaptation names this layer",
                        where=f"patches/{home.name}/{path.parent.name}",
                        hint='add it to a "layers" list in manifests, or remove it'
                        if home.name in used
                        else f'there is no backend "{home.name}"',
                        slug="orphan",
                    )
                )
    return found
