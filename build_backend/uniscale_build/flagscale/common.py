"""FlagScale's own changes to a backend, and other content of FlagScale at the commit that counts.

They lie in ``flagscale/backends/<backend>/``: one patch per file; in older checkouts whole files
that replace upstream's, and ``deleted_files.txt``. A vendor's set was made at one FlagScale commit;
when the checkout has that commit, it is read there, and not as the work tree is today.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import LayerError, Problems, SettingsError, UniscaleError, raise_all
from uniscale_build.flagscale.meta import Quirk
from uniscale_build.git.db import Entry, GitDb, changed_tree, run_git
from uniscale_build.layers.layer import joined
from uniscale_build.layers.layerfile import shown
from uniscale_build.manifests.model import Backend, Manifests

DELETED = b"deleted_files.txt"


@dataclass(frozen=True)
class File:
    """One file of FlagScale: path below the folder asked for, git mode, content."""

    path: bytes
    mode: str
    data: bytes


@dataclass(frozen=True)
class Common:
    """FlagScale's own changes to one backend."""

    where: str
    commit: str = ""  # full id; empty when read from the work tree
    patches: dict[str, bytes] = field(default_factory=dict)
    whole: tuple[File, ...] = ()
    deleted: tuple[bytes, ...] = ()


def is_repository(root: Path) -> bool:
    """True when ``root`` is the top of a git work tree (and not just inside of another's)."""
    ran = run_git(["rev-parse", "--show-toplevel"], cwd=root, check=False)
    return ran.code == 0 and Path(ran.text).resolve() == root.resolve()


def find_commit(root: Path, word: str) -> str | None:
    """The full id of the commit ``word`` (hex digits) in the repository ``root``, or None."""
    if not word or not is_repository(root):
        return None
    ran = run_git(
        ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{word}^{{commit}}"],
        cwd=root,
        check=False,
    )
    return ran.text if ran.code == 0 else None


def object_at(root: Path, commit: str, path: str) -> str | None:
    """The id of file or folder ``path`` in ``commit``, or None."""
    ran = run_git(["rev-parse", "--verify", "--quiet", f"{commit}:{path}"], cwd=root, check=False)
    return ran.text if ran.code == 0 else None


def read_commit(root: Path, commit: str, folder: str) -> list[File]:
    """Every file of ``folder`` at ``commit``, gitlinks left out; empty when there is no such."""
    if object_at(root, commit, folder) is None:
        return []
    listing = run_git(["ls-tree", "-r", "-z", "--full-tree", f"{commit}:{folder}"], cwd=root).out
    entries = []
    for line in listing.split(b"\0")[:-1]:
        head, path = line.split(b"\t", 1)
        mode, kind, oid = head.decode().split(" ")
        if kind == "blob":
            entries.append((path, mode, oid))
    asked = "".join(f"{oid}\n" for _, _, oid in entries).encode()
    out = run_git(["cat-file", "--batch"], cwd=root, stdin=asked).out
    files, at = [], 0
    for path, mode, oid in entries:
        end = out.index(b"\n", at)
        words = out[at:end].split(b" ")
        if words[-1] == b"missing":
            raise LayerError(f"the FlagScale checkout has no object {oid}", where=str(root),
                             hint="git fetch fetches it", slug="no-source")  # fmt: skip
        size = int(words[2])
        files.append(File(path, mode, out[end + 1 : end + 1 + size]))
        at = end + 2 + size
    return files


def read_worktree(folder: Path) -> list[File]:
    """Every plain file below ``folder`` as it lies there (no links)."""
    files = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            mode = "100755" if path.stat().st_mode & 0o100 else "100644"
            name = path.relative_to(folder).as_posix().encode("utf-8", "surrogateescape")
            files.append(File(name, mode, path.read_bytes()))
    return files


def find_common(
    root: Path, manifests: Manifests, backend: Backend, commit: str, quirks: list[Quirk]
) -> Common | None:
    """FlagScale's own changes to ``backend`` at ``commit`` (or as the work tree is), if any."""
    name = _folder(root, manifests, backend)
    known = find_commit(root, commit)
    if known is not None:
        for word in dict.fromkeys((name or backend.name, backend.name, *backend.aliases)):
            if files := read_commit(root, known, f"flagscale/backends/{word}"):
                return _common(files, f"flagscale/backends/{word}", known)
        return None
    if name is None:
        return None
    where = f"flagscale/backends/{name}"
    if commit:
        quirks.append(
            Quirk(
                f"the checkout does not have FlagScale's commit {commit[:12]}; FlagScale's own "
                "changes are read as the work tree has them",
                where,
            )
        )
    return _common(read_worktree(root / where), where, "")


def _folder(root: Path, manifests: Manifests, backend: Backend) -> str | None:
    folder = root / "flagscale" / "backends"
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        try:
            if path.is_dir() and manifests.backend(path.name) is backend:
                return path.name
        except SettingsError:
            continue  # a backend that we do not have
    return None


def _common(files: Sequence[File], where: str, commit: str) -> Common | None:
    patches = {
        f"{where}/{shown(file.path)}": file.data for file in files if file.path.endswith(b".patch")
    }
    whole = tuple(f for f in files if not f.path.endswith(b".patch") and f.path != DELETED)
    listed = next((file.data for file in files if file.path == DELETED), b"")
    deleted = tuple(line.strip() for line in listed.splitlines() if line.strip())
    if not (patches or whole or deleted):
        return None
    return Common(where, commit, patches, whole, deleted)


def common_tree(db: GitDb, base: str, common: Common) -> str:
    """The tree that FlagScale's own changes make of ``base``; every misfit is an error."""
    tree = apply_all(db, base, common.patches)
    present = db.list_tree(tree)
    raise_all(
        [
            LayerError(f"{shown(path)} is to be deleted, but upstream does not have it",
                       where=f"{common.where}/{DELETED.decode()}", slug="patch-failed")
            for path in common.deleted
            if path not in present
        ]
    )  # fmt: skip
    if not (common.whole or common.deleted):
        return tree
    whole = {f.path: Entry(f.mode, db.write_blob(f.data)) for f in common.whole}
    return changed_tree(db, db.listing(tree), {**dict.fromkeys(common.deleted), **whole})


def apply_all(
    db: GitDb, base: str, patches: dict[str, bytes], *, include: str | None = None
) -> str:
    """The tree of ``base`` with all ``patches`` (place → patch); an error for each that fails.

    ``include`` limits it to paths that match the pattern.
    """
    if not patches:
        return base
    with db.index(base) as index:
        ran = index.apply(joined(list(patches.values())), check=False, include=include)
        if ran.code == 0:
            return index.write_tree()
    errors: list[UniscaleError] = []
    for where, patch in patches.items():
        with db.index(base) as index:
            alone = index.apply(patch, check=False, include=include)
        if alone.code != 0:
            errors.append(_failed(alone.err, where))
    if not errors:  # each fits alone, but not together: two that change one place
        errors.append(_failed(ran.err, next(iter(patches))))
    raise errors[0] if len(errors) == 1 else Problems(errors)


def _failed(said: str, where: str) -> LayerError:
    lines = [line.removeprefix("error: ") for line in said.splitlines() if line[:6] == "error:"]
    first = lines[0] if lines else said.strip() or "git gives no reason"
    if re.search(r"corrupt|No valid patches|fragment without header|unrecognized|inconsistent",
                 first):  # fmt: skip
        return LayerError(f"is not a whole patch: {first}", where=where, slug="bad-patch")
    return LayerError(f"does not apply: {first}", where=where, slug="patch-failed")
