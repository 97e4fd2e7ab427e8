"""An in-place tree: a git work tree that people edit, and what uniscale remembers about it.

The work tree itself is what counts: `InTree.scan` reads names, bytes, execute bits and links from
the disk, so committed, staged, unstaged and untracked edits are alike, and no filter, attribute or
stat cache has a say.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from uniscale_build.errors import LayerError, StoreError, UniscaleError
from uniscale_build.git.db import EMPTY, Entry, GitDb, GitFailed, Ran, changed_tree, run_git
from uniscale_build.git.entry import GITLINK, SYMLINK
from uniscale_build.git.user import excludes_file, user_setting
from uniscale_build.inplace.diskfiles import hidden, lstat_inside
from uniscale_build.layers.layerfile import shown
from uniscale_build.store import Store, write_atomic

BRANCH = "uniscale"
_STATE = "uniscale.json"
_PENDING = "uniscale-pending.json"
# Exact bytes in, exact bytes out, whatever the upstream's own .gitattributes say about them.
_ATTRIBUTES = "* -text -filter -ident !eol !working-tree-encoding\n"


def stamp() -> str:
    """The time now, UTC, as it appears in the names of refs and folders."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")


@dataclass(frozen=True)
class Level:
    """One commit of the stack: the pin (``layer`` is empty) or a layer, with its tree."""

    layer: str
    tree: str
    commit: str


@dataclass(frozen=True)
class State:
    """What was last put in place or captured; level 0 is the pin."""

    backend: str
    device: str
    version: str
    levels: tuple[Level, ...]

    @property
    def top(self) -> Level:
        """The uppermost level: its tree is the one that the work tree was given."""
        return self.levels[-1]


@dataclass(frozen=True)
class Pending:
    """An update of the work tree that has begun: each file is as in ``source`` or ``target``."""

    source: str
    target: str


@dataclass(frozen=True)
class Scan:
    """What a work tree holds now; blobs are in the store."""

    entries: Mapping[bytes, Entry]
    ignored: tuple[bytes, ...]  # paths that upstream's .gitignore leaves out (folders end with /)
    problems: tuple[UniscaleError, ...]  # what git cannot keep, or a merge that is not finished


class InTree:
    """The git repository at ``root`` (it may belong to a submodule of the project)."""

    def __init__(self, store: Store, root: Path) -> None:
        self.root = root
        self.store = store

    @functools.cached_property
    def gitdir(self) -> Path | None:
        """The repository's own folder, or None when ``root`` is not the top of a work tree."""
        dot = self.root / ".git"
        if dot.is_file():
            text = dot.read_text("utf-8", "surrogateescape").strip()
            dot = (self.root / text.removeprefix("gitdir:").strip()).resolve()
        return dot if (dot / "HEAD").is_file() else None

    @property
    def dir(self) -> Path:
        """`gitdir`, known to be there."""
        if self.gitdir is None:
            raise StoreError("is not a git work tree", where=str(self.root), slug="not-git")
        return self.gitdir

    @functools.cached_property
    def common(self) -> Path:
        """Where objects and refs are: differs from `dir` in a linked work tree."""
        other = self.dir / "commondir"
        return (self.dir / other.read_text().strip()).resolve() if other.is_file() else self.dir

    @functools.cached_property
    def repo(self) -> GitDb:
        """Git on this repository's objects and refs."""
        repo = GitDb(self.store)
        repo.path = self.dir
        return repo

    def git(
        self,
        *args: str,
        stdin: bytes | Path | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Ran:
        """Git with the work tree."""
        where = {"GIT_DIR": str(self.dir), "GIT_WORK_TREE": str(self.root), **(env or {})}
        try:
            return run_git(args, cwd=self.root, stdin=stdin, env=where, check=check)
        except GitFailed as error:
            place = shlex.quote(str(self.root))
            error.hint = (
                f"git cannot work there: git -C {place} status. A damaged index can be removed and "
                f"is made anew: rm {shlex.quote(str(self.dir / 'index'))}"
            )
            raise

    # What uniscale remembers.

    def state(self) -> State | None:
        """What was last put in place here, or None when uniscale did not."""
        data = self._read(_STATE)
        if data is None:
            return None
        try:
            levels = tuple(Level(**level) for level in data.pop("levels"))
            return State(**data, levels=levels) if levels else None
        except (KeyError, TypeError):
            return None

    def remember(self, state: State) -> None:
        """Write `state`, then forget a pending update: from here on the new stack is in place."""
        self._write(_STATE, asdict(state))
        (self.dir / _PENDING).unlink(missing_ok=True)

    def pending(self) -> Pending | None:
        """An update that was begun and not ended."""
        data = self._read(_PENDING)
        return Pending(data["source"], data["target"]) if data else None

    def begin(self, pending: Pending) -> None:
        """Note an update before the first file changes."""
        self._write(_PENDING, asdict(pending))

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.dir / name
        try:
            data = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise StoreError(
                f"cannot be read: {error}",
                where=str(path),
                hint=f"move {self.root} away and run unpatch again: it is made anew, and what you "
                "edited is in the folder that you moved",
                slug="state",
            ) from error
        return data if isinstance(data, dict) else None

    def _write(self, name: str, data: object) -> None:
        write_atomic(self.dir / name, json.dumps(data, indent=1).encode())

    def configure(self, *, identity: bool = True) -> None:
        """Keep git's conversions away from the files, and give it somebody to commit as.

        ``identity``: set one in this repository when the user's git has none.
        """
        info = self.common / "info"
        info.mkdir(exist_ok=True)
        attributes = info / "attributes"
        have = attributes.read_text("utf-8", "surrogateescape") if attributes.is_file() else ""
        if not have.endswith(_ATTRIBUTES):
            text = have if not have or have.endswith("\n") else have + "\n"
            write_atomic(attributes, (text + _ATTRIBUTES).encode("utf-8", "surrogateescape"))
        if not identity or user_setting("user.email") is not None:
            return
        if self.repo.run("config", "--local", "--get", "user.email", check=False).code != 0:
            self.repo.run("config", "--local", "user.name", "uniscale")
            self.repo.run("config", "--local", "user.email", "uniscale@localhost")

    # What is there.

    def head(self) -> str | None:
        """The commit that HEAD names, or None before the first one."""
        ran = self.repo.run("rev-parse", "--verify", "--quiet", "HEAD^{commit}", check=False)
        return ran.text if ran.code == 0 else None

    def branch(self) -> str | None:
        """The branch that HEAD is on (``refs/heads/…``), or None when detached."""
        ran = self.repo.run("symbolic-ref", "--quiet", "HEAD", check=False)
        return ran.text if ran.code == 0 else None

    def scan(self, db: GitDb, *, force: Sequence[bytes] = (), list_ignored: bool = False) -> Scan:
        """Read the work tree into the store; ``force`` names ignored paths that count all the same.

        Tracked are the files of HEAD and of the index; of the others, those that git shows as
        untracked. A file is what the disk has, whatever the index says.
        """
        problems: list[UniscaleError] = []
        known = self._tracked(problems)
        excludes = ("-c", f"core.excludesFile={excludes_file()}")
        listing = (*excludes, "ls-files", "-z", "--others", "--exclude-standard")
        for path in self.git(*listing).out.split(b"\0")[:-1]:
            known.setdefault(path, Entry("", ""))
        for path in force:
            known.setdefault(path, Entry("", ""))
        ignored: tuple[bytes, ...] = ()
        if list_ignored:
            out = self.git(*listing, "--ignored", "--directory").out
            ignored = tuple(path for path in out.split(b"\0")[:-1] if path not in known)
            skip = {path.rstrip(b"/") for path in ignored}
            skip |= {path.rstrip(b"/") for path, entry in known.items()
                     if entry.mode == GITLINK or path.endswith(b"/")}  # fmt: skip
            problems += [
                _cannot(path, "is a name that git keeps for itself", self.root)
                for path in hidden(os.fsencode(self.root), skip)
            ]
        return Scan(self._entries(db, known, problems), ignored, tuple(problems))

    def ignored_below(self, path: str) -> list[bytes]:
        """The ignored files that ``path`` names: itself, or everything in that folder."""
        excludes = ("-c", f"core.excludesFile={excludes_file()}", "--literal-pathspecs")
        out = self.git(
            *excludes, "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", path
        ).out
        return out.split(b"\0")[:-1]

    def _tracked(self, problems: list[UniscaleError]) -> dict[bytes, Entry]:
        head = self.head()
        known = self.repo.list_tree(head) if head is not None else {}
        unmerged = set()
        in_index = set()
        for line in self.git("ls-files", "-z", "-s", "-v").out.split(b"\0")[:-1]:
            first, path = line.split(b"\t", 1)
            tag, mode, oid, stage = first.decode().split(" ")
            in_index.add(path)
            if stage != "0":
                unmerged.add(path)
            elif mode == GITLINK or path not in known:
                known[path] = Entry(mode, oid)
            if tag in "Ss":
                # Left out by a sparse checkout: not on the disk, and still in the tree.
                known[path] = Entry(f"sparse {mode}", oid)
        for path in [p for p, e in known.items() if e.mode == GITLINK and p not in in_index]:
            del known[path]
        problems += [
            LayerError(
                f"{shown(path)} has a conflict that is not resolved",
                where=str(self.root),
                hint=f"resolve it, then: git -C {shlex.quote(str(self.root))} add -- "
                f"{shlex.quote(shown(path))}",
                slug="unmerged",
            )
            for path in sorted(unmerged)
        ]
        return known

    def _entries(
        self, db: GitDb, known: Mapping[bytes, Entry], problems: list[UniscaleError]
    ) -> dict[bytes, Entry]:
        root = os.fsencode(self.root)
        entries: dict[bytes, Entry] = {}
        files: list[tuple[bytes, str]] = []
        links: list[bytes] = []
        real: dict[bytes, bool] = {b"": True}
        for path, entry in known.items():
            if entry.mode == GITLINK:
                entries[path] = entry
                continue
            if path.endswith(b"/"):
                problems.append(_cannot(path, "is a git repository of its own", self.root))
                continue
            info = lstat_inside(root, path, real)
            if info is None or stat.S_ISDIR(info.st_mode):
                if entry.mode.startswith("sparse "):
                    entries[path] = Entry(entry.mode[7:], entry.oid)
            elif stat.S_ISLNK(info.st_mode):
                links.append(path)
            elif not stat.S_ISREG(info.st_mode):
                problems.append(_cannot(path, "is neither a file nor a link", self.root))
            elif not os.access(os.path.join(root, path), os.R_OK):
                problems.append(_cannot(path, "may not be read", self.root))
            else:
                files.append((path, "100755" if info.st_mode & stat.S_IXUSR else "100644"))
        oids = _hash(db, [os.path.join(root, path) for path, _ in files])
        entries.update(
            (path, Entry(mode, oid)) for (path, mode), oid in zip(files, oids, strict=True)
        )
        entries.update(_links(db, root, links))
        return entries


def _cannot(path: bytes, what: str, root: Path) -> LayerError:
    return LayerError(
        f"{shown(path)} {what}, and a layer cannot keep that",
        where=str(root),
        hint="move it out of the tree, or add it to .git/info/exclude",
        slug="cannot-keep",
    )


def _hash(db: GitDb, paths: Sequence[bytes]) -> list[str]:
    """Store files by absolute path, all in one call (but for a newline in a name)."""
    listed = b"".join(path + b"\n" for path in paths if b"\n" not in path)
    out = db.run("hash-object", "-w", "--no-filters", "--stdin-paths", stdin=listed).out.split()
    ids = iter(oid.decode() for oid in out)
    return [
        next(ids) if b"\n" not in path else db.write_blob(Path(os.fsdecode(path)).read_bytes())
        for path in paths
    ]


def _links(db: GitDb, root: bytes, links: Sequence[bytes]) -> Iterable[tuple[bytes, Entry]]:
    oids = db.write_blobs([os.readlink(os.path.join(root, path)) for path in links])
    return [(path, Entry(SYMLINK, oid)) for path, oid in zip(links, oids, strict=True)]


def tree_of(db: GitDb, entries: Mapping[bytes, Entry]) -> str:
    """The tree of exactly these entries."""
    return changed_tree(db, EMPTY, entries)
