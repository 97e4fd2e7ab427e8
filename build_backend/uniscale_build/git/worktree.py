"""Puts a tree from the store into a fixed folder, rewriting only files that changed."""

from __future__ import annotations

from pathlib import Path

from uniscale_build.git.db import GitDb
from uniscale_build.store import disk_errors


def materialise(db: GitDb, tree: str, folder: Path) -> None:
    """Make ``folder`` hold exactly ``tree``; files that agree keep their time, so ninja skips them.

    The index lies beside the folder (``<folder>.index``) and knows each file's state; it is only
    valid under the caller's lock. A run that was killed half-way is completed by the next.
    """
    index = folder.with_name(folder.name + ".index")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Left by a killed git; the caller's lock says that no other git is at work here.
        index.with_name(index.name + ".lock").unlink(missing_ok=True)
    env = {"GIT_INDEX_FILE": str(index)}
    at = ("-c", "core.bare=false", f"--work-tree={folder}")
    if not any(folder.iterdir()):
        index.unlink(missing_ok=True)
    db.run(*at, "read-tree", "--reset", "-u", tree, env=env, cwd=folder)
    # What a build wrote into its sources, or an older tree left: a clean start every time.
    db.run(*at, "clean", "-ffdxq", env=env, cwd=folder)
