"""Adds a layer's own files to a tree, and looks at the links of the tree that comes out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from uniscale_build.errors import LayerError, raise_all
from uniscale_build.git.db import Entry, GitDb, Listing
from uniscale_build.git.entry import SYMLINK
from uniscale_build.git.trees import above, folders
from uniscale_build.layers.layerfile import shown
from uniscale_build.layers.lint import Lint
from uniscale_build.pathrules import escaping_links

if TYPE_CHECKING:
    from uniscale_build.layers.layer import Layer


def in_the_way(layer: Layer, found: Lint, before: Listing) -> Iterator[LayerError]:
    """`LayerError` for each added file that is there, or that lies behind a file or link.

    ``before`` is the tree below; what counts are its names after the layer's patches.
    """
    gone = {s.old for s in found.sections if s.old is not None and s.old != s.new and not s.copied}
    made = {s.new for s in found.sections if s.new is not None}
    named = found.names
    paths = [file.path for file in found.overlay]

    def present(path: bytes) -> bool:
        return path in made or (path not in gone and before.file(path) is not None)

    # Few are the name of a folder, and to know which folders are left costs time.
    below = {path for path in paths if before.is_folder(path)} | (folders(made) & set(paths))
    if below:
        below &= folders(made | (set(before.below(b"")) - gone))
    for path in paths:
        where = f"{layer.where}/overlay/{shown(path)}"
        if path in named or path in below or present(path):
            yield LayerError(
                f"{shown(path)} is in the tree below already",
                where=where,
                hint="an overlay adds files; a change to an upstream file is a patch in diff/",
                slug="overlay-exists",
            )
        for folder in above(path):
            if present(folder):
                yield LayerError(
                    f"{shown(folder)} is a file or link in the tree below, not a folder",
                    where=where,
                    hint="nothing is written through links; remove or rename it in a patch first",
                    slug="behind-file",
                )


def check_links(
    db: GitDb, before: Mapping[bytes, str], files: Mapping[bytes, Entry | None], layer: Layer
) -> None:
    """`LayerError` for links that leave the tree since this layer, step by step.

    ``before`` are the links of the tree below with their blobs, ``files`` what the patches made.
    """
    after = {path: oid for path, oid in before.items() if path not in files}
    after |= {p: entry.oid for p, entry in files.items() if entry and entry.mode == SYMLINK}
    if after == before:
        return
    links = _targets(db, after)
    escaping = escaping_links(links)
    if not escaping:
        return
    old = set(escaping_links(_targets(db, before)))
    raise_all(
        [
            LayerError(
                f"the link {shown(path)} -> {shown(links[path])} leads out of the tree",
                where=layer.where,
                slug="link-escape",
            )
            for path in escaping
            if path not in old
        ]
    )


def _targets(db: GitDb, links: Mapping[bytes, str]) -> Mapping[bytes, bytes]:
    blobs = db.read_blobs(list(links.values())) if links else {}
    return {path: blobs[oid] for path, oid in links.items()}
