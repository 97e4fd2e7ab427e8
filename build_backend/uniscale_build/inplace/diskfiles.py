"""What a folder holds, told without following links and without asking git."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from uniscale_build.pathrules import is_dot_git


def lstat_inside(root: bytes, path: bytes, real: dict[bytes, bool]) -> os.stat_result | None:
    """The state of a file; None when it is absent or lies behind a link."""
    parent = path.rpartition(b"/")[0]
    if not _real_folder(root, parent, real):
        return None
    try:
        return os.lstat(os.path.join(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _real_folder(root: bytes, folder: bytes, real: dict[bytes, bool]) -> bool:
    if folder not in real:
        above = folder.rpartition(b"/")[0]
        real[folder] = _real_folder(root, above, real) and _is_folder(os.path.join(root, folder))
    return real[folder]


def _is_folder(path: bytes) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def hidden(root: bytes, skip: set[bytes]) -> Iterator[bytes]:
    """What git leaves out of every listing: ``.git`` below the top, and what some system calls so.

    Folders that are repositories of their own are listed by git, and told there.
    """
    for base, folders, names in os.walk(root):
        above = base[len(root) + 1 :]
        inner = {name: os.path.join(above, name) for name in (*folders, *names)}
        for name, path in inner.items():
            if is_dot_git(name) and path != b".git" and path not in skip:
                yield path
        folders[:] = [name for name in folders if inner[name] not in skip and name != b".git"]


def file_names(root: Path) -> Iterator[bytes]:
    """Every file and link below a work tree, its own ``.git`` left out, as the disk spells it."""
    top = len(os.fsencode(root)) + 1
    folders = [os.fsencode(root)]
    while folders:
        with os.scandir(folders.pop()) as inside:
            for entry in inside:
                if not entry.is_dir(follow_symlinks=False):
                    yield entry.path[top:]
                elif entry.path[top:] != b".git":
                    folders.append(entry.path)
