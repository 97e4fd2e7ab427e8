"""Carries edits made on top of a stack down to one of its layers, and up again, in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from uniscale_build.errors import ConflictError, UniscaleError
from uniscale_build.git.db import GitDb
from uniscale_build.git.treemerge import merge_trees
from uniscale_build.inplace.stack import Stack
from uniscale_build.layers.layer import Layer, apply_layer, find_layer
from uniscale_build.layers.layerfile import changes, shown


@dataclass(frozen=True)
class Move:
    """A layer that gets other trees; ``old`` is None for a layer that is new."""

    name: str
    old: Layer | None
    base: str
    result: str


def lift(db: GitDb, stack: Stack, level: int, here: str) -> dict[int, str]:
    """New trees by level, from ``level`` to the top, whose top is ``here``.

    The edits (top to ``here``) are merged into the tree of ``level``, then each layer above is
    merged on top again. `ConflictError` names the layer that is in the way.
    """
    top = len(stack.trees) - 1
    if level >= top:
        return {level: here}
    merged = merge_trees(db, stack.top, stack.trees[level], here)
    if not merged.clean:
        owners = _owners(db, stack, level + 1, merged.conflicts)
        raise ConflictError(
            f'the edits do not fit into layer "{stack.layers[level - 1].name}": '
            + "; ".join(f"{path} is changed by {who}" for path, who in owners.items()),
            hint="capture those files into that layer, or all edits into the topmost one",
        )
    trees = {level: merged.tree}
    for above in range(level + 1, top + 1):
        layer = stack.layers[above - 1]
        merged = merge_trees(db, stack.trees[above - 1], trees[above - 1], stack.trees[above])
        if not merged.clean:
            names = ", ".join(shown(path) for path in merged.conflicts)
            raise ConflictError(
                f'layer "{layer.name}" does not fit on the edits in {names}',
                where=layer.where,
                hint="capture into that layer instead",
            )
        trees[above] = merged.tree
    if trees[top] != here:
        differ = ", ".join(shown(c.path) for c in changes(db, trees[top], here)[:8])
        raise ConflictError(
            f"with the layers above, the tree would not be the one in place: {differ}",
            hint="capture into the topmost layer",
        )
    return trees


def _owners(db: GitDb, stack: Stack, level: int, paths: Sequence[bytes]) -> dict[str, str]:
    owners = {}
    for at in range(level, len(stack.trees)):
        touched = {path for change in changes(db, stack.trees[at - 1], stack.trees[at])
                   for path in (change.path, change.old_path)}  # fmt: skip
        for path in paths:
            if path in touched:
                owners[shown(path)] = f'layer "{stack.layers[at - 1].name}"'
    return owners or {shown(path): "a layer above" for path in paths}


def follow(db: GitDb, stack: Stack, moves: dict[str, Move], added: str) -> list[UniscaleError]:
    """Move the layers of other devices that stand on layers which ``moves`` changes, adding them.

    Gives an error for each that does not fit any more; such a layer stays as it is, and `port`
    moves it with conflict markers to resolve. ``added`` is the name of a new layer on ``stack``.
    """
    target = stack.target
    pin = target.pin
    common = list(pin.layers) + ([added] if added and target.adaptation is None else [])
    left: list[UniscaleError] = []
    for device, layers in _other_stacks(stack):
        below, now = pin.tree, pin.tree
        if not {*common, *layers} & {*moves}:
            continue
        for name in (*common, *layers):
            try:
                below, now = _step(db, stack, moves, name, (below, now))
            except UniscaleError as error:
                left.extend(
                    ConflictError(
                        f"on {device}: {found.what}",
                        where=f"patches/{pin.backend}/{name}",
                        hint=f"uniscale-build port --backend {pin.backend} --device {device} "
                        f"--to {pin.version}",
                        slug="left-behind",
                    )
                    for found in error.findings()
                )
                break
    return left


def _other_stacks(stack: Stack) -> Iterator[tuple[str, tuple[str, ...]]]:
    target = stack.target
    backend = target.project.manifests.backend(target.backend)
    for (name, device), adaptation in sorted(target.project.manifests.adaptations.items()):
        same = name == backend.name and backend.pin(adaptation.pin) == target.pin
        if same and adaptation.ready and device != target.device:
            yield device, adaptation.layers


def _step(
    db: GitDb, stack: Stack, moves: dict[str, Move], name: str, trees: tuple[str, str]
) -> tuple[str, str]:
    """One layer up: the trees above it, as it was and as it will be."""
    below, now = trees
    known = moves.get(name)
    if known is not None:
        return (known.old.result if known.old is not None else below), known.result
    layer = find_layer(stack.target.project.patches, stack.target.backend, name)
    if below == now:
        return layer.result, layer.result
    if layer.base != below or layer.sealed:
        why = "is sealed" if layer.sealed else "was made on another tree before"
        raise ConflictError(f'layer "{name}" {why}, and stays as it is')
    apply_layer(db, below, layer)
    merged = merge_trees(db, below, now, layer.result)
    if not merged.clean:
        names = ", ".join(shown(path) for path in merged.conflicts)
        raise ConflictError(f'layer "{name}" does not fit on the edits in {names}')
    moves[name] = Move(name, layer, now, merged.tree)
    return layer.result, merged.tree
