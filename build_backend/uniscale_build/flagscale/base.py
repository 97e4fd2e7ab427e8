"""What a FlagScale patch set was made on, and what it comes to as layers on our pin.

The set is applied as it is, in the object store; then the trees are compared: what of it is really
FlagScale's own layer, and what is left for the vendor.
"""

from __future__ import annotations

from dataclasses import dataclass

from uniscale_build.errors import ConflictError, UniscaleError, raise_all
from uniscale_build.flagscale.meta import FLAGSCALE, Quirk
from uniscale_build.git.db import GitDb
from uniscale_build.git.treemerge import merge_trees
from uniscale_build.ids import slug
from uniscale_build.layers.layer import patched_tree
from uniscale_build.layers.layerfile import shown
from uniscale_build.manifests.model import Manifests, Pin
from uniscale_build.project import Project


@dataclass(frozen=True)
class Size:
    """How much lies between two trees: files, and lines added and removed (binaries: none)."""

    files: int
    added: int
    removed: int

    @property
    def lines(self) -> int:
        """Added and removed lines together."""
        return self.added + self.removed


def measure(db: GitDb, base: str, result: str) -> Size:
    """The `Size` of the change from ``base`` to ``result``, renames found."""
    out = db.run("diff-tree", "-r", "-M", "-l0", "--numstat", base, result).out
    rows = [line.split(b"\t", 2) for line in out.splitlines()]
    added, removed = (
        sum(int(row[column]) for row in rows if row[column] != b"-") for column in (0, 1)
    )
    return Size(len(rows), added, removed)


@dataclass(frozen=True)
class Step:
    """One layer to be: whose it is (``common`` or ``vendor``) and the trees around it."""

    role: str
    base: str
    result: str
    size: Size


def stack(
    db: GitDb, project: Project, pin: Pin, common: str | None, vendor: str, quirks: list[Quirk],
    where: str,
) -> list[Step]:  # fmt: skip
    """The layers that bring ``vendor`` (a tree made on the pin) onto the pin's own layers.

    ``common`` is the tree that FlagScale's own changes make of the pin, when it is known. The set
    is split at it when that leaves fewer lines to the vendor. `ConflictError` names the files where
    the pin's own layers and the set disagree.
    """
    own = project.layers(pin, None)
    top = patched_tree(db, pin, own)
    present = {pin.tree, *(layer.result for layer in own)}
    whole = measure(db, pin.tree, vendor)
    split = common is not None and measure(db, common, vendor).lines < whole.lines
    steps: list[Step] = []
    base, below = pin.tree, top
    if common is not None and split:
        if common not in present:
            below = _moved(db, pin, pin.tree, top, common, where, f"{FLAGSCALE}'s own changes")
            steps.append(Step("common", top, below, measure(db, top, below)))
        base = common
    elif common is not None and common != pin.tree:
        quirks.append(
            Quirk("does not contain FlagScale's own changes; imported as one layer", where)
        )
    result = _moved(db, pin, base, below, vendor, where, "the set")
    if result == below:
        quirks.append(Quirk("has nothing beyond FlagScale's own changes; no vendor layer", where))
    else:
        steps.append(Step("vendor", below, result, measure(db, below, result)))
    return steps


def _moved(db: GitDb, pin: Pin, base: str, onto: str, tree: str, where: str, what: str) -> str:
    merged = merge_trees(db, base, onto, tree)
    raise_all(
        [
            ConflictError(
                f"{what} and the pin's own layers ({', '.join(pin.layers)}) change the same place "
                f"of {shown(path)}",
                where=where,
                hint="import it onto a pin without layers (--pin), then move it here with "
                "uniscale-build port",
                slug="conflict",
            )
            for path in merged.conflicts
        ]
    )
    return merged.tree


def same_device(word: str, manifests: Manifests, name: str) -> bool:
    """True when ``word`` (any spelling or alias) is the device ``name``."""
    try:
        return manifests.device(word).name == name
    except UniscaleError:
        return slug(word) == slug(name)
