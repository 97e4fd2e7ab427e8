"""Git's object database: one bare object store, temporary indexes, no work tree.

How git itself is run, shut off from the machine's settings, is in `git.process`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from uniscale_build.errors import SourceError
from uniscale_build.git.entry import Entry as Entry
from uniscale_build.git.index import Index as Index
from uniscale_build.git.process import GitFailed as GitFailed
from uniscale_build.git.process import Ran as Ran
from uniscale_build.git.process import Running as Running
from uniscale_build.git.process import git_environment as git_environment
from uniscale_build.git.process import run_git as run_git
from uniscale_build.git.process import start_git as start_git
from uniscale_build.git.trees import EMPTY as EMPTY
from uniscale_build.git.trees import Listing as Listing
from uniscale_build.git.trees import changed_tree as changed_tree
from uniscale_build.ids import is_object_id
from uniscale_build.store import Store, disk_errors, write_atomic

EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"


def _quote(path: bytes) -> bytes:
    """A path as fast-import reads it: C-quoted, every unusual byte in octal."""
    plain = range(0x20, 0x7F)
    return b'"%s"' % b"".join(
        b"%c" % byte if byte in plain and byte not in b'"\\' else b"\\%03o" % byte for byte in path
    )


def _mode_of(path: bytes) -> str:
    return "100755" if os.stat(path).st_mode & stat.S_IXUSR else "100644"


def _content(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


class GitDb:
    """A bare repository that holds every upstream and every layer as git objects.

    Safe for several processes at once: objects are content-addressed, and indexes are private.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.git

    def open(self) -> GitDb:
        """Create the repository when it is not there yet."""
        if not (self.path / "HEAD").exists():
            with self.store.lock("git-init"), disk_errors(self.path):
                if not (self.path / "HEAD").exists():
                    self.path.mkdir(parents=True, exist_ok=True)
                    run_git(["init", "--quiet", "--bare", "."], cwd=self.path)
        return self

    def run(
        self,
        *args: str,
        stdin: bytes | Path | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
        cwd: Path | None = None,
    ) -> Ran:
        """Any git command on this repository."""
        with self.start(*args, stdin=stdin, env=env, cwd=cwd) as running:
            return running.wait(check=check)

    def start(
        self,
        *args: str,
        stdin: bytes | Path | IO[bytes] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Running:
        """`run` without waiting; to be used in a ``with`` statement."""
        where = {"GIT_DIR": str(self.path), **(env or {})}
        return start_git(args, cwd=cwd or self.path, stdin=stdin, env=where)

    def has(self, oid: str) -> bool:
        """True when the object is in the store (for completeness see `keep`)."""
        return self.run("cat-file", "-e", oid, check=False).code == 0

    def has_loose(self, oid: str) -> bool:
        """True when the object is in the store, as a file of its own: asked without git.

        git looks for SHA-1 collisions in all that it writes: neither of two files that share an id
        is here, and bytes that have the id of what is here are the same.
        """
        return os.path.exists(f"{self.path}/objects/{oid[:2]}/{oid[2:]}")

    def keep(self, name: str, oid: str) -> None:
        """Point ``refs/uniscale/<name>`` at ``oid``: complete, and safe from pruning."""
        self.run("update-ref", f"refs/uniscale/{name}", oid)

    def kept_below(self, prefix: str) -> dict[str, str]:
        """What `keep` has kept under names that begin with ``prefix`` (``a/b/``): name → id."""
        lead = "refs/uniscale/"
        ran = self.run("for-each-ref", "--format=%(refname) %(objectname)", f"{lead}{prefix}")
        pairs = (line.split(" ") for line in ran.text.splitlines())
        return {name[len(lead) :]: oid for name, oid in pairs}

    def kept(self, name: str) -> str | None:
        """What ``refs/uniscale/<name>`` points at, or None."""
        ran = self.run("rev-parse", "--verify", "--quiet", f"refs/uniscale/{name}", check=False)
        return ran.text if ran.code == 0 else None

    @contextlib.contextmanager
    def index(self, tree: str | None = None) -> Iterator[Index]:
        """A private index, filled with ``tree`` when given, gone afterwards."""
        with self.store.scratch() as folder:
            index = Index(self, folder / "index")
            if tree is not None:
                index.read(tree)
            yield index

    def tree_of(self, commit: str) -> str:
        """The tree id of a commit (or of a tree)."""
        return self.run("rev-parse", "--verify", f"{commit}^{{tree}}").text

    def subtree(self, tree: str, path: str) -> str:
        """The id of the folder ``path`` in ``tree``."""
        return self.run("rev-parse", "--verify", f"{tree}:{path}").text

    def list_tree(self, tree: str) -> dict[bytes, Entry]:
        """Every file of a tree: path as bytes → `Entry`."""
        out = self.run("ls-tree", "-r", "-z", "--full-tree", tree).out
        files = {}
        for line in out.split(b"\0")[:-1]:
            head, path = line.split(b"\t", 1)
            mode, _, oid = head.decode().split(" ")
            files[path] = Entry(mode, oid)
        return files

    def listing(self, tree: str, *, keep: bool = False) -> Listing:
        """Every name in a tree; ``keep`` that of a tree that is asked for again."""
        kept = self.path / "uniscale-listings" / tree
        with contextlib.suppress(FileNotFoundError):
            if (listing := Listing.from_bytes(kept.read_bytes())) is not None:
                return listing
        raw = self.run("ls-tree", "-r", "-t", "-z", "--full-tree", tree).out
        listing = Listing.parse(raw)
        if keep:
            kept.parent.mkdir(exist_ok=True)
            write_atomic(kept, listing.as_bytes())
        return listing

    def read_blob(self, oid: str) -> bytes:
        """The bytes of a blob."""
        return self.run("cat-file", "blob", oid).out

    def read_blobs(self, oids: Sequence[str]) -> dict[str, bytes]:
        """Many blobs in one call."""
        wanted = list(dict.fromkeys(oids))
        out = self.run("cat-file", "--batch", stdin="".join(f"{o}\n" for o in wanted).encode()).out
        blobs, at = {}, 0
        for oid in wanted:
            end = out.index(b"\n", at)
            head = out[at:end].split(b" ")
            if head[-1] == b"missing":
                raise SourceError(f"object {oid} is not in the store", where=str(self.path))
            size = int(head[2])
            blobs[oid] = out[end + 1 : end + 1 + size]
            at = end + 2 + size
        return blobs

    def write_blob(self, data: bytes) -> str:
        """Store ``data``; gives its id."""
        return self.run("hash-object", "-w", "--stdin", stdin=data).text

    def write_blobs(self, blobs: Sequence[bytes]) -> list[str]:
        """Store many blobs in one call; their ids in order."""
        if len(blobs) < 2:
            return [self.write_blob(data) for data in blobs]
        with self.store.scratch() as folder:
            paths = [folder / str(number) for number in range(len(blobs))]
            for path, data in zip(paths, blobs, strict=True):
                path.write_bytes(data)
            return self.write_files(paths)

    def write_files(self, paths: Sequence[Path | bytes]) -> list[str]:
        """Store the bytes of many files (links are followed: check before); their ids in order."""
        with self.writing_files(paths) as written:
            return written()

    @contextlib.contextmanager
    def writing_files(self, paths: Sequence[Path | bytes]) -> Iterator[Callable[[], list[str]]]:
        """`write_files` without waiting; the function that it gives waits, and gives the ids."""
        named = [os.fsencode(path) for path in paths]
        files = [file if os.path.isabs(file) else os.path.abspath(file) for file in named]
        plain = [file for file in files if b"\n" not in file]

        def written() -> list[str]:
            ids = dict(zip(plain, running.wait().text.split("\n"), strict=True)) if plain else {}
            return [ids[f] if f in ids else self.write_blob(_content(f)) for f in files]

        command = ("hash-object", "-w", "--no-filters", "--stdin-paths")
        with contextlib.ExitStack() as stack:
            if plain:
                listed = b"".join(file + b"\n" for file in plain)
                running = stack.enter_context(self.start(*command, stdin=listed))
            yield written

    def import_folder(self, folder: Path) -> str:
        """The tree of exactly what ``folder`` holds: names, bytes, execute bits, links.

        No filter, attribute or ignore file has a say; folders named ``.git`` are left out.
        """
        root = os.fsencode(folder)
        files: list[bytes] = []
        links: list[bytes] = []
        for base, folders, names in os.walk(root):
            folders[:] = [name for name in folders if name != b".git"]
            for name in names + folders:
                path = os.path.join(base, name)
                if os.path.islink(path):
                    links.append(path)
                elif name in names and name != b".git":
                    files.append(path)
        oids = self.write_files([Path(os.fsdecode(path)) for path in files])
        oids += [self.write_blob(os.readlink(path)) for path in links]
        modes = [_mode_of(path) for path in files] + ["120000"] * len(links)
        entries = [
            (path[len(root) + 1 :], Entry(mode, oid))
            for path, mode, oid in zip(files + links, modes, oids, strict=True)
        ]
        return changed_tree(self, EMPTY, dict(entries))

    def import_files(self, files: Iterable[tuple[bytes, str, bytes]]) -> str:
        """The tree of (path, mode, content) triples, written as one pack (see `pack_of`)."""
        ref = f"refs/uniscale/import/{os.getpid()}-{id(files)}"
        with tempfile.TemporaryFile() as stream, self.store.scratch() as folder:
            stream.write(
                f"commit {ref}\ncommitter uniscale <uniscale@localhost> 0 +0000\ndata 0\n".encode()
            )
            for path, mode, data in files:
                stream.write(
                    b"M %s inline %s\ndata %d\n" % (mode.encode(), _quote(path), len(data))
                )
                stream.write(data)
                stream.write(b"\n")
            stream.write(b"done\n")
            stream.seek(0)
            # Neither deltas nor compression: vLLM 0.8.3 takes 22 MB and not 7.4, and its blobs,
            # which every layer and every work tree reads, are read in less than half the time.
            edges = folder / "edges"
            self.run("-c", "pack.compression=0", "fast-import", "--quiet", "--done", "--force",
                     "--depth=0", f"--export-pack-edges={edges}", stdin=stream)  # fmt: skip
            packs = [line.partition(": ")[0] for line in edges.read_text().splitlines()]
        try:
            tree = self.tree_of(ref)
        finally:
            self.run("update-ref", "-d", ref)
        if len(packs) == 1 and self._whole(Path(packs[0]), tree):
            note = self.path / "uniscale-whole-packs" / tree
            note.parent.mkdir(exist_ok=True)
            write_atomic(note, Path(packs[0]).name.encode())
        if packs:
            self._index_packs()
        return tree

    def _index_packs(self) -> None:
        """One index over all packs: git asks each pack's own for every object that is new."""
        with self.store.lock("git-packs"):
            folder = self.path / "objects" / "pack"
            # Nobody else writes it: this one is of a run that was killed.
            (folder / "multi-pack-index.lock").unlink(missing_ok=True)
            self.run("multi-pack-index", "write", check=False)  # git works without it too

    def _whole(self, pack: Path, tree: str) -> bool:
        """True when the pack has all of ``tree``: fast-import leaves out what the store had."""
        below = self.run("rev-list", "--objects", "--no-object-names", tree).text.count("\n") + 1
        with pack.with_suffix(".idx").open("rb") as stream:
            stream.seek(8 + 255 * 4)  # the last entry of the index's fan-out: how many objects
            return int.from_bytes(stream.read(4), "big") == below + 1  # the commit is in it too

    def pack_of(self, tree: str) -> Path | None:
        """The pack that holds ``tree`` with everything below it, where one is known to."""
        try:
            name = (self.path / "uniscale-whole-packs" / tree).read_text()
        except FileNotFoundError:
            return None
        pack = self.path / "objects" / "pack" / name
        return pack if pack.is_file() and pack.with_suffix(".idx").is_file() else None

    def commit(self, tree: str, parents: Sequence[str], message: str) -> str:
        """A commit whose id depends on the arguments alone (fixed author and date)."""
        who = {
            f"GIT_{role}_{part}": value
            for role in ("AUTHOR", "COMMITTER")
            for part, value in (("NAME", "uniscale"), ("EMAIL", "uniscale@localhost"),
                                ("DATE", "2000-01-01T00:00:00Z"))
        }  # fmt: skip
        links = [word for parent in parents for word in ("-p", parent)]
        return self.run("commit-tree", tree, *links, stdin=message.encode(), env=who).text

    def fetch(self, url: str, commit: str, *, timeout: int = 60) -> None:
        """Fetch one commit without history; a `SourceError` says why it could not be had."""
        if not is_object_id(commit) or url.startswith("-"):
            raise SourceError(f"cannot fetch {commit!r} from {url!r}", slug="bad-pin")
        ran = self.run(
            "-c", "http.lowSpeedLimit=1000", "-c", f"http.lowSpeedTime={timeout}",
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--depth", "1",
            "--", url, commit,
            check=False,
        )  # fmt: skip
        if ran.code != 0:
            lines = [line for line in ran.err.splitlines() if line.strip()]
            raise SourceError(
                f"git could not fetch {commit[:12]}: {lines[0] if lines else 'no reason given'}",
                where=url,
                slug="fetch-failed",
            )
