"""Writes what an import planned: new layers, then adaptations, all of it proven before.

Only new files are made. The one thing that is ever replaced is an opaque layer (nothing but the
names of encrypted files) by the layer that it stood for, once there is a key. A run that was killed
leaves whole layers; the next run finds them and goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build import swap
from uniscale_build.errors import LayerError, ManifestError, UniscaleError, raise_all
from uniscale_build.flagscale_meta import FLAGSCALE
from uniscale_build.ids import check_name, slug
from uniscale_build.layerfile import About, new_yaml, write_folder
from uniscale_build.layers import Layer, apply_layer, read_layer
from uniscale_build.stack import Target, exclusive
from uniscale_build.store import digest, disk_errors, write_atomic
from uniscale_build.yamledit import scalar

if TYPE_CHECKING:
    from uniscale_build.flagscale_plan import Context, NewLayer, Planned
    from uniscale_build.manifest import Device, Pin
    from uniscale_build.project import Project

HOME = "https://github.com/FlagOpen/FlagScale"


def _existing(project: Project, backend: str, name: str) -> Layer | None:
    folder = project.patches / backend / name
    return read_layer(folder, backend) if (folder / "layer.yaml").is_file() else None


def is_opaque(layer: Layer) -> bool:
    """True for a layer that only names what is encrypted elsewhere."""
    return layer.sealed and sorted(path.name for path in layer.folder.iterdir()) == ["layer.yaml"]


def layer_name(
    context: Context, role: str, device: Device, pin: Pin, base: str, result: str
) -> str:
    """The name for a new layer, or of the very layer when it is there already.

    `LayerError` when the name belongs to another layer: none is ever overwritten.
    """
    wishes = context.wishes
    given = wishes.common_layer if role == "common" else wishes.layer
    first = given or (slug(FLAGSCALE) if role == "common" else slug(device.name))
    names = [first] if given or role != "common" else [first, f"{first}-{pin.version}"]
    for name in names:
        check_name(name, what="layer", error=LayerError)
        if context.taken.get((pin.backend, name), (base, result)) != (base, result):
            continue
        there = _existing(context.project, pin.backend, name)
        same = there is None or (there.base, there.result) == (base, result)
        if same or (there is not None and is_opaque(there) and role == "vendor"):
            context.taken[pin.backend, name] = (base, result)
            return name
    option = "--common-layer" if role == "common" else "--layer"
    raise LayerError(
        f'there is another layer "{names[-1]}" already',
        where=f"patches/{pin.backend}/{names[-1]}",
        hint=f"{option} NAME gives the new one another name",
        slug="layer-exists",
    )


def layer_yaml(planned: Planned, layer: NewLayer) -> bytes:
    """The text of the new layer's ``layer.yaml``."""
    backend, device = planned.backend, planned.device
    source = f"FlagScale's {planned.source}"
    at = f" (made on FlagScale's commit {planned.commit[:12]})" if planned.commit else ""
    if layer.role == "common":
        why = (
            f"What FlagScale changes in {backend.name} for every device, as found{at or ' there'}."
        )
        about = About(f"FlagScale's own changes to {backend.title}", why, FLAGSCALE, HOME)
        return new_yaml(about, layer.base, layer.result)
    models = f" It was made for: {', '.join(planned.models)}." if planned.models else ""
    why = f"Imported from {source}{at}.{models}"
    title = f"{backend.name} on {device.title}"
    if layer.role == "opaque":
        why += " Encrypted by its owner: only the names of its files are known here."
    owner = device.vendor if device.vendor != "any" else device.title
    text = new_yaml(About(title, why, owner, planned.contact), layer.base, layer.result)
    if layer.role == "opaque":
        lines = ["sealed: true", "files:", *(f"  - {scalar(file)}" for file in layer.files)]
        text += ("\n".join(lines) + "\n").encode()
    return text


def adaptation_yaml(planned: Planned, names: Sequence[str]) -> bytes:
    """The text of the adaptation's manifest with ``names`` as its layers."""
    version, readable = planned.pin.version, "opaque" not in [x.role for x in planned.layers]
    applied = f"the layers apply to {planned.backend.name} {version}; nothing was built or run"
    lines = [
        f"# Imported from FlagScale's {planned.source}.",
        f"backend: {scalar(planned.backend.name)}",
        f"device: {scalar(planned.device.name)}",
        f"pin: {scalar(version)}",
        *(["layers:", *(f"  - {scalar(name)}" for name in names)] if names else ["layers: []"]),
        f"tasks: [{', '.join(planned.tasks)}]",
        f"contact: {scalar(planned.contact)}",
        "verified:",
        f"  imported: {scalar(applied if readable else 'by the names of encrypted files alone')}",
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Outcome:
    """What writing did or would do: paths that are new, replaced, or there already."""

    written: tuple[str, ...]
    replaced: tuple[str, ...]
    present: tuple[str, ...]


def prove(context: Context, planned: Planned) -> None:
    """Apply every new layer from its files, as a build would; `LayerError` when trees differ."""
    for layer in planned.layers:
        if layer.role == "opaque":
            continue
        with context.db.store.scratch() as scratch:
            folder = scratch / layer.name
            write_folder(folder, layer.members, layer_yaml(planned, layer))
            made = apply_layer(context.db, layer.base, read_layer(folder, planned.backend.name))
        if made != layer.result:
            raise LayerError(
                f'layer "{layer.name}" would give tree {made[:12]}, not {layer.result[:12]}',
                where=planned.source,
                hint="please report this: nothing was written",
                slug="result-differs",
            )


@dataclass(frozen=True)
class _Job:
    """One file or folder to be put in place."""

    target: Path
    shown: str
    state: str  # "new" | "replace" | "present"
    planned: Planned
    layer: NewLayer | None  # None: the adaptation
    data: bytes


def write(context: Context, plans: Sequence[Planned], *, dry_run: bool) -> Outcome:
    """Prove all plans, then write them: layers first, the adaptations that name them last."""
    project = context.project
    for planned in plans:
        prove(context, planned)
    jobs: dict[Path, _Job] = {}
    errors: list[UniscaleError] = []
    for planned in plans:
        try:
            for job in (*_layer_jobs(project, planned), _adaptation_job(project, planned)):
                jobs.setdefault(job.target, job)
        except UniscaleError as error:
            errors += error.findings()
    raise_all(errors)
    if not dry_run:
        lock = context.db.store.lock(f"import-{digest(str(project.root))[:16]}", context.reporter)
        with lock, disk_errors(project.root):
            _put_all(context, [job for job in jobs.values() if job.state != "present"])
    by_state = {
        state: tuple(job.shown for job in jobs.values() if job.state == state)
        for state in ("new", "replace", "present")
    }
    return Outcome(by_state["new"], by_state["replace"], by_state["present"])


def _layer_jobs(project: Project, planned: Planned) -> list[_Job]:
    jobs = []
    for layer in planned.layers:
        there = _existing(project, planned.backend.name, layer.name)
        shown = f"patches/{planned.backend.name}/{layer.name}"
        if there is None:
            state = "new"
        elif (there.base, there.result) == (layer.base, layer.result):
            state = "present"
        else:
            state = "replace"  # `layer_name` has allowed it: an opaque layer
        target = project.patches / planned.backend.name / layer.name
        if state == "new" and target.exists():
            raise LayerError(
                "is there, but is no layer",
                where=shown,
                hint="move it away; nothing is overwritten",
                slug="layer-exists",
            )
        jobs.append(_Job(target, shown, state, planned, layer, layer_yaml(planned, layer)))
    return jobs


def _adaptation_job(project: Project, planned: Planned) -> _Job:
    shown = f"manifests/adaptations/{planned.device.name}/{planned.backend.name}.yaml"
    target = project.root / shown
    names = [layer.name for layer in planned.layers]
    data = adaptation_yaml(planned, names)
    state = "new"
    if target.exists():
        there = target.read_bytes()
        opaque = dataclasses.replace(
            planned,
            layers=tuple(dataclasses.replace(x, role="opaque") for x in planned.layers[-1:]),
        )
        if there == data:
            state = "present"
        elif there == adaptation_yaml(opaque, names[-1:]):
            state = "replace"
        else:
            raise ManifestError(
                "is there already and says something else",
                where=shown,
                hint=f"nothing is overwritten; its layers would be: {', '.join(names)} on pin "
                f"{planned.pin.version}",
                slug="adaptation-exists",
            )
    return _Job(target, shown, state, planned, None, data)


def _put_all(context: Context, jobs: Sequence[_Job]) -> None:
    """The layers of each backend together, all or nothing; then the adaptations that name them."""
    by_backend: dict[str, list[tuple[_Job, NewLayer]]] = {}
    for job in jobs:
        if job.layer is not None:
            by_backend.setdefault(job.planned.backend.name, []).append((job, job.layer))
    for group in by_backend.values():
        target = Target(context.project, group[0][0].planned.pin, None)
        target.home.mkdir(parents=True, exist_ok=True)
        with exclusive(target, context.db.store, context.reporter):
            for job, layer in group:
                write_folder(swap.staged(target.home, layer.name), layer.members, job.data)
            swap.commit(target.home, [layer.name for _, layer in group])
    for job in jobs:
        if job.layer is None:
            job.target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(job.target, job.data)
