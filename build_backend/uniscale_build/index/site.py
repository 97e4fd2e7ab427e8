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
from pathlib import Path

from uniscale_build.errors import IndexSiteError
from uniscale_build.index.entry import seconds
from uniscale_build.index.state import Stat, State
from uniscale_build.progress import Reporter

VARIANTS = "variants"
NO_CHANNEL = ("packages", "drift", VARIANTS, ".uniscale")


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

    @property
    def has_variants(self) -> bool:
        """True when ``variants/`` is there: then it is kept in step with the wheels."""
        return (self.root / VARIANTS).is_dir()

    def begin(self) -> None:
        """From here on pages may not fit one another until `finish`."""
        self._dirty.touch()

    def finish(self, state: State) -> None:
        """All pages are written."""
        self.put(self._state, state.as_bytes())
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
        """What is remembered."""
        try:
            return State.read(self._state.read_bytes())
        except FileNotFoundError:
            return State()

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
