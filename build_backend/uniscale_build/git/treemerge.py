"""Three-way merges of whole trees in the object store; no work tree, nothing half done."""

from __future__ import annotations

from dataclasses import dataclass

from uniscale_build.git.db import GitDb, GitFailed


@dataclass(frozen=True)
class Merged:
    """What git made of a merge; ``tree`` holds conflict markers where ``conflicts`` names files."""

    tree: str
    conflicts: tuple[bytes, ...]

    @property
    def clean(self) -> bool:
        """True when there was nothing to ask."""
        return not self.conflicts


def merge_trees(db: GitDb, base: str, ours: str, theirs: str) -> Merged:
    """``ours`` with what changed from ``base`` to ``theirs``; renames on either side are followed.

    The commits are synthetic: git before 2.40 takes the base from history alone.
    """
    if base == theirs:
        return Merged(ours, ())
    if base == ours:
        return Merged(theirs, ())
    root = db.commit(base, [], "base")
    one, other = (db.commit(tree, [root], "side") for tree in (ours, theirs))
    options = ("-c", "merge.directoryRenames=false", "-c", "merge.renameLimit=0")
    args = ("merge-tree", "--write-tree", "-z", "--name-only", "--no-messages", one, other)
    ran = db.run(*options, *args, check=False)
    if ran.code not in (0, 1):
        raise GitFailed(args, ran, str(db.path))
    tree, *names = ran.out.split(b"\0")[:-1]
    return Merged(tree.decode(), tuple(dict.fromkeys(name for name in names if name)))
