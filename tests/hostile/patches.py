"""Hostile layers, written by hand: what a vendor, a mistake or an attacker may send."""

from __future__ import annotations

import os
import zlib
from base64 import b85encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ZERO = "0" * 40
ONE = "1" * 40


def created(path: bytes, text: bytes = b"x\n", mode: bytes = b"100644") -> bytes:
    """A patch that creates ``path``; the name is written as given (quote it yourself)."""
    lines = text.split(b"\n")[:-1]
    end = b""
    if not text.endswith(b"\n"):
        lines, end = text.split(b"\n"), b"\n\\ No newline at end of file"
    side_a, side_b = b"a/" + path, b"b/" + path
    if path.startswith(b'"'):
        side_a, side_b = b'"a/' + path[1:], b'"b/' + path[1:]
    return (
        b"diff --git %s %s\nnew file mode %s\nindex %s..%s\n"
        b"--- /dev/null\n+++ %s\n@@ -0,0 +1%s @@\n"
        % (side_a, side_b, mode, ZERO.encode(), ONE.encode(), side_b,
           b"" if len(lines) == 1 else b",%d" % len(lines))
        + b"".join(b"+" + line + b"\n" for line in lines[:-1])
        + b"+" + lines[-1] + end + b"\n"
    )  # fmt: skip


def link(path: bytes, target: bytes) -> bytes:
    """A patch that creates a symbolic link."""
    return created(path, target, b"120000")


def changed(path: bytes, hunk: bytes, old: bytes = b"a/", new: bytes = b"b/") -> bytes:
    """A patch that changes ``path`` by one hunk."""
    return b"diff --git %s%s %s%s\nindex %s..%s 100644\n--- %s%s\n+++ %s%s\n%s" % (
        old, path, new, path, ZERO.encode(), ONE.encode(), old, path, new, path, hunk,
    )  # fmt: skip


GOOD_HUNK = b"@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n\\ No newline at end of file\n"
GOOD = changed(b"notes.txt", GOOD_HUNK)
OTHER = changed(b"README.md", b"@@ -1,3 +1,3 @@\n # demo\n \n-An upstream.\n+Ours.\n")


def binary(method: bytes, size: int, data: bytes) -> bytes:
    """A binary patch for ``data/blob`` that claims ``size``."""
    packed = zlib.compress(data)
    lines = []
    for at in range(0, len(packed), 52):
        part = packed[at : at + 52]
        code = bytes([len(part) + (64 if len(part) <= 26 else 70)])
        padded = part + b"\0" * (-len(part) % 4)
        lines.append(code + b85encode(padded) + b"\n")
    head = (
        b"diff --git a/data/blob b/data/blob\nnew file mode 100644\nindex %s..%s\n"
        b"GIT binary patch\n" % (ZERO.encode(), ONE.encode())
    )
    return head + b"%s %d\n" % (method, size) + b"".join(lines) + b"\nliteral 0\nHcmV?d00001\n\n"


def varint(number: int) -> bytes:
    """A number as git's deltas begin with."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


Fill = Callable[[Path], None]


def diffs(**files: bytes) -> Fill:
    """Writes patches, named by label (``__`` stands for a slash)."""

    def fill(folder: Path) -> None:
        for name, data in files.items():
            path = folder / "diff" / (name.replace("__", "/") + ".patch")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    return fill


def diff(label: str, data: bytes) -> Fill:
    """Writes one patch with any label."""

    def fill(folder: Path) -> None:
        path = folder / "diff" / f"{label}.patch"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return fill


def overlay(name: str, data: bytes = b"x\n") -> Fill:
    """Writes one overlay file."""

    def fill(folder: Path) -> None:
        path = folder / "overlay" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return fill


def both(*fills: Fill) -> Fill:
    """One after the other."""

    def fill(folder: Path) -> None:
        for each in fills:
            each(folder)

    return fill


def special(name: str, make: Callable[[Path], None]) -> Fill:
    """Makes something that is not a file."""

    def fill(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make(folder / name)

    return fill


@dataclass(frozen=True)
class Row:
    """One hostile layer and the slug of the error that it must meet."""

    name: str
    slug: str
    fill: Fill


def _rename(old: bytes, new: bytes) -> bytes:
    return b"diff --git a/%s b/%s\nsimilarity index 100%%\nrename from %s\nrename to %s\n" % (
        old, new, old, new,
    )  # fmt: skip


_PLAIN = b"--- /tmp/plain\n+++ /tmp/plain\n@@ -0,0 +1 @@\n+x\n"
_MARK = b"+# uniscale: begin evil\n+x = 1\n"

ROWS = (
    Row("dotdot", "path-escape", diff("evil", created(b"../evil"))),
    Row("dotdot-below", "path-escape", diff("evil", created(b"sub/../../evil"))),
    Row("dotdot-octal", "path-escape", diff("evil", created(rb'"\056\056/evil"'))),
    Row("rename-out", "path-escape", diff("evil", _rename(b"README.md", b"../README.md"))),
    Row("rename-in", "path-escape", diff("evil", _rename(b"../secret", b"secret"))),
    Row("absolute", "absolute-path", diff("evil", created(b"/tmp/evil"))),
    Row("absolute-plain", "no-git-header", diff("tmp/plain", _PLAIN)),
    Row("drive", "absolute-path", diff("evil", created(b"C:/evil"))),
    Row("dot-git", "dot-git", diff("x", created(b".git/hooks/post-checkout", mode=b"100755"))),
    Row("dot-git-case", "dot-git", diff("x", created(b".GIT/hooks/x"))),
    Row("dot-git-below", "dot-git", diff("x", created(b"sub/.Git/config"))),
    Row("dot-git-octal", "dot-git", diff("x", created(rb'"\056git/config"'))),
    Row("dot-git-hfs", "dot-git", diff("x", created(rb'".g\342\200\214it/config"'))),
    Row("dot-git-short", "dot-git", diff("x", created(b"GIT~1/config"))),
    Row("dot-git-dots", "dot-git", diff("x", created(b".git. ./config"))),
    Row("dot-git-stream", "dot-git", diff("x", created(b".git::$INDEX_ALLOCATION/config"))),
    Row("dot-git-backslash", "dot-git", diff("x", created(rb'"a\\.git\\config"'))),
    Row("dot-git-overlay", "dot-git", overlay(".git/config")),
    Row("dot-git-file-overlay", "dot-git", overlay("sub/.git")),
    Row("gitmodules", "gitmodules", diff(".gitmodules", created(b".gitmodules"))),
    Row("gitmodules-case", "gitmodules", diff(".GitModules", created(b".GitModules"))),
    Row("gitmodules-overlay", "gitmodules", overlay(".gitmodules")),
    Row("link-absolute", "link-escape", diff("evil", link(b"evil", b"/etc/passwd"))),
    Row("link-dotdot", "link-escape", diff("a/evil", link(b"a/evil", b"../../x"))),
    Row("link-git", "link-escape", diff("evil", link(b"evil", b".git/config"))),
    Row(
        "link-changed",
        "link-escape",
        diff("latest", b"diff --git a/latest b/latest\nindex %s..%s 120000\n--- a/latest\n"
             b"+++ b/latest\n@@ -1 +1 @@\n-pkg/core.py\n\\ No newline at end of file\n"
             b"+/etc/passwd\n\\ No newline at end of file\n" % (ZERO.encode(), ONE.encode())),
    ),
    Row(
        "link-by-steps",
        "link-escape",
        both(diff("a/up", link(b"a/up", b"..")), diff("x", link(b"x", b"a/up/../../etc"))),
    ),
    Row("link-renamed-out", "link-escape", diff("top", _rename(b"pkg/deep/top", b"top"))),
    Row("behind-new-link", "behind-file",
        both(diff("evil", link(b"evil", b"pkg")), overlay("evil/x.py"))),
    Row("behind-new-link-patch", "patch-failed",
        both(diff("evil", link(b"evil", b"pkg")),
             diff("evil/.gitignore", created(b"evil/.gitignore")))),
    Row("behind-upstream-link", "behind-file", overlay("latest/x.py")),
    Row("behind-file", "behind-file", overlay("README.md/x.py")),
    Row("over-folder", "overlay-exists", overlay("pkg/deep/er")),
    Row("over-file", "overlay-exists", overlay("README.md")),
    Row(
        "gitlink",
        "gitlink",
        diff("sub", b"diff --git a/sub b/sub\nnew file mode 160000\nindex %s..%s\n--- /dev/null\n"
             b"+++ b/sub\n@@ -0,0 +1 @@\n+Subproject commit %s\n"
             % (ZERO.encode(), ONE.encode(), ONE.encode())),
    ),
    Row("mode", "bad-mode", diff("evil", created(b"evil", mode=b"104777"))),
    Row("fuzz", "patch-failed",
        diff("notes.txt", GOOD.replace(b" one\n", b" eins\n").replace(b" three", b" drei"))),
    Row("second-fails", "patch-failed",
        both(diff("notes.txt", GOOD), diff("README.md", OTHER.replace(b"-An", b"-The")))),
    Row("already-there", "patch-failed",
        diff("notes.txt", GOOD.replace(b"-two\n+zwei", b"-zwei\n+two"))),
    Row("no-such-file", "patch-failed",
        diff("gone.txt", changed(b"gone.txt", b"@@ -1 +1 @@\n-a\n+b\n"))),
    Row("new-file-exists", "patch-failed",
        diff("pkg/util.py", created(b"pkg/util.py"))),
    Row("crlf", "crlf", diff("notes.txt", GOOD.replace(b"\n", b"\r\n"))),
    Row("crlf-content", "patch-failed",
        diff("notes.txt", GOOD.replace(b" one\n", b" one\r\n").replace(b"-two\n", b"-two\r\n"))),
    Row("wrong-count", "truncated", diff("notes.txt", GOOD.replace(b"-1,3", b"-1,4"))),
    Row("wrong-count-less", "unexpected-text",
        diff("notes.txt", GOOD.replace(b"-1,3 +1,3", b"-1,2 +1,2"))),
    Row("cut-in-hunk", "truncated", diff("notes.txt", GOOD[: GOOD.index(b"+zwei")])),
    Row("cut-in-line", "truncated", diff("notes.txt", GOOD[:-5])),
    Row("cut-in-header", "truncated", diff("notes.txt", GOOD[: GOOD.index(b"@@")])),
    Row("cut-after-name", "truncated", diff("notes.txt", GOOD[: GOOD.index(b"+++")])),
    Row("damaged-second-hunk", "unexpected-text",
        diff("notes.txt", GOOD + b"@ -9 +9 @\n-a\n+b\n")),
    Row("bad-hunk", "bad-hunk", diff("notes.txt", GOOD.replace(b"-1,3", b"-x,3"))),
    Row("huge-numbers", "truncated",
        diff("notes.txt", GOOD.replace(b"-1,3", b"-1,99999999999999"))),
    Row("empty", "empty", diff("notes.txt", b"")),
    Row("blank", "empty", diff("notes.txt", b"\n \n")),
    Row("garbage", "garbage", diff("notes.txt", b"lorem ipsum\n")),
    Row("zeros", "garbage", diff("notes.txt", bytes(4096))),
    Row("html", "html", diff("notes.txt", b"<!DOCTYPE html>\n<html><body>404</body></html>\n")),
    Row("lfs", "lfs-pointer",
        diff("notes.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")),
    Row("newline-in-name", "control-character", diff("evil", created(rb'"a\nb"'))),
    Row("escape-in-name", "control-character", diff("evil", created(rb'"a\033[31mb"'))),
    Row("escape-in-overlay", "control-character", overlay("a\x1b[31mb")),
    Row("newline-in-overlay", "control-character", overlay("a\nb")),
    Row("broken-quotes", "bad-header", diff("evil", created(rb'"a\qb"'))),
    Row("binary-stub", "binary-stub",
        diff("data/logo.bin", b"diff --git a/data/logo.bin b/data/logo.bin\nindex 1234567..89abcde "
             b"100644\nBinary files a/data/logo.bin and b/data/logo.bin differ\n")),
    Row("binary-cut", "truncated",
        diff("data/blob", binary(b"literal", 900, bytes(900))[:-60] + b"\n")),
    Row("bomb-literal", "bomb", diff("data/blob", binary(b"literal", 1 << 40, bytes(1000)))),
    Row("bomb-delta", "bomb",
        diff("data/blob", binary(b"delta", 30, varint(2048) + varint(1 << 41) + b"\x80" * 20))),
    Row("p0", "no-prefix", diff("notes.txt", changed(b"notes.txt", GOOD_HUNK, b"", b""))),
    Row("two-names", "name-differs",
        diff("notes.txt", GOOD.replace(b"+++ b/notes.txt", b"+++ b/setup.py"))),
    Row("two-header-names", "name-differs",
        diff("notes.txt", GOOD.replace(b"diff --git a/notes.txt b/notes.txt",
                                       b"diff --git a/setup.py b/setup.py"))),
    Row("nothing", "truncated", diff("notes.txt", b"diff --git a/notes.txt b/notes.txt\n")),
    Row("label", "label", diff("pkg/util.py", GOOD)),
    Row("label-deep", "label", diff("sub/notes.txt", GOOD)),
    Row("many-files", "many-files", diff("notes.txt", GOOD + OTHER)),
    Row("twice-in-one", "duplicate", diff("notes.txt", GOOD + GOOD)),
    Row("renamed-and-changed", "duplicate",
        both(diff("notes.txt", GOOD), diff("n2.txt", _rename(b"notes.txt", b"n2.txt")))),
    Row("patch-and-overlay", "duplicate",
        both(diff("x.txt", created(b"x.txt")), overlay("x.txt"))),
    Row("hidden-in-mail", "no-git-header",
        diff("notes.txt", b"From: someone\nSubject: x\n\n" + _PLAIN + GOOD)),
    Row("hidden-behind", "unexpected-text", diff("notes.txt", GOOD + _PLAIN)),
    Row("stray", "stray", both(diff("notes.txt", GOOD), special("diff/notes.txt.rej", Path.touch))),
    Row("patch-is-link", "stray",
        special("diff/x.patch", lambda path: path.symlink_to("/etc/passwd"))),
    Row("overlay-link", "stray", special("overlay/x", lambda path: path.symlink_to("/etc/passwd"))),
    Row("overlay-folder-link", "stray", special("overlay/x", lambda path: path.symlink_to("/etc"))),
    Row("overlay-fifo", "stray", special("overlay/x", lambda path: os.mkfifo(path))),
    Row("marker-open", "marker",
        diff("notes.txt", changed(b"notes.txt", b"@@ -1 +1,3 @@\n one\n" + _MARK))),
    Row("marker-crossed", "marker",
        overlay("x.py", b"# uniscale: begin evil\n# uniscale: begin b\n# uniscale: end evil\n")),
)  # fmt: skip

assert len({row.name for row in ROWS}) == len(ROWS)
