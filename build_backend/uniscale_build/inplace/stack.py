"""The stack of an in-place tree: the pin and the layers on it, as trees and as commits."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniscale_build import swap
from uniscale_build.errors import SettingsError
from uniscale_build.git.db import GitDb, GitFailed
from uniscale_build.git.process import alternates
from uniscale_build.ids import check_name, inside
from uniscale_build.inplace.tree import BRANCH, InTree, Level, State, stamp
from uniscale_build.layers.layer import Layer, patched_tree
from uniscale_build.manifests.model import Adaptation, Pin
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sources.obtain import obtain
from uniscale_build.store import Store


@dataclass(frozen=True)
class Target:
    """One backend, alone or for one device, of a project that may be written."""

    project: Project
    pin: Pin
    adaptation: Adaptation | None
    seen: tuple[tuple[str, int, int], ...] = ()  # the manifests that this was read from

    @property
    def backend(self) -> str:
        """The backend's name."""
        return self.pin.backend

    @property
    def device(self) -> str:
        """The device's name; empty for the pin with its common layers."""
        return self.adaptation.device if self.adaptation is not None else ""

    @property
    def root(self) -> Path:
        """Where the in-place tree is."""
        backend = check_name(self.backend, what="backend")
        if self.adaptation is None:
            path = self.project.root / "third_party" / backend
        else:
            path = self.project.root / "build" / check_name(self.device, what="device") / backend
        parent = inside(self.project.root, path.parent, what="in-place tree", error=SettingsError)
        return parent / path.name

    @property
    def shown(self) -> str:
        """The in-place tree as messages name it."""
        return os.path.relpath(self.root, self.project.root)

    @property
    def home(self) -> Path:
        """The folder of the backend's layers."""
        return self.project.patches / check_name(self.backend, what="backend")

    @property
    def words(self) -> str:
        """The options that name this target on a command line."""
        device = f" --device {self.device}" if self.device else ""
        return f"--backend {self.backend}{device}"


def find_target(project: Project, backend: str, device: str | None) -> Target:
    """The target for names in any spelling; an error when the project cannot be written."""
    if not project.checkout:
        raise SettingsError(
            "an installed uniscale has no place to work in",
            hint="change into a checkout of uniscale, or set UNISCALE_PROJECT",
            slug="no-project",
        )
    seen = _signature(project)
    return Target(project, *project.resolve(backend, device), seen)


def _signature(project: Project) -> tuple[tuple[str, int, int], ...]:
    """The manifests' names, sizes and times: whether they are still what was read."""
    roots = (project.root / "manifests", *project.site)
    files = sorted(file for root in roots for file in root.glob("*/**/*.yaml"))
    return tuple((str(f), info.st_size, info.st_mtime_ns) for f in files for info in [f.stat()])


def _lock_name(project: Project, backend: str) -> str:
    where = hashlib.sha256(os.fsencode(project.root.resolve())).hexdigest()[:12]
    return f"layers-{backend}-{where}"


def finish_killed(project: Project) -> None:
    """Finish what a killed run had decided, before manifests are read: it may be half in them."""
    store = Store()
    for home in swap.decided(project.patches):
        with store.lock(_lock_name(project, home.name)):
            swap.finish(home)


@contextlib.contextmanager
def exclusive(target: Target, store: Store, reporter: Reporter) -> Iterator[Target]:
    """Be the only run on this backend's layers and in-place trees; finish what a killed run left.

    Gives the target as it is now: while this run waited, another may have added a layer to it.
    Common layers belong to every device's tree, so one lock covers all trees of a backend.
    """
    with store.lock(_lock_name(target.project, target.backend), reporter):
        stale = bool(target.seen) and target.seen != _signature(target.project)
        if swap.unfinished(target.home):
            reporter.note(f"finishing what an earlier run began in patches/{target.backend}")
            swap.finish(target.home)
            stale = True
        if stale:
            target = find_target(replace(target.project), target.backend, target.device or None)
        yield target


@dataclass(frozen=True)
class Stack:
    """The pin's tree and each layer's, lowest first, all of them complete in the store."""

    target: Target
    layers: tuple[Layer, ...]
    trees: tuple[str, ...]

    @property
    def top(self) -> str:
        """The patched tree."""
        return self.trees[-1]


def read_stack(db: GitDb, target: Target, reporter: Reporter, *, offline: bool = False) -> Stack:
    """Get the source, apply every layer, check every recorded tree."""
    layers = target.project.layers(target.pin, target.adaptation)
    local = target.project.root / "third_party" / target.backend
    for place in dict.fromkeys((target.root, local)):
        borrow(db, InTree(db.store, place), target.pin)
    obtain(db, target.pin, local=local, reporter=reporter, offline=offline)
    patched_tree(db, target.pin, layers)
    return Stack(target, layers, (target.pin.tree, *(layer.result for layer in layers)))


def transfer(db: GitDb, tree: InTree, wanted: Sequence[str], have: Sequence[str]) -> None:
    """Copy trees with all their content from the store into the repository, as one pack.

    ``have`` may be there already. The repository owns its objects: borrowing them from the cache
    (alternates) would save a few megabytes and lose the engineer's base with the cache.
    """
    folder = tree.common / "objects" / "pack"
    folder.mkdir(parents=True, exist_ok=True)
    # A partial clone may have a tree and not its files.
    partial = any(folder.glob("*.promisor"))
    shared = set() if partial else present(tree.repo, have) & present(db, have)
    missing = [oid for oid in dict.fromkeys(wanted) if oid not in shared]
    linked = {oid for oid in missing if _link_pack(db, oid, folder)}
    shared |= linked
    new = [f"{oid}\n" for oid in missing if oid not in linked]
    if not new:
        return
    listed = "".join([*new, *(f"^{oid}\n" for oid in sorted(shared))])
    # git writes a pack beside its own objects and renames it: the cache may be on another disk.
    env = {"GIT_OBJECT_DIRECTORY": str(folder.parent), **alternates(db.path / "objects")}
    db.run("pack-objects", "--quiet", "--revs", "--non-empty", "--window=0", "--delta-base-offset",
           "--threads=1", str(folder / "pack"), stdin=listed.encode(), env=env)  # fmt: skip


def _link_pack(db: GitDb, oid: str, folder: Path) -> bool:
    """Give ``folder`` the store's pack of a whole tree, as ``git clone`` does."""
    pack = db.pack_of(oid)
    if pack is None:
        return False
    # The index comes last: with it git begins to read the pack.
    for path in (pack, pack.with_suffix(".idx")):
        target = folder / path.name
        if target.exists():
            continue
        try:
            os.link(path, target)
        except OSError:  # another file system, or one without links
            fresh = folder / f"tmp_{path.name}"
            shutil.copyfile(path, fresh)
            fresh.replace(target)
    return True


def borrow(db: GitDb, tree: InTree, pin: Pin) -> None:
    """Take the pin's content from an in-place repository, where the cache has lost it.

    git hashes every object that it takes, so the content is the pinned one or is refused.
    """
    name = f"pins/{pin.tree}"
    if tree.gitdir is None or db.kept(name) == pin.tree or not tree.repo.has(pin.tree):
        return
    try:
        transfer_back(db, tree, pin.tree)
    except GitFailed:
        return  # a partial clone, or objects are missing: the origins have them
    db.keep(name, pin.tree)


def transfer_back(db: GitDb, tree: InTree, oid: str) -> None:
    """Make a tree of the in-place repository complete in the store."""
    listed = f"{oid}\n".encode()
    with db.store.scratch() as folder:
        pack = folder / "pack"
        pack.write_bytes(
            tree.repo.run("pack-objects", "--revs", "--stdout", "-q", stdin=listed).out
        )
        db.run("index-pack", "--stdin", stdin=pack)


def present(db: GitDb, oids: Sequence[str]) -> set[str]:
    """Those of ``oids`` that a repository has."""
    if not oids:
        return set()
    listed = "".join(f"{oid}\n" for oid in oids).encode()
    out = db.run("cat-file", "--batch-check=%(objectname)", stdin=listed).out
    return {line for line in out.decode().splitlines() if not line.endswith(" missing")}


def level_commits(tree: InTree, stack: Stack) -> tuple[Level, ...]:
    """One commit for the pin and one for each layer; ids depend on the stack alone."""
    pin = stack.target.pin
    levels = [Level("", pin.tree, _pin_commit(tree, pin))]
    for layer, result in zip(stack.layers, stack.trees[1:], strict=True):
        message = f"{layer.title}\n\n{layer.why}\n\nUniscale-Layer: {layer.name}\n"
        commit = tree.repo.commit(result, [levels[-1].commit], message)
        levels.append(Level(layer.name, result, commit))
    return tuple(levels)


def _pin_commit(tree: InTree, pin: Pin) -> str:
    """Upstream's own commit where the repository has it (a submodule), else one that we make."""
    ran = tree.repo.run("rev-parse", "--verify", "--quiet", f"{pin.commit}^{{tree}}", check=False)
    if ran.code == 0 and ran.text == pin.tree:
        return pin.commit
    message = f"{pin.backend} {pin.version}\n\nUniscale-Pin: {pin.commit}\n"
    return tree.repo.commit(pin.tree, [], message)


def put_commits(
    db: GitDb, tree: InTree, stack: Stack, *, take_head: bool, index: bool = True
) -> str:
    """Give the repository the stack's commits, its branch, and an index that fits the work tree.

    No file of the work tree is touched. With ``take_head`` HEAD goes to the branch ``uniscale``;
    otherwise HEAD stays on its branch, which moves to the top of the stack. Commits and staged
    content that this leaves behind are kept under ``refs/uniscale/before/``; gives that ref, or "".
    """
    old = tree.state()
    tree.configure(identity=old is None)
    have = [level.tree for level in old.levels] if old is not None else [stack.target.pin.tree]
    transfer(db, tree, stack.trees, have)
    levels = level_commits(tree, stack)
    kept = _keep_old(
        tree, stack, {level.commit for level in (*levels, *(old.levels if old else ()))}
    )
    top = levels[-1].commit
    branch, ours = tree.branch(), f"refs/heads/{BRANCH}"
    tree.repo.run("update-ref", "-m", "uniscale: stack", ours, top)
    if take_head and branch != ours:
        tree.repo.run("symbolic-ref", "-m", "uniscale: stack", "HEAD", ours)
    elif branch != ours:
        tree.repo.run("update-ref", "--no-deref", "-m", "uniscale: stack", branch or "HEAD", top)
    if index:
        fresh_index(tree, stack.top)
    target = stack.target
    tree.remember(State(target.backend, target.device, target.pin.version, levels))
    return kept


def _keep_old(tree: InTree, stack: Stack, ours: set[str]) -> str:
    """Keep the commit of HEAD, and what only the index holds, when no level has it."""
    head = tree.head()
    if head is None:
        return ""
    name = f"refs/uniscale/before/{stamp()}"
    staged = tree.git("write-tree", check=False)
    if staged.code == 0 and staged.text not in (tree.repo.tree_of(head), stack.top):
        head = tree.repo.commit(staged.text, [head], f"The index before {name}\n")
    if head in ours:
        return ""
    tree.repo.run("update-ref", name, head)
    return name


def fresh_index(tree: InTree, oid: str) -> None:
    """Make the index hold the tree ``oid``; a lock that a killed git left does not matter."""
    for old in tree.dir.glob("uniscale-index-*"):
        old.unlink(missing_ok=True)
    fresh = tree.dir / f"uniscale-index-{os.getpid()}"
    env = {"GIT_INDEX_FILE": str(fresh)}
    tree.git("read-tree", oid, env=env)
    tree.git("update-index", "-q", "--refresh", env=env, check=False)
    fresh.replace(tree.dir / "index")


def moved_below(state: State, stack: Stack) -> list[str]:
    """Sentences that say how the layers differ from those that were put in place."""
    levels = [("the pin", stack.target.pin.tree)]
    levels += [(f'layer "{layer.name}"', layer.result) for layer in stack.layers]
    before = {f'layer "{level.layer}"' if level.layer else "the pin": level.tree
              for level in state.levels}  # fmt: skip
    told = [f"{name} is new" for name, _ in levels if name not in before]
    told += [f"{name} has changed" for name, tree in levels if before.get(name, tree) != tree]
    told += [f"{name} is gone" for name in before if name not in dict(levels)]
    if not told and [name for name, _ in levels] != list(before):
        told.append("the order of the layers has changed")
    return told
