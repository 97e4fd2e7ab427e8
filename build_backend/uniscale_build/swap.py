"""Replaces whole layer folders, several at once and with lines in manifests: all or nothing.

The new folders are written beside the old ones (``.<layer>.new``). A journal in
``patches/<backend>/`` is the moment of decision: without it the next run removes what was prepared,
with it the next run finishes the exchange. Callers hold the lock of the backend's layers.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import ManifestError, StoreError
from uniscale_build.store import disk_errors, write_atomic

_JOURNAL = ".swap.json"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True)
class Edit:
    """A manifest's new text, written only when the file still has the old one."""

    file: Path
    old: bytes
    new: bytes


def staged(home: Path, layer: str) -> Path:
    """Where the new folder of ``layer`` is prepared (``home`` is ``patches/<backend>``)."""
    return home / f".{layer}.new"


def unfinished(home: Path) -> bool:
    """True when an earlier run left something to finish or to remove."""
    return home.is_dir() and any(_leftover(name) for name in os.listdir(home))


def decided(patches: Path) -> list[Path]:
    """The backends' folders where a run had decided what it puts in place, and was killed."""
    return sorted(path.parent for path in patches.glob(f"*/{_JOURNAL}"))


def _leftover(name: str) -> bool:
    # The journal's own temporary file (`write_atomic`) has its name and more.
    return name.startswith((_JOURNAL, f".{_JOURNAL}.")) or (
        name.startswith(".") and name.endswith((".new", ".old"))
    )


def commit(home: Path, layers: Sequence[str], *edits: Edit | None) -> None:
    """Put the staged folders of ``layers`` in place, and the edits of manifests with them."""
    journal = {
        "layers": {name: _fingerprint(staged(home, name)) for name in layers},
        "edits": [
            {
                "file": os.path.relpath(edit.file, home),
                "old": hashlib.sha256(edit.old).hexdigest(),
                "new": edit.new.decode("utf-8"),
            }
            for edit in edits
            if edit is not None
        ],
    }
    with disk_errors(home):
        write_atomic(home / _JOURNAL, json.dumps(journal).encode())
    finish(home)


def finish(home: Path) -> None:
    """Finish what a journal tells, or remove what was prepared without one."""
    path = home / _JOURNAL
    with disk_errors(home):
        if path.is_file():
            try:
                journal = json.loads(path.read_bytes())
            except ValueError as error:
                raise StoreError(
                    f"is damaged: {error}",
                    where=str(path),
                    hint="git status shows which layers are exchanged; remove it to leave the rest",
                    slug="journal",
                ) from error
            for name, fingerprint in journal["layers"].items():
                _exchange(home, name, fingerprint)
            for edit in journal["edits"]:
                _edit(home, path, **edit)
            path.unlink()
        for name in os.listdir(home):
            if _leftover(name):
                _remove(home / name)


def _fingerprint(folder: Path) -> str:
    """A hash over names, contents and execute bits of everything in a folder."""
    value = hashlib.sha256()
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            head = f"{path.relative_to(folder)}\0{path.lstat().st_mode & 0o170100:o}\0"
            value.update(os.fsencode(head))
            link = path.is_symlink()
            value.update(os.fsencode(os.readlink(path)) if link else path.read_bytes())
    return value.hexdigest()


def _exchange(home: Path, name: str, fingerprint: str) -> None:
    fresh, current, old = staged(home, name), home / name, home / f".{name}.old"
    if current.is_dir() and _fingerprint(current) == fingerprint:
        return
    if not current.exists():
        fresh.rename(current)
    elif not _rename_exchange(fresh, current):
        if old.exists():
            shutil.rmtree(old)
        current.rename(old)
        fresh.rename(current)


def _rename_exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, where the system can: nobody ever sees the layer missing."""
    try:
        call = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    code = call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
    return bool(code == 0)


def _edit(home: Path, journal: Path, file: str, old: str, new: str) -> None:
    path = Path(os.path.normpath(home / file))
    have = path.read_bytes()
    if have == new.encode("utf-8"):
        return
    if hashlib.sha256(have).hexdigest() != old:
        # Somebody edited the manifest after the run was killed: their words stay.
        raise ManifestError(
            "was edited while layers were being put in place",
            where=str(path),
            hint=f"what it should have said is in {journal}: change it by hand, then remove that",
            slug="edit-by-hand",
        )
    write_atomic(path, new.encode("utf-8"), path.stat().st_mode & 0o777)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
