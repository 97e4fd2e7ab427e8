"""What a FlagScale patch set was made on, and what it comes to as layers on our pin.

The set is applied as it is, in the object store; then the trees are compared: what of it is really
FlagScale's own layer, and what is left for the vendor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniscale_build.errors import ConflictError, ManifestError, UniscaleError, raise_all
from uniscale_build.flagscale_meta import FLAGSCALE, Meta, Quirk, plain_version
from uniscale_build.flagscale_patch import Head, share
from uniscale_build.gitdb import GitDb
from uniscale_build.ids import slug
from uniscale_build.layerfile import shown
from uniscale_build.layers import patched_tree
from uniscale_build.manifest import Backend, Manifests, Pin
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sources import obtain
from uniscale_build.treemerge import merge_trees


@dataclass(frozen=True)
class Size:
    """How much lies between two trees: files, and lines added and removed (binaries: none)."""

    files: int
    added: int
    removed: int

    @property
    def lines(self) -> int:
        """Added and removed lines together."""
        return self.added + self.removed


def measure(db: GitDb, base: str, result: str) -> Size:
    """The `Size` of the change from ``base`` to ``result``, renames found."""
    out = db.run("diff-tree", "-r", "-M", "-l0", "--numstat", base, result).out
    rows = [line.split(b"\t", 2) for line in out.splitlines()]
    added, removed = (
        sum(int(row[column]) for row in rows if row[column] != b"-") for column in (0, 1)
    )
    return Size(len(rows), added, removed)


def said_of(
    table: Mapping[str, str], manifests: Manifests, backend: Backend, where: str, key: str,
    quirks: list[Quirk],
) -> str:  # fmt: skip
    """What ``backends_version`` or ``backends_commit`` says of ``backend``, in any spelling."""
    found = ""
    for word, value in table.items():
        if word.lower() == FLAGSCALE.lower():
            continue
        try:
            if manifests.backend(word) is backend:
                found = value
        except UniscaleError:
            quirks.append(Quirk(f'"{key}" names the unknown backend "{word}"; ignored', where))
    return found


def choose_pin(
    db: GitDb,
    manifests: Manifests,
    backend: Backend,
    meta: Meta,
    heads: Sequence[Head],
    given: str | None,
    quirks: list[Quirk],
    reporter: Reporter,
    offline: bool,
) -> Pin:
    """The pin that the set was made on: what the user says, the commit, the version, the blob ids.

    The commit is exact, so it wins over a version that disagrees (a quirk).
    """
    pin = _choose(db, manifests, backend, meta, heads, given, quirks, reporter, offline)
    if not pin.tree:
        raise ManifestError(
            f"the pin {pin.version} of {backend.name} has no tree to apply anything to",
            where=pin.where,
            hint="record its tree, or name another pin with --pin",
            slug="no-tree",
        )
    return pin


def _choose(
    db: GitDb,
    manifests: Manifests,
    backend: Backend,
    meta: Meta,
    heads: Sequence[Head],
    given: str | None,
    quirks: list[Quirk],
    reporter: Reporter,
    offline: bool,
) -> Pin:
    if given is not None:
        pin = backend.pin(plain_version(given))
        if pin is None:
            raise _no_pin(backend, given, "", backend.where)
        return pin
    commit = said_of(meta.commits, manifests, backend, meta.where, "backends_commit", quirks)
    word = said_of(meta.versions, manifests, backend, meta.where, "backends_version", quirks)
    version = plain_version(word)
    if version != word:
        quirks.append(Quirk(f"the version {word} is read as {version}", meta.where))
    by_commit = backend.pin(commit) if commit else None
    by_version = backend.pin(version) if version else None
    if by_commit is not None:
        if version and version != by_commit.version:
            quirks.append(
                Quirk(
                    f"says version {word}, but its commit {commit[:12]} is {by_commit.version}; "
                    "the commit counts",
                    meta.where,
                )
            )
        return by_commit
    # Comparing with a pin needs its source: fetch others only when nothing else tells.
    exact = _by_blobs(db, backend, heads, reporter, offline or by_version is not None)
    if by_version is not None and (exact is None or exact is by_version or not heads):
        if commit:
            quirks.append(
                Quirk(
                    f"its commit {commit[:12]} is not pinned; taken for version {version}, pinned "
                    f"at {by_version.commit[:12]}",
                    meta.where,
                )
            )
        return by_version
    if exact is not None:
        quirks.append(
            Quirk(
                f"the blob ids in its patches are those of {backend.name} {exact.version}"
                + (f", not of {word}" if word else ""),
                meta.where,
            )
        )
        return exact
    raise _no_pin(backend, version, commit, meta.where)


def _no_pin(backend: Backend, version: str, commit: str, where: str) -> ManifestError:
    named = " ".join(word for word in (version, commit and f"(commit {commit})") if word)
    return ManifestError(
        f"was made on {backend.name} {named or 'of an unknown version'}, which is not pinned",
        where=where,
        hint=f"add that version to the pins of {backend.where}, or name the pin that it was made "
        f"on with --pin; pinned are: {', '.join(pin.version for pin in backend.pins) or 'none'}\n"
        f"uniscale-build identify PATCHES --backend {backend.name} tells versions by blob ids",
        slug="no-pin",
    )


def _by_blobs(
    db: GitDb, backend: Backend, heads: Sequence[Head], reporter: Reporter, offline: bool
) -> Pin | None:
    """The one pin whose tree has every file exactly as the patches found it."""
    if not any(head.old_id and head.old is not None for head in heads):
        return None  # new files alone fit everywhere
    fitting = []
    for pin in backend.pins:
        try:
            tree = obtain(db, pin, reporter=reporter, offline=offline)
        except UniscaleError as error:
            reporter.note(f"{backend.name} {pin.version} is not compared: {error.what}")
            continue
        matched, asked = share(list(heads), db.list_tree(tree))
        if matched == asked:
            fitting.append(pin)
    return fitting[0] if len(fitting) == 1 else None


@dataclass(frozen=True)
class Step:
    """One layer to be: whose it is (``common`` or ``vendor``) and the trees around it."""

    role: str
    base: str
    result: str
    size: Size


def stack(
    db: GitDb, project: Project, pin: Pin, common: str | None, vendor: str, quirks: list[Quirk],
    where: str,
) -> list[Step]:  # fmt: skip
    """The layers that bring ``vendor`` (a tree made on the pin) onto the pin's own layers.

    ``common`` is the tree that FlagScale's own changes make of the pin, when it is known. The set
    is split at it when that leaves fewer lines to the vendor. `ConflictError` names the files where
    the pin's own layers and the set disagree.
    """
    own = project.layers(pin, None)
    top = patched_tree(db, pin, own)
    present = {pin.tree, *(layer.result for layer in own)}
    whole = measure(db, pin.tree, vendor)
    split = common is not None and measure(db, common, vendor).lines < whole.lines
    steps: list[Step] = []
    base, below = pin.tree, top
    if common is not None and split:
        if common not in present:
            below = _moved(db, pin, pin.tree, top, common, where, f"{FLAGSCALE}'s own changes")
            steps.append(Step("common", top, below, measure(db, top, below)))
        base = common
    elif common is not None and common != pin.tree:
        quirks.append(
            Quirk("does not contain FlagScale's own changes; imported as one layer", where)
        )
    result = _moved(db, pin, base, below, vendor, where, "the set")
    if result == below:
        quirks.append(Quirk("has nothing beyond FlagScale's own changes; no vendor layer", where))
    else:
        steps.append(Step("vendor", below, result, measure(db, below, result)))
    return steps


def _moved(db: GitDb, pin: Pin, base: str, onto: str, tree: str, where: str, what: str) -> str:
    merged = merge_trees(db, base, onto, tree)
    raise_all(
        [
            ConflictError(
                f"{what} and the pin's own layers ({', '.join(pin.layers)}) change the same place "
                f"of {shown(path)}",
                where=where,
                hint="import it onto a pin without layers (--pin), then move it here with "
                "uniscale-build port",
                slug="conflict",
            )
            for path in merged.conflicts
        ]
    )
    return merged.tree


def same_device(word: str, manifests: Manifests, name: str) -> bool:
    """True when ``word`` (any spelling or alias) is the device ``name``."""
    try:
        return manifests.device(word).name == name
    except UniscaleError:
        return slug(word) == slug(name)
