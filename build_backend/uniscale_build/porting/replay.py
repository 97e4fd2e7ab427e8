"""Replays one layer on another tree, in the object store alone, and says how each file fared.

Three-way: base is the tree that the layer was made on, theirs what it makes of it, ours the tree
that it shall stand on now. What git cannot settle is tried with remembered resolutions, then with
the structural merge; the rest are conflicts, with markers in the tree that comes out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uniscale_build.git.db import Entry, GitDb, GitFailed, changed_tree
from uniscale_build.porting.resolutions import Conflict, Resolutions, Resolved, has_markers
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
    tree, stages, messages, sides = _merge_tree(db, base, ours, theirs)
    if not stages:
        return Replayed(tree, ())
    conflicts = _marked(db, tree, stages, sides, labels)
    settled: dict[bytes, Resolved] = {}
    helped: dict[bytes, tuple[str, tuple[str, ...]]] = {}
    if memory is not None:
        for path, known in memory.recall(conflicts).items():
            settled[path], helped[path] = known, ("memory", ())
    rest = [c for c in conflicts if c.path not in settled]
    for path, (merged, notes) in _structural(db, rest).items():
        settled[path], helped[path] = merged, ("structure", notes)
    left = tuple(conflict for conflict in conflicts if conflict.path not in settled)
    return Replayed(_with(db, tree, settled, left), left, helped, messages)


_Stages = dict[bytes, dict[int, Entry]]


def _merge_tree(
    db: GitDb, base: str, ours: str, theirs: str
) -> tuple[str, _Stages, dict[bytes, str], Sequence[str]]:
    """git's merge: tree, stages of what conflicts, its type by path, and the two commits."""
    # git before 2.40 takes the base from history alone, so the trees get a history.
    root = db.commit(base, [], "base")
    sides = [db.commit(tree, [root], "side") for tree in (ours, theirs)]
    options = ("-c", "merge.directoryRenames=false", "-c", "merge.renameLimit=0",
               "-c", "merge.conflictStyle=zdiff3")  # fmt: skip
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
    return tree, stages, messages, sides


def _marked(
    db: GitDb, tree: str, stages: _Stages, sides: Sequence[str], labels: Labels
) -> list[Conflict]:
    """The conflicts with their texts in markers that name the sides, where there is a text."""
    text = [p for p, s in stages.items() if all(n in s and s[n].mode[:3] == "100" for n in (2, 3))]
    files = db.list_tree(tree) if text else {}
    blobs = db.read_blobs([files[path].oid for path in text]) if text else {}
    marked = {}
    for path in text:
        data = blobs[files[path].oid]
        # git leaves a binary file as it is on one side, without markers.
        marked[path] = _named(data, sides, labels) if has_markers(data) else b""
    return [Conflict(path, found, marked.get(path, b"")) for path, found in sorted(stages.items())]


def _named(data: bytes, sides: Sequence[str], labels: Labels) -> bytes:
    """git's markers name commits that nobody knows; ours name versions and layers."""
    names = (labels.ours, labels.base, labels.theirs)
    ours, base, theirs = (re.sub(r"\s+", " ", name).encode() for name in names)
    rules = (
        (rb"^<<<<<<< %s(:[^\r\n]*)?" % sides[0].encode(), b"<<<<<<< " + ours),
        (rb"^\|\|\|\|\|\|\| [0-9a-f]{7,40}(:[^\r\n]*)?(?=\r?$)", b"||||||| " + base),
        (rb"^>>>>>>> %s(:[^\r\n]*)?" % sides[1].encode(), b">>>>>>> " + theirs),
    )
    for pattern, name in rules:
        data = re.sub(pattern, lambda _, name=name: name, data, flags=re.MULTILINE)  # type: ignore[misc]
    return data


def _structural(
    db: GitDb, conflicts: Sequence[Conflict]
) -> dict[bytes, tuple[Resolved, tuple[str, ...]]]:
    """What the structural merge settles, with its notes."""
    usable = [
        conflict
        for conflict in conflicts
        if has_markers(conflict.marked)
        and set(conflict.stages) == {1, 2, 3}
        and len({entry.mode for entry in conflict.stages.values()}) == 1
        and conflict.path.endswith((b".py", b".pyi", b".txt", b".in"))
    ]
    if not usable:
        return {}
    blobs = db.read_blobs([entry.oid for c in usable for entry in c.stages.values()])
    found = {}
    for conflict in usable:
        path, stages = conflict.path.decode("utf-8", "replace"), conflict.stages
        merged = merge_file(path, *(blobs[stages[n].oid] for n in (1, 2, 3)))
        if merged is not None:
            found[conflict.path] = (Resolved(stages[2].mode, merged.data), merged.notes)
    return found


def _with(db: GitDb, tree: str, settled: Mapping[bytes, Resolved], left: Sequence[Conflict]) -> str:
    """``tree`` with the settled files in place, and our markers in those that are left."""
    marked = [c for c in left if c.marked]
    if not settled and not marked:
        return tree
    kept = [(p, k.mode, k.data) for p, k in settled.items() if k.data is not None]
    kept += [(c.path, (c.stages.get(2) or c.stages[3]).mode, c.marked) for c in marked]
    oids = db.write_blobs([data for _, _, data in kept])
    changes: dict[bytes, Entry | None] = dict.fromkeys(settled)
    changes |= {path: Entry(mode, oid) for (path, mode, _), oid in zip(kept, oids, strict=True)}
    return changed_tree(db, db.listing(tree), changes)
