"""Writes layers: what lies between two trees, as patches and overlay files in canonical form.

`export` is a function of the two trees alone, so exporting what a layer makes gives that layer
again (a fixed point that ``check`` verifies). A folder is written whole, beside the old one; files
that did not change are linked from there and keep their bytes and their time.
"""

from __future__ import annotations

import hashlib
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LayerError, StoreError, raise_all
from uniscale_build.git.db import Entry, GitDb
from uniscale_build.git.entry import GITLINK, SYMLINK
from uniscale_build.yamledit import scalar, set_text

_PATCH = (
    "diff-tree", "-r", "-p", "--binary", "--full-index", "--no-color", "--no-ext-diff",
    "--no-textconv", "--no-relative", "--unified=3", "--inter-hunk-context=0",
    "--diff-algorithm=myers", "--indent-heuristic", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
_RENAMES = ("-M", "-l0")
_COMMAND_LINE = 64_000  # bytes; Linux takes 128 kB and more
# Files that git itself reads wherever they lie: in an overlay they would act on our repository.
READ_BY_GIT = (b".gitattributes", b".gitignore", b".gitmodules", b".mailmap")


@dataclass(frozen=True)
class Change:
    """One file that differs between two trees; ``status`` is git's letter (A, D, M, R, T)."""

    status: str
    path: bytes
    old_path: bytes
    old: Entry
    new: Entry

    @property
    def overlay(self) -> bool:
        """True for an added file that a layer keeps as itself."""
        name = self.path.rsplit(b"/", 1)[-1].lower()
        return self.status == "A" and self.new.mode != SYMLINK and name not in READ_BY_GIT


@dataclass(frozen=True)
class Member:
    """One file of a layer's folder."""

    data: bytes
    executable: bool = False


def shown(path: bytes) -> str:
    """A path for people: UTF-8 where it is, escapes where it is not or would disturb a terminal."""
    text = path.decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def patch_label(path: bytes) -> bytes:
    """Where a layer keeps the patch of the upstream file ``path``: ``diff/<path>.patch``.

    Names that are too long with the suffix, and files below a folder called ``*.patch`` (which a
    file's patch might be called too), get ``diff/<name>~<hash of the path>.patch``.
    """
    name = path[path.rfind(b"/") + 1 :]
    if len(name) <= 249 and b".patch/" not in path.lower():
        return b"diff/" + path + b".patch"
    readable = re.sub(rb"[^A-Za-z0-9._-]", b"_", name)[:80]
    return b"diff/%s~%s.patch" % (readable, hashlib.sha256(path).hexdigest()[:16].encode())


def changes(db: GitDb, base: str, result: str) -> list[Change]:
    """What differs between two trees, in git's order, renames of files found.

    A link that has moved is told as deleted and added: where it leads depends on where it is, and
    a patch that only renames it would not show that.
    """
    return [part for change in _as_git_tells(db, base, result) for part in _apart(change)]


def _apart(change: Change) -> tuple[Change, ...]:
    if change.status != "R" or change.new.mode != SYMLINK:
        return (change,)
    nothing = Entry("000000", "0" * 40)
    return (
        Change("D", change.old_path, change.old_path, change.old, nothing),
        Change("A", change.path, change.path, nothing, change.new),
    )


def _as_git_tells(db: GitDb, base: str, result: str) -> list[Change]:
    out = db.run("diff-tree", "-r", "-z", "--raw", "--full-index", *_RENAMES, base, result).out
    words = out.split(b"\0")[:-1]
    found, at = [], 0
    while at < len(words):
        old_mode, new_mode, old, new, status = words[at][1:].decode().split(" ")
        renamed = status[0] in "RC"
        path = words[at + 2] if renamed else words[at + 1]
        found.append(
            Change(status[0], path, words[at + 1], Entry(old_mode, old), Entry(new_mode, new))
        )
        at += 3 if renamed else 2
    return found


def export(db: GitDb, base: str, result: str) -> dict[bytes, Member]:
    """The files of the layer that makes ``result`` of ``base``, by path inside its folder.

    `LayerError` for what a layer cannot hold (gitlinks).
    """
    told = _as_git_tells(db, base, result)
    moved = {part for change in told for part in _apart(change)} - {*told}
    found = [*(change for change in told if _apart(change) == (change,)), *sorted(moved, key=_key)]
    raise_all(
        [
            LayerError(
                f"{shown(change.path)} is a git repository of its own (a gitlink)",
                where=shown(change.path),
                hint="a layer holds files: add the files themselves, or pin that project apart",
                slug="gitlink",
            )
            for change in found
            if GITLINK in (change.old.mode, change.new.mode)
        ]
    )
    overlay = [change for change in found if change.overlay]
    blobs = db.read_blobs([change.new.oid for change in overlay]) if overlay else {}
    members = {
        b"overlay/" + change.path: Member(blobs[change.new.oid], change.new.mode == "100755")
        for change in overlay
    }
    changed = [change for change in told if change.status != "A"]
    members |= _patches(db, (base, result), changed, (*_RENAMES, "--diff-filter=MDRT"))
    for status in ("A", "D"):
        alone = [change for change in found if change.status == status and not change.overlay
                 and (status == "A" or change in moved)]  # fmt: skip
        alone.sort(key=_key)
        options = ("--no-renames", f"--diff-filter={status}")
        members |= _patches(db, (base, result), alone, options, [c.path for c in alone])
    return members


def _key(change: Change) -> bytes:
    return change.path


def _patches(
    db: GitDb,
    trees: tuple[str, str],
    wanted: Sequence[Change],
    options: Sequence[str],
    paths: Sequence[bytes] = (),
) -> dict[bytes, Member]:
    if not wanted:
        return {}
    args = ["--literal-pathspecs", *_PATCH, *options, *trees, "--"]
    parts = [part for some in _command_lines(paths) for part in sections(db.run(*args, *some).out)]
    members, at = {}, 0
    for change in wanted:
        # git tells a change of type (file to link) as a deletion and a creation.
        count = 2 if change.status == "T" else 1
        if len(_apart(change)) == 1:
            members[patch_label(change.path)] = Member(b"".join(parts[at : at + count]))
        at += count
    if at != len(parts):
        raise StoreError(f"git gave {len(parts)} patches for {at} changes", slug="git")
    return members


def _command_lines(paths: Sequence[bytes]) -> Iterator[list[str]]:
    """The paths in their order, as many at a time as fit on a command line; once for none."""
    some: list[str] = []
    length = 0
    for path in paths:
        if length > _COMMAND_LINE:
            yield some
            some, length = [], 0
        some.append(os.fsdecode(path))
        length += len(path) + 1
    yield some


def changed_patches(db: GitDb, base: str, result: str) -> list[bytes]:
    """The patches of `export` for files that ``base`` has, without their names."""
    return sections(db.run(*_PATCH, *_RENAMES, "--diff-filter=MDRT", base, result).out)


_SECTION = re.compile(rb"^(?=diff --git )", re.MULTILINE)


def sections(patch: bytes) -> list[bytes]:
    """A patch of many files as one patch for each; a line of content never begins like a header."""
    return [part for part in _SECTION.split(patch) if part]


def same_patch(one: bytes, other: bytes) -> bool:
    """True when both say the same: equal bytes, or equal binary patches deflated differently.

    The compressed form of a binary depends on the zlib that git was built with; the blob ids in
    the header do not.
    """
    if one == other:
        return True
    mark = b"\nGIT binary patch\n"
    return mark in one and mark in other and one.split(mark)[0] == other.split(mark)[0]


@dataclass(frozen=True)
class About:
    """What a person says about a new layer."""

    title: str
    why: str
    owner: str
    contact: str
    upstream: str = "pending"


def new_yaml(about: About, base: str, result: str) -> bytes:
    """The text of a new ``layer.yaml``."""
    why = textwrap.dedent(about.why).strip()
    lines = [
        f"title: {scalar(about.title.strip())}",
        *_block("why", why),
        "owner:",
        f"  name: {scalar(about.owner)}",
        f"  contact: {scalar(about.contact)}",
        f"upstream: {about.upstream}",
        f"base: {scalar(base)}",
        f"result: {scalar(result)}",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8")


def _block(key: str, text: str) -> list[str]:
    plain = all(c == "\n" or c.isprintable() for c in text)
    if not plain or (len(text) < 60 and "\n" not in text):
        return [f"{key}: {scalar(text)}"]
    lines = [line.rstrip() for line in text.split("\n")]
    wrapped = [part for line in lines for part in (textwrap.wrap(line, 96) or [""])]
    return [f"{key}: |", *(f"  {line}".rstrip() for line in wrapped)]


def updated_yaml(raw: bytes, base: str, result: str, name: str) -> bytes:
    """``raw`` (a ``layer.yaml``) with other trees; every other byte stays."""
    return set_text(set_text(raw, ["base"], base, name), ["result"], result, name)


@dataclass(frozen=True)
class Written:
    """What writing a layer's folder changed, as paths inside it."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    kept: int

    @property
    def touched(self) -> tuple[str, ...]:
        """Added, changed and removed together."""
        return (*self.added, *self.changed, *self.removed)


def write_folder(
    folder: Path, members: Mapping[bytes, Member], yaml: bytes, like: Path | None = None
) -> Written:
    """Write a layer's folder anew at ``folder``, which must not exist.

    What agrees with the layer in ``like`` is linked from there; what ``like`` has beside ``diff/``,
    ``overlay/`` and ``layer.yaml`` (a README) comes along.
    """
    old = _present(like) if like is not None else {}
    wanted = {b"layer.yaml": Member(yaml), **members}
    for path in old:
        if path.split(b"/")[0] not in (b"diff", b"overlay", b"layer.yaml"):
            wanted.setdefault(path, Member(b""))
    added: list[str] = []
    changed: list[str] = []
    kept = 0
    folder.mkdir(parents=True)
    root = os.fsencode(folder)
    for path, member in wanted.items():
        target = os.path.join(root, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        source = old.get(path)
        if source is not None and ((path not in members and path != b"layer.yaml")
                                   or _agrees(source, path, member)):  # fmt: skip
            _link(source, target)
            kept += 1
            continue
        _write(target, member)
        (changed if source is not None else added).append(shown(path))
    removed = [shown(path) for path in old if path not in wanted]
    return Written(tuple(sorted(added)), tuple(sorted(changed)), tuple(sorted(removed)), kept)


def _present(folder: Path) -> dict[bytes, bytes]:
    root = os.fsencode(folder)
    found = {}
    for base, _, names in os.walk(root):
        for name in names:
            path = os.path.join(base, name)
            found[path[len(root) + 1 :]] = path
    return found


def _agrees(source: bytes, path: bytes, member: Member) -> bool:
    if os.path.islink(source):
        return False
    with open(source, "rb") as file:
        data = file.read()
    if path.startswith(b"diff/"):
        return same_patch(data, member.data)
    executable = bool(os.stat(source).st_mode & 0o100)
    return data == member.data and (executable == member.executable or path == b"layer.yaml")


def _link(source: bytes, target: bytes) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Not every file system links; a copy keeps the time as well.
        import shutil

        shutil.copy2(source, target, follow_symlinks=False)


def _write(target: bytes, member: Member) -> None:
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    with os.fdopen(handle, "wb") as out:
        out.write(member.data)
        out.flush()
        if member.executable:
            os.fchmod(out.fileno(), os.stat(target).st_mode | (0o111 & ~umask()))
        os.fsync(out.fileno())


def umask() -> int:
    """The permissions that new files do not get."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
