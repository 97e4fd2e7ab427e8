"""Runs git, shut off from the machine's settings; `git.db` and what is built on it are the callers.

No system or user configuration, no hooks, no fsmonitor, no ext transport, no prompts, no replaced
refs. Names that users or manifests give reach git only after `ids` has checked them, behind ``--``
or on standard input.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from uniscale_build.errors import StoreError, ToolchainError
from uniscale_build.store import disk_errors

_OPTIONS = (
    "-c", "protocol.ext.allow=never",
    "-c", "core.hooksPath=/dev/null",
    "-c", "core.fsmonitor=false",
    "-c", "core.autocrlf=false",
    "-c", "core.attributesFile=/dev/null",
    "-c", "core.excludesFile=/dev/null",
    "-c", "core.quotePath=true",
    "-c", "core.looseCompression=0",
    "-c", "submodule.recurse=false",
    "-c", "gc.auto=0",
    "-c", "maintenance.auto=false",
    "-c", "advice.detachedHead=false",
    "-c", "init.defaultBranch=main",
    "-c", "safe.directory=*",
    "-c", "diff.renames=true",
    "-c", "diff.renameLimit=0",
    "-c", "user.name=uniscale",
    "-c", "user.email=uniscale@localhost",
)  # fmt: skip


# What git says when the file system refuses, whatever the command.
_REFUSED = {
    "No space left on device": errno.ENOSPC,
    "Out of diskspace": errno.ENOSPC,
    "Disk quota exceeded": errno.EDQUOT,
    "Read-only file system": errno.EROFS,
}


def git_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The process environment that every git call gets; ``extra`` wins.

    Whatever the caller's GIT_* variables say (a hook sets GIT_DIR and GIT_INDEX_FILE) stays out,
    except where the machine's certificates are.
    """
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("GIT_") or key.startswith("GIT_SSL_")
    }
    env.update(
        GIT_CONFIG_NOSYSTEM="1",
        GIT_CONFIG_GLOBAL=os.devnull,
        GIT_TERMINAL_PROMPT="0",
        GIT_NO_REPLACE_OBJECTS="1",
        GIT_OPTIONAL_LOCKS="0",
        GIT_ATTR_NOSYSTEM="1",
        LC_ALL="C.UTF-8",
    )
    env.update(extra or {})
    return env


def alternates(objects: Path) -> dict[str, str]:
    """The variable by which git reads the objects in ``objects`` too; any path will do."""
    text = os.fspath(objects).replace("\\", "\\\\").replace('"', '\\"')
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{text}"'}


@dataclass(frozen=True)
class Ran:
    """What one git call gave: exit code, standard output as bytes, standard error as text."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        """Standard output as text without the last newline."""
        return self.out.decode("utf-8", "surrogateescape").rstrip("\n")


class GitFailed(StoreError):
    """A git call that should have worked; ``ran`` is what it said."""

    slug = "git"

    def __init__(self, args: Sequence[str], ran: Ran, where: str) -> None:
        super().__init__(
            f"git {' '.join(args[:3])} failed with code {ran.code}: {ran.err.strip()[:2000]}",
            where=where,
        )
        self.ran = ran


class Running:
    """A git process on its way; left alone inside ``with``, it is ended at the end."""

    def __init__(self, args: Sequence[str], process: subprocess.Popen[bytes], cwd: Path) -> None:
        self._args = args
        self._process = process
        self._cwd = cwd

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()

    def wait(self, *, check: bool = True) -> Ran:
        """What it said when it has ended; `GitFailed` when ``check`` and the exit code is not 0."""
        out, err = self._process.communicate()
        ran = Ran(self._process.returncode, out, err.decode("utf-8", "replace"))
        refused = next((_REFUSED[words] for words in _REFUSED if words in ran.err), None)
        if ran.code != 0 and refused is not None:
            named = re.findall(r"'(/[^'\n]+)'", ran.err)  # "cannot copy 'from' to 'to'"
            where = named[-1] if named else str(self._cwd)
            with disk_errors(self._cwd):
                raise OSError(refused, os.strerror(refused), where)
        if check and ran.code != 0:
            raise GitFailed(self._args, ran, str(self._cwd))
        return ran


def _memory() -> IO[bytes]:
    """A file without a name, in memory where the system has such."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b")
    return tempfile.TemporaryFile()


def start_git(
    args: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes | Path | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
) -> Running:
    """Start git in ``cwd``; what it prints is read by `Running.wait`."""
    with contextlib.ExitStack() as stack:
        source: IO[bytes] | int
        if stdin is None:
            source = subprocess.DEVNULL
        elif isinstance(stdin, Path):
            source = stack.enter_context(stdin.open("rb"))
        elif isinstance(stdin, bytes):
            # A file, not a pipe: git may stop reading early, and both sides must not block.
            source = stack.enter_context(_memory())
            source.write(stdin)
            source.seek(0)
        else:
            source = stdin
        try:
            process = subprocess.Popen(
                ["git", *_OPTIONS, *args],
                cwd=cwd,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=git_environment(env),
            )
        except FileNotFoundError as error:
            raise ToolchainError(
                "git is not installed", hint="apt-get install git (2.38 or newer)", slug="no-git"
            ) from error
    return Running(args, process, cwd)


def run_git(
    args: Sequence[str],
    *,
    cwd: Path,
    stdin: bytes | Path | IO[bytes] | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> Ran:
    """Run git in ``cwd`` and wait; `GitFailed` when ``check`` and the exit code is not 0."""
    with start_git(args, cwd=cwd, stdin=stdin, env=env) as running:
        return running.wait(check=check)
