"""``check --fix``: writes layers anew that apply but are not in the form that uniscale writes."""

from __future__ import annotations

from collections.abc import Sequence

from uniscale_build import swap
from uniscale_build.errors import StoreError
from uniscale_build.git.db import GitDb
from uniscale_build.inplace.stack import Target, exclusive
from uniscale_build.layers.layer import Layer, apply_layer, read_layer
from uniscale_build.layers.layerfile import export, updated_yaml, write_folder
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.store import Store


def fix(
    project: Project, store: Store, reporter: Reporter, layers: Sequence[Layer]
) -> tuple[str, ...]:
    """Write each layer as what it does to its base, all of a backend at once; what was written."""
    db = GitDb(store).open()
    written: list[str] = []
    for backend in dict.fromkeys(layer.backend for layer in layers):
        mine = [layer for layer in layers if layer.backend == backend]
        pins = project.manifests.backends[backend].pins
        with exclusive(Target(project, pins[0], None), store, reporter):
            home = project.patches / backend
            for layer in mine:
                _stage(db, layer)
            swap.commit(home, [layer.name for layer in mine])
        written += [layer.where for layer in mine]
    return tuple(written)


def _stage(db: GitDb, layer: Layer) -> None:
    made = apply_layer(db, layer.base, layer)
    name = f"{layer.where}/layer.yaml"
    yaml = updated_yaml((layer.folder / "layer.yaml").read_bytes(), layer.base, made, name)
    folder = swap.staged(layer.folder.parent, layer.name)
    write_folder(folder, export(db, layer.base, made), yaml, like=layer.folder)
    again = apply_layer(db, layer.base, read_layer(folder, layer.backend))
    if again != made:
        raise StoreError(
            f"written anew it gives tree {again[:12]}, not {made[:12]}: nothing was changed",
            where=layer.where,
            hint="this is a fault of uniscale: please report it with the layer",
            slug="not-proven",
        )
