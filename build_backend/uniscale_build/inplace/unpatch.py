"""``unpatch``: puts the patched tree in place to work in, and never over unsaved edits."""

from __future__ import annotations

import glob
import os
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import StoreError, UnsavedEditsError, raise_all, some
from uniscale_build.git.db import Entry, GitDb, run_git
from uniscale_build.git.entry import GITLINK
from uniscale_build.git.treemerge import merge_trees
from uniscale_build.inplace.diskfiles import file_names
from uniscale_build.inplace.rewrite import obstacles, rewrite
from uniscale_build.inplace.stack import (
    Stack,
    Target,
    exclusive,
    put_commits,
    read_stack,
    transfer,
    transfer_back,
)
from uniscale_build.inplace.tree import BRANCH, InTree, Pending, Scan, stamp, tree_of
from uniscale_build.layers.layerfile import shown, umask
from uniscale_build.progress import Reporter
from uniscale_build.store import Store, disk_errors

_SHOWN = 12  # names in one message


@dataclass(frozen=True)
class Unpatched:
    """What `unpatch` found or did."""

    target: Target
    stack: Stack
    action: str  # "created" | "updated" | "refreshed" | "unchanged" | "verified"
    written: int = 0
    removed: int = 0
    saved: str = ""  # how to get back what --discard set aside
    kept: str = ""  # the ref that keeps commits which no layer holds
    merged: bool = False


@dataclass(frozen=True)
class Options:
    """How `unpatch` treats what it finds."""

    check: bool = False
    discard: bool = False
    merge: bool = False
    offline: bool = False


def unpatch(target: Target, store: Store, reporter: Reporter, options: Options) -> Unpatched:
    """Put the patched tree in place; `UnsavedEditsError` rather than lose anything.

    With ``check`` nothing is written: the in-place tree is compared with the layers.
    """
    db = GitDb(store).open()
    with exclusive(target, store, reporter) as target:
        stack = read_stack(db, target, reporter, offline=options.offline)
        _drop_scratch(target.root)
        tree = InTree(store, target.root)
        if tree.gitdir is None:
            return _no_tree(db, stack, tree, reporter, options)
        return _existing(db, stack, tree, reporter, options)


def _no_tree(
    db: GitDb, stack: Stack, tree: InTree, reporter: Reporter, options: Options
) -> Unpatched:
    target, saved = stack.target, ""
    if options.check:
        raise StoreError(
            "there is no in-place tree",
            where=target.shown,
            hint=f"uniscale-build unpatch {target.words}",
            slug="not-in-place",
        )
    there = sorted(os.listdir(tree.root)) if tree.root.is_dir() else []
    if there or (os.path.lexists(tree.root) and not tree.root.is_dir()):
        if not options.discard:
            raise UnsavedEditsError(
                f"{target.shown} is in the way: it is not a git work tree"
                + (f" and holds {', '.join(there[:_SHOWN])}" if there else ""),
                where=target.shown,
                hint="move it away, or add --discard: it is then moved to build/discarded",
                slug="in-the-way",
            )
        saved = _move_away(target)
    reporter.stage("unpatch", f"{target.backend} {target.pin.version} into {target.shown}")
    count = _create(db, stack, tree)
    return Unpatched(target, stack, "created", written=count, saved=saved)


def _move_away(target: Target) -> str:
    aside = target.project.root / "build" / "discarded" / f"{target.backend}-{stamp()}"
    with disk_errors(aside):
        aside.parent.mkdir(parents=True, exist_ok=True)
        target.root.rename(aside)
    return f"the old folder is {os.path.relpath(aside, target.project.root)}"


def _drop_scratch(root: Path) -> None:
    """Remove what killed runs were making; the lock says that no run is at it.

    A git that outlived its run may still be writing there: what it leaves, the next run removes.
    """
    if root.parent.is_dir():
        for path in root.parent.glob(f".{glob.escape(root.name)}.unpatch-*"):
            shutil.rmtree(path, ignore_errors=True)


def _create(db: GitDb, stack: Stack, tree: InTree) -> int:
    """Make the whole repository beside its place, verify it, rename it."""
    with disk_errors(tree.root):
        tree.root.parent.mkdir(parents=True, exist_ok=True)
        prefix = f".{tree.root.name}.unpatch-"
        fresh = InTree(tree.store, Path(tempfile.mkdtemp(dir=tree.root.parent, prefix=prefix)))
        try:
            return _fill(db, stack, fresh, tree.root)
        except BaseException:
            shutil.rmtree(fresh.root, ignore_errors=True)  # on a full disk it would be in the way
            raise


def _fill(db: GitDb, stack: Stack, fresh: InTree, root: Path) -> int:
    fresh.root.chmod(0o777 & ~umask())
    run_git(["init", "--quiet", "--template=", f"--initial-branch={BRANCH}", "."], cwd=fresh.root)
    put_commits(db, fresh, stack, take_head=True, index=False)
    fresh.git("read-tree", "--reset", "-u", "HEAD")
    wanted = db.list_tree(stack.top)
    _verify(fresh.root, {path for path, entry in wanted.items() if entry.mode != GITLINK})
    fresh.root.rename(root)
    return len(wanted)


def _verify(root: Path, wanted: set[bytes]) -> None:
    """The files that git has just written are there under their names, and nothing else is.

    A file system that folds case or composes letters makes two files one, or one file another.
    """
    differ = sorted(wanted ^ set(file_names(root)))
    if differ:
        names = ", ".join(shown(path) for path in differ[:_SHOWN])
        raise StoreError(
            f"the files on the disk are not those of the patched tree: {names}",
            where=str(root),
            hint="the file system changes names (upper and lower case, letters?)",
            slug="not-exact",
        )


def _existing(
    db: GitDb, stack: Stack, tree: InTree, reporter: Reporter, options: Options
) -> Unpatched:
    target = stack.target
    if not options.check:
        free_locks(tree)
    refuse_operations(tree)
    found = tree.scan(db)
    here = tree_of(db, found.entries)
    state = tree.state()
    levels = [(level.layer, level.tree) for level in state.levels] if state is not None else []
    wanted = list(zip(("", *(layer.name for layer in stack.layers)), stack.trees, strict=True))
    in_place = here == stack.top and levels == wanted and not found.problems
    if in_place and state is not None and tree.head() == state.top.commit and not tree.pending():
        return Unpatched(target, stack, "verified" if options.check else "unchanged")
    edits = [] if here == stack.top else unsaved(db, tree, found, saved=stack.top)
    if options.check:
        raise_all(_differences(target, edits, in_place))
        return Unpatched(target, stack, "verified")
    want, saved, merged = stack.top, "", False
    if edits and options.merge:
        want, saved = _merged(db, stack, tree, here), _save(db, tree, here)
        merged = True
    elif edits and options.discard:
        saved = _save(db, tree, here)
    elif edits:
        raise _unsaved_error(target, edits)
    written, removed = _update(db, tree, target, found, (here, want), options)
    kept = put_commits(db, tree, stack, take_head=True)
    action = "updated" if written or removed else "refreshed"
    return Unpatched(target, stack, action, written, removed, saved, kept, merged)


def _differences(target: Target, edits: list[str], in_place: bool) -> list[UnsavedEditsError]:
    if edits:
        return [_unsaved_error(target, edits)]
    if not in_place:
        return [
            UnsavedEditsError(
                f"{target.shown} is not what pin and layers make",
                where=target.shown,
                hint=f"there are no unsaved edits: uniscale-build unpatch {target.words}",
                slug="outdated",
            )
        ]
    return []


def _unsaved_error(target: Target, edits: list[str]) -> UnsavedEditsError:
    return UnsavedEditsError(
        f"{len(edits)} unsaved edits: {some(edits, _SHOWN)}",
        where=target.shown,
        hint=f"uniscale-build patch {target.words} captures them\n"
        f"uniscale-build unpatch {target.words} --merge keeps them on top of the layers\n"
        f"uniscale-build unpatch {target.words} --discard sets them aside",
    )


def unsaved(db: GitDb, tree: InTree, found: Scan, *, saved: str = "") -> list[str]:
    """The edits since the tree was put in place or captured, each as git's letter and path.

    A file that is as in the tree ``saved`` is no edit: a killed ``patch`` has captured it.
    """
    pending = tree.pending()
    state = tree.state()
    if state is None and pending is None:
        return _unmanaged(tree)
    bases = [state.top.tree] if state is not None else []
    if pending is not None:
        bases += [pending.source, pending.target]
    bases += [saved] if saved else []
    known = [db.list_tree(oid) if db.has(oid) else tree.repo.list_tree(oid) for oid in bases]
    edits = []
    for path in sorted({path for files in (found.entries, *known) for path in files}):
        now = found.entries.get(path)
        before = [files.get(path) for files in known]
        if now not in before:
            letter = "D" if now is None else "A" if before[0] is None else "M"
            edits.append(f"{letter} {shown(path)}")
    return edits + [problem.what for problem in found.problems]


def _unmanaged(tree: InTree) -> list[str]:
    """Edits in a checkout that uniscale did not make (a submodule), by git's own account."""
    out = tree.git("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames").out
    return [f"{line[:2].decode().strip()} {shown(line[3:])}" for line in out.split(b"\0")[:-1]]


def _merged(db: GitDb, stack: Stack, tree: InTree, here: str) -> str:
    state = tree.state()
    if state is None:
        raise UnsavedEditsError(
            "uniscale did not put this tree in place and cannot tell what the edits are based on",
            where=stack.target.shown,
            hint="commit or stash them with git first",
        )
    if not db.has(state.top.tree):
        transfer_back(db, tree, state.top.tree)
    merged = merge_trees(db, state.top.tree, stack.top, here)
    if not merged.clean:
        names = ", ".join(shown(path) for path in merged.conflicts[:_SHOWN])
        raise UnsavedEditsError(
            f"the edits do not merge with the new layers in {names}",
            where=stack.target.shown,
            hint="--discard sets them aside as a commit; then git cherry-pick it and resolve",
            slug="merge-conflict",
        )
    return merged.tree


def _save(db: GitDb, tree: InTree, here: str) -> str:
    """Keep the work tree's content as a commit under ``refs/uniscale/discarded``."""
    name = f"refs/uniscale/discarded/{stamp()}"
    state = tree.state()
    # On what the edits were made: the commit then holds all of them, committed ones too.
    parent = state.top.commit if state is not None else tree.head()
    transfer(db, tree, [here], [level.tree for level in state.levels] if state else [])
    commit = tree.repo.commit(here, [parent] if parent else [], f"Unsaved edits, {name}\n")
    tree.repo.run("update-ref", name, commit)
    place = shlex.quote(os.path.relpath(tree.root))
    return f"git -C {place} cherry-pick --no-commit {name}"


def _update(
    db: GitDb,
    tree: InTree,
    target: Target,
    found: Scan,
    trees: tuple[str, str],
    options: Options,
) -> tuple[int, int]:
    """Rewrite the work tree from the first tree to the second."""
    here, want = trees
    entries: Mapping[bytes, Entry] = db.list_tree(want)
    blocked = obstacles(tree, found.entries, entries)
    if blocked and not options.discard:
        names = ", ".join(shown(path) for path in blocked[:_SHOWN])
        raise UnsavedEditsError(
            f"ignored or foreign files are in the way: {names}",
            where=target.shown,
            hint=f"remove them, or add --discard: they are moved to {tree.dir}/uniscale-aside",
            slug="in-the-way",
        )
    tree.begin(Pending(here, want))
    aside = tree.dir / "uniscale-aside" / stamp()
    for path in blocked:
        kept = aside / os.fsdecode(path)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tree.root / os.fsdecode(path), kept)
    return rewrite(db, tree, found.entries, entries)


def refuse_operations(tree: InTree) -> None:
    """Refuse to work under a merge or rebase that somebody has begun there."""
    running = {"rebase-merge": "rebase", "rebase-apply": "rebase", "MERGE_HEAD": "merge",
               "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}  # fmt: skip
    for name, verb in running.items():
        if (tree.dir / name).exists():
            verb = "am" if (tree.dir / name / "applying").exists() else verb
            place = shlex.quote(os.path.relpath(tree.root))
            raise UnsavedEditsError(
                f"a git {verb} is not finished",
                where=str(tree.root),
                hint=f"git -C {place} {verb} --continue, or --abort",
                slug="git-busy",
            )


def free_locks(tree: InTree) -> None:
    """Remove git's lock files when the git that made them is dead; a live one is an error."""
    names = ("index.lock", "HEAD.lock", "config.lock", f"refs/heads/{BRANCH}.lock")
    held = [path for name in names for path in {tree.dir / name, tree.common / name}
            if path.exists()]  # fmt: skip
    if held and (alive := _gits_in(tree.root)):
        raise StoreError(
            f"git is at work there (process {alive[0]})",
            where=str(tree.root),
            hint="let it finish, then run this again",
            slug="git-busy",
        )
    for path in held:
        path.unlink(missing_ok=True)


def _gits_in(root: Path) -> list[str]:
    """Processes called git whose working folder is in the tree (none where /proc is missing)."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() == "git" and (
                (entry / "cwd").resolve().is_relative_to(root.resolve())
            ):
                found.append(entry.name)
        except OSError:
            continue  # it has ended, or is somebody else's
    return found
