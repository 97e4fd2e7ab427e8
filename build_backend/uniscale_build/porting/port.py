"""``port``: moves layers to a new upstream, in memory until everything fits.

Each layer is replayed on what the one below has become. Where a person has to decide, a work tree
with conflict markers opens (`porting.work`); ``--continue`` takes what was decided there and goes
on. When all layers fit, they are written and put in place together with the manifests' lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uniscale_build import swap
from uniscale_build.errors import LayerError, SettingsError, StoreError, UniscaleError
from uniscale_build.git.db import GitDb
from uniscale_build.inplace.stack import Target, exclusive
from uniscale_build.layers.layer import apply_layer, read_layer
from uniscale_build.layers.layerfile import Written, export, updated_yaml, write_folder
from uniscale_build.porting.pinmove import manifest_edits
from uniscale_build.porting.plan import Plan, Request, Step, make_plan
from uniscale_build.porting.replay import Labels, Replayed, replay
from uniscale_build.porting.resolutions import Resolutions
from uniscale_build.porting.verdict import Verdict, classify
from uniscale_build.porting.work import Session, find_session, home_of
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.store import Store


@dataclass(frozen=True)
class Outcome:
    """How one layer fared: its new base and result, each file, and what is in conflict."""

    step: Step
    base: str
    replayed: Replayed
    verdicts: tuple[Verdict, ...]

    @property
    def result(self) -> str:
        """The tree that comes out (with markers where there are conflicts)."""
        return self.replayed.tree

    @property
    def empty(self) -> bool:
        """True when upstream has all of the layer."""
        return self.base == self.result


@dataclass(frozen=True)
class Report:
    """What a port found or did."""

    plan: Plan | None  # None: an earlier run had finished it
    outcomes: tuple[Outcome, ...]
    status: str  # "clean" | "conflicts" (dry run) | "open" (work tree waits) | "done" | "nothing"
    place: str = ""  # the work tree with the conflicts
    written: Mapping[str, Written] | None = None
    todo: tuple[str, ...] = ()  # edits of manifests to make by hand
    notes: tuple[str, ...] = ()


def start(project: Project, store: Store, reporter: Reporter, request: Request, *,
          dry_run: bool) -> Report:  # fmt: skip
    """Port, or with ``dry_run`` only say what would happen; nothing is written then."""
    db = GitDb(store).open()
    pin = project.manifests.backend(request.backend).pin(request.to)
    if request.to and pin is None and Path(request.to).exists():
        # --continue may be said from another folder.
        request = replace(request, to=str(Path(request.to).absolute()))
    if dry_run:
        plan = make_plan(db, project, request, reporter)
        outcomes = replay_all(db, plan, request.fresh, {}, through=True)
        conflicts = any(outcome.replayed.conflicts for outcome in outcomes)
        return Report(plan, outcomes, "conflicts" if conflicts else "clean")
    with exclusive(_target(project, request), store, reporter) as target:
        project = replace(target.project)  # read anew: what it says now holds
        session = find_session(project, store, request)
        if session is not None and not _closed(session, project):
            raise session.busy()
        plan = make_plan(db, project, request, reporter)
        _require_commit(plan)
        return _advance(db, plan, None, request.fresh, reporter)


def resume(project: Project, store: Store, reporter: Reporter, request: Request) -> Report:
    """``--continue``: take what was decided in the work tree, and go on."""
    db = GitDb(store).open()
    with exclusive(_target(project, request), store, reporter) as target:
        project = replace(target.project)  # read anew: what it says now holds
        session = _session(project, store, request)
        state = session.state
        asked = replace(state.request, offline=request.offline or state.request.offline)
        if _closed(session, project):
            return Report(None, (), "done")
        session.restore(db)
        plan = make_plan(db, project, asked, reporter, state.new)
        session.check_plan(plan)
        if state.phase == "open":
            session.take(db, plan)
        return _advance(db, plan, session, asked.fresh, reporter)


def abort(project: Project, store: Store, reporter: Reporter, request: Request) -> tuple[str, str]:
    """``--abort``: close the work tree; gives its name, and where edits in it went (or "")."""
    db = GitDb(store).open()
    with exclusive(_target(project, request), store, reporter) as target:
        project = replace(target.project)  # read anew: what it says now holds
        session = _session(project, store, request)
        return session.shown, session.discard(db)


def _target(project: Project, request: Request) -> Target:
    """What names the lock: all layers of the backend."""
    if not project.checkout:
        raise SettingsError(
            "an installed uniscale has no layers to port",
            hint="change into a checkout of uniscale, or set UNISCALE_PROJECT",
            slug="no-project",
        )
    backend = project.manifests.backend(request.backend)
    if not backend.pins:
        raise SettingsError(f"{backend.name} has no pin", where=backend.where, slug="no-pin")
    return Target(project, backend.pins[0], None)


def _session(project: Project, store: Store, request: Request) -> Session:
    session = find_session(project, store, request)
    if session is None:
        raise SettingsError(
            "no port is in progress",
            where=str(home_of(project)),
            hint="uniscale-build port --backend BACKEND --to VERSION begins one",
            slug="no-port",
        )
    return session


def _closed(session: Session, project: Project) -> bool:
    """Close a session that an earlier run had finished; True when it was."""
    finished = session.state.phase == "finishing" and session.is_in_place(project)
    if finished:
        session.remove()
    return finished


def _require_commit(plan: Plan) -> None:
    if plan.existing or plan.new.commit:
        return
    if plan.pin.commit or any(origin.kind == "git" for origin in plan.new.origins):
        raise SettingsError(
            f"the commit of {plan.backend.name} {plan.new.version} is not known: "
            "a source distribution does not tell it",
            hint="add --commit with the 40 digits of the release's commit (of its tag)",
            slug="no-commit",
        )


def replay_all(
    db: GitDb, plan: Plan, fresh: bool, done: Mapping[int, str], *, through: bool
) -> tuple[Outcome, ...]:
    """Replay layer after layer; stops behind the first conflict unless ``through``."""
    memory = None if fresh else Resolutions(db)
    outcomes: list[Outcome] = []
    for at, step in enumerate(plan.steps):
        ours = plan.start if step.below is None else outcomes[step.below].result
        layer = step.layer
        labels = Labels(
            f"{plan.backend.name} {plan.pin.version}",
            plan.label if step.below is None else
            f"{plan.label} + {plan.steps[step.below].layer.name}",
            f"layer {layer.name}",
        )  # fmt: skip
        if at in done:
            outcomes.append(Outcome(step, ours, Replayed(done[at], ()), ()))
            continue
        replayed = replay(db, layer.base, ours, layer.result, labels, memory)
        verdicts = classify(db, layer.base, ours, layer.result, replayed)
        outcomes.append(Outcome(step, ours, replayed, verdicts))
        if replayed.conflicts and not through:
            break
    return tuple(outcomes)


def _advance(
    db: GitDb, plan: Plan, session: Session | None, fresh: bool, reporter: Reporter
) -> Report:
    done = session.state.done if session is not None else {}
    reporter.stage("port", f"{plan.backend.name} {plan.pin.version} to {plan.label}")
    outcomes = replay_all(db, plan, fresh, done, through=False)
    last = outcomes[-1] if outcomes else None
    if last is not None and last.replayed.conflicts:
        trees = {at: outcome.result for at, outcome in enumerate(outcomes[:-1])}
        if session is None:
            session = Session.opened(db, plan, trees, last.base, last.replayed)
        else:
            session.reopen(db, plan, trees, last.base, last.replayed)
        return Report(plan, outcomes, "open", session.shown)
    return finish(db, plan, outcomes, session)


def finish(db: GitDb, plan: Plan, outcomes: Sequence[Outcome], session: Session | None) -> Report:
    """Write the layers and the manifests' lines: all of them or nothing."""
    home = plan.project.patches / plan.backend.name
    moved = [
        o for o in outcomes
        if (o.base, o.result, o.step.new_name) != (o.step.layer.base, o.step.layer.result,
                                                  o.step.layer.name)
    ]  # fmt: skip
    names = {o.step.layer.name: o.step.new_name for o in outcomes}
    edits, todo = manifest_edits(plan, names)
    if not moved and not edits and not todo:
        if session is not None:
            session.remove()
        return Report(plan, tuple(outcomes), "nothing")
    home.mkdir(parents=True, exist_ok=True)
    written = {}
    try:
        for outcome in moved:
            written[outcome.step.new_name] = _stage(db, home, outcome)
    except UniscaleError:
        swap.finish(home)
        raise
    if session is not None:
        session.finishing({o.step.new_name: (o.base, o.result) for o in moved})
    swap.commit(home, [o.step.new_name for o in moved], *edits)
    if session is not None:
        session.remove()
    notes = tuple(
        f'layer "{o.step.new_name}" is empty now, upstream has all of it: take it out of the '
        f"manifest and remove patches/{plan.backend.name}/{o.step.new_name}"
        for o in moved
        if o.empty
    )
    return Report(plan, tuple(outcomes), "done", "", written, tuple(todo), notes)


def _stage(db: GitDb, home: Path, outcome: Outcome) -> Written:
    """Write a layer's new folder beside the old one, and prove that it gives the result."""
    layer, name = outcome.step.layer, outcome.step.new_name
    raw = (layer.folder / "layer.yaml").read_bytes()
    yaml = updated_yaml(raw, outcome.base, outcome.result, f"{layer.where}/layer.yaml")
    folder = swap.staged(home, name)
    members = export(db, outcome.base, outcome.result)
    written = write_folder(folder, members, yaml, like=layer.folder)
    fresh = replace(read_layer(folder, layer.backend), name=name)
    made = apply_layer(db, outcome.base, fresh)
    if made != outcome.result:
        raise StoreError(
            f"the new layer {name} gives tree {made}, not {outcome.result}: nothing was written",
            where=f"patches/{layer.backend}/{name}",
            hint="this is a fault of uniscale: please report it with the layer",
            slug="not-proven",
        )
    if fresh.base != outcome.base or fresh.result != outcome.result:
        raise LayerError("layer.yaml could not be edited", where=layer.where, slug="edit-by-hand")
    return written
