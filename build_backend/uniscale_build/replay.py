"""Replays one layer on another tree, in the object store alone, and says how each file fared.

Three-way: base is the tree that the layer was made on, theirs what it makes of it, ours the tree
that it shall stand on now. What git cannot settle is tried with remembered resolutions, then with
the structural merge; the rest are conflicts, with markers in the tree that comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.gitdb import Entry, GitDb, GitFailed
from uniscale_build.resolutions import Conflict, Resolutions, Resolved, has_markers
from uniscale_build.structural import merge_file


@dataclass(frozen=True)
class Labels:
    """How the sides are called in conflict markers and reports."""

    base: str
    ours: str
    theirs: str


@dataclass(frozen=True)
class Replayed:
    """What became of a layer: the tree, and what is still in conflict there.

    ``helped`` tells for each path that was settled beyond git whether from ``memory`` or by
    ``structure``, with notes; ``messages`` are git's types of conflict by path.
    """

    tree: str
    conflicts: tuple[Conflict, ...]
    helped: Mapping[bytes, tuple[str, tuple[str, ...]]] = field(default_factory=dict)
    messages: Mapping[bytes, str] = field(default_factory=dict)


def replay(
    db: GitDb,
    base: str,
    ours: str,
    theirs: str,
    labels: Labels,
    memory: Resolutions | None,
) -> Replayed:
    """``ours`` with what changed from ``base`` to ``theirs``; without ``memory`` none is asked."""
    if ours == base:
        return Replayed(theirs, ())
    tree, stages, messages = _merge_tree(db, base, ours, theirs)
    if not stages:
        return Replayed(tree, ())
    conflicts = [_marked(db, path, found, labels) for path, found in sorted(stages.items())]
    settled: dict[bytes, Resolved] = {}
    helped: dict[bytes, tuple[str, tuple[str, ...]]] = {}
    if memory is not None:
        for path, known in memory.recall(conflicts).items():
            settled[path], helped[path] = known, ("memory", ())
    for conflict in conflicts:
        if conflict.path not in settled and has_markers(conflict.marked):
            merged = _structural(db, conflict)
            if merged is not None:
                settled[conflict.path], notes = merged
                helped[conflict.path] = ("structure", notes)
    left = tuple(conflict for conflict in conflicts if conflict.path not in settled)
    return Replayed(_with(db, tree, settled, left), left, helped, messages)


_Stages = dict[bytes, dict[int, Entry]]


def _merge_tree(
    db: GitDb, base: str, ours: str, theirs: str
) -> tuple[str, _Stages, dict[bytes, str]]:
    """git's merge: tree, stages of what conflicts, and the type of conflict by path."""
    # git before 2.40 takes the base from history alone, so the trees get a history.
    root = db.commit(base, [], "base")
    sides = [db.commit(tree, [root], "side") for tree in (ours, theirs)]
    options = ("-c", "merge.directoryRenames=false", "-c", "merge.renameLimit=0")
    args = ("merge-tree", "--write-tree", "-z", "--messages", *sides)
    ran = db.run(*options, *args, check=False)
    if ran.code not in (0, 1):
        raise GitFailed(args, ran, str(db.path))
    words = ran.out.split(b"\0")
    tree, at = words[0].decode(), 1
    stages: _Stages = {}
    while at < len(words) and words[at]:
        head, path = words[at].split(b"\t", 1)
        mode, oid, stage = head.decode().split(" ")
        stages.setdefault(path, {})[int(stage)] = Entry(mode, oid)
        at += 1
    messages: dict[bytes, str] = {}
    at += 1
    while at < len(words) and words[at]:
        count = int(words[at])
        kind = words[at + 1 + count].decode("utf-8", "replace")
        if kind.startswith("CONFLICT"):
            for path in words[at + 1 : at + 1 + count]:
                messages.setdefault(path, kind.partition("(")[2].rstrip(")"))
        at += count + 3
    return tree, stages, messages


def _marked(db: GitDb, path: bytes, stages: dict[int, Entry], labels: Labels) -> Conflict:
    """The conflict with its text in markers that name the sides, where there is a text."""
    two = all(n in stages and stages[n].mode.startswith("100") for n in (2, 3))
    if not two:
        return Conflict(path, stages)
    blobs = db.read_blobs([entry.oid for entry in stages.values()])
    texts = [blobs[stages[n].oid] if n in stages else b"" for n in (2, 1, 3)]
    with db.store.scratch() as folder:
        names = [folder / name for name in ("ours", "base", "theirs")]
        for name, text in zip(names, texts, strict=True):
            name.write_bytes(text)
        return Conflict(path, stages, _merge_file(db, names, labels))


def _merge_file(db: GitDb, names: Sequence[Path], labels: Labels) -> bytes:
    sides = (labels.ours, labels.base, labels.theirs)
    words = [word for label in sides for word in ("-L", re.sub(r"\s+", " ", label))]
    ran = db.run("merge-file", "-p", "--zdiff3", *words, *map(str, names), check=False)
    # 255: a binary file. Otherwise the number of conflicts (which may be none: modes differ).
    return b"" if ran.code >= 128 else ran.out


def _structural(db: GitDb, conflict: Conflict) -> tuple[Resolved, tuple[str, ...]] | None:
    stages = conflict.stages
    if 1 not in stages or len({entry.mode for entry in stages.values()}) != 1:
        return None
    path = conflict.path.decode("utf-8", "replace")
    if not path.endswith((".py", ".pyi", ".txt", ".in")):
        return None
    blobs = db.read_blobs([entry.oid for entry in stages.values()])
    merged = merge_file(path, *(blobs[stages[n].oid] for n in (1, 2, 3)))
    return None if merged is None else (Resolved(stages[2].mode, merged.data), merged.notes)


def _with(db: GitDb, tree: str, settled: Mapping[bytes, Resolved], left: Sequence[Conflict]) -> str:
    """``tree`` with the settled files in place, and our markers in those that are left."""
    marked = [c for c in left if c.marked]
    if not settled and not marked:
        return tree
    with db.index(tree) as index:
        index.remove(path for path, known in settled.items() if known.data is None)
        kept = [(p, k.mode, k.data) for p, k in settled.items() if k.data is not None]
        kept += [(c.path, (c.stages.get(2) or c.stages[3]).mode, c.marked) for c in marked]
        index.put((path, Entry(mode, db.write_blob(data))) for path, mode, data in kept)
        return index.write_tree()
