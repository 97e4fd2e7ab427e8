"""Which upstream a FlagScale patch set was made on: one of our pins, or a new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError, SourceError, UniscaleError
from uniscale_build.flagscale.meta import FLAGSCALE, Meta, Quirk, plain_version
from uniscale_build.flagscale.patch import Head, share
from uniscale_build.git.db import GitDb
from uniscale_build.ids import is_object_id, is_sha256, slug
from uniscale_build.manifests.model import Backend, Manifests, Origin, Pin
from uniscale_build.sources import pypi
from uniscale_build.sources.obtain import ON_INDEX, obtain, obtain_version, release_origin

if TYPE_CHECKING:
    from uniscale_build.flagscale.plan import Context


@dataclass(frozen=True)
class Chosen:
    """The pin that a set was made on; ``new`` when the manifest does not have it yet."""

    pin: Pin
    new: bool = False


def choose_pin(
    context: Context, backend: Backend, meta: Meta, heads: Sequence[Head], quirks: list[Quirk]
) -> Chosen:
    """The pin that the set was made on: what the user says, the commit, the version, the blob ids.

    The commit is exact, so it wins over a version that disagrees (a quirk). A version that is not
    pinned is fetched and becomes a new pin. `ManifestError` when nothing tells, or nothing is had.
    """
    if context.wishes.pin is not None:
        word = plain_version(context.wishes.pin)
        pin = backend.pin(word)
        if pin is not None:
            return Chosen(_with_tree(backend, pin))
        return Chosen(_fetched(context, backend, word, "", meta, quirks), new=True)
    manifests = context.project.manifests
    commit = said_of(meta.commits, manifests, backend, meta.where, "backends_commit", quirks)
    word = said_of(meta.versions, manifests, backend, meta.where, "backends_version", quirks)
    version = plain_version(word)
    if version != word:
        quirks.append(Quirk(f"the version {word} is read as {version}", meta.where))
    by_commit = backend.pin(commit) if commit else None
    if by_commit is not None:
        if version and version != by_commit.version:
            text = f"says version {word}, but its commit {commit[:12]} is {by_commit.version}"
            quirks.append(Quirk(f"{text}; the commit counts", meta.where))
        return Chosen(_with_tree(backend, by_commit))
    by_version = backend.pin(version) if version else None
    if by_version is not None and _fits(context, _with_tree(backend, by_version), heads):
        exact: Pin | None = by_version
    else:
        # Comparing needs the source: others are fetched only when nothing else tells.
        exact = _by_blobs(context, backend, heads, fetch=not (version or commit))
    return _settle(context, backend, by_version, exact, (word, commit), meta, quirks)


def _settle(
    context: Context,
    backend: Backend,
    by_version: Pin | None,
    exact: Pin | None,
    said: tuple[str, str],
    meta: Meta,
    quirks: list[Quirk],
) -> Chosen:
    word, commit = said
    if exact is not None and exact is not by_version:
        text = f"the blob ids in its patches are those of {backend.name} {exact.version}"
        quirks.append(Quirk(text + (f", not of {word}" if word else ""), meta.where))
        return Chosen(exact)
    if by_version is not None:
        if commit and by_version.commit:
            text = f"its commit {commit[:12]} is not pinned; taken for version {by_version.version}"
            quirks.append(Quirk(f"{text}, pinned at {by_version.commit[:12]}", meta.where))
        return Chosen(_with_tree(backend, by_version))
    return Chosen(_fetched(context, backend, plain_version(word), commit, meta, quirks), new=True)


def said_of(
    table: Mapping[str, str],
    manifests: Manifests,
    backend: Backend,
    where: str,
    key: str,
    quirks: list[Quirk],
) -> str:
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


def _with_tree(backend: Backend, pin: Pin) -> Pin:
    if not pin.tree:
        raise ManifestError(
            f"the pin {pin.version} of {backend.name} has no tree to apply anything to",
            where=pin.where,
            hint="record its tree, or name another pin with --pin",
            slug="no-tree",
        )
    return pin


def _no_pin(
    backend: Backend, version: str, commit: str, where: str, why: Sequence[str]
) -> ManifestError:
    named = " ".join(word for word in (version, commit and f"(commit {commit})") if word)
    return ManifestError(
        f"was made on {backend.name} {named or 'of an unknown version'}, which is not pinned",
        where=where,
        hint="\n".join(
            [
                *why,
                f"add that version to the pins of {backend.where}, or name the one that it was "
                "made on with --pin",
                f"pinned are: {', '.join(pin.version for pin in backend.pins) or 'none'}",
                f"uniscale-build identify PATCHES --backend {backend.name} tells versions by "
                "blob ids",
            ]
        ),
        slug="no-pin",
    )


def _fits(context: Context, pin: Pin, heads: Sequence[Head]) -> bool:
    """True when the pin's tree has every file exactly as the patches found it."""
    if not any(head.old_id and head.old is not None for head in heads):
        return True  # new files alone fit everywhere
    tree = obtain(context.db, pin, reporter=context.reporter, offline=context.wishes.offline)
    matched, asked = share(list(heads), context.db.list_tree(tree))
    return matched == asked


def _by_blobs(
    context: Context, backend: Backend, heads: Sequence[Head], *, fetch: bool
) -> Pin | None:
    """The one pin whose tree has every file exactly as the patches found it."""
    if not any(head.old_id and head.old is not None for head in heads):
        return None
    fitting = []
    for pin in backend.pins:
        if not pin.tree or not (fetch or _kept(context.db, pin)):
            continue
        try:
            if _fits(context, pin, heads):
                fitting.append(pin)
        except UniscaleError as error:
            context.reporter.note(f"{backend.name} {pin.version} is not compared: {error.what}")
    return fitting[0] if len(fitting) == 1 else None


def _kept(db: GitDb, pin: Pin) -> bool:
    return db.kept(f"pins/{pin.tree}") == pin.tree


def _fetched(
    context: Context, backend: Backend, version: str, commit: str, meta: Meta, quirks: list[Quirk]
) -> Pin:
    """A new pin for a commit (by git) or a release (on the package index) that we do not have."""
    why: list[str] = []
    for word in (commit if is_object_id(commit) else "", version):
        if not word:
            continue
        try:
            origin = _origin(backend, by_commit=word == commit)
            found = obtain_version(context.db, backend, word, reporter=context.reporter,
                                   offline=context.wishes.offline)  # fmt: skip
            if origin.kind in ON_INDEX:
                origin = found.origin or _released(context, origin, version)
        except UniscaleError as error:
            why.append(error.what)
            continue
        pin = _pin(backend, found.tree, origin, version or commit[:12], commit, meta)
        quirks.append(Quirk(f"{backend.name} {pin.version} is pinned now, for it", meta.where))
        return pin
    raise _no_pin(backend, version, commit, meta.where, why)


def _origin(backend: Backend, *, by_commit: bool) -> Origin:
    """The kind of origin that gives a commit, or a release of the upstream itself."""
    if not by_commit:
        origin = release_origin(backend)
        if not origin.path:
            return origin
        raise ManifestError(f"{origin.project} has versions of its own, not {backend.name}'s")
    for pin in backend.pins:
        for origin in pin.origins:
            if origin.kind == "git":
                return origin
    raise ManifestError(f"no pin of {backend.name} names a git address")


def _released(context: Context, model: Origin, version: str) -> Origin:
    """The origin of a release whose tree is in the store already: its download, else the index."""
    ending = f"-{version}" + (".tar.gz" if model.kind == "sdist" else "-py3-none-any.whl")
    for path in context.db.store.downloads.glob(f"*/*{ending}"):
        name = path.name.removesuffix(ending)
        if slug(name) == slug(model.project) and is_sha256(path.parent.name):
            return replace(model, file=path.name, sha256=path.parent.name)
    if context.wishes.offline:
        raise SourceError(f"offline, and the file of {model.project} {version} is not in the cache")
    file = pypi.releases(model.project, model.kind)[version]
    return replace(model, file=file.name, sha256=file.sha256)


def _pin(backend: Backend, tree: str, origin: Origin, version: str, commit: str, meta: Meta) -> Pin:
    note = ""
    if origin.kind in ON_INDEX:
        note = f"what FlagScale's {meta.where} was made on; the package index tells no commit"
        commit = ""
    return Pin(
        backend.name, version, commit, tree, (replace(origin, where=""),), (), note, backend.where
    )
