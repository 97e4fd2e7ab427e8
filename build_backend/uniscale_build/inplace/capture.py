"""``patch``: captures what was changed in an in-place tree into a layer, and proves it first.

Everything happens in the object store: the work tree is read, the new trees of the layer and of
those above it are made by three-way merges, the layers are written beside the old ones and applied
again; only when that gives the very trees are they swapped in.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from uniscale_build import swap
from uniscale_build.errors import (
    ConflictError,
    LayerError,
    SettingsError,
    StoreError,
    UniscaleError,
    did_you_mean,
    raise_all,
)
from uniscale_build.git.db import GitDb
from uniscale_build.ids import check_name
from uniscale_build.inplace.lift import Move, follow, lift
from uniscale_build.inplace.newlayer import manifest_edit
from uniscale_build.inplace.stack import (
    Stack,
    Target,
    exclusive,
    moved_below,
    put_commits,
    read_stack,
)
from uniscale_build.inplace.tree import InTree, tree_of
from uniscale_build.inplace.unpatch import free_locks, refuse_operations
from uniscale_build.layers.layer import Layer, apply_layer, read_layer
from uniscale_build.layers.layerfile import (
    About,
    Written,
    changes,
    export,
    new_yaml,
    shown,
    updated_yaml,
    write_folder,
)
from uniscale_build.layers.lint import lint_layer
from uniscale_build.progress import Reporter
from uniscale_build.store import Store, disk_errors


@dataclass(frozen=True)
class Request:
    """What to capture where; ``about`` is given for a new layer called ``layer``."""

    layer: str | None = None
    about: About | None = None
    force: tuple[str, ...] = ()  # ignored paths to capture all the same
    dry_run: bool = False
    offline: bool = False


@dataclass(frozen=True)
class Rebuilt:
    """A layer with new trees, and what that changed in its folder."""

    name: str
    base: str
    result: str
    written: Written


@dataclass(frozen=True)
class Captured:
    """What `capture` did."""

    target: Target
    layers: tuple[Rebuilt, ...]
    ignored: tuple[str, ...] = ()
    refreshed: bool = False  # only the commits of the in-place tree were renewed
    kept: str = ""  # the ref that keeps commits which no layer holds
    todo: str = ""  # what the user must add to a manifest
    warnings: tuple[UniscaleError, ...] = ()  # what a reviewer should look at


def capture(target: Target, store: Store, reporter: Reporter, request: Request) -> Captured:
    """Capture the in-place tree into a layer; writes nothing unless applying it gives that tree.

    `ConflictError` when the edit does not fit below the layers above; `LayerError` for what a
    layer cannot hold; `UnsavedEditsError` while a merge or rebase is going on there.
    """
    db = GitDb(store).open()
    with exclusive(target, store, reporter) as target:
        stack = read_stack(db, target, reporter, offline=request.offline)
        tree = _in_place(stack, store)
        forced = [path for word in request.force for path in _forced(tree, word)]
        found = tree.scan(db, force=forced, list_ignored=True)
        raise_all(found.problems)
        here = tree_of(db, found.entries)
        ignored = tuple(shown(path) for path in found.ignored)
        _same_layers(db, tree, stack, here)
        again = request.about is not None and request.layer in {
            layer.name for layer in stack.layers
        }
        if here == stack.top and again:
            # A killed run had got so far: the layer is there, and holds these edits.
            request = replace(request, about=None)
        level = _level(stack, request)
        if here == stack.top:
            kept = "" if request.dry_run else _refresh(db, tree, stack)
            return Captured(target, (), ignored, refreshed=not request.dry_run, kept=kept)
        trees = lift(db, stack, level, here)
        return _write(db, tree, stack, trees, request, ignored)


def _in_place(stack: Stack, store: Store) -> InTree:
    target = stack.target
    tree = InTree(store, target.root)
    cure = f"uniscale-build unpatch {target.words}"
    if tree.gitdir is None:
        raise StoreError("there is no in-place tree", where=target.shown, hint=cure,
                         slug="not-in-place")  # fmt: skip
    free_locks(tree)
    refuse_operations(tree)
    if tree.pending() is not None:
        raise StoreError("an unpatch was interrupted here", where=target.shown,
                         hint=f"{cure} goes on from there", slug="not-in-place")  # fmt: skip
    return tree


def _forced(tree: InTree, word: str) -> list[bytes]:
    path = Path(word)
    if path.is_absolute():
        if not path.is_relative_to(tree.root):
            raise SettingsError(f"{word} is not in the in-place tree", slug="path-escape")
        path = path.relative_to(tree.root)
    found = tree.ignored_below(str(path)) if ".." not in path.parts else []
    if not found:
        raise SettingsError(
            f"{word} names no ignored file",
            where=str(tree.root),
            hint="--include-ignored takes paths inside the in-place tree; "
            "files that are not ignored are captured anyway",
            slug="no-file",
        )
    return found


def _same_layers(db: GitDb, tree: InTree, stack: Stack, here: str) -> None:
    """The edits must be on top of the layers as they are now."""
    state, target = tree.state(), stack.target
    if here == stack.top:
        return
    if state is None:
        head = tree.head()
        if head is not None and tree.repo.tree_of(head) == stack.top:
            return
        raise StoreError(
            "uniscale did not put this tree in place",
            where=target.shown,
            hint=f"uniscale-build unpatch {target.words} (stash or commit your edits before)",
            slug="not-in-place",
        )
    if told := moved_below(state, stack):
        raise ConflictError(
            f"the layers are not those that were put in place: {'; '.join(told)}",
            where=target.shown,
            hint=f"uniscale-build unpatch {target.words} --merge brings the tree up to date "
            "and keeps your edits",
            slug="layers-moved",
        )


def _level(stack: Stack, request: Request) -> int:
    """Which level of the stack takes the edits; one above the top for a new layer."""
    target, names = stack.target, [layer.name for layer in stack.layers]
    if request.about is not None:
        name = check_name(request.layer or "", what="layer")
        if name in names or (target.home / name).exists():
            raise SettingsError(
                f'there is a layer "{name}" already',
                where=f"patches/{target.backend}/{name}",
                hint=f"--layer {name} captures into it",
                slug="layer-exists",
            )
        return len(names) + 1
    if request.layer is not None:
        if request.layer not in names:
            raise SettingsError(
                f'"{request.layer}" is not one of the layers in place',
                hint=did_you_mean(request.layer, names),
                slug="no-layer",
            )
        return names.index(request.layer) + 1
    own = target.adaptation.layers if target.adaptation is not None else target.pin.layers
    if not own:
        what = f"{target.backend} on {target.device}" if target.device else target.backend
        common = f", or --layer {names[-1]} for the common layer" if names else ""
        raise SettingsError(
            f"{what} has no layer of its own",
            hint=f"--new-layer NAME --title TEXT --why TEXT starts one{common}",
            slug="no-layer",
        )
    return len(names)


def _write(
    db: GitDb,
    tree: InTree,
    stack: Stack,
    trees: Mapping[int, str],
    request: Request,
    ignored: tuple[str, ...],
) -> Captured:
    target = stack.target
    edit, todo, added = None, "", ""
    if request.about is not None:
        added = request.layer or ""
        edit, todo = manifest_edit(target, added)
    moves = _moves(stack, trees, added)
    left = follow(db, stack, moves, added)
    with _staging(target.home):
        rebuilt, warnings, layers = [], left, {layer.name: layer for layer in stack.layers}
        for move in moves.values():
            layer, written = _stage(db, target, move, request)
            layers[move.name] = replace(layer, folder=target.home / move.name)
            rebuilt.append(Rebuilt(move.name, move.base, move.result, written))
            warnings = [*warnings, *_review(layer, written)]
        done = Captured(target, tuple(rebuilt), ignored, todo=todo, warnings=tuple(warnings))
        if request.dry_run:
            return done
        swap.commit(target.home, list(moves), edit)
    if todo:
        return done
    names = [*(layer.name for layer in stack.layers), *([added] if added else [])]
    own = tuple(layers[name] for name in names)
    now = Stack(target, own, (target.pin.tree, *(layer.result for layer in own)))
    return replace(done, kept=put_commits(db, tree, now, take_head=False))


def _moves(stack: Stack, trees: Mapping[int, str], added: str) -> dict[str, Move]:
    """The layers of this stack that get new trees, lowest first."""
    moves = {}
    for level, result in trees.items():
        old = stack.layers[level - 1] if level <= len(stack.layers) else None
        name = old.name if old is not None else added
        moves[name] = Move(name, old, trees.get(level - 1, stack.trees[level - 1]), result)
    return moves


def _review(layer: Layer, written: Written) -> list[UniscaleError]:
    """What a reviewer should look at in the files that this capture touched."""
    touched = {f"{layer.where}/{path}" for path in written.touched}
    found = lint_layer(layer).warnings
    return [item for item in found if re.sub(r":\d+$", "", item.where or "") in touched]


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[None]:
    """Whatever was prepared and not swapped in is removed."""
    with disk_errors(home):
        home.mkdir(parents=True, exist_ok=True)
    try:
        with disk_errors(home):
            yield
    finally:
        swap.finish(home)
        with contextlib.suppress(OSError):
            home.rmdir()  # nothing came of the backend's first layer


def _stage(db: GitDb, target: Target, move: Move, request: Request) -> tuple[Layer, Written]:
    """Write one layer beside its place, and prove that it makes its tree."""
    old, base, result = move.old, move.base, move.result
    like = None
    if old is not None:
        if old.sealed:
            raise LayerError(f'layer "{old.name}" is sealed', where=old.where,
                             hint="uniscale-build unseal it first, seal it again afterwards",
                             slug="sealed")  # fmt: skip
        like = old.folder
        file = f"{old.where}/layer.yaml"
        yaml = updated_yaml((like / "layer.yaml").read_bytes(), base, result, file)
    elif request.about is not None:
        yaml = new_yaml(request.about, base, result)
    folder = swap.staged(target.home, move.name)
    written = write_folder(folder, export(db, base, result), yaml, like=like)
    layer = replace(read_layer(folder, target.backend), name=move.name)
    made = apply_layer(db, base, layer)
    if (made, layer.base, layer.result) != (result, base, result):
        differ = ", ".join(shown(change.path) for change in changes(db, made, result)[:8])
        raise LayerError(
            f"the captured layer would not give the tree in place: {differ}",
            where=layer.where,
            hint="nothing was written; please report this with the names above",
            slug="not-proven",
        )
    return layer, written


def _refresh(db: GitDb, tree: InTree, stack: Stack) -> str:
    """Nothing to capture: the stack's commits, and an index that agrees."""
    state = tree.state()
    right = (
        state is not None and not moved_below(state, stack) and (tree.head() == state.top.commit)
    )
    if right and tree.git("diff-index", "--cached", "--quiet", "HEAD", check=False).code == 0:
        return ""
    return put_commits(db, tree, stack, take_head=False)
