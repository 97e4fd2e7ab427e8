"""Verifies one layer against the tree that it was made on."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from uniscale_build.errors import LayerError, UniscaleError, some
from uniscale_build.git.db import Entry, GitDb
from uniscale_build.layers.layer import Layer, apply_linted
from uniscale_build.layers.layerfile import (
    READ_BY_GIT,
    Member,
    changed_patches,
    export,
    patch_label,
    same_patch,
    sections,
    shown,
)
from uniscale_build.layers.lint import Lint, lint_layer


@dataclass
class Findings:
    """What was found in one layer; ``fixable``: it applies, and writing it anew cures the rest."""

    layer: Layer
    errors: list[UniscaleError] = field(default_factory=list)
    warnings: list[UniscaleError] = field(default_factory=list)
    patches: int = 0
    files: int = 0
    lines: int = 0
    fixable: bool = False

    def error(self, what: str, slug: str, *, path: bytes | None = None, hint: str = "") -> None:
        """Record an error at a file of the layer (by default ``layer.yaml``)."""
        name = "layer.yaml" if path is None else shown(path)
        self.errors.append(
            LayerError(what, where=f"{self.layer.where}/{name}", hint=hint or None, slug=slug)
        )


class Checker:
    """Checks layers, several at once; trees that many layers stand on are listed once."""

    def __init__(self, db: GitDb) -> None:
        self.db = db
        self._trees: dict[str, Mapping[bytes, Entry]] = {}
        self._lock = threading.Lock()

    def _files(self, tree: str) -> Mapping[bytes, Entry]:
        with self._lock:
            if tree not in self._trees:
                self._trees[tree] = self.db.list_tree(tree)
            return self._trees[tree]

    def check(self, layer: Layer) -> Findings:
        """Everything that is wrong with ``layer``; never raises for what a layer can be."""
        found = Findings(layer)
        try:
            with _plain(self.db, layer, found) as plain:
                if plain is not None:
                    self._check(plain, found)
        except UniscaleError as error:
            found.errors += error.findings()
        return found

    def _check(self, layer: Layer, found: Findings) -> None:
        lint = lint_layer(layer)
        found.errors += lint.errors
        found.warnings += lint.warnings
        found.patches, found.files = len(lint.sections), len(layer.overlay)
        found.lines = sum(patch.data.count(b"\n") for patch in lint.patches)
        if lint.errors:
            return
        if layer.base not in self._trees and not self.db.has(layer.base):
            found.error(
                f"the tree that it was made on ({layer.base[:12]}) is not that of the layer below",
                "no-base",
                hint=f"uniscale-build port --backend {layer.backend} puts it on what is below now",
            )
            return
        base = self._files(layer.base)
        self._before(lint, base, found)
        self._redundant_overlay(layer, base, found)
        if found.errors:
            return
        made = apply_linted(self.db, layer.base, layer, lint)
        after = self.db.list_tree(made)
        self._after(lint, after, found)
        if made != layer.result:
            self._result(layer, made, after, found)
        if not self._in_form(layer, made, after, lint):
            self._canonical(layer, made, found)
        found.fixable = bool(found.errors)

    def _before(self, lint: Lint, base: Mapping[bytes, Entry], found: Findings) -> None:
        """Each patch's blob before is the base's: exact, where context lines only suggest."""
        for section in lint.sections:
            if section.old is None:
                continue
            path = patch_label(section.path)
            entry = base.get(section.old)
            port = f"uniscale-build port --backend {found.layer.backend} makes it anew"
            if entry is None:
                found.error(f"{shown(section.old)} is not in the tree below", "missing",
                            path=path, hint=port)  # fmt: skip
            elif (
                section.new_oid
                and entry.oid.startswith(section.new_oid)
                and (section.new_oid != section.old_oid and not section.renamed)
            ):
                found.error(
                    "the tree below has this change already",
                    "redundant",
                    path=path,
                    hint=f"remove the patch: {port.replace('makes it anew', 'drops it')}",
                )
            elif section.old_oid and not entry.oid.startswith(section.old_oid):
                found.error(
                    f"was made for blob {section.old_oid[:12]} of {shown(section.old)}, "
                    f"but the tree below has {entry.oid[:12]}",
                    "stale",
                    path=path,
                    hint=port,
                )
            elif (
                section.old_oid
                and section.old_oid == section.new_oid
                and (section.old_mode == section.new_mode and not section.renamed)
            ):
                found.error("changes nothing", "redundant", path=path, hint="remove the patch")

    def _redundant_overlay(
        self, layer: Layer, base: Mapping[bytes, Entry], found: Findings
    ) -> None:
        root = len(os.fsencode(layer.folder)) + 1
        for file in layer.overlay:
            path = os.fsencode(file)[root:]
            if (entry := base.get(path[8:])) is None:
                continue
            same = file.read_bytes() == self.db.read_blob(entry.oid)
            found.error(
                "the tree below has this very file already"
                if same
                else "the tree below has a file of this name",
                "redundant" if same else "overlay-exists",
                path=path,
                hint="remove it"
                if same
                else "an overlay adds files; a change to an upstream file is a patch in diff/",
            )

    def _after(self, lint: Lint, after: Mapping[bytes, Entry], found: Findings) -> None:
        """Each patch gives the blob that it says: one that was edited by hand does not."""
        for section in lint.sections:
            entry = after.get(section.new) if section.new is not None else None
            if entry is None or not section.new_oid or entry.oid.startswith(section.new_oid):
                continue
            found.error(
                f"gives blob {entry.oid[:12]}, but says {section.new_oid[:12]}: edited by hand?",
                "edited",
                path=patch_label(section.path),
                hint=_fix(found.layer),
            )

    def _result(
        self, layer: Layer, made: str, after: Mapping[bytes, Entry], found: Findings
    ) -> None:
        names: list[str] = []
        if self.db.has(layer.result):
            known = self.db.list_tree(layer.result)
            paths = sorted(path for path in {*known, *after} if known.get(path) != after.get(path))
            names = [shown(path) for path in paths]
        which = f"; they differ in {some(names, 8)}" if names else ""
        found.error(
            f"gives tree {made[:12]}, but records {layer.result[:12]}{which}",
            "result-differs",
            hint=_fix(layer),
        )

    def _in_form(self, layer: Layer, made: str, after: Mapping[bytes, Entry], lint: Lint) -> bool:
        """True when the files are surely those that `export` gives; asks git once, reads no blob.

        The names of patches are right already: the lint compares them with what they change.
        """
        root = len(os.fsencode(layer.folder)) + len(b"/overlay/")
        overlay = {os.fsencode(path)[root:] for path in layer.overlay}
        patched = [path for path in overlay if path.rpartition(b"/")[2].lower() in READ_BY_GIT]
        if patched or any(section.old is None for section in lint.sections):
            return False  # patches that add files are exported apart
        stored = [part for patch in lint.patches for part in sections(patch.data)]
        if sorted(stored) != sorted(changed_patches(self.db, layer.base, made)):
            return False
        moved = {section.new for section in lint.sections if section.renamed}
        base = self._files(layer.base)
        return overlay == {path for path in after if path not in base and path not in moved}

    def _canonical(self, layer: Layer, made: str, found: Findings) -> None:
        """What is exported from the trees must be the files that are there."""
        wanted = export(self.db, layer.base, made)
        root = len(os.fsencode(layer.folder)) + 1
        have = {os.fsencode(path)[root:]: path for path in (*layer.patches, *layer.overlay)}
        told = {error.where for error in found.errors}
        for path in sorted({*wanted, *have}):
            if f"{layer.where}/{shown(path)}" in told:
                continue
            what = ""
            if path not in wanted:
                what = "is not what uniscale would write for this change"
            elif path not in have:
                what = "is missing: uniscale would keep this change there"
            elif not _agrees(path, have[path].read_bytes(), wanted[path]):
                what = "is not in the form in which uniscale writes it"
            if what:
                found.error(what, "form", path=path, hint=_fix(layer))


def _agrees(path: bytes, data: bytes, member: Member) -> bool:
    return same_patch(data, member.data) if path.startswith(b"diff/") else data == member.data


def _fix(layer: Layer) -> str:
    return (
        f"when the change is meant: uniscale-build check --backend {layer.backend} --fix writes "
        "it anew"
    )


@contextlib.contextmanager
def _plain(db: GitDb, layer: Layer, found: Findings) -> Iterator[Layer | None]:
    """The layer with its files readable; None for a sealed one whose key is not here."""
    if not layer.sealed and (layer.folder / "sealed.age").exists():
        # Taken for a plain layer it would change nothing, and --fix would write just that down.
        raise LayerError(
            "holds sealed.age, but does not say that it is sealed",
            where=f"{layer.where}/layer.yaml",
            hint="restore layer.yaml from git; when the layer shall be plain, remove sealed.age "
            "and sealed.sig",
            slug="seal-broken",
        )
    if not layer.sealed:
        yield layer
        return
    from uniscale_build.sealing.sealed import opened

    with contextlib.ExitStack() as stack:
        try:
            plain = stack.enter_context(opened(layer, db.store))
        except UniscaleError as error:
            if error.slug != "sealed":
                raise
            found.warnings.append(
                LayerError(
                    "is sealed and there is no key here: what it does was not looked at",
                    where=layer.where,
                    hint=error.hint,
                    slug="sealed",
                )
            )
            yield None
            return
        yield plain
