"""What the cache holds, and making it smaller."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.store import Store, disk_errors


@dataclass(frozen=True)
class Share:
    """One kind of thing in the cache: number of entries and bytes on disk."""

    name: str
    entries: int
    size: int
    note: str


_KINDS = {
    "git": "upstream sources and layers",
    "downloads": "archives as they came",
    "work": "work trees and build folders",
    "payloads": "built backends",
    "wheels": "finished wheels",
    "tmp": "scratch of runs that were killed",
}


def disk_use(path: Path) -> int:
    """Bytes on disk below ``path``, links not followed."""
    total = 0
    for base, _, names in os.walk(path):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_blocks * 512
            except FileNotFoundError:
                continue  # another process cleans up too
    return total


def shares(store: Store) -> list[Share]:
    """What each folder of the cache takes."""
    found = []
    for name, note in _KINDS.items():
        folder = store.root / name
        entries = sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
        found.append(Share(name, entries, disk_use(folder), note))
    return found


def collect(store: Store, *, older_than: float, everything: bool, dry_run: bool) -> list[Path]:
    """Remove payloads, wheels, downloads and work trees unused for ``older_than`` seconds.

    ``everything`` removes these whatever their age, and the git store too. Gives what was (or
    would be) removed; to be called when no build runs.
    """
    cutoff = time.time() if everything else time.time() - older_than
    folders = [store.payloads, store.wheels, store.downloads, store.work]
    doomed = [
        entry
        for folder in folders
        if folder.is_dir()
        for entry in sorted(folder.iterdir())
        if everything or _last_use(entry) < cutoff
    ]
    if everything and store.git.exists():
        doomed.append(store.git)
    if dry_run:
        return doomed
    with store.lock("gc"), disk_errors(store.root):
        store.drop_stale_scratch()
        for entry in doomed:
            # Renamed first: nobody finds half of a thing.
            with store.scratch() as scratch:
                entry.rename(scratch / entry.name)
    return doomed


def _last_use(entry: Path) -> float:
    return max(entry.lstat().st_mtime, entry.lstat().st_atime)
