"""Says of each file of a layer how it fared when the layer was replayed on another tree."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from uniscale_build.git.db import GitDb
from uniscale_build.layers.layerfile import Change, changes, shown
from uniscale_build.porting.replay import Replayed
from uniscale_build.porting.resolutions import Conflict

CLEAN = "clean"
OFFSET = "clean with offset"
UPSTREAM = "already upstream"
MEMORY = "remembered resolution"
STRUCTURE = "structural merge"
CONTENT = "content conflict"
MODIFY_DELETE = "modify/delete"
ADD_ADD = "add/add"
MISSING = "missing"
PATHS = "path conflict"
KINDS = (CLEAN, OFFSET, UPSTREAM, MEMORY, STRUCTURE, CONTENT, MODIFY_DELETE, ADD_ADD, MISSING,
         PATHS)  # fmt: skip
CONFLICTS = frozenset((CONTENT, MODIFY_DELETE, ADD_ADD, MISSING, PATHS))


@dataclass(frozen=True)
class Part:
    """One hunk of a patch: its first line on the old base and on the new one (0: not there)."""

    kind: str
    old_line: int
    new_line: int
    heading: str

    @property
    def offset(self) -> int:
        """By how many lines it moved."""
        return self.new_line - self.old_line if self.new_line else 0

    def as_json(self) -> dict[str, object]:
        """The same facts for ``--json``."""
        return {"kind": self.kind, "old_line": self.old_line, "new_line": self.new_line or None,
                "heading": self.heading}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """One file of a layer: where it is (or was) upstream, and where upstream moved it."""

    kind: str
    path: str
    detail: str = ""
    parts: tuple[Part, ...] = ()
    moved_to: str = ""

    @property
    def conflict(self) -> bool:
        """True when a person has to decide."""
        return self.kind in CONFLICTS

    def as_json(self) -> dict[str, object]:
        """The same facts for ``--json``."""
        return {
            "kind": self.kind,
            "path": self.path,
            "moved_to": self.moved_to or None,
            "detail": self.detail or None,
            "hunks": [part.as_json() for part in self.parts],
        }


def classify(db: GitDb, base: str, ours: str, theirs: str, done: Replayed) -> tuple[Verdict, ...]:
    """One verdict for each file that differs between ``base`` and ``theirs``, in git's order."""
    layer = changes(db, base, theirs)
    if ours == base:
        return tuple(Verdict(CLEAN, shown(change.path)) for change in layer)
    return _Judge(db, ours, layer, done).verdicts()


class _Judge:
    def __init__(self, db: GitDb, ours: str, layer: Sequence[Change], done: Replayed) -> None:
        self.db = db
        self.layer = layer
        self.done = done
        self.ours = db.list_tree(ours)
        self.new = {change.path: change for change in changes(db, ours, done.tree)}
        self.conflicts = {conflict.path: conflict for conflict in done.conflicts}
        self.hunks: dict[tuple[str, str], list[Hunk]] = {}
        self.moved: dict[bytes, bytes] = {}

    def verdicts(self) -> tuple[Verdict, ...]:
        """All of them; hunks of files that upstream changed are compared in one go."""
        lost = [c for c in self.layer if c.status != "A" and c.old_path not in self.ours
                and c.path not in self.new]  # fmt: skip
        known = {path for change in self.layer for path in (change.path, change.old_path)}
        free = [change for path, change in self.new.items() if path not in known]
        pairs = [(c.old.oid, c.new.oid) for c in (*lost, *free)] if lost and free else []
        for change in self.layer:
            place = self.new.get(change.path)
            if place is not None and change.status != "A" and change.old.oid != place.old.oid:
                pairs += [(change.old.oid, change.new.oid), (place.old.oid, place.new.oid)]
        self.hunks = hunks_of(self.db, pairs)
        self._follow(lost, free)
        return tuple(self._verdict(change) for change in self.layer)

    def _follow(self, lost: Sequence[Change], free: Sequence[Change]) -> None:
        """Find where upstream moved files to: the merge put the layer's hunks there."""
        by_base = {c.stages[1].oid: path for path, c in self.conflicts.items() if 1 in c.stages}
        for change in lost:
            if change.path in self.conflicts:
                continue
            if change.old.oid in by_base:
                self.moved[change.path] = by_base[change.old.oid]
                continue
            bodies = {hunk.body for hunk in self.hunks.get((change.old.oid, change.new.oid), [])}
            scores = [
                (len(bodies & {h.body for h in self.hunks.get((f.old.oid, f.new.oid), [])}), f.path)
                for f in free
            ]
            best = max(scores, default=(0, b""))
            if best[0]:
                self.moved[change.path] = best[1]

    def _landed(self, change: Change) -> Change | None:
        """The change on the new base, or None when nothing is left of it there."""
        return self.new.get(change.path) or self.new.get(self.moved.get(change.path, b""))

    def _verdict(self, change: Change) -> Verdict:
        name, place = shown(change.path), self._landed(change)
        moved = self.moved.get(change.path)
        conflict = next(
            (self.conflicts[p] for p in (change.path, change.old_path, moved)
             if p in self.conflicts), None
        )  # fmt: skip
        moved_to = shown(place.path) if place is not None and place.path != change.path else ""
        parts = self._parts(change, place, conflict is not None)
        if conflict is not None:
            return self._conflict(change, conflict, parts)
        for path in (change.path, change.old_path, moved):
            if path is not None and path in self.done.helped:
                how, notes = self.done.helped[path]
                kind = MEMORY if how == "memory" else STRUCTURE
                return Verdict(kind, name, "; ".join(notes), parts, moved_to)
        odd = next((self.done.messages[p] for p in (change.path, change.old_path)
                    if p in self.done.messages), "")  # fmt: skip
        if odd:
            return Verdict(PATHS, name, f"git: {odd}", parts, moved_to)
        if place is None:
            return Verdict(UPSTREAM, name, "upstream has the same change")
        detail = f"upstream renamed it to {moved_to}" if moved_to and moved else ""
        kinds = {part.kind for part in parts}
        if UPSTREAM in kinds:
            gone = sum(part.kind == UPSTREAM for part in parts)
            detail = "; ".join(filter(None, (detail, f"{gone} of {len(parts)} hunks are upstream")))
        kind = OFFSET if any(part.offset for part in parts) else CLEAN
        return Verdict(kind, name, detail, parts, moved_to)

    def _parts(self, change: Change, place: Change | None, conflict: bool) -> tuple[Part, ...]:
        if place is None:
            return ()
        before = self.hunks.get((change.old.oid, change.new.oid), [])
        after = self.hunks.get((place.old.oid, place.new.oid), [])
        return matched(before, after, CONTENT if conflict else UPSTREAM)

    def _conflict(self, change: Change, conflict: Conflict, parts: tuple[Part, ...]) -> Verdict:
        name, stages = shown(change.path), set(conflict.stages)
        place = "" if conflict.path == change.path else f" (as {shown(conflict.path)})"
        if stages == {1, 3} and change.status == "R":
            return Verdict(MISSING, name, f"upstream removed {shown(change.old_path)}, "
                           f"which the layer renames{place}")  # fmt: skip
        if stages == {1, 3}:
            return Verdict(MODIFY_DELETE, name, f"upstream removed it, the layer changes it{place}")
        if stages == {1, 2}:
            return Verdict(MODIFY_DELETE, name, f"the layer removes it, upstream changed it{place}")
        if len(stages) == 1:
            message = self.done.messages.get(conflict.path, "the path is taken")
            return Verdict(PATHS, name, f"git: {message}{place}")
        lines = marker_lines(conflict.marked)
        if not conflict.marked:
            detail = f"a binary file{place}"
        elif not lines:
            detail = f"the modes differ{place}"
        else:
            detail = f"lines {', '.join(f'{a}-{b}' for a, b in lines)}{place}"
        return Verdict(CONTENT if 1 in stages else ADD_ADD, name, detail, parts)


def marker_lines(marked: bytes) -> list[tuple[int, int]]:
    """First and last line of each conflict in a text with markers."""
    found, begin = [], 0
    for number, line in enumerate(marked.split(b"\n"), 1):
        if line.startswith(b"<<<<<<< "):
            begin = number
        elif line.startswith(b">>>>>>> ") and begin:
            found.append((begin, number))
            begin = 0
    return found


@dataclass(frozen=True)
class Hunk:
    """One change between two blobs, without context."""

    old_line: int
    new_line: int
    heading: str
    body: bytes


_HEADER = re.compile(rb"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@ ?(.*)")


def hunks_of(db: GitDb, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Hunk]]:
    """The changes between pairs of blobs, all pairs in one git call."""
    wanted = [pair for pair in dict.fromkeys(pairs) if pair[0] != pair[1]]
    found: dict[tuple[str, str], list[Hunk]] = {pair: [] for pair in pairs}
    zero = "0" * 40
    real = [pair for pair in wanted if zero not in pair]
    if not real:
        return found
    trees = []
    for side in (0, 1):
        lines = [f"100644 blob {pair[side]}\t{at:06d}\n" for at, pair in enumerate(real)]
        trees.append(db.run("mktree", stdin="".join(lines).encode()).text)
    out = db.run("diff-tree", "-p", "-U0", "--no-color", "--no-renames", *trees).out
    pair = real[0]
    lead: re.Match[bytes] | None = None
    body: list[bytes] = []

    def close() -> None:
        if lead is not None:
            heading = lead.group(3).decode("utf-8", "replace").strip()
            found[pair].append(Hunk(int(lead.group(1)), int(lead.group(2)), heading,
                                    b"\n".join(body)))  # fmt: skip
        body.clear()

    for line in out.split(b"\n"):
        if line.startswith(b"diff --git "):
            close()
            lead, pair = None, real[int(line[-6:])]
        elif line.startswith(b"@@ ") and (match := _HEADER.match(line)):
            close()
            lead = match
        elif lead is not None and line[:1] in (b"+", b"-"):
            body.append(line)
    close()
    return found


def matched(before: Sequence[Hunk], after: Sequence[Hunk], otherwise: str) -> tuple[Part, ...]:
    """For each hunk on the old base where it is on the new one.

    One of which nothing is left there is ``otherwise`` (in conflict, or upstream's already).
    """
    matcher = difflib.SequenceMatcher(
        None, [h.body for h in before], [h.body for h in after], autojunk=False
    )
    place = {
        a + at: after[b + at] for a, b, size in matcher.get_matching_blocks() for at in range(size)
    }
    left = {line for hunk in after for line in hunk.body.split(b"\n") if len(line.strip()) > 1}
    left = set() if otherwise == CONTENT else left
    parts = []
    for at, hunk in enumerate(before):
        new = place.get(at)
        if new is not None:
            kind = CLEAN if new.old_line == hunk.old_line else OFFSET
        else:
            # A hunk that grew together with its neighbour is not gone.
            kind = CLEAN if set(hunk.body.split(b"\n")) & left else otherwise
        parts.append(Part(kind, hunk.old_line, new.old_line if new else 0, hunk.heading))
    return tuple(parts)
