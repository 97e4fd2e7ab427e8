"""Environments of their own for payloads (``--isolated``), below the user's data folder.

Backends pin torch against each other: each may have a Python environment to itself, and the
launchers start its engine with that environment's interpreter. An environment counts once its
record is written, which is the last thing that happens; what was killed before leaves nothing
that is found, and the next one of that name replaces it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from uniscale_build.errors import LaunchError
from uniscale_build.ids import check_name

from uniscale import folders
from uniscale.frozen import Frozen
from uniscale.frozen import told as told_by

RECORD = "environment.json"


class Environment(Frozen):
    """One environment that holds one wheel with payloads."""

    folder: Path
    python: str
    payloads: Path  # the folder that holds <backend>-<device>/
    name: str  # of the distribution
    version: str
    file: str
    sha256: str
    index: str

    def save(self) -> None:
        """Write the record: from now on the environment is there."""
        from uniscale_build.store import write_atomic

        told = {key: str(value) for key, value in told_by(self).items() if key != "folder"}
        write_atomic(self.folder / RECORD, json.dumps({"schema": 1, **told}, indent=2).encode())


def root() -> Path:
    """The folder of all environments."""
    return Path(folders.environments())


def environments() -> list[Environment]:
    """Every finished environment, by name; folders without a record are left out."""
    try:
        names = sorted(os.listdir(root()))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    found = (_read(root() / name) for name in names)
    return [one for one in found if one is not None]


def _read(folder: Path) -> Environment | None:
    try:
        told = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        del told["schema"]
        found = Environment(**{**told, "folder": folder, "payloads": Path(told["payloads"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if os.access(found.python, os.X_OK) else None


@contextlib.contextmanager
def fresh(name: str, *, system: bool) -> Iterator[tuple[Path, str] | None]:
    """A new environment ``name`` and its interpreter, removed again unless the work succeeds.

    None when another process has just finished it.

    With ``system`` it sees the packages of the Python that it is made from: a vendor's torch.
    """
    import shutil

    folder = root() / check_name(name, what="environment", error=LaunchError)
    with _alone(folder.parent):
        _sweep(folder.parent)
        if _read(folder) is not None:
            yield None
            return
        if folder.exists():  # recorded, or somebody still runs from it
            remove(folder)
        try:
            yield folder, str(_make(folder, system))
            if not (folder / RECORD).is_file():
                raise LaunchError("the environment was not finished", where=str(folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Hold the lock of all environments: what has no record is then nobody's."""
    import fcntl

    try:
        base.mkdir(parents=True, exist_ok=True)
        lock = open(base / ".lock", "a")  # noqa: SIM115  (closed below)
    except OSError as error:
        raise LaunchError(
            f"there is no place for the environment: {error.strerror}",
            where=str(error.filename or base),
            hint=f"point {folders.DATA} to a folder that you may write to",
            slug="read-only",
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(base: Path) -> None:
    """Remove what a killed run, or one that was removed while it ran, has left behind."""
    import shutil

    for folder in base.iterdir():
        if folder.is_dir() and not (folder / RECORD).is_file() and not users(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path, system: bool) -> Path:
    """The interpreter of a new environment, made by uv or by venv."""
    import shutil
    import subprocess

    python = folder / "bin" / "python"
    more = ["--system-site-packages"] if system else []
    said = ""
    commands = [
        [sys.executable, "-m", "venv", "--without-pip", *more, str(folder)],
    ]
    if uv := shutil.which("uv"):
        commands.insert(0, [uv, "venv", "-q", "--python", sys.executable, *more, str(folder)])
    for command in commands:
        ran = subprocess.run(command, capture_output=True, text=True, check=False,
                             stdin=subprocess.DEVNULL)  # fmt: skip
        if ran.returncode == 0 and python.exists():
            break
        said = (ran.stderr or ran.stdout).strip()
    else:
        raise LaunchError(
            f"no environment can be made: {(said.splitlines() or ['venv fails'])[-1]}",
            where=str(folder),
            hint="apt-get install python3-venv, or install uv",
            slug="no-venv",
        )
    return python


def sees_the_system(python: str) -> bool:
    """True when the environment of ``python`` sees the packages of the Python it was made from."""
    try:
        text = (Path(python).parent.parent / "pyvenv.cfg").read_text(encoding="utf-8")
    except OSError:
        return False
    return "include-system-site-packages = true" in text


def packages(folder: Path) -> Path:
    """The folder of an environment's packages."""
    found = sorted(folder.glob("lib/python*/site-packages"))
    if not found:
        raise LaunchError("the environment has no packages", where=str(folder), slug="no-venv")
    return found[0]


def remove(folder: Path) -> None:
    """Remove an environment: it is found no more from the first moment.

    The files of one that an engine still runs from stay until the next environment is made.
    """
    import shutil

    (folder / RECORD).unlink(missing_ok=True)
    if not users(folder):
        shutil.rmtree(folder)


def users(folder: Path) -> list[int]:
    """The processes that run from ``folder``: their words, maps or search paths name it."""
    name = os.fsencode(folder)
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        if int(entry.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            words = [(entry / part).read_bytes() for part in ("cmdline", "maps")]
            around = (entry / "environ").read_bytes()
            if any(name + b"/" in text for text in words) or b"PYTHONPATH=" + name in around:
                found.append(int(entry.name))
    return found
