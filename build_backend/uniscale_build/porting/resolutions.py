"""Remembers how people resolved conflicts, for every project that shares the cache.

git's rerere does the remembering: it knows a conflict by its text, so a resolution fits again in
another file version, another layer order, another checkout. It runs in a scratch work tree that
holds only the files in conflict; nothing of the project is touched. What has no conflict markers
(one side removed the file) is remembered by the exact blobs that met.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.git.db import Entry, GitDb, run_git
from uniscale_build.git.process import alternates
from uniscale_build.store import digest, write_atomic

MARKERS = (b"<<<<<<< ", b">>>>>>> ")


@dataclass(frozen=True)
class Conflict:
    """One file that a merge could not settle.

    ``stages`` are git's: 1 the common base, 2 upstream with the layers below, 3 the layer.
    ``marked`` is the text with conflict markers (empty when there can be none).
    """

    path: bytes
    stages: Mapping[int, Entry]
    marked: bytes = b""

    @property
    def key(self) -> str:
        """What identifies exactly this meeting of blobs."""
        return digest([(n, e.mode, e.oid) for n, e in sorted(self.stages.items())])


def has_markers(data: bytes) -> bool:
    """True when both a begin and an end marker of git stand at the beginning of lines."""
    return all(data.startswith(mark) or b"\n" + mark in data for mark in MARKERS)


@dataclass(frozen=True)
class Resolved:
    """How a file was settled: its mode and content, or None when it goes away."""

    mode: str
    data: bytes | None


class Resolutions:
    """The memory; one for each cache, safe for several processes."""

    def __init__(self, db: GitDb) -> None:
        self._db = db
        self._root = db.store.root / "resolutions"

    def recall(self, conflicts: Sequence[Conflict]) -> dict[bytes, Resolved]:
        """The resolutions that are known, by path."""
        found: dict[bytes, Resolved] = {}
        for conflict in conflicts:
            known = self._exact(conflict)
            if known is not None:
                found[conflict.path] = known
        rest = [c for c in conflicts if c.path not in found and _for_rerere(c)]
        if rest and (self._root / "rr-cache").is_dir():
            with self._scene(rest) as (folder, names):
                self._rerere(folder)
                for conflict, name in zip(rest, names, strict=True):
                    data = (folder / name).read_bytes()
                    if not has_markers(data):
                        mode = (conflict.stages.get(2) or conflict.stages[3]).mode
                        found[conflict.path] = Resolved(mode, data)
        return found

    def record(self, resolved: Sequence[tuple[Conflict, Resolved]]) -> None:
        """Remember; a newer resolution of the same conflict replaces the older one."""
        for conflict, outcome in resolved:
            self._keep_exact(conflict, outcome)
        texts = [(c, r.data) for c, r in resolved if _for_rerere(c) and r.data is not None]
        if not texts:
            return
        with self._scene([conflict for conflict, _ in texts]) as (folder, names):
            self._rerere(folder)
            for name, (conflict, data) in zip(names, texts, strict=True):
                if (folder / name).read_bytes() not in (conflict.marked, data):
                    # It knew another answer and gave it: forget that one.
                    self._rerere(folder, "forget", "--", name)
                (folder / name).write_bytes(data)
            self._rerere(folder)

    def _path(self, conflict: Conflict) -> Path:
        return self._root / "exact" / conflict.key[:2] / conflict.key

    def _exact(self, conflict: Conflict) -> Resolved | None:
        path = self._path(conflict)
        try:
            head, _, data = path.read_bytes().partition(b"\n")
            about = json.loads(head)
            return Resolved(about["mode"], None if about["removed"] else data)
        except (OSError, ValueError, KeyError, TypeError):
            return None  # not there, or damaged: then it is not known

    def _keep_exact(self, conflict: Conflict, outcome: Resolved) -> None:
        path = self._path(conflict)
        path.parent.mkdir(parents=True, exist_ok=True)
        head = json.dumps({"mode": outcome.mode, "removed": outcome.data is None})
        write_atomic(path, head.encode() + b"\n" + (outcome.data or b""))

    @contextlib.contextmanager
    def _scene(self, conflicts: Sequence[Conflict]) -> Iterator[tuple[Path, list[str]]]:
        """A scratch work tree with the conflicts as git leaves them after a merge."""
        cache = self._root / "rr-cache"
        with self._db.store.lock("resolutions"), self._db.store.scratch() as scratch:
            cache.mkdir(parents=True, exist_ok=True)
            git, tree = scratch / "git", scratch / "tree"
            tree.mkdir()
            (git / "refs").mkdir(parents=True)
            (git / "objects").mkdir()
            (git / "HEAD").write_text("ref: refs/heads/main\n", encoding="utf-8")
            (git / "rr-cache").symlink_to(cache.absolute())
            names = [f"f{at}" for at in range(len(conflicts))]
            lines = []
            for name, conflict in zip(names, conflicts, strict=True):
                (tree / name).write_bytes(conflict.marked)
                lines += [
                    f"{entry.mode} {entry.oid} {stage}\t{name}\n"
                    for stage, entry in sorted(conflict.stages.items())
                ]
            env = self._env(tree)
            run_git(["update-index", "--index-info"], cwd=tree, stdin="".join(lines).encode(),
                    env=env)  # fmt: skip
            yield tree, names

    def _env(self, tree: Path) -> dict[str, str]:
        return {
            "GIT_DIR": str(tree.parent / "git"),
            "GIT_WORK_TREE": str(tree),
            **alternates(self._db.path / "objects"),
        }

    def _rerere(self, tree: Path, *args: str) -> None:
        options = ("-c", "rerere.enabled=true", "-c", "rerere.autoUpdate=false")
        run_git([*options, "rerere", *args], cwd=tree, env=self._env(tree))


def _for_rerere(conflict: Conflict) -> bool:
    """True for a conflict that has markers in a regular file on both sides."""
    sides = [conflict.stages.get(stage) for stage in (2, 3)]
    regular = all(side is not None and side.mode.startswith("100") for side in sides)
    return regular and has_markers(conflict.marked)
