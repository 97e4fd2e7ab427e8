"""Adds a layer's own files to a tree, and looks at the links of the tree that comes out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING

from uniscale_build.errors import LayerError, raise_all
from uniscale_build.gitdb import Entry, GitDb, Index
from uniscale_build.layerfile import SYMLINK, shown
from uniscale_build.lint import Lint
from uniscale_build.pathrules import escaping_links

if TYPE_CHECKING:
    from uniscale_build.layers import Layer


def add_overlay(db: GitDb, layer: Layer, index: Index, found: Lint, present: Set[bytes]) -> None:
    """Put the files of ``overlay/`` into the index, where its patches are applied already.

    ``present`` are the names in the index.

    `LayerError` for each that is there, or that lies behind a file or link.
    """
    overlay = layer.overlay
    if not overlay:
        return
    root = len(os.fsencode(layer.folder / "overlay")) + 1
    paths = [os.fsencode(path)[root:] for path in overlay]
    taken = present | {name for section in found.sections for name in section.names}
    raise_all(list(_in_the_way(layer, paths, present, taken)))
    oids = db.write_files(overlay)
    index.put(
        (path, Entry("100755" if file.stat().st_mode & 0o100 else "100644", oid))
        for path, file, oid in zip(paths, overlay, oids, strict=True)
    )


def _in_the_way(
    layer: Layer, paths: list[bytes], present: Set[bytes], taken: Set[bytes]
) -> Iterator[LayerError]:
    folders = _folders(present)
    for path in paths:
        where = f"{layer.where}/overlay/{shown(path)}"
        if path in taken or path in folders:
            yield LayerError(
                f"{shown(path)} is in the tree below already",
                where=where,
                hint="an overlay adds files; a change to an upstream file is a patch in diff/",
                slug="overlay-exists",
            )
        for above in _above(path):
            if above in present:
                yield LayerError(
                    f"{shown(above)} is a file or link in the tree below, not a folder",
                    where=where,
                    hint="nothing is written through links; remove or rename it in a patch first",
                    slug="behind-file",
                )


def _folders(paths: Iterable[bytes]) -> set[bytes]:
    """Every folder that a path lies in."""
    found: set[bytes] = set()
    for path in paths:
        for folder in _above(path):
            if folder in found:
                break  # and so is all above it
            found.add(folder)
    return found


def _above(path: bytes) -> Iterator[bytes]:
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)


def check_links(
    db: GitDb, base: str, after: Mapping[bytes, str], layer: Layer, found: Lint
) -> None:
    """`LayerError` for links that leave the tree since this layer, step by step.

    ``after`` are the links of the tree that comes out, with their blobs.
    """
    # A pure rename does not tell what it moves.
    if not any(section.renamed or section.copied or SYMLINK in (section.old_mode, section.new_mode)
               for section in found.sections):  # fmt: skip
        return
    links = _targets(db, after)
    escaping = escaping_links(links)
    if not escaping:
        return
    before = set(escaping_links(_links(db, base)))
    raise_all(
        [
            LayerError(
                f"the link {shown(path)} -> {shown(links[path])} leads out of the tree",
                where=layer.where,
                slug="link-escape",
            )
            for path in escaping
            if path not in before
        ]
    )


def _links(db: GitDb, tree: str) -> Mapping[bytes, bytes]:
    entries = db.list_tree(tree).items()
    return _targets(db, {path: entry.oid for path, entry in entries if entry.mode == SYMLINK})


def _targets(db: GitDb, links: Mapping[bytes, str]) -> Mapping[bytes, bytes]:
    blobs = db.read_blobs(list(links.values())) if links else {}
    return {path: blobs[oid] for path, oid in links.items()}
