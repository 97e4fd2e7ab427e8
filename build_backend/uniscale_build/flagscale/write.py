"""Writes what an import planned: new layers, then adaptations, all of it proven before.

New files are made, and what waits for them is completed: an adaptation with ``status:
needs-layers`` gets its layers, an opaque layer (nothing but the names of encrypted files) becomes
the layer that it stood for once there is a key. Nothing else is ever replaced. A run that was
killed leaves whole layers; the next run finds them and goes on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build import swap
from uniscale_build.errors import LayerError, ManifestError, UniscaleError, raise_all
from uniscale_build.flagscale.meta import FLAGSCALE
from uniscale_build.ids import check_name, slug
from uniscale_build.inplace.stack import Target, exclusive
from uniscale_build.layers.layer import Layer, apply_layer, read_layer
from uniscale_build.layers.layerfile import About, new_yaml, write_folder
from uniscale_build.porting.pinmove import with_pin
from uniscale_build.store import digest, disk_errors, write_atomic
from uniscale_build.yamledit import scalar
from uniscale_build.yamlfile import Fields, parse

if TYPE_CHECKING:
    from uniscale_build.flagscale.plan import Context, NewLayer, Planned
    from uniscale_build.manifests.model import Device
    from uniscale_build.project import Project

HOME = "https://github.com/FlagOpen/FlagScale"


def _existing(project: Project, backend: str, name: str) -> Layer | None:
    folder = project.patches / backend / name
    return read_layer(folder, backend) if (folder / "layer.yaml").is_file() else None


def is_opaque(layer: Layer) -> bool:
    """True for a layer that only names what is encrypted elsewhere."""
    return layer.sealed and sorted(path.name for path in layer.folder.iterdir()) == ["layer.yaml"]


def layer_name(
    context: Context, role: str, device: Device, backend: str, version: str, base: str, result: str
) -> str:
    """The name for a new layer, or of the very layer when it is there already.

    `LayerError` when the name belongs to another layer: none is ever overwritten.
    """
    wishes = context.wishes
    given = wishes.common_layer if role == "common" else wishes.layer
    first = given or (slug(FLAGSCALE) if role == "common" else slug(device.name))
    names = [first] if given or role != "common" else [first, f"{first}-{version}"]
    for name in names:
        check_name(name, what="layer", error=LayerError)
        if context.taken.get((backend, name), (base, result)) != (base, result):
            continue
        there = _existing(context.project, backend, name)
        same = there is None or (there.base, there.result) == (base, result)
        if same or (there is not None and is_opaque(there) and role == "vendor"):
            context.taken[backend, name] = (base, result)
            return name
    option = "--common-layer" if role == "common" else "--layer"
    raise LayerError(
        f'there is another layer "{names[-1]}" already',
        where=f"patches/{backend}/{names[-1]}",
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


def _facts(planned: Planned) -> dict[str, list[str]]:
    """What the import knows of an adaptation: each key of its manifest with its lines."""
    names = [layer.name for layer in planned.layers]
    facts = {
        "pin": [f"pin: {scalar(planned.version)}"],
        "layers": ["layers:", *(f"  - {scalar(name)}" for name in names)] if names else [],
        "status": [],
        "missing": [],
        "commit": [],
    }
    if planned.opaque:
        text = f"the layer {names[-1]} is encrypted: {planned.layers[-1].size.files} files by name"
        facts |= {"status": ["status: needs-layers"], "missing": [f"missing: {scalar(text)}"]}
    return facts


def adaptation_yaml(planned: Planned) -> bytes:
    """The text of a new adaptation's manifest."""
    applied = f"{planned.backend.name} {planned.version}; nothing was built or run"
    models = ["models:", *(f"  - {scalar(model)}" for model in planned.models)]
    lines = [
        f"# Imported from FlagScale's {planned.source}.",
        f"backend: {scalar(planned.backend.name)}",
        f"device: {scalar(planned.device.name)}",
        *(line for block in _facts(planned).values() for line in block),
        "tasks:",
        *(f"  - {task}" for task in planned.tasks),
        *(models if planned.models else ()),
        f"contact: {scalar(planned.contact)}",
        *(() if planned.opaque else ("verified:", f"  applied: {scalar(applied)}")),
    ]
    return ("\n".join(lines) + "\n").encode()


def completed_yaml(raw: bytes, planned: Planned, name: str) -> bytes:
    """``raw``, an adaptation that waits for layers, with the pin and layers of the import.

    Everything else in it stays. `ManifestError` when it cannot be edited safely.
    """
    facts = _facts(planned)
    lines, skipping, told = [], False, False
    for line in raw.decode("utf-8-sig").splitlines():
        if line[:1] not in ("", " ", "\t", "#", "-"):
            skipping = line.split(":")[0].strip("\"' ") in facts
            if skipping and not told:
                lines += [new for block in facts.values() for new in block]
                told = True
        if not skipping:
            lines.append(line)
    made = ("\n".join(lines) + "\n").encode()
    before, after = parse(raw, name).plain(), None
    with contextlib.suppress(UniscaleError):  # compared below
        after = parse(made, name).plain()
    new = parse("\n".join(x for block in facts.values() for x in block).encode(), name).plain()
    kept = {k: v for k, v in before.items() if k not in facts} if isinstance(before, dict) else {}
    if not isinstance(new, dict) or after != {**kept, **new}:
        raise ManifestError(
            "cannot be edited without risk to what is written there",
            where=name,
            hint="take its status out and set:\n" + "\n".join(x for b in facts.values() for x in b),
            slug="edit-by-hand",
        )
    return made


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
    layer: NewLayer | None  # None: a manifest
    data: bytes
    old: bytes = b""


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
    try:
        jobs |= {job.target: job for job in _pin_jobs(project, plans)}
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
    known = project.manifests.adaptations.get((planned.backend.name, planned.device.name))
    if known is None:
        return _Job(target, shown, "new", planned, None, adaptation_yaml(planned))
    names = tuple(layer.name for layer in planned.layers)
    if not known.ready:
        old = target.read_bytes()
        data = completed_yaml(old, planned, shown)
        state = "present" if data == old else "replace"
        return _Job(target, shown, state, planned, None, data, old)
    if (known.pin, known.layers) == (planned.version, names):
        return _Job(target, shown, "present", planned, None, b"")
    raise ManifestError(
        "is there already and says something else",
        where=shown,
        hint=f"nothing is overwritten; its layers would be: {', '.join(names) or 'none'} on pin "
        f"{planned.version}",
        slug="adaptation-exists",
    )


def _pin_jobs(project: Project, plans: Sequence[Planned]) -> list[_Job]:
    """One job for each backend's manifest that gets pins."""
    jobs: dict[Path, _Job] = {}
    for planned in plans:
        if not planned.new_pin or planned.pin is None:
            continue
        backend = planned.backend
        target = project.root / backend.where
        old = jobs[target].data if target in jobs else target.read_bytes()
        versions = Fields(parse(old, backend.where), []).items("pins")
        if planned.pin.version in [Fields(pin, []).text("version", "") for pin in versions]:
            continue  # another set of this run was made on it too
        data = with_pin(old, planned.pin, backend.where)
        first = jobs[target].old if target in jobs else old
        jobs[target] = _Job(target, backend.where, "replace", planned, None, data, first)
    return list(jobs.values())


def _put_all(context: Context, jobs: Sequence[_Job]) -> None:
    """The layers and adaptations of each backend together: all or nothing."""
    by_backend: dict[str, list[_Job]] = {}
    for job in jobs:
        by_backend.setdefault(job.planned.backend.name, []).append(job)
    for group in by_backend.values():
        target = Target(context.project, group[0].planned.backend.pins[0], None)
        target.home.mkdir(parents=True, exist_ok=True)
        with exclusive(target, context.db.store, context.reporter):
            layers = [(job, job.layer) for job in group if job.layer is not None]
            for job, layer in layers:
                write_folder(swap.staged(target.home, layer.name), layer.members, job.data)
            edits = [
                swap.Edit(job.target, job.old, job.data)
                for job in group
                if job.layer is None and job.state == "replace"
            ]
            swap.commit(target.home, [layer.name for _, layer in layers], *edits)
        for job in group:
            if job.layer is None and job.state == "new":
                job.target.parent.mkdir(parents=True, exist_ok=True)
                write_atomic(job.target, job.data)
