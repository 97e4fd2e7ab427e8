"""Changes an in-place work tree from one state to another, touching only files that differ.

Every file is written beside git's own files and renamed, so that a killed run leaves each file
whole: as it was or as it shall be.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from uniscale_build.errors import StoreError
from uniscale_build.git.db import Entry, GitDb
from uniscale_build.git.entry import GITLINK, SYMLINK
from uniscale_build.inplace.tree import InTree


def obstacles(
    tree: InTree, have: Mapping[bytes, Entry], want: Mapping[bytes, Entry]
) -> list[bytes]:
    """What lies where files of ``want`` go and is not in ``have``: ignored or foreign files."""
    root = os.fsencode(tree.root)
    found: dict[bytes, None] = {}
    for path, entry in want.items():
        if have.get(path) == entry:
            continue
        for folder in parents(path):
            full = os.path.join(root, folder)
            if os.path.lexists(full) and (os.path.islink(full) or not os.path.isdir(full)):
                if folder not in have:
                    found[folder] = None
                break
        else:
            found.update(dict.fromkeys(_at(root, path, have, entry)))
    return list(found)


def _at(root: bytes, path: bytes, have: Mapping[bytes, Entry], entry: Entry) -> Iterable[bytes]:
    full = os.path.join(root, path)
    if os.path.isdir(full) and not os.path.islink(full):
        if entry.mode == GITLINK:
            return
        for base, folders, names in os.walk(full):
            links = [name for name in folders if os.path.islink(os.path.join(base, name))]
            for name in (*names, *links):
                inner = os.path.join(base, name)[len(root) + 1 :]
                if inner not in have:
                    yield inner
    elif os.path.lexists(full) and path not in have:
        yield path


def parents(path: bytes) -> Iterable[bytes]:
    """The folders above a path, outermost first."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        yield b"/".join(parts[:count])


def rewrite(
    db: GitDb, tree: InTree, have: Mapping[bytes, Entry], want: Mapping[bytes, Entry]
) -> tuple[int, int]:
    """Make the work tree hold ``want`` where it holds ``have``; gives files written and removed.

    `obstacles` must be gone before.
    """
    root = os.fsencode(tree.root)
    changed = [(path, entry) for path, entry in want.items() if have.get(path) != entry]
    gone = [path for path in have if path not in want]
    replaced = [path for path, entry in changed if path in have]
    links = [path for path in replaced if have[path].mode in (SYMLINK, GITLINK)]
    try:
        for path in (*gone, *links):
            _remove(root, path)
        _write(db, tree, root, changed)
    except OSError as error:
        raise StoreError(
            f"cannot write: {os.strerror(error.errno or 0).lower()}",
            where=os.fsdecode(error.filename or root),
            hint="nothing is lost: the next unpatch goes on from here",
            slug="in-place-write",
        ) from error
    return len(changed), len(gone)


def _remove(root: bytes, path: bytes) -> None:
    full = os.path.join(root, path)
    try:
        if os.path.isdir(full) and not os.path.islink(full):
            os.rmdir(full)
        else:
            os.unlink(full)
        for folder in reversed(list(parents(path))):
            os.rmdir(os.path.join(root, folder))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        import errno

        # A folder that is not empty stays.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise


def _write(db: GitDb, tree: InTree, root: bytes, changed: list[tuple[bytes, Entry]]) -> None:
    blobs = db.read_blobs([entry.oid for _, entry in changed if entry.mode != GITLINK])
    fresh = os.fsencode(tree.dir / "uniscale-file")
    for path, entry in changed:
        full = os.path.join(root, path)
        os.makedirs(full if entry.mode == GITLINK else os.path.dirname(full), exist_ok=True)
        if entry.mode == GITLINK:
            continue
        Path(os.fsdecode(fresh)).unlink(missing_ok=True)
        if entry.mode == SYMLINK:
            os.symlink(blobs[entry.oid], fresh)
        else:
            mode = 0o777 if entry.mode == "100755" else 0o666
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as out:
                out.write(blobs[entry.oid])
        if os.path.isdir(full) and not os.path.islink(full):
            _remove_empty(full)
        os.replace(fresh, full)


def _remove_empty(folder: bytes) -> None:
    """Folders without files: somebody's, or left by a killed run. Files there are `obstacles`."""
    for base, _, _ in os.walk(folder, topdown=False):
        os.rmdir(base)
