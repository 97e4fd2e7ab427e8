"""``drift``: how far a stack of layers can go, version by version, in memory.

For every version each file of each layer applies as it is, needs a merge, is upstream already, or
conflicts. Nothing is written but the cache.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.git.db import GitDb
from uniscale_build.layers.layerfile import shown
from uniscale_build.manifests.model import Backend
from uniscale_build.porting.identify import kept_releases, version_key
from uniscale_build.porting.plan import Plan, Request, make_plan
from uniscale_build.porting.port import Outcome, replay_all
from uniscale_build.porting.verdict import MEMORY, STRUCTURE, UPSTREAM, Verdict
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sources.obtain import obtain_version, release_origin

APPLIES, MERGES, TAKEN, CONFLICT = "applies", "merges", "upstream", "conflicts"
STATES = (APPLIES, MERGES, TAKEN, CONFLICT)


@dataclass(frozen=True)
class File:
    """One file of one layer on one version."""

    layer: str
    path: str
    state: str
    kind: str  # the verdict's
    detail: str


@dataclass(frozen=True)
class Column:
    """One version: its files, or why it could not be looked at."""

    version: str
    tree: str
    files: tuple[File, ...] = ()
    error: UniscaleError | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        """Files by state."""
        count = Counter(file.state for file in self.files)
        return {state: count[state] for state in STATES}

    @property
    def everything_applies(self) -> bool:
        """True when no file needs more than ``git apply``."""
        return self.error is None and not (self.counts[MERGES] or self.counts[CONFLICT])

    @property
    def nobody_needed(self) -> bool:
        """True when nothing conflicts."""
        return self.error is None and not self.counts[CONFLICT]


@dataclass(frozen=True)
class Drift:
    """The table: one column for each version, oldest first."""

    backend: str
    device: str
    pin: str
    layers: tuple[str, ...]
    columns: tuple[Column, ...]

    def newest(self, fits: Callable[[Column], bool]) -> str | None:
        """The newest version of which ``fits`` is true, or None."""
        return next((c.version for c in reversed(self.columns) if fits(c)), None)


def versions_to_look_at(
    db: GitDb, backend: Backend, named: Sequence[str], since: str, *, fetch: bool
) -> list[str]:
    """The versions, oldest first: those named, else what pins and store have (and the index)."""
    if named and not since:
        return list(dict.fromkeys(named))
    known = [pin.version for pin in backend.pins if pin.tree]
    known += [*kept_releases(db, backend), *named]
    if fetch:
        from uniscale_build.sources import pypi

        known += pypi.releases(release_origin(backend).project)
    ordered = sorted(dict.fromkeys(known), key=version_key)
    found = [v for v in ordered if not since or version_key(v) >= version_key(since)]
    if not found:
        raise SettingsError(
            f"no version of {backend.name} from {since or 'anywhere'} on is known here",
            hint="name some with --version, or add --fetch to take them from the package index",
            slug="no-versions",
        )
    return found


def measure(
    db: GitDb,
    project: Project,
    request: Request,
    versions: Sequence[str],
    reporter: Reporter,
    *,
    fetch: bool,
) -> Drift:
    """Replay the stack on every version; what cannot be had is told in its column."""
    home = make_plan(db, project, replace(request, to=""), reporter)
    backend = home.backend
    trees: dict[str, str | UniscaleError] = {}
    for version in versions:
        offline = request.offline or (backend.pin(version) is None and not fetch)
        try:
            found = obtain_version(db, backend, version, reporter=reporter, offline=offline)
            trees[version] = found.tree
        except UniscaleError as error:
            trees[version] = error

    def column(version: str) -> Column:
        tree = trees[version]
        if isinstance(tree, UniscaleError):
            return Column(version, "", error=tree)
        plan = replace(home, start=tree, label=f"{backend.name} {version}")
        return Column(version, tree, tuple(_files(db, plan, request.fresh)))

    reporter.stage("drift", f"{len(home.steps)} layers on {len(versions)} versions")
    with ThreadPoolExecutor(max_workers=2) as pool:
        columns = tuple(pool.map(column, versions))
    names = tuple(step.layer.name for step in home.steps)
    return Drift(backend.name, home.device, home.pin.version, names, columns)


def _files(db: GitDb, plan: Plan, fresh: bool) -> Iterable[File]:
    for outcome in replay_all(db, plan, fresh, {}, through=True):
        refused = _refused(db, outcome)
        for verdict in outcome.verdicts:
            state = _state(verdict, refused)
            detail = verdict.detail or _lines(verdict)
            yield File(outcome.step.layer.name, verdict.path, state, verdict.kind, detail)


def _state(verdict: Verdict, refused: frozenset[str]) -> str:
    if verdict.conflict:
        return CONFLICT
    if verdict.kind == UPSTREAM:
        return TAKEN
    helped = verdict.kind in (MEMORY, STRUCTURE)
    return MERGES if helped or verdict.path in refused or verdict.moved_to else APPLIES


def _lines(verdict: Verdict) -> str:
    moved = [part for part in verdict.parts if part.offset]
    return f"{len(moved)} hunks moved by up to {max(abs(p.offset) for p in moved)} lines" if (
        moved
    ) else ""  # fmt: skip


_ERROR = re.compile(rb"^error: (?:patch failed: (?P<at>.*):\d+|(?P<name>.*): (?:[^:]*))$", re.M)


def _refused(db: GitDb, outcome: Outcome) -> frozenset[str]:
    """The files whose patch plain ``git apply`` refuses on the new base."""
    layer = outcome.step.layer
    patches = [path.read_bytes() for path in layer.patches]
    if not patches or layer.base == outcome.base:
        return frozenset()
    with db.index(outcome.base) as index:
        ran = index.apply(b"".join(patches), check=False, dry=True)
    said = ran.err.encode("utf-8", "surrogateescape")
    names = {m["at"] or m["name"] for m in _ERROR.finditer(said)}
    return frozenset(shown(name) for name in names if name)
