"""Puts a layer into an index while it is looked through: git works at what was found in order.

git spends as much time on the blobs that come out (their SHA-1 with its check for collisions) as on
the patches. Changes to the content of upstream files say nothing about each other, so a second git
takes its share of them to a copy of the index, early. Whatever creates, moves, links or removes
stays with the first, and where either does not take its share, one git reads all from the start.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from types import TracebackType

from uniscale_build.errors import LayerError
from uniscale_build.git.db import GitDb, Index, Ran, Running
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.lint import Added, Lint, Patch
from uniscale_build.layers.overlay import folders
from uniscale_build.processors import cores

_WORTH_IT = 32  # patches: below, a second git costs more than it saves
_SECOND = 0.52  # of the patches: the second git begins earlier


class Applying:
    """A private index that holds ``base``, and the gits that put a layer there; all end with it.

    `added` and `patch` are for `lint_layer`: they are told what nothing is wrong with. ``alone``:
    one git at a time applies patches.
    """

    def __init__(self, db: GitDb, base: str, *, alone: bool = False) -> None:
        self._db = db
        self._base = base
        self._alone = alone or cores() < 2
        self._stack = contextlib.ExitStack()
        self._hashed: Callable[[], list[str]]
        self._second: list[Patch] = []
        self._twin: tuple[Index, Running] | None = None
        self.index: Index

    def __enter__(self) -> Applying:
        with self._stack as stack:
            self.index = stack.enter_context(self._db.index())
            self.index.read_kept(self._base)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def added(self, files: Sequence[Added]) -> None:
        """Files of the overlay: git hashes them from now on."""
        paths = [file.file for file in files]
        self._hashed = self._stack.enter_context(self._db.writing_files(paths))

    def oids(self) -> list[str]:
        """The blobs of the files that `added` was told, when they are written."""
        return self._hashed()

    def patch(self, patch: Patch, of: int) -> None:
        """One patch ``of`` so many; the second git begins when it has enough of them."""
        if self._alone or self._twin is not None or of < _WORTH_IT or not _is_change(patch):
            return
        self._second.append(patch)
        if len(self._second) >= of * _SECOND:
            twin = self.index.twin()
            running = self._stack.enter_context(twin.applying(_joined(self._second)))
            self._twin = twin, running

    def apply(self, found: Lint, meanwhile: Callable[[], object]) -> tuple[Ran, list[Patch]]:
        """Apply all patches, or none of them; ``meanwhile`` is called when git is at work.

        Gives what git said (`Index.applying`), and the patches in the order in which it read them.
        """
        first = self._first(found.patches)
        with self.index.applying(_joined(first)) as running:
            meanwhile()
            if self._twin is None:
                return running.wait(check=False), first
            twin, other = self._twin
            theirs = other.wait(check=False)
            if theirs.code == 0:
                self.index.take(twin, {patch.sections[0].path for patch in self._second})
            ours = running.wait(check=False)
        if ours.code == 0 and theirs.code == 0:
            return Ran(0, ours.out + theirs.out, ours.err + theirs.err), [*first, *self._second]
        self.index.read_kept(self._base)
        with self.index.applying(_joined(found.patches)) as running:
            return running.wait(check=False), found.patches

    def _first(self, patches: list[Patch]) -> list[Patch]:
        """What is left for the first git: all, where a file takes the place of a folder that the
        second one changes something in."""
        if self._twin is None:
            return patches
        made = {s.new for patch in patches for s in patch.sections if s.new not in (None, s.old)}
        if made & folders(patch.sections[0].path for patch in self._second):
            self._twin = None
            return patches
        taken = {id(patch) for patch in self._second}
        return [patch for patch in patches if id(patch) not in taken]


def _joined(patches: Sequence[Patch]) -> bytes:
    return b"".join(patch.data for patch in patches)


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
