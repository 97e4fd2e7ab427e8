"""``identify``: which upstream version a set of patches was made against, from blob ids alone.

An ``index a..b`` line names the exact content that a patch was made on. The version whose tree has
those blobs at those paths is the answer; nothing is applied, nothing is guessed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LayerError, UniscaleError
from uniscale_build.git.db import Entry, GitDb
from uniscale_build.ids import slug
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.patchtext import read_patch
from uniscale_build.manifests.model import Backend
from uniscale_build.progress import Reporter
from uniscale_build.sources.obtain import obtain_version, release_origin

_ZEROS = re.compile(r"0+")


@dataclass(frozen=True)
class PreImage:
    """What one patch was made on: a path and its blob id (at least 7 digits of it)."""

    path: bytes
    oid: str

    def is_in(self, tree: Mapping[bytes, Entry]) -> bool:
        """True when the tree has that very content there."""
        entry = tree.get(self.path)
        return entry is not None and entry.oid.startswith(self.oid)


@dataclass(frozen=True)
class PatchSet:
    """The pre-images of a set of patches, and what else was found there."""

    images: tuple[PreImage, ...]
    patches: int
    unreadable: tuple[str, ...]  # files that are no patches that git would read


@dataclass(frozen=True)
class Candidate:
    """A version to compare with."""

    backend: str
    version: str
    tree: str


@dataclass(frozen=True)
class Match:
    """How well a version fits; ``other`` are paths that it has with other content."""

    candidate: Candidate
    matched: int
    total: int
    other: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """True when every pre-image is there."""
        return self.matched == self.total


def read_patches(paths: Iterable[Path]) -> PatchSet:
    """The pre-images in patch files, and in ``*.patch`` and ``*.diff`` files below folders.

    Of several patches to one path the first counts: the others are made on its result.
    """
    images: dict[bytes, PreImage] = {}
    made: set[bytes] = set()
    count, unreadable = 0, []
    for file in _files(paths):
        sections, problems = read_patch(file.read_bytes())
        if problems and not sections:
            unreadable.append(f"{file}: {problems[0].what}")
            continue
        count += 1
        for section in sections:
            fits = section.old_oid and not _ZEROS.fullmatch(section.old_oid)
            if section.old is not None and fits and section.old not in made:
                images.setdefault(section.old, PreImage(section.old, section.old_oid))
            if section.new is not None:
                made.add(section.new)
    return PatchSet(tuple(images.values()), count, tuple(unreadable))


def _files(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            for base, folders, names in os.walk(path):
                folders.sort()
                found += [Path(base, n) for n in sorted(names) if n.endswith((".patch", ".diff"))]
        elif path.is_file():
            found.append(path)
        else:
            raise LayerError("there is no such file or folder", where=str(path), slug="no-file")
    return found


def known_candidates(db: GitDb, backends: Iterable[Backend]) -> list[Candidate]:
    """The pins and releases of these backends that the store has complete."""
    found: dict[tuple[str, str], Candidate] = {}
    for backend in backends:
        for pin in backend.pins:
            if pin.tree and db.kept(f"pins/{pin.tree}") == pin.tree:
                item = Candidate(backend.name, pin.version, pin.tree)
                found.setdefault((backend.name, pin.tree), item)
        for version, tree in kept_releases(db, backend).items():
            found.setdefault((backend.name, tree), Candidate(backend.name, version, tree))
    return list(found.values())


def kept_releases(db: GitDb, backend: Backend) -> dict[str, str]:
    """The releases of a backend that the store has: tree by version, oldest first."""
    try:
        model = release_origin(backend)
    except UniscaleError:
        return {}
    place = slug(model.path or "root").replace("/", "-")
    lead = f"releases/{slug(model.project)}/"
    found = {}
    for name, tree in db.kept_below(lead).items():
        version, _, where = name[len(lead) :].rpartition("/")
        if where == place:
            found[version] = tree
    return {version: found[version] for version in sorted(found, key=version_key)}


def version_key(version: str) -> tuple[int, object]:
    """Sorts versions as packages do; what is no such version comes first, by name."""
    from packaging.version import InvalidVersion, Version

    try:
        return (1, Version(version))
    except InvalidVersion:
        return (0, version)


def rank(db: GitDb, images: Sequence[PreImage], candidates: Iterable[Candidate]) -> list[Match]:
    """Every candidate with what it has of the pre-images, best first."""
    found = []
    for candidate in candidates:
        tree = db.list_tree(candidate.tree)
        other = [shown(i.path) for i in images if i.path in tree and not i.is_in(tree)]
        missing = [shown(i.path) for i in images if i.path not in tree]
        matched = len(images) - len(other) - len(missing)
        found.append(Match(candidate, matched, len(images), tuple(other), tuple(missing)))
    newest = sorted(found, key=lambda m: version_key(m.candidate.version), reverse=True)
    return sorted(newest, key=lambda m: -m.matched)


def identify(
    db: GitDb,
    patches: PatchSet,
    backends: Sequence[Backend],
    versions: Sequence[str],
    reporter: Reporter,
    *,
    fetch: bool,
) -> list[Match]:
    """Rank what the store has and the named versions; with ``fetch`` releases are downloaded.

    Without named versions all releases are fetched, newest first, until one fits exactly.
    """
    if not patches.images:
        raise LayerError(
            "no patch here says what it was made on",
            where="; ".join(patches.unreadable[:6]) or None,
            hint=f"{patches.patches} patches were read; only changes to files that upstream has "
            "carry a blob id (a line like: index 1a2b3c4..5d6e7f8)",
            slug="no-blob-ids",
        )
    candidates = known_candidates(db, backends)
    for backend in backends:
        for version in versions:
            found = obtain_version(db, backend, version, reporter=reporter, offline=not fetch)
            candidates.append(Candidate(backend.name, version, found.tree))
    ranked = rank(db, patches.images, {(c.backend, c.tree): c for c in candidates}.values())
    if fetch and not versions and not any(match.exact for match in ranked):
        ranked = _fetched(db, patches, backends, reporter, ranked)
    return ranked


def _fetched(
    db: GitDb,
    patches: PatchSet,
    backends: Sequence[Backend],
    reporter: Reporter,
    ranked: list[Match],
) -> list[Match]:
    from uniscale_build.sources import pypi

    have = {(match.candidate.backend, match.candidate.version) for match in ranked}
    for backend in backends:
        project = release_origin(backend).project
        for version in reversed(pypi.releases(project)):
            if (backend.name, version) in have:
                continue
            try:
                found = obtain_version(db, backend, version, reporter=reporter)
            except UniscaleError as error:
                reporter.note(f"{project} {version}: {error.what}")
                continue
            new = rank(db, patches.images, [Candidate(backend.name, version, found.tree)])
            ranked = sorted([*ranked, *new], key=lambda m: -m.matched)
            if new[0].exact:
                return ranked
    return ranked
