"""Reads patches as git writes them, strictly: what git would skip or guess is a problem here.

git itself has the last word on what a patch does (`lint` compares names with ``git apply
--numstat``); this reading gives places for errors, and the things that git does not tell: modes,
link targets, what is added and removed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from uniscale_build.layers.plainpatch import plain_section
from uniscale_build.layers.section import Section

NULL = b"/dev/null"


@dataclass(frozen=True)
class Problem:
    """Something wrong in a patch; lines count from 1."""

    line: int
    slug: str
    what: str
    hint: str | None = None


_HUNK = re.compile(rb"@@ -(\d{1,99})(?:,(\d{1,99}))? \+(\d{1,99})(?:,(\d{1,99}))? @@")
_INDEX = re.compile(rb"index ([0-9a-f]{7,64})\.\.([0-9a-f]{7,64})(?: (\d{6}))?")
_MOVED = re.compile(rb"(?:rename|copy) (?:from|to) ")
_MODE = re.compile(rb"(?:old|new|deleted file|new file) mode ")
_MODES = {b"old mode ": "old_mode", b"new mode ": "new_mode",
          b"deleted file mode ": "old_mode", b"new file mode ": "new_mode"}  # fmt: skip
_PLAIN = re.compile(rb"[ !#-\[\]-~]*")
_CRLF = re.compile(rb"^diff --git .*\r$", re.MULTILINE)
_STUB = re.compile(rb"(Binary )?[Ff]iles .* differ")
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13, b'"': 34, b"\\": 92}


def unquote(text: bytes) -> bytes | None:
    """A name as git writes it in a header, C-quoted or plain; None when the quoting is broken."""
    if not text.startswith(b'"'):
        return text
    if len(text) < 2 or not text.endswith(b'"'):
        return None
    out, at, end = bytearray(), 1, len(text) - 1
    while at < end:
        if text[at] != 0x5C:
            out.append(text[at])
            at += 1
            continue
        octal = re.compile(rb"[0-3][0-7]{2}").match(text, at + 1, end)
        if octal:
            out.append(int(octal[0], 8))
            at += 4
        elif at + 1 < end and text[at + 1 : at + 2] in _ESCAPES:
            out.append(_ESCAPES[text[at + 1 : at + 2]])
            at += 2
        else:
            return None
    return bytes(out)


def quote(name: bytes, *, high: bool = True) -> bytes:
    """``name`` as git writes it in a header; ``high``: bytes above 127 are escaped too."""
    if _PLAIN.fullmatch(name):
        return name
    letters = {code: b"\\" + letter for letter, code in _ESCAPES.items()}
    out, plain = bytearray(), True
    for byte in name:
        if byte in letters:
            out += letters[byte]
            plain = False
        elif byte < 0x20 or byte == 0x7F or (high and byte >= 0x80):
            out += b"\\%03o" % byte
            plain = False
        else:
            out.append(byte)
    return bytes(out) if plain else b'"' + bytes(out) + b'"'


class Reader:
    """Goes through the lines of one patch; `read_patch` is the way in."""

    def __init__(self, data: bytes) -> None:
        self.lines = data.split(b"\n")
        if self.lines[-1] == b"":
            self.lines.pop()
        self.at = 0
        self.sections: list[Section] = []
        self.problems: list[Problem] = []

    def fail(self, slug: str, what: str, hint: str | None = None, line: int | None = None) -> None:
        """Note a problem at the current line."""
        self.problems.append(Problem(self.at + 1 if line is None else line, slug, what, hint))

    @property
    def line(self) -> bytes | None:
        """The current line, None at the end."""
        return self.lines[self.at] if self.at < len(self.lines) else None

    def preamble(self) -> None:
        """Skip a mail's head; a diff without git's header there would be applied unseen."""
        while (line := self.line) is not None and not line.startswith(b"diff --git "):
            following = self.lines[self.at + 1] if self.at + 1 < len(self.lines) else b""
            if line.startswith(b"--- ") and following.startswith(b"+++ "):
                self.fail(
                    "no-git-header",
                    "a change without git's header (diff --git a/… b/…)",
                    "write it with: git diff --binary --full-index",
                )
                self.plain_names(line, following)
            elif _HUNK.match(line):
                self.fail("no-git-header", "a hunk that belongs to no file")
            self.at += 1

    def plain_names(self, old: bytes, new: bytes) -> None:
        """Names of a diff without header, so that bad ones are told as well."""
        names = [unquote(line[4:].split(b"\t")[0]) for line in (old, new)]
        section = Section(self.at + 1, b"")
        section.old, section.new = (
            None if name in (None, NULL) else name.removeprefix(prefix)
            for name, prefix in zip((n or NULL for n in names), (b"a/", b"b/"), strict=True)
        )
        self.sections.append(section)

    def section(self) -> None:
        """Read one file's part: header, extended header, then hunks or binary data."""
        section = Section(self.at + 1, self.line or b"")
        self.at += 1
        froms: dict[bytes, bytes] = {}
        while (line := self.line) is not None and self._extended(section, line, froms):
            self.at += 1
        self._texts(section, froms)
        self._settle(section, froms)
        self.sections.append(section)
        self._after()

    def _extended(self, section: Section, line: bytes, froms: dict[bytes, bytes]) -> bool:
        if match := _INDEX.fullmatch(line):
            section.old_oid, section.new_oid = match[1].decode(), match[2].decode()
            if match[3]:
                section.old_mode = section.new_mode = match[3].decode()
            return True
        if match := _MOVED.match(line):
            froms[match[0]] = line[match.end() :]
            return True
        if match := _MODE.match(line):
            mode = line[match.end() :].decode("ascii", "replace").strip()
            setattr(section, _MODES[match[0]], mode)
            froms[match[0]] = b""
            return True
        return line.startswith((b"similarity index ", b"dissimilarity index "))

    def _texts(self, section: Section, froms: dict[bytes, bytes]) -> None:
        line = self.line
        if line is None:
            return
        if line == b"GIT binary patch":
            section.binary = True
            self._binary()
        elif _STUB.fullmatch(line.rstrip(b"\r")):
            self.fail("binary-stub", "says that binary files differ, and not how",
                      "take it again with: git diff --binary --full-index")  # fmt: skip
            self.at += 1
        elif line.startswith(b"--- "):
            froms[b"--- "] = line[4:]
            self.at += 1
            if self.line is None or not self.line.startswith(b"+++ "):
                self.fail("truncated", "the patch ends in a file's header")
                return
            froms[b"+++ "] = self.line[4:]
            self.at += 1
            while (line := self.line) is not None and line.startswith(b"@@"):
                self._hunk(section, line)
            if not section.hunks:
                self.fail("truncated", "a file's header without a hunk")

    def _hunk(self, section: Section, line: bytes) -> None:
        match = _HUNK.match(line)
        section.hunks += 1
        begin = self.at
        self.at += 1
        if match is None:
            self.fail("bad-hunk", "a hunk's header that git would not read", line=begin + 1)
            return
        old = int(match[2] or 1)
        new = int(match[4] or 1)
        lines, end = self.lines, len(self.lines)
        added, removed = section.added, section.removed
        at = self.at
        while (old > 0 or new > 0) and at < end:
            text = lines[at]
            kind = text[:1]
            if kind == b" " or not kind:
                old -= 1
                new -= 1
            elif kind == b"+":
                new -= 1
                added.append(text[1:])
            elif kind == b"-":
                old -= 1
                removed.append(text[1:])
            elif kind != b"\\":
                break
            at += 1
        while at < end and lines[at].startswith(b"\\"):
            at += 1
        self.at = at
        if old or new:
            self.fail(
                "truncated",
                "a hunk with fewer or more lines than its header says",
                "the patch was cut off or edited by hand; make it again with git diff",
                line=begin + 1,
            )

    def _binary(self) -> None:
        begin = self.at
        self.at += 1
        blocks = 0
        while (line := self.line) is not None and line.startswith((b"literal ", b"delta ")):
            blocks += 1
            body: list[bytes] = []
            at = self.at + 1
            while at < len(self.lines) and self.lines[at] not in (b"", b"\r"):
                body.append(self.lines[at])
                at += 1
            self._block(line, body)
            self.at = min(at + 1, len(self.lines))
            if at >= len(self.lines):
                self.fail("truncated", "binary data that does not end", line=begin + 1)
        if not blocks:
            self.fail("truncated", "a binary patch without data", line=begin + 1)

    def _block(self, head: bytes, body: list[bytes]) -> None:
        from uniscale_build.layers.binarypatch import block_problem

        if told := block_problem(head, body):
            self.fail(*told)

    def _settle(self, section: Section, froms: dict[bytes, bytes]) -> None:
        from uniscale_build.layers.patchnames import settle

        for slug, what, hint in settle(section, froms):
            self.fail(slug, what, hint, line=section.line)

    def _after(self) -> None:
        """Between two files there is nothing; git would skip a damaged hunk there in silence."""
        line = self.line
        if line == b"-- ":  # a mail's signature
            while (line := self.line) is not None and not line.startswith(b"diff --git "):
                self.at += 1
            return
        told = False
        while (line := self.line) is not None and not line.startswith(b"diff --git "):
            if line.strip() and not told:
                self.fail("unexpected-text", "text that belongs to no hunk",
                          "git would skip it in silence; make the patch again")  # fmt: skip
                told = True
            self.at += 1


def read_patch(data: bytes) -> tuple[list[Section], list[Problem]]:
    """The files that a patch is about, and everything that is wrong with its form."""
    if (plain := plain_section(data)) is not None:
        return [plain], []
    return read_closely(data)


def read_closely(data: bytes) -> tuple[list[Section], list[Problem]]:
    """`read_patch`, line by line: for what is not plain."""
    if problem := _no_patch(data):
        return [], [problem]
    reader = Reader(data)
    reader.preamble()
    while reader.line is not None:
        reader.section()
    if not reader.sections and not reader.problems:
        reader.fail("garbage", "is not a patch", "it has no line like: diff --git a/… b/…", line=1)
    return reader.sections, reader.problems


def _no_patch(data: bytes) -> Problem | None:
    head = data[:2048].lstrip().lower()
    if not head:
        return Problem(1, "empty", "is empty", "delete it, or take it again")
    if head.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        hint = "the download gave a page about it (not found? log in?): take the raw file"
        return Problem(1, "html", "is a web page, not a patch", hint)
    if b"\0" in data[:2048]:
        return Problem(1, "garbage", "is binary data, not a patch")
    if head.startswith(b"version https://git-lfs"):
        return Problem(1, "lfs-pointer", "is a Git LFS pointer, not a patch", "git lfs pull")
    if b"\r\n" in data and (crlf := _CRLF.search(data)):
        line = data.count(b"\n", 0, crlf.start()) + 1
        hint = "take it again as it was made; an editor or autocrlf has changed it"
        return Problem(line, "crlf", "was saved with CRLF line ends", hint)
    if not data.endswith(b"\n"):
        line = data.count(b"\n") + 1
        return Problem(line, "truncated", "ends in the middle of a line", "take it again whole")
    return None
