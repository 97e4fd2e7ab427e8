"""Carries edits made on top of a stack down to one of its layers, in memory."""

from __future__ import annotations

from collections.abc import Sequence

from uniscale_build.errors import ConflictError
from uniscale_build.gitdb import GitDb
from uniscale_build.layerfile import changes, shown
from uniscale_build.stack import Stack
from uniscale_build.treemerge import merge_trees


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
