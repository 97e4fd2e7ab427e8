"""Gets pinned source into the object store, by whatever way works, and verifies its tree.

What speaks to a network is imported where it is needed: mostly the store has everything.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from uniscale_build.errors import SettingsError, SourceError, UniscaleError, did_you_mean
from uniscale_build.git.db import GitDb
from uniscale_build.ids import is_object_id, slug
from uniscale_build.manifests.model import Backend, Origin, Pin
from uniscale_build.progress import Reporter, Silent
from uniscale_build.store import digest, write_atomic

# Kinds of origin that a release of another version has too, the preferred one first.
ON_INDEX = ("sdist", "wheel")


@dataclass(frozen=True)
class Found:
    """Upstream source that is complete in the store."""

    tree: str
    description: str
    version: str = ""
    commit: str = ""
    origin: Origin | None = None


def obtain(
    db: GitDb,
    pin: Pin,
    *,
    local: Path | None = None,
    reporter: Reporter | None = None,
    offline: bool = False,
) -> str:
    """Make ``pin.tree`` complete in the store and give it; origins are tried in their order.

    ``local`` is a folder that may hold a git checkout of the upstream (a submodule). The
    `SourceError` names every origin that was tried and why it failed.
    """
    reporter = reporter if reporter is not None else Silent()
    db.open()
    if db.kept(f"pins/{pin.tree}") == pin.tree:
        return pin.tree
    with db.store.lock(f"source-{pin.tree[:16]}", reporter):
        if db.kept(f"pins/{pin.tree}") == pin.tree:
            return pin.tree
        origins = list(_origins(pin, local))
        if offline:
            origins = [origin for origin in origins if origin.kind == "folder"]
        reasons = []
        for origin in origins:
            reporter.stage("fetch", f"{pin.backend} {pin.version} from {origin.describe()}")
            try:
                tree = _fetch(db, pin.commit, origin, reporter)
            except UniscaleError as error:
                if error.slug in ("disk-full", "read-only"):
                    raise  # no other origin helps against that
                reasons.append(f"{origin.describe()}: {error.what}")
                continue
            if tree == pin.tree:
                db.keep(f"pins/{pin.tree}", pin.tree)
                return tree
            reasons.append(f"{origin.describe()}: its tree is {tree}, not the pinned one")
    raise SourceError(
        f"{pin.backend} {pin.version} could not be had: no origin gave tree {pin.tree}",
        where=pin.where,
        hint="\n".join(reasons or ["offline, and the source is not in the cache"]),
        slug="no-source",
    )


def _origins(pin: Pin, local: Path | None) -> Iterable[Origin]:
    given = os.environ.get(f"UNISCALE_SOURCE_{slug(pin.backend).replace('-', '_').upper()}")
    if given:
        yield Origin("folder", url=given)
    if local is not None and (local / ".git").exists():
        yield Origin("git", url=local.absolute().as_uri())
    for origin in pin.origins:
        yield from _mirrored(origin)


def _mirrored(origin: Origin) -> Iterable[Origin]:
    """The origin behind each fitting rule of ``UNISCALE_MIRRORS`` (``FROM=TO``), then itself."""
    for rule in os.environ.get("UNISCALE_MIRRORS", "").split():
        old, _, new = rule.partition("=")
        if not old or not new:
            raise SettingsError(
                f"UNISCALE_MIRRORS has the rule {rule!r}, which is not FROM=TO",
                hint="address prefixes, several rules separated by spaces: "
                "https://example.org/=https://mirror.example.com/",
                slug="bad-value",
            )
        if origin.url.startswith(old):
            yield Origin(**{**vars(origin), "url": new + origin.url[len(old) :]})
    yield origin


def _fetch(db: GitDb, commit: str, origin: Origin, reporter: Reporter) -> str:
    ways: dict[str, Callable[[], str]] = {
        "git": lambda: _from_git(db, commit, origin),
        "sdist": lambda: _from_index(db, origin, reporter),
        "wheel": lambda: _from_index(db, origin, reporter),
        "debian": lambda: _from_debian(db, origin, reporter),
        "archive": lambda: _from_archive(db, origin, reporter),
        "folder": lambda: _from_folder(db, origin),
    }
    return ways[origin.kind]()


def import_origin(db: GitDb, origin: Origin, reporter: Reporter) -> str:
    """The tree that ``origin`` gives, kept in the store; for a source that no pin knows yet."""
    tree = _fetch(db, "", origin, reporter)
    db.keep(f"pins/{tree}", tree)
    return tree


def _from_git(db: GitDb, commit: str, origin: Origin) -> str:
    from uniscale_build.sources.download import without_secrets

    parts = urlsplit(origin.url)
    proxies = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    proxied = any(os.environ.get(name) for name in proxies)
    if parts.scheme == "https" and parts.hostname and not proxied:
        # git waits minutes for a host that does not answer; ask first.
        try:
            socket.create_connection((parts.hostname, parts.port or 443), timeout=6).close()
        except OSError as error:
            raise SourceError(
                f"{parts.hostname} cannot be reached: {error}",
                where=without_secrets(origin.url),
                slug="no-network",
            ) from error
    db.fetch(origin.url, commit)
    tree = db.tree_of(commit)
    return db.subtree(tree, origin.path) if origin.path else tree


def _from_index(db: GitDb, origin: Origin, reporter: Reporter) -> str:
    from uniscale_build.sources import pypi
    from uniscale_build.sources.download import download

    kept = db.store.downloads / origin.sha256 / origin.file
    url = "" if kept.is_file() else pypi.find_file(origin.project, origin.file).url
    return _import(db, download(db.store, url, origin.sha256, origin.file, reporter), origin)


def _from_debian(db: GitDb, origin: Origin, reporter: Reporter) -> str:
    from uniscale_build.sources import debian
    from uniscale_build.sources.download import download

    kept = db.store.downloads / origin.sha256 / origin.file
    urls = [""] if kept.is_file() else debian.addresses(origin.project, origin.file)
    for number, url in enumerate(urls, 1):
        try:
            path = download(db.store, url, origin.sha256, origin.file, reporter)
            break
        except SourceError:
            if number == len(urls):
                raise
    return _import(db, path, origin)


def _from_archive(db: GitDb, origin: Origin, reporter: Reporter) -> str:
    from uniscale_build.sources.download import download

    name = urlsplit(origin.url).path.rsplit("/", 1)[-1] or "archive"
    return _import(db, download(db.store, origin.url, origin.sha256, name, reporter), origin)


def _import(db: GitDb, path: Path, origin: Origin) -> str:
    from uniscale_build.sources import archive

    found = archive.members(path, origin.path, origin.drop)
    return db.import_files((member.path, member.mode, member.data) for member in found)


def _from_folder(db: GitDb, origin: Origin) -> str:
    path = Path(origin.url.removeprefix("file://")).expanduser()
    if path.is_dir():
        return db.import_folder(path / origin.path if origin.path else path)
    if path.is_file():
        return _import(db, path, origin)
    raise SourceError("is neither a folder nor an archive", where=str(path), slug="no-file")


def obtain_version(
    db: GitDb,
    backend: Backend,
    word: str,
    *,
    reporter: Reporter | None = None,
    offline: bool = False,
) -> Found:
    """Upstream source named by a person: a pin's version or commit, a release, a commit, a path."""
    reporter = reporter if reporter is not None else Silent()
    db.open()
    pin = backend.pin(word)
    if pin is not None:
        tree = obtain(db, pin, reporter=reporter, offline=offline)
        return Found(tree, f"{backend.name} {pin.version}", pin.version, pin.commit, pin.origins[0])
    if os.sep in word or Path(word).exists():
        tree = _from_folder(db, Origin("folder", url=word))
        db.keep(f"pins/{tree}", tree)
        return Found(tree, word)
    if is_object_id(word):
        return _commit(db, backend, word, offline)
    return _release(db, backend, word, reporter, offline)


def _commit(db: GitDb, backend: Backend, commit: str, offline: bool) -> Found:
    if not db.has(commit):
        urls = dict.fromkeys(o.url for p in backend.pins for o in p.origins if o.kind == "git")
        reasons = []
        for url in () if offline else urls:
            try:
                _from_git(db, commit, Origin("git", url=url))
                break
            except UniscaleError as error:
                reasons.append(f"{url}: {error.what}")
        else:
            raise SourceError(
                f"commit {commit} could not be had",
                where=backend.where,
                hint="\n".join(reasons) or "the backend's pins name no git address",
                slug="no-source",
            )
    tree = db.tree_of(commit)
    db.keep(f"pins/{tree}", tree)
    return Found(tree, f"{backend.name} commit {commit[:12]}", commit=commit)


def release_origin(backend: Backend) -> Origin:
    """The pin's origin on the package index, whose project has the other releases too."""
    origins = [origin for pin in backend.pins for origin in pin.origins]
    for kind in ON_INDEX:
        for origin in origins:
            if origin.kind == kind:
                return origin
    raise SourceError(
        f"no pin of {backend.name} comes from the package index",
        where=backend.where,
        hint="name a commit or a path instead of a version",
        slug="no-project",
    )


def _release(db: GitDb, backend: Backend, version: str, reporter: Reporter, offline: bool) -> Found:
    model = release_origin(backend)
    part = model.path or ("root" if model.kind == "sdist" else model.kind)
    ref = f"releases/{slug(model.project)}/{version}/{slug(part).replace('/', '-')}"
    tree = db.kept(ref)
    if tree is not None:
        origin = _recalled(db, ref, model)
        return Found(tree, f"{model.project} {version}", version, origin=origin)
    if offline:
        raise SourceError(f"{model.project} {version} is not in the cache", slug="no-source")
    from uniscale_build.sources import pypi
    from uniscale_build.sources.download import download

    known = pypi.releases(model.project, model.kind)
    if version not in known:
        what = "source distribution" if model.kind == "sdist" else "wheel without compiled code"
        raise SourceError(
            f"{model.project} has no {what} of version {version}",
            hint=did_you_mean(version, [*list(known)[-12:], *(p.version for p in backend.pins)]),
            slug="no-version",
        )
    file = known[version]
    reporter.stage("fetch", file.name)
    origin = _other(model, file.name, file.sha256)
    path = download(db.store, file.url, file.sha256, file.name, reporter)
    tree = _import(db, path, origin)
    db.keep(f"pins/{tree}", tree)
    db.store.records.mkdir(parents=True, exist_ok=True)
    facts = {"file": file.name, "sha256": file.sha256}
    write_atomic(_record(db, ref), json.dumps(facts).encode())
    db.keep(ref, tree)
    return Found(tree, f"{model.project} {version}", version, origin=origin)


def _record(db: GitDb, ref: str) -> Path:
    return db.store.records / f"{digest('release', ref)}.json"


def _recalled(db: GitDb, ref: str, model: Origin) -> Origin | None:
    """Where a release in the store came from: a new pin of it needs the file and its hash."""
    try:
        facts = json.loads(_record(db, ref).read_bytes())
        file, sha256 = str(facts["file"]), str(facts["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return _other(model, file, sha256)


def _other(model: Origin, file: str, sha256: str) -> Origin:
    """Where another release comes from than ``model``."""
    return replace(model, file=file, sha256=sha256, where="")
