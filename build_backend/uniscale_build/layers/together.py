"""Applies a layer's patches to an index: many of them by two gits at once.

git spends as much time on the blobs that come out (their SHA-1 with its check for collisions) as on
the patches. Changes to the content of upstream files say nothing about each other, so a second git
can take its share of them to a copy of the index. Whatever creates, moves, links or removes stays
in one place, and so does everything where git does not take both shares: then one git reads all.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from uniscale_build.errors import LayerError
from uniscale_build.git.db import Index, Ran
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.lint import Lint, Patch
from uniscale_build.layers.overlay import folders

_WORTH_IT = 32  # patches: below, a second git costs more than it saves
_SECOND = 0.42  # of the patches: the second git's files have to be listed as well


def cores() -> int:
    """How many gits may run at once."""
    count = getattr(os, "sched_getaffinity", None)
    return len(count(0)) if count is not None else os.cpu_count() or 1


def apply_patches(
    index: Index, base: str, found: Lint, *, alone: bool = False
) -> tuple[Ran, list[Patch]]:
    """Apply all patches to ``index``, which holds ``base`` (`Index.read_kept`), or none of them.

    Gives what git said (`Index.applying`) and the patches in the order in which it read them.
    ``alone``: with one git.
    """
    if not alone and cores() > 1:
        first, second = share_out(found.patches)
        if second:
            done = _both(index, first, second)
            if done is not None:
                return done, first + second
            index.read_kept(base)
    with index.applying(_joined(found.patches)) as running:
        return running.wait(check=False), found.patches


def _both(index: Index, first: Sequence[Patch], second: Sequence[Patch]) -> Ran | None:
    twin = index.twin()
    with twin.applying(_joined(second)) as there, index.applying(_joined(first)) as here:
        theirs = there.wait(check=False)
        if theirs.code == 0:
            index.take(twin)
        ours = here.wait(check=False)
    if ours.code != 0 or theirs.code != 0:
        return None
    return Ran(0, ours.out + theirs.out, ours.err + theirs.err)


def _joined(patches: Sequence[Patch]) -> bytes:
    return b"".join(patch.data for patch in patches)


def share_out(patches: Sequence[Patch]) -> tuple[list[Patch], list[Patch]]:
    """The patches for one git and for another, each in their order; nothing for the other when
    there is too little to share."""
    changes = [number for number, patch in enumerate(patches) if _changes_content(patch)]
    count = int(len(patches) * _SECOND)
    if len(patches) < _WORTH_IT or len(changes) < count:
        return list(patches), []
    second = set(changes[-count:])
    made = {s.new for patch in patches for s in patch.sections if s.new not in (None, s.old)}
    if made & folders(patches[number].sections[0].path for number in second):
        return list(patches), []  # a file or link where a changed file's folder is
    return (
        [patch for number, patch in enumerate(patches) if number not in second],
        [patches[number] for number in sorted(second)],
    )


def _changes_content(patch: Patch) -> bool:
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
