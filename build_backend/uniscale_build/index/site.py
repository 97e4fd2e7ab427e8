"""The folder of an index: its lock, what was read of its wheels before, and atomic writes.

``packages/`` is the truth. ``.uniscale/state`` only remembers, for each wheel there, what reading
it gave, with its size, time and inode: a wheel that looks the same is not read again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import IndexSiteError
from uniscale_build.index.entry import Entry, seconds
from uniscale_build.progress import Reporter

# Raise when what is read of a wheel, or how pages are written, changes.
STATE = "uniscale index state 1"
NO_CHANNEL = ("packages", "drift", "variants", ".uniscale")

Stat = tuple[int, int, int]  # size, mtime in ns, inode
Source = tuple[int, int, int, int]  # of a file elsewhere: its device too


def stat_of(path: Path) -> Stat:
    """How a file looks from outside; `OSError` when it is not there."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def source_of(found: os.stat_result) -> Source:
    """How a file that is not in the index looks from outside."""
    return found.st_dev, found.st_size, found.st_mtime_ns, found.st_ino


@dataclass
class State:
    """What is remembered: stored wheels, and the hashes of files that were given before."""

    entries: dict[str, tuple[Stat, Entry]] = field(default_factory=dict)
    sources: dict[Source, str] = field(default_factory=dict)


class Site:
    """One index on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.packages = root / "packages"
        self.drift = root / "drift"
        self._own = root / ".uniscale"
        self.incoming = self._own / "incoming"
        self._state = self._own / "state"
        self._dirty = self._own / "dirty"
        self.variants = self._own / "variants.json"

    @contextlib.contextmanager
    def locked(self, reporter: Reporter) -> Iterator[None]:
        """Make the folder when it is new, and hold it alone.

        `IndexSiteError` for a folder that holds something else.
        """
        self._check_ours()
        self._own.mkdir(parents=True, exist_ok=True)
        with (self._own / "lock").open("a+") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                reporter.note(f"waiting for another process, which writes {self.root}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            shutil.rmtree(self.incoming, ignore_errors=True)
            self.packages.mkdir(exist_ok=True)
            try:
                yield
            finally:
                shutil.rmtree(self.incoming, ignore_errors=True)

    def _check_ours(self) -> None:
        if self.root.exists() and not self.root.is_dir():
            raise IndexSiteError("this is a file", where=str(self.root), slug="not-a-site",
                                 hint="--out names the folder of the index")  # fmt: skip
        copied = self.packages.is_dir() and (self.root / "catalog.json").is_file()
        known = self._own.is_dir() or copied
        if not known and self.root.is_dir() and any(self.root.iterdir()):
            raise IndexSiteError(
                "this folder holds something that is no index",
                where=str(self.root),
                hint="--out names an index, or a folder that is new or empty",
                slug="not-a-site",
            )

    @property
    def dirty(self) -> bool:
        """True when a run that changed pages was interrupted: they must all be written."""
        return self._dirty.exists()

    def begin(self) -> None:
        """From here on pages may not fit one another until `finish`."""
        self._dirty.touch()

    def finish(self, state: State) -> None:
        """All pages are written."""
        self._write_state(state)
        self._dirty.unlink(missing_ok=True)

    def stored(self) -> dict[str, Stat]:
        """The files in ``packages/``; how they look is told of wheels alone."""
        found: dict[str, Stat] = {}
        with os.scandir(self.packages) as folder:
            for item in folder:
                if item.name.endswith(".whl") and item.is_file(follow_symlinks=False):
                    about = item.stat()
                    found[item.name] = (about.st_size, about.st_mtime_ns, about.st_ino)
                else:
                    found[item.name] = (0, 0, 0)
        return found

    def state(self) -> State:
        """What is remembered; lines that cannot be read are forgotten."""
        try:
            text = self._state.read_text(encoding="utf-8")
        except (FileNotFoundError, UnicodeDecodeError):
            return State()
        head, *lines = text.split("\n")
        found = State()
        for line in lines if head == STATE else ():
            try:
                if line.startswith("wheel\t"):
                    _, size, time, inode, file, sha256, length, *texts, upload, a, b, c, d = (
                        line.split("\t")
                    )
                    project, version, device = texts
                    stat = int(size), int(time), int(inode)
                    found.entries[file] = (
                        stat,
                        Entry(
                            file,
                            sha256,
                            int(length),
                            project,
                            version,
                            device,
                            int(upload),
                            a,
                            b,
                            c,
                            d,
                        ),
                    )
                elif line.startswith("source\t"):
                    _, device, size, time, inode, sha256 = line.split("\t")
                    found.sources[int(device), int(size), int(time), int(inode)] = sha256
            except ValueError:
                continue
        return found

    def _write_state(self, state: State) -> None:
        lines = [STATE]
        for (size, time, inode), e in state.entries.values():
            lines.append(
                f"wheel\t{size}\t{time}\t{inode}\t{e.file}\t{e.sha256}\t{e.size}\t{e.project}\t"
                f"{e.version}\t{e.device}\t{e.upload}\t{e.requires_python}\t{e.metadata_sha256}\t"
                f"{e.facts}\t{e.device_facts}"
            )
        for (device, size, time, inode), sha256 in state.sources.items():
            lines.append(f"source\t{device}\t{size}\t{time}\t{inode}\t{sha256}")
        self.put(self._state, "\n".join([*lines, ""]).encode())

    def published(self) -> dict[str, tuple[str, int]]:
        """What the catalog says of each wheel: its SHA-256, and when it was added.

        It is what is left to know when an index was copied without its ``.uniscale``.
        """
        try:
            told = json.loads((self.root / "catalog.json").read_text(encoding="utf-8"))
            return {str(one["file"]): (str(one["sha256"]), seconds(str(one["upload_time"])))
                    for one in told["wheels"]}  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def put(self, path: Path, data: bytes) -> int:
        """``data`` at ``path``, whole or not at all; 1, or 0 when it is there already.

        The lock is held: nobody else writes under the part's name.
        """
        try:
            if path.stat().st_size == len(data) and path.read_bytes() == data:
                return 0
        except OSError:
            path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(data)
        part.chmod(0o644)
        part.replace(path)
        return 1

    def yanked(self) -> dict[str, str]:
        """File → why it should not be chosen any more (PEP 592)."""
        path = self.root / "yanked.json"
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            found, why = None, str(error)
        else:
            why = "it must hold one text for each file"
        if not isinstance(found, dict) or not all(isinstance(v, str) for v in found.values()):
            raise IndexSiteError(f"yanked.json cannot be read: {why}", where=str(path),
                                 hint="repair or remove it", slug="bad-yanked")  # fmt: skip
        return found

    def put_yanked(self, yanked: Mapping[str, str]) -> None:
        """Keep what is yanked."""
        text = json.dumps(dict(sorted(yanked.items())), indent=1, ensure_ascii=False)
        if yanked or (self.root / "yanked.json").exists():
            self.put(self.root / "yanked.json", f"{text}\n".encode())

    def page_folders(self) -> Iterator[tuple[str, str]]:
        """Channel and project ("" for the channel's own) of every page that is there."""
        for folder in sorted(self.root.iterdir()):
            if folder.name in NO_CHANNEL or not folder.is_dir():
                continue
            for inner in sorted(folder.iterdir()):
                if inner.is_dir():
                    yield folder.name, inner.name
            yield folder.name, ""

    def drop_page(self, channel: str, project: str) -> None:
        """Remove a page that has nothing to tell any more; what is not ours stays."""
        folder = self.root / channel / project
        try:
            ours = b"pypi:repository-version" in (folder / "index.html").read_bytes()[:400]
        except OSError:
            ours = False
        if not ours:
            return
        # The HTML last: by it the next run knows that the folder is ours.
        for name in ("index.json", "index.html"):
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the channel's goes with its last project
            folder.rmdir()
            (self.root / channel).rmdir()
