"""The work tree of a port: where a person resolves what could not be merged.

``build/port/<backend>[-<device>]`` is a git repository of its own with all objects that it needs:
HEAD is the new upstream with the layers below, the index has the conflicts, the files have markers.
What the port has reached is in its git folder and is written before anything that depends on it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from uniscale_build.errors import ConflictError, SettingsError, StoreError, UniscaleError, raise_all
from uniscale_build.git.db import GitDb, run_git
from uniscale_build.ids import inside
from uniscale_build.inplace.rewrite import rewrite
from uniscale_build.inplace.stack import fresh_index, transfer, transfer_back
from uniscale_build.inplace.tree import BRANCH, InTree, Scan, stamp, tree_of
from uniscale_build.inplace.unpatch import free_locks, refuse_operations
from uniscale_build.layers.layer import find_layer
from uniscale_build.layers.layerfile import shown
from uniscale_build.porting.plan import Plan, Request
from uniscale_build.porting.replay import Replayed
from uniscale_build.porting.resolutions import Conflict, Resolutions, Resolved
from uniscale_build.porting.state import State, from_json, to_json
from uniscale_build.porting.verdict import marker_lines
from uniscale_build.project import Project
from uniscale_build.store import Store, write_atomic

_STATE = "uniscale-port.json"


def home_of(project: Project) -> Path:
    """Where the work trees of ports are."""
    return project.root / "build" / "port"


def find_session(project: Project, store: Store, request: Request) -> Session | None:
    """The port in progress that ``request`` means; `SettingsError` when several could be meant."""
    home = home_of(project)
    backend = project.manifests.backend(request.backend).name
    found = []
    for folder in sorted(home.glob("*")):
        if folder.name.startswith(".") or not (folder / ".git" / _STATE).is_file():
            continue
        session = Session(project, store, folder)
        if project.manifests.backend(session.state.request.backend).name == backend:
            found.append(session)
    for leftover in home.glob(f".{backend}*.new"):
        shutil.rmtree(leftover)  # a killed run was making it; the caller holds the lock
    return found[0] if found else None


class Session:
    """One port whose work tree is open."""

    def __init__(self, project: Project, store: Store, root: Path) -> None:
        self.project = project
        self.root = root
        self.tree = InTree(store, root)
        path = self.tree.dir / _STATE
        try:
            self.state = from_json(json.loads(path.read_bytes()), self.tree)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(
                f"is damaged: {error}",
                where=str(path),
                hint=f"what you resolved is in {root}; move that folder away and port again",
                slug="state",
            ) from error

    @property
    def shown(self) -> str:
        """The work tree as messages name it."""
        return os.path.relpath(self.root, self.project.root)

    @property
    def words(self) -> str:
        """The option that names this port on a command line."""
        return f"--backend {self.state.request.backend}"

    def busy(self) -> ConflictError:
        """The error for who wants to begin another port."""
        return ConflictError(
            f"a port to {self.state.request.to or 'the layers below'} is in progress",
            where=self.shown,
            hint=f"uniscale-build port {self.words} --continue goes on with it\n"
            f"uniscale-build port {self.words} --abort gives it up",
            slug="port-in-progress",
        )

    @classmethod
    def opened(
        cls, db: GitDb, plan: Plan, done: Mapping[int, str], base: str, replayed: Replayed
    ) -> Session:
        """Make the work tree, whole, beside its place, and rename it."""
        home = home_of(plan.project)
        root = inside(plan.project.root, home / plan.key, what="work tree", error=SettingsError)
        if root.exists():
            raise StoreError(
                "is in the way", where=str(root), hint="move it away", slug="in-the-way"
            )
        fresh = InTree(db.store, home / f".{plan.key}.new")
        fresh.root.mkdir(parents=True)
        run_git(["init", "--quiet", "--template=", "."], cwd=fresh.root)
        fresh.repo.run("symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")
        fresh.configure(identity=True)
        state = _state(plan, done, base, replayed, plan.request)
        _fill(db, fresh, plan, state)
        fresh.git("-c", "checkout.workers=2", "read-tree", "--reset", "-u", state.tree)
        _stages(fresh, state)
        write_atomic(fresh.dir / _STATE, to_json(state))
        fresh.root.rename(root)
        return cls(plan.project, db.store, root)

    def reopen(
        self, db: GitDb, plan: Plan, done: Mapping[int, str], base: str, replayed: Replayed
    ) -> None:
        """Bring the work tree to the next layer that needs a person."""
        opening = self.state.phase == "opening"
        source = self.state.source if opening else self.state.done[max(self.state.done)]
        state = replace(_state(plan, done, base, replayed, self.state.request), by_hand=True)
        _fill(db, self.tree, plan, state)
        self.save(replace(state, phase="opening", source=source))
        found = self.tree.scan(db, force=[c.path for c in self.state.conflicts])
        self._rescue(db, found, source, state.tree)
        rewrite(db, self.tree, found.entries, db.list_tree(state.tree))
        fresh_index(self.tree, state.tree)
        _stages(self.tree, state)
        self.save(state)

    def _rescue(self, db: GitDb, found: Scan, *known: str) -> None:
        """Keep what somebody wrote between a killed run and this one."""
        files = [db.list_tree(tree) for tree in known]
        if all(entry in [f.get(path) for f in files] for path, entry in found.entries.items()):
            return
        oid = tree_of(db, found.entries)
        transfer(db, self.tree, [oid], [])
        head = self.tree.head()
        commit = self.tree.repo.commit(oid, [head] if head else [], "Edits before the next layer\n")
        self.tree.repo.run("update-ref", f"refs/uniscale/rescue/{stamp()}", commit)

    def save(self, state: State) -> None:
        """Write the state, whole or not at all."""
        write_atomic(self.tree.dir / _STATE, to_json(state))
        self.state = state

    def restore(self, db: GitDb) -> None:
        """Make the trees that the port has reached complete in the store (it may be a new one)."""
        have = [*self.state.done.values(), self.state.base, self.state.tree]
        for oid in dict.fromkeys(filter(None, have)):
            transfer_back(db, self.tree, oid)

    def check_plan(self, plan: Plan) -> None:
        """`ConflictError` when layers or manifests changed since the port began."""
        if plan.digest != self.state.digest:
            raise ConflictError(
                "the layers or the pin changed since this port began",
                where=self.shown,
                hint=f"uniscale-build port {self.words} --abort, then port again: what you "
                "resolved so far is remembered",
                slug="plan-changed",
            )

    def take(self, db: GitDb, plan: Plan) -> None:
        """Take over what was decided in the work tree; all that is still open at once."""
        free_locks(self.tree)
        refuse_operations(self.tree)
        state = self.state
        found = self.tree.scan(db, force=[c.path for c in state.conflicts])
        raise_all(self._open(db, found))
        oid = tree_of(db, found.entries)
        memory = []
        for conflict in state.conflicts:
            entry = found.entries.get(conflict.path)
            first = conflict.stages[min(conflict.stages)].mode
            data = db.read_blob(entry.oid) if entry is not None else None
            memory.append((conflict, Resolved(entry.mode if entry else first, data)))
        Resolutions(db).record(memory)
        at = len(state.done)
        transfer(db, self.tree, [oid], [state.tree])
        self.save(replace(state, done={**state.done, at: oid}, by_hand=True, phase="taken"))

    def _open(self, db: GitDb, found: Scan) -> list[UniscaleError]:
        errors: list[UniscaleError] = [p for p in found.problems if p.slug != "unmerged"]
        unmerged = {
            line.split(b"\t", 1)[1]
            for line in self.tree.git("ls-files", "-z", "--unmerged").out.split(b"\0")[:-1]
        }
        for conflict in self.state.conflicts:
            entry = found.entries.get(conflict.path)
            where = f"{self.shown}/{shown(conflict.path)}"
            if entry is None or not conflict.marked:
                if conflict.path in unmerged:
                    errors.append(self._undecided(conflict, where))
                continue
            data = db.read_blob(entry.oid)
            lines = marker_lines(data) or _half_markers(data, conflict)
            errors += [
                ConflictError("has conflict markers", where=f"{where}:{line}", slug="markers",
                              hint="edit it to what it shall be, without the markers")
                for line, _ in lines
            ]  # fmt: skip
            if not lines and not _still_parses(db, conflict, data):
                errors.append(
                    ConflictError(
                        "is no longer Python that compiles, as both sides are",
                        where=where,
                        hint=f"python -m py_compile {shlex.quote(where)} says where",
                        slug="does-not-compile",
                    )
                )
        return errors

    def _undecided(self, conflict: Conflict, where: str) -> ConflictError:
        git = f"git -C {shlex.quote(self.shown)}"
        path = shlex.quote(shown(conflict.path))
        return ConflictError(
            "is not decided: it has no text to merge",
            where=where,
            hint=f"{git} add -- {path} keeps the file as it is there now\n"
            f"{git} rm -- {path} removes it",
            slug="undecided",
        )

    def finishing(self, expected: Mapping[str, tuple[str, str]]) -> None:
        """Note that the layers are about to be put in place."""
        self.save(replace(self.state, phase="finishing", expected=dict(expected)))

    def is_in_place(self, project: Project) -> bool:
        """True when the layers are what the port was about to put in place."""
        backend = project.manifests.backend(self.state.request.backend).name
        for name, (base, result) in (self.state.expected or {}).items():
            try:
                layer = find_layer(project.patches, backend, name)
            except UniscaleError:
                return False
            if (layer.base, layer.result) != (base, result):
                return False
        return True

    def remove(self) -> None:
        """Remove the work tree: all that was in it is in the layers."""
        gone = self.root.with_name(f".{self.root.name}.new")
        self.root.rename(gone)
        shutil.rmtree(gone)

    def discard(self, db: GitDb) -> str:
        """Close the work tree; where its edits went, or "" when there were none."""
        try:
            self.restore(db)
            found = self.tree.scan(db, force=[c.path for c in self.state.conflicts])
            edited = self.state.by_hand or tree_of(db, found.entries) != self.state.tree
        except UniscaleError:
            edited = True  # what cannot be read is not thrown away
        if not edited:
            self.remove()
            return ""
        aside = self.project.root / "build" / "discarded" / f"port-{self.root.name}-{stamp()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        self.root.rename(aside)
        return os.path.relpath(aside, self.project.root)


def _state(
    plan: Plan, done: Mapping[int, str], base: str, replayed: Replayed, request: Request
) -> State:
    new = None if plan.existing else plan.new
    return State(request, plan.digest, dict(done), base, replayed.tree, replayed.conflicts, new=new)


def _fill(db: GitDb, tree: InTree, plan: Plan, state: State) -> None:
    """Give the repository the trees, and commits that make git's commands useful there."""
    step = plan.steps[len(state.done)]
    layer = step.layer
    wanted = [state.base, layer.base, layer.result, state.tree, *state.done.values()]
    transfer(db, tree, wanted, [])
    repo = tree.repo
    ours = repo.commit(state.base, [], f"{plan.label}, and the layers below {layer.name}\n")
    repo.run("update-ref", f"refs/heads/{BRANCH}", ours)
    repo.run("symbolic-ref", "HEAD", f"refs/heads/{BRANCH}")
    base = repo.commit(layer.base, [], f"What layer {layer.name} was made on\n")
    theirs = repo.commit(layer.result, [base], f"{layer.title}\n\n{layer.why}\n")
    for name, commit in (("base", base), ("layer", theirs)):
        repo.run("update-ref", f"refs/tags/{name}", commit)
    # Keeps what is settled from being pruned.
    for at, oid in state.done.items():
        repo.run("update-ref", f"refs/uniscale/done/{at}", repo.commit(oid, [], "Settled\n"))


def _stages(tree: InTree, state: State) -> None:
    """Make the index say what is in conflict, as after a merge."""
    lines = b""
    for conflict in state.conflicts:
        lines += b"0 " + b"0" * 40 + b"\t" + conflict.path + b"\0"
        for stage, entry in sorted(conflict.stages.items()):
            lines += f"{entry.mode} {entry.oid} {stage}\t".encode() + conflict.path + b"\0"
    tree.git("update-index", "-z", "--index-info", stdin=lines)


def _half_markers(data: bytes, conflict: Conflict) -> list[tuple[int, int]]:
    """Lines with a single marker that no side has: half of a conflict was edited away."""
    known = set(conflict.marked.split(b"\n"))
    return [
        (number, number)
        for number, line in enumerate(data.split(b"\n"), 1)
        if line in known and line.startswith((b"<<<<<<< ", b"||||||| ", b">>>>>>> "))
    ]


def _still_parses(db: GitDb, conflict: Conflict, data: bytes) -> bool:
    """False when both sides were Python that compiles and the resolution is not."""
    if not conflict.path.endswith(b".py"):
        return True
    sides = [db.read_blob(conflict.stages[n].oid) for n in (2, 3)]
    return _compiles(data) or not all(map(_compiles, sides))


def _compiles(data: bytes) -> bool:
    import warnings

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, "<resolved>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
