"""Layers: read them, and apply them in the object store.

A layer is a folder ``patches/<backend>/<layer>/``: ``layer.yaml`` (why, whose, base and result
tree), ``diff/<path>.patch`` for each upstream file that it changes, removes or renames (and for new
links and git's own dot files), ``overlay/<path>`` for each file that it adds, as itself.
Applying makes a tree in the store and touches no work tree: nothing can be half applied.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LayerError, UniscaleError, raise_all
from uniscale_build.git.db import Entry, GitDb, Ran, changed_tree
from uniscale_build.ids import check_name, is_object_id
from uniscale_build.layers.lint import Lint, lint_layer
from uniscale_build.layers.misfit import misfits
from uniscale_build.layers.overlay import check_links, in_the_way
from uniscale_build.layers.patchtext import read_patch
from uniscale_build.layers.together import Applying, as_git_reads
from uniscale_build.manifests.model import Pin
from uniscale_build.yamlfile import Fields, load

STATUSES = ("pending", "submitted", "backport", "inappropriate")


@dataclass(frozen=True)
class Layer:
    """An ordered, owned set of changes on top of a tree, as its ``layer.yaml`` tells."""

    backend: str
    name: str
    folder: Path
    title: str
    why: str
    owner: str
    contact: str
    upstream: str  # one of STATUSES: does this change go upstream?
    base: str
    result: str
    sealed: bool = False
    recipients: tuple[str, ...] = ()
    signer: str = ""  # of a sealed layer: its owner's public key
    files: tuple[str, ...] = ()  # of a sealed layer: the upstream paths that it touches

    @property
    def patches(self) -> tuple[Path, ...]:
        """The patch files, in the order in which they are applied."""
        return tuple(sorted(_files(self.folder / "diff", ".patch")))

    @property
    def overlay(self) -> tuple[Path, ...]:
        """The added files."""
        return tuple(sorted(_files(self.folder / "overlay", "")))

    @property
    def where(self) -> str:
        """The folder as errors name it."""
        return f"patches/{self.backend}/{self.name}"


def _files(folder: Path, suffix: str) -> list[Path]:
    found = []
    for base, _, names in os.walk(folder):
        found += [Path(base, name) for name in names if name.endswith(suffix)]
    return found


def read_layer(folder: Path, backend: str) -> Layer:
    """The layer in ``folder``; `ManifestError` or `Problems` when ``layer.yaml`` is not right."""
    errors: list[UniscaleError] = []
    shown = f"patches/{backend}/{folder.name}/layer.yaml"
    fields = Fields(load(folder / "layer.yaml", shown=shown), errors)
    owner = fields.fields("owner")
    layer = Layer(
        backend=backend,
        name=folder.name,
        folder=folder,
        title=fields.text("title"),
        why=fields.text("why").strip(),
        owner=owner.text("name"),
        contact=owner.text("contact"),
        upstream=fields.one_of("upstream", STATUSES),
        base=fields.text("base"),
        result=fields.text("result"),
        sealed=fields.flag("sealed", False),
        recipients=fields.texts("recipients"),
        signer=fields.text("signer", ""),
        files=fields.texts("files"),
    )
    for key in ("base", "result"):
        found = fields.get(key)
        if found is not None and not is_object_id(str(found.data)):
            fields.fail(found, f'"{key}" must be a tree id of 40 digits')
    owner.finish()
    fields.finish()
    raise_all(errors)
    return layer


def find_layer(root: Path, backend: str, name: str) -> Layer:
    """The layer ``name`` of ``backend`` below ``root`` (the ``patches`` folder)."""
    check_name(name, what="layer", error=LayerError)
    folder = root / backend / name
    if not (folder / "layer.yaml").is_file():
        have = sorted(path.parent.name for path in (root / backend).glob("*/layer.yaml"))
        raise LayerError(
            f'{backend} has no layer "{name}"',
            where=f"patches/{backend}/{name}",
            hint=f"it has: {', '.join(have) or 'none'}",
            slug="no-layer",
        )
    return read_layer(folder, backend)


def check_chain(pin: Pin, layers: Sequence[Layer]) -> list[UniscaleError]:
    """Errors where a layer's recorded base is not the tree below it; needs no source."""
    below, whose = pin.tree, f"{pin.backend} {pin.version}"
    errors: list[UniscaleError] = []
    for layer in layers:
        if layer.base != below:
            errors.append(
                LayerError(
                    f'layer "{layer.name}" was made on tree {layer.base[:12]}, '
                    f"but {whose} gives {below[:12]}",
                    where=f"{layer.where}/layer.yaml",
                    hint=f"uniscale-build port --backend {pin.backend} moves it",
                    slug="base-differs",
                )
            )
        below, whose = layer.result, f'layer "{layer.name}"'
    return errors


def apply_layer(db: GitDb, base: str, layer: Layer) -> str:
    """The tree that ``layer`` makes of ``base``; `LayerError` for each file that does not fit.

    What `lint` refuses never reaches git. A sealed layer is opened with the key that
    ``UNISCALE_AGE_KEY`` names.
    """
    if layer.sealed:
        from uniscale_build.sealing.sealed import opened

        with opened(layer, db.store) as plain:
            return apply_layer(db, base, plain)
    with Applying(db, base) as work:
        found = lint_layer(layer, work)
        raise_all(found.errors)
        return _finish(db, base, layer, found, work)


def apply_linted(db: GitDb, base: str, layer: Layer, found: Lint) -> str:
    """`apply_layer` for who has looked through the layer's files already (no error was found).

    One git at a time applies patches: for who applies several layers at once.
    """
    with Applying(db, base, alone=True) as work:
        work.added(found.overlay)
        return _finish(db, base, layer, found, work)


def _finish(db: GitDb, base: str, layer: Layer, found: Lint, work: Applying) -> str:
    problems: list[LayerError] = []

    def look() -> None:
        problems.extend(in_the_way(layer, found, work.before))
        work.before.prepare(found.names.union(file.path for file in found.overlay))

    files: dict[bytes, Entry | None] = {}
    if found.patches:
        ran, patches, files = work.apply(found, look)
        if ran.code != 0:
            raise_all(_explain(db, base, layer, ran))
        raise_all(as_git_reads(layer.where, ran.out, patches))
    else:
        look()
    raise_all(problems)
    check_links(db, work.before.links, files, layer)
    raise_all(list(work.written()))
    files.update((file.path, Entry(file.mode, file.oid)) for file in found.overlay)
    return changed_tree(db, work.before, files)


def joined(patches: Sequence[bytes]) -> bytes:
    """Many patches as one input for git: each ends with a newline."""
    return b"".join(patch if patch.endswith(b"\n") else patch + b"\n" for patch in patches)


_FAILED = re.compile(r"^error: (?P<what>.*)$", re.MULTILINE)


def _explain(db: GitDb, base: str, layer: Layer, ran: Ran) -> list[UniscaleError]:
    """One error for each patch file that does not apply, with every hunk that does not fit."""
    errors: list[UniscaleError] = []
    files = db.list_tree(base)
    with db.index(base) as index:
        for path in layer.patches:
            alone = index.apply(path, check=False)
            if alone.code == 0:
                continue
            said = _FAILED.findall(alone.err) or [alone.err.strip() or "no reason given"]
            line, what = _hunks(db, files, path.read_bytes()) or ("", said[0])
            errors.append(
                LayerError(
                    f"does not apply: {what}",
                    where=f"{layer.where}/{path.relative_to(layer.folder).as_posix()}{line}",
                    hint=f"uniscale-build check --backend {layer.backend} tells what it fits",
                    slug="patch-failed",
                )
            )
    if not errors:
        errors.append(
            LayerError(f"does not apply: {ran.err.strip()}", where=layer.where, slug="patch-failed")
        )
    return errors


def _hunks(db: GitDb, files: Mapping[bytes, Entry], patch: bytes) -> tuple[str, str] | None:
    """The first misfit's place in the patch, a sentence on all; None where git says it better."""
    sections, _ = read_patch(patch)
    old = files.get(sections[0].old or b"") if sections else None
    if old is None or sections[0].binary:
        return None
    try:
        found, total = misfits(patch, db.read_blob(old.oid))
    except ModuleNotFoundError:
        return None  # a build has no need of unidiff; git's own words must do there
    if not found:
        return None
    told = "; ".join(item.sentence() for item in found)
    return f":{found[0].place}", f"{len(found)} of {total} hunks: {told}"


def patched_tree(db: GitDb, pin: Pin, layers: Sequence[Layer]) -> str:
    """The tree of pin and layers, every recorded tree checked on the way."""
    raise_all(check_chain(pin, layers))
    tree = pin.tree
    for layer in layers:
        made = apply_layer(db, tree, layer)
        if made != layer.result:
            raise LayerError(
                f'layer "{layer.name}" gives tree {made[:12]}, but records {layer.result[:12]}',
                where=f"{layer.where}/layer.yaml",
                hint="a file of the layer was edited by hand; "
                f"uniscale-build check --backend {layer.backend} names it",
                slug="result-differs",
            )
        tree = made
    return tree
