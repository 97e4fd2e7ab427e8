"""Every kind of edit that an engineer makes in an in-place tree, one function for each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.upstreams import LINES, UPSTREAM, Link, Program, git

Edit = Callable[[Path], None]

LONG = "n" * 251
# What makes captures go wrong is often in the upstream already.
ODD_UPSTREAM: dict[str, bytes | Link | Program] = {
    **UPSTREAM,
    ".gitattributes": b"*.bat text eol=crlf\n*.txt text=auto\n*.dat -diff\n*.lf text eol=lf\n"
    b"*.sub export-subst ident\n*.enc working-tree-encoding=UTF-16\n*.flt filter=lfs\n",
    ".gitignore": b"*.o\n/out/\n!/out/keep.o\n",
    "win/run.bat": b"@echo off\nrem line\n",
    "win/crlf.txt": b"one\r\ntwo\r\nthree\r\n",
    "win/mixed.lf": b"one\r\ntwo\nthree\r\n",
    "win/x.sub": b"$Id$ $Format:%H$\n",
    "win/x.enc": b"plain\n",
    "win/x.flt": b"plain\n",
    "win/x.dat": b"a\nb\nc\n",
    "tracked.o": b"an object that upstream keeps\n",
    "odd/with space.txt": LINES,
    "odd/E=257,N=128,block_shape=[128, 128].json": b'{"a": 1}\n',
    'odd/quo"te.txt': LINES,
    "odd/back\\slash.txt": LINES,
    "odd/-dash.txt": LINES,
    "odd/ünïcode-文件.txt": LINES,
    os.fsdecode(b"odd/latin-\xe9.txt"): LINES,
    "odd/dot.": LINES,
    "odd/space ": LINES,
    "odd/*glob?": LINES,
    "odd/:(top)x": LINES,
    f"odd/{LONG}": LINES,
    "x b/x": LINES,
    "foo": LINES,
    "foo.patch/a": LINES,
    "dev/null": LINES,
    "latin1.c": b"/* caf\xe9 */\n" + LINES,
    "feed.c": b"a\n\x0cb\n" + LINES,
    "utf16.txt": "one\ntwo\n".encode("utf-16"),
    "diffs.txt": b"diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n-- \n2.39.5\n"
    + LINES,
}


def write(name: str, data: bytes) -> Edit:
    """A file with these bytes."""

    def edit(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return edit


def change(name: str, old: bytes = b"line 7 ", new: bytes = b"LINE SEVEN ") -> Edit:
    """One place in a file of the upstream."""

    def edit(root: Path) -> None:
        data = (root / name).read_bytes()
        assert old in data
        (root / name).write_bytes(data.replace(old, new, 1))

    return edit


def delete(name: str) -> Edit:
    """A file or folder gone."""

    def edit(root: Path) -> None:
        path = root / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    return edit


def move(old: str, new: str) -> Edit:
    """A file or folder under another name."""

    def edit(root: Path) -> None:
        (root / new).parent.mkdir(parents=True, exist_ok=True)
        (root / old).rename(root / new)

    return edit


def copy(old: str, new: str) -> Edit:
    """The same content a second time."""

    def edit(root: Path) -> None:
        shutil.copy2(root / old, root / new)

    return edit


def mode(name: str, bits: int) -> Edit:
    """Other permissions."""
    return lambda root: (root / name).chmod(bits)


def link(name: str, target: str) -> Edit:
    """A symbolic link, in place of whatever was there."""

    def edit(root: Path) -> None:
        path = root / name
        if os.path.lexists(path):
            delete(name)(root)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    return edit


def runs(*argv: str) -> Edit:
    """A git command of the engineer's."""

    def edit(root: Path) -> None:
        git(*argv, cwd=root)

    return edit


def then(*edits: Edit) -> Edit:
    """One after the other."""

    def edit(root: Path) -> None:
        for each in edits:
            each(root)

    return edit


def swap(one: str, other: str) -> Edit:
    """Two files with each other's names."""
    return then(move(one, "swap.tmp"), move(other, one), move("swap.tmp", other))


STAGE = runs("add", "-A")
COMMIT = then(STAGE, runs("commit", "-q", "-m", "mine"))
NAMES = (
    "a b/c d.txt",
    "E=1,N=2,block_shape=[128, 128].json",
    'it\'s "it".txt',
    "-rf",
    "模型/ファイル.txt",
    os.fsdecode(b"caf\xe9.txt"),
    "end.",
    "end ",
    "m" * 255,
    f"{'k' * 250}/.gitignore",
    f"{'k' * 250}/{'l' * 250}/.gitattributes",
    "a\\b",
    "%s %n {0} $HOME `x`",
)
BINARY = bytes(range(255, -1, -1)) * 4

EDITS: dict[str, Edit] = {
    # How an edit is kept.
    "modify": change("pkg/util.py"),
    "modify-staged": then(change("pkg/util.py"), STAGE),
    "modify-committed": then(change("pkg/util.py"), COMMIT),
    "modify-twice-committed": then(change("pkg/util.py"), COMMIT, write("b.py", b"b\n"), COMMIT),
    "partially-staged": then(change("pkg/util.py"), STAGE, change("pkg/util.py", b"line 30 ", b"")),
    "staged-then-deleted": then(
        write("n.py", b"n\n"), STAGE, delete("n.py"), write("m.py", b"m\n")
    ),
    "committed-then-deleted": then(
        write("n.py", b"n\n"), write("m.py", b"m\n"), COMMIT, delete("n.py")
    ),
    "on-another-branch": then(runs("checkout", "-q", "-b", "mine"), change("pkg/util.py"), COMMIT),
    "detached": then(runs("checkout", "-q", "--detach"), change("pkg/util.py"), COMMIT),
    "merged": then(
        runs("checkout", "-q", "-b", "side"), write("side.py", b"s\n"), COMMIT,
        runs("checkout", "-q", "uniscale"), write("main.py", b"m\n"), COMMIT,
        runs("merge", "-q", "--no-edit", "side"),
    ),
    "beside-an-old-stash": then(
        change("pkg/core.py"), runs("stash", "-q"), change("pkg/util.py"), COMMIT
    ),
    "intent-to-add": then(write("n.py", b"n\n"), runs("add", "-N", "n.py")),
    "assume-unchanged": then(
        runs("update-index", "--assume-unchanged", "pkg/util.py"), change("pkg/util.py")
    ),
    "removed-from-index-only": then(
        runs("rm", "-q", "--cached", "notes.txt"), change("pkg/util.py")
    ),
    # Renames and copies.
    "rename-staged": runs("mv", "pkg/util.py", "pkg/moved.py"),
    "rename-unstaged": move("pkg/util.py", "pkg/moved.py"),
    "rename-committed": then(move("pkg/util.py", "pkg/moved.py"), COMMIT),
    "rename-and-edit-staged": then(
        runs("mv", "pkg/util.py", "pkg/moved.py"), change("pkg/moved.py"), STAGE
    ),
    "rename-and-edit-unstaged": then(move("pkg/util.py", "n/moved.py"), change("n/moved.py")),
    "rename-and-mode": then(move("pkg/util.py", "moved.py"), mode("moved.py", 0o755)),
    "rename-folder": move("pkg", "lib"),
    "rename-case": move("README.md", "readme.md"),
    "rename-odd": move("odd/with space.txt", 'odd/"new"\\ [name] ü.txt'),
    "rename-and-a-new-file-there": then(move("pkg/util.py", "u.py"), write("pkg/util.py", b"n\n")),
    "swap": then(change("pkg/core.py", b"Core", b"KORE"), swap("pkg/core.py", "pkg/util.py")),
    "copy": copy("pkg/util.py", "pkg/copied.py"),
    "copy-and-edit": then(copy("pkg/util.py", "copied.py"), change("copied.py")),
    # Contents, of one file and of many.
    "new": write("pkg/new/file.py", b"x = 1\n"),
    "delete": delete("pkg/util.py"),
    "delete-folder": delete("pkg"),
    "delete-nearly-all": then(
        *(delete(name) for name in ("pkg", "data", "bin", "odd", "win", "setup.py"))
    ),
    "binary-modify": then(
        write("data/new.bin", BINARY),
        change("data/logo.bin", bytes(range(100, 110)), b"0123456789"),
    ),
    "binary-rewrite": write("data/logo.bin", BINARY),
    "binary-delete": delete("data/logo.bin"),
    "binary-to-text": write("data/logo.bin", b"text\n"),
    "text-to-binary": write("pkg/util.py", BINARY),
    "encodings": then(
        write("new.c", b"/* na\xefve */\n"),
        change("latin1.c", b"caf\xe9", b"caf\xe8"),
        write("utf16.txt", "one\ndrei\n".encode("utf-16")),
        change("feed.c", b"\x0cb", b"\x0cB"),
        write("zeros", bytes(3000)),
    ),
    "line-ends": then(
        write("win/new.txt", b"a\r\nb\r\n"),
        change("win/crlf.txt", b"two", b"zwei"),
        change("win/mixed.lf", b"two\n", b"two\r\n"),
        write("mac.txt", b"a\rb\r"),
        write("notes.txt", b"one\ntwo\nthree\n"),
    ),
    "crlf-everywhere": write("pkg/util.py", LINES.replace(b"\n", b"\r\n")),
    "crlf-gone": write("win/crlf.txt", b"one\ntwo\nthree\n"),
    "no-final-newline": write("pkg/util.py", LINES[:-1]),
    "emptied": write("pkg/util.py", b""),
    "nothing-and-blank": then(
        write("pkg/empty.py", b""),
        write("pkg/__init__.py", b"x\n"),
        write("blank.txt", b" \n\t\n\n"),
        change("pkg/util.py", b"line 9 of this file\n", b"line 9 of this file  \t\n"),
    ),
    "looks-like-a-patch": then(
        change("diffs.txt", b"+b\n-- \n", b"+c\n-- \n"),
        write("notes.txt", b"-- a\n++ b\n-- \n--- c\n+++ d\n"),
    ),
    "large": write("large.txt", b"a long line of text\n" * 60000),
    # Modes and links.
    "modes": then(
        mode("pkg/core.py", 0o755),
        mode("bin/tool.sh", 0o644),
        write("run", b"#!/bin/sh\n"),
        mode("run", 0o755),
    ),
    "executable-and-edit": then(change("pkg/util.py"), mode("pkg/util.py", 0o755)),
    "links-new": then(
        link("pkg/alias.py", "util.py"),
        link("here", "pkg/deep"),
        link("pkg/later.py", "not/there/yet"),
        link("pkg/deep/top.md", "../../README.md"),
        link("odd/l", "with space.txt"),
    ),
    "link-changed": link("latest", "pkg/util.py"),
    "link-deleted": delete("latest"),
    "link-moved": move("latest", "newest"),
    "link-moved-below-itself": then(delete("latest"), link("latest/same", "pkg/core.py")),
    # One kind becomes another.
    "link-to-file": then(delete("latest"), write("latest", b"a file now\n")),
    "file-to-link": link("pkg/util.py", "core.py"),
    "file-to-folder": then(delete("notes.txt"), write("notes.txt/one", b"1\n")),
    "folder-to-file": then(delete("pkg/deep"), write("pkg/deep", b"a file now\n")),
    "folder-to-link": link("pkg/deep", "../data"),
    "link-to-folder-of-files": then(delete("latest"), write("latest/a", b"a\n")),
    # Names.
    "new-names": then(*(write(name, name.encode("utf-8", "surrogateescape")) for name in NAMES)),
    "changed-names": then(
        *(change(name) for name, data in ODD_UPSTREAM.items() if name[:2] in ("od", "x ")
          if data is LINES),
        change("odd/E=257,N=128,block_shape=[128, 128].json", b"1", b"2"),
        change("dev/null"),
    ),
    "deleted-names": then(delete("odd"), delete("x b"), delete("foo.patch"), delete("dev")),
    "patch-suffix": then(change("foo"), change("foo.patch/a")),
    "like-our-own": then(
        write("overlay/x", b"x\n"),
        write("layer.yaml", b"x\n"),
        write("diff/y.patch", b"y\n"),
        write("bar.patch/diff/x.patch", b"not a patch\n"),
    ),
    "mode-two-names": mode("x b/x", 0o755),
    # What git itself reads.
    "conversion-rules": then(
        change("win/run.bat", b"line", b"LINE"),
        change("win/x.sub", b"$Id$", b"$Id: mine $"),
        change("win/x.enc", b"plain", b"fancy"),
        change("win/x.flt", b"plain", b"fancy"),
        change("win/x.dat", b"b", b"B"),
    ),
    "rules-changed": then(
        write(".gitattributes", b"* text=auto eol=crlf\n"), write(".gitignore", b"*.o\n*.so\n")
    ),
    "rules-new": then(
        write("pkg/.gitattributes", b"*.py text eol=crlf\n"),
        write("odd/.gitignore", b"*.tmp\n"),
        write(".mailmap", b"A <a@example.org>\n"),
    ),
    "tracked-and-ignored": then(
        write("tracked.o", b"other\n"), write("mine.o", b"o\n"), runs("add", "-f", "mine.o")
    ),
}  # fmt: skip
