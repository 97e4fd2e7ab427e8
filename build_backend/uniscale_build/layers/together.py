"""Applies a layer's patches while it is looked through: git works at what was found in order.

git spends as much time on the blobs that come out (their SHA-1 with its check for collisions) as on
the patches. Changes to the content of upstream files say nothing about each other, so a second git
takes its share of them early. Whatever creates, moves, links or removes stays with the first, and
where either does not take its share, one git reads all from the start. Each git is given an index
of the files that its patches are about, and of nothing else.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import NamedTuple

from uniscale_build.errors import LayerError
from uniscale_build.git.db import Entry, GitDb, Index, Listing, Ran, Running
from uniscale_build.git.trees import folders
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.lint import Added, Lint, Patch
from uniscale_build.processors import cores

_WORTH_IT = 32  # patches: below, a second git costs more than it saves
_SECOND = 0.52  # of the patches: the second git begins earlier


class Applied(NamedTuple):
    """What git said (`Index.applying`) of the patches in the order in which it read them, and what
    it made of each file that they name (None: it is gone)."""

    ran: Ran
    patches: list[Patch]
    files: dict[bytes, Entry | None]


class Applying:
    """The gits that apply a layer's patches to a tree, and hash its files; all end with it.

    `added` and `patch` are for `lint_layer`: they are told what nothing is wrong with. ``alone``:
    one git at a time applies patches.
    """

    def __init__(self, db: GitDb, base: str, *, alone: bool = False) -> None:
        self._db = db
        self._alone = alone or cores() < 2
        self._stack = contextlib.ExitStack()
        self._new: list[Added] = []
        self._written: Callable[[], list[str]]
        self._second: list[Patch] = []
        self._other: tuple[Index, Running] | None = None
        self.before = db.listing(base, keep=True)

    def __enter__(self) -> Applying:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def added(self, files: Sequence[Added]) -> None:
        """Files of the overlay: git writes those that the store has not, from now on."""
        self._new = [file for file in files if not self._db.has_loose(file.oid)]
        paths = [file.file for file in self._new]
        self._written = self._stack.enter_context(self._db.writing_files(paths))

    def written(self) -> Iterator[LayerError]:
        """Wait until the files are written; an error for each that is not what was looked at."""
        for file, oid in zip(self._new, self._written(), strict=True):
            if oid != file.oid:
                yield LayerError(
                    f"{shown(file.path)} was changed while it was read",
                    where=os.fsdecode(file.file),
                    hint="run it again when nobody writes there",
                    slug="changed-meanwhile",
                )

    def patch(self, patch: Patch, of: int) -> None:
        """One patch ``of`` so many; the second git begins when it has enough of them."""
        if self._alone or self._other is not None or of < _WORTH_IT or not _is_change(patch):
            return
        self._second.append(patch)
        if len(self._second) >= of * _SECOND:
            self._other = self._start(self._second)

    def apply(self, found: Lint, meanwhile: Callable[[], object]) -> Applied:
        """Apply all patches, or none of them; ``meanwhile`` is called when git is at work."""
        first = self._first(found.patches)
        index, running = self._start(first)
        meanwhile()
        if self._other is None:
            return _applied(running.wait(check=False), [(index, first)])
        other, theirs = self._other[0], self._other[1].wait(check=False)
        ours = running.wait(check=False)
        if ours.code == 0 and theirs.code == 0:
            both = Ran(0, ours.out + theirs.out, ours.err + theirs.err)
            return _applied(both, [(index, first), (other, self._second)])
        index, running = self._start(found.patches)
        return _applied(running.wait(check=False), [(index, found.patches)])

    def _start(self, patches: Sequence[Patch]) -> tuple[Index, Running]:
        index = self._stack.enter_context(self._db.index())
        index.fill(_concerned(self.before, patches))
        data = b"".join(patch.data for patch in patches)
        return index, self._stack.enter_context(index.applying(data))

    def _first(self, patches: list[Patch]) -> list[Patch]:
        """What is left for the first git: all, where a file takes the place of a folder that the
        second one changes something in."""
        if self._other is None:
            return patches
        made = {s.new for patch in patches for s in patch.sections if s.new not in (None, s.old)}
        if made & folders(patch.sections[0].path for patch in self._second):
            self._other = None
            return patches
        taken = {id(patch) for patch in self._second}
        return [patch for patch in patches if id(patch) not in taken]


def _applied(ran: Ran, parts: Sequence[tuple[Index, list[Patch]]]) -> Applied:
    patches: list[Patch] = []
    files: dict[bytes, Entry | None] = {}
    for index, of in parts:
        patches += of
        if ran.code == 0:
            entries = index.entries()
            files.update((name, entries.get(name)) for patch in of for name in patch.names)
    return Applied(ran, patches, files)


def _concerned(before: Listing, patches: Sequence[Patch]) -> dict[bytes, Entry]:
    """The files that git must see to say whether the patches fit: those that they name, and what
    stands in the way of a name, above it (nothing is written through a link) or below."""
    names = {name for patch in patches for name in patch.names}
    wanted = names | folders(names)
    wanted.update(path for name in names if before.is_folder(name) for path in before.below(name))
    return {path: entry for path in wanted if (entry := before.file(path)) is not None}


def _is_change(patch: Patch) -> bool:
    """True for a patch that changes one file's lines, and nothing else."""
    if len(patch.sections) != 1 or not patch.sections[0].text:
        return False
    section = patch.sections[0]
    return section.old == section.new and section.old_mode == section.new_mode


def as_git_reads(where: str, numstat: bytes, patches: Sequence[Patch]) -> list[LayerError]:
    """git must see the very files that we see; anything else is a patch in disguise.

    ``numstat`` is what ``git apply --numstat -z`` says of the patches.
    """
    names = [line.split(b"\t", 2)[2] for line in numstat.split(b"\0")[:-1]]
    ours = [section.path for patch in patches for section in patch.sections]
    if names == ours:
        return []
    differ = sorted({shown(name) for name in {*names} ^ {*ours}}) or ["their order"]
    return [
        LayerError(
            f"git reads other files in it than we do: {', '.join(differ[:6])}",
            where=where,
            hint="a patch that is read in two ways is refused; make it again with git diff",
            slug="ambiguous",
        )
    ]
