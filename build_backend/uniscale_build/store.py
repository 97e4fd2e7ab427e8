"""The cache: where things are kept, locks between processes, atomic puts.

A thing in the store is complete or absent: it is written under ``tmp/`` and renamed. Locks are
``flock`` on files that stay; a killed process leaves none behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from uniscale_build.errors import StoreError
from uniscale_build.progress import Reporter, Silent


def cache_dir(environ: Mapping[str, str] | None = None) -> Path:
    """``UNISCALE_CACHE``, else the user's cache folder; works without HOME."""
    env = os.environ if environ is None else environ
    if given := env.get("UNISCALE_CACHE"):
        return Path(given).expanduser().absolute()
    if base := env.get("XDG_CACHE_HOME"):
        return Path(base).absolute() / "uniscale"
    home = env.get("HOME")
    if not home:
        import pwd

        try:
            home = pwd.getpwuid(os.getuid()).pw_dir
        except KeyError:
            home = ""
    if home and Path(home).is_dir():
        return Path(home).absolute() / ".cache" / "uniscale"
    return Path(tempfile.gettempdir()) / f"uniscale-{os.getuid()}"


def digest(*parts: object) -> str:
    """SHA-256 in hex over the canonical JSON of ``parts``: a cache key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


@contextlib.contextmanager
def disk_errors(where: Path, elsewhere: str = "") -> Iterator[None]:
    """Turn what the file system refuses into a `StoreError` that says what to do.

    ``elsewhere`` begins the cure: what to set to write on another disk. Without it, that is
    UNISCALE_CACHE for what is in the cache, and nothing for the rest (a checkout is where it is).
    """
    try:
        yield
    except OSError as error:
        import errno

        place = str(error.filename or where)
        hint = _cures(elsewhere or _elsewhere(place)).get(error.errno or 0)
        if hint is None:
            raise
        raise StoreError(
            f"cannot write: {os.strerror(error.errno or 0).lower()}",
            where=place,
            hint=hint,
            slug="disk-full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "read-only",
        ) from error


def _elsewhere(place: str) -> str:
    top = str(cache_dir())
    return "point UNISCALE_CACHE" if f"{place}/".startswith(f"{top}/") else ""


def _cures(elsewhere: str) -> dict[int, str]:
    import errno

    def cure(text: str, more: str) -> str:
        return f"{text}, or {elsewhere} {more}" if elsewhere else text

    may = cure("it must be a folder that you may write", "at another one")
    return {
        errno.ENOSPC: cure("free some space", "at a larger disk")
        + "; what was complete is kept and the next run goes on from there",
        errno.EDQUOT: cure("the quota is used up: free some space", "elsewhere"),
        errno.EROFS: f"it is read-only: {may}",
        errno.EACCES: may,
        errno.EPERM: may,
        errno.ENOTDIR: cure("a file is where a folder must be: move it away", "at a folder"),
        errno.EEXIST: cure("a file is where a folder must be: move it away", "at a folder"),
    }


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """``data`` at ``path``, whole or not at all, whatever happens on the way."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:80]}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(data)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Store:
    """The folders of one cache; creating the object touches nothing."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root if root is not None else cache_dir()
        self.git = self.root / "git"
        self.downloads = self.root / "downloads"
        self.payloads = self.root / "payloads"
        self.wheels = self.root / "wheels"
        self.work = self.root / "work"
        self.records = self.root / "records"
        self.tmp = self.root / "tmp"
        self._locks = self.root / "locks"

    def prepare(self) -> Store:
        """Make the folders; a `StoreError` when the cache cannot be written."""
        with disk_errors(self.root):
            for folder in (self.downloads, self.payloads, self.wheels, self.work, self.records,
                           self.tmp, self._locks):  # fmt: skip
                folder.mkdir(parents=True, exist_ok=True)
            tag = self.root / "CACHEDIR.TAG"
            if not tag.exists():
                # The signature that backup tools know: this folder can be made again.
                write_atomic(tag, b"Signature: 8a477f597d28d172789f06886806bc55\n")
        return self

    @contextlib.contextmanager
    def lock(self, name: str, reporter: Reporter | None = None) -> Iterator[int]:
        """Hold the lock ``name`` alone; says so once when another process has it.

        Gives the descriptor: a child that inherits it holds the lock for as long as it lives.
        """
        reporter = reporter if reporter is not None else Silent()
        self.prepare()
        path = self._locks / f"{name}.lock"
        with disk_errors(path):
            handle = path.open("a+")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                handle.seek(0)
                holder = handle.read().strip() or "another process"
                reporter.note(f"waiting for {holder}, which works on {name}")
                fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0)
            handle.truncate()
            with disk_errors(path):
                handle.write(f"process {os.getpid()}")
                handle.flush()
            try:
                yield handle.fileno()
            finally:
                handle.seek(0)
                handle.truncate()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder of one's own on the cache's file system, removed afterwards."""
        self.prepare()
        with disk_errors(self.tmp):
            folder = Path(tempfile.mkdtemp(dir=self.tmp))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def put_folder(self, target: Path, fill: Callable[[Path], None]) -> Path:
        """``target`` as ``fill`` makes it, or as it already is; never seen half made."""
        if target.exists():
            return target
        with self.scratch() as folder:
            fresh = folder / target.name
            fresh.mkdir()
            fill(fresh)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                fresh.rename(target)
            except OSError:
                # Another process was first: what it made has the same key, hence the same content.
                if not target.exists():
                    raise
        return target

    def drop_stale_scratch(self, older_than: float = 86400.0) -> int:
        """Remove scratch folders of killed runs, ``older_than`` seconds old; gives their number."""
        if not self.tmp.is_dir():
            return 0
        cutoff = time.time() - older_than
        stale = [path for path in self.tmp.iterdir() if path.lstat().st_mtime < cutoff]
        for path in stale:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        return len(stale)
