"""Adds a layer's own files to a tree, and looks at the links of the tree that comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from typing import TYPE_CHECKING

from uniscale_build.errors import LayerError, raise_all
from uniscale_build.git.db import GitDb, Listing
from uniscale_build.layers.layerfile import SYMLINK, shown
from uniscale_build.layers.lint import Lint
from uniscale_build.pathrules import escaping_links

if TYPE_CHECKING:
    from uniscale_build.layers.layer import Layer


def touches_links(before: Listing, found: Lint) -> bool:
    """True when the patches make, change, move or remove links of the tree."""
    return any(
        SYMLINK in (section.old_mode, section.new_mode) or section.old in before.links
        for section in found.sections
    )


def patched(before: Listing, found: Lint) -> Listing:
    """The names after patches that touch no link."""
    gone = {s.old for s in found.sections if s.old is not None and s.old != s.new and not s.copied}
    made = {s.new for s in found.sections if s.new is not None}
    return Listing((before.paths - gone) | made, before.links)


def in_the_way(layer: Layer, found: Lint, present: Set[bytes]) -> Iterator[LayerError]:
    """`LayerError` for each added file that is there, or that lies behind a file or link.

    ``present`` are the names of the tree after the layer's patches.
    """
    paths = [file.path for file in found.overlay]
    taken = present | {name for section in found.sections for name in section.names}
    below = folders(present)
    for path in paths:
        where = f"{layer.where}/overlay/{shown(path)}"
        if path in taken or path in below:
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


def folders(paths: Iterable[bytes]) -> set[bytes]:
    """Every folder that a path lies in."""
    found = {path.rpartition(b"/")[0] for path in paths}
    found.discard(b"")
    for folder in list(found):
        for above in _above(folder):
            if above in found:
                break  # and so is all above it
            found.add(above)
    return found


def _above(path: bytes) -> Iterator[bytes]:
    at = path.rfind(b"/")
    while at > 0:
        yield path[:at]
        at = path.rfind(b"/", 0, at)


def check_links(db: GitDb, before: Listing, after: Listing, layer: Layer) -> None:
    """`LayerError` for links that leave the tree since this layer, step by step."""
    if after.links == before.links:
        return
    links = _targets(db, after.links)
    escaping = escaping_links(links)
    if not escaping:
        return
    old = set(escaping_links(_targets(db, before.links)))
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
