"""Reads the manifests of a project and of a site's own folders: all of them, all errors at once.

The ``read_*`` functions say which keys there are; the JSON Schemas for editors come from them too
(`schema`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from uniscale_build.errors import Gathering, ManifestError, UniscaleError, raise_all
from uniscale_build.ids import check_name
from uniscale_build.manifests.check import cross_check
from uniscale_build.manifests.devices import Device, image, read_device
from uniscale_build.manifests.model import (
    RECIPES,
    SDK_USES,
    STATUSES,
    TASK_ALIASES,
    TASKS,
    Adaptation,
    Backend,
    Manifests,
    Recipe,
    canonical_task,
)
from uniscale_build.manifests.pins import read_pin
from uniscale_build.manifests.python import (
    from_source,
    kit,
    native,
    precompiled,
    pythons,
    requirement_rule,
)
from uniscale_build.yamlfile import Fields, load

FOLDERS = ("backends", "devices", "adaptations")
Item = TypeVar("Item", Backend, Device, Adaptation)


def _tasks(fields: Fields) -> tuple[str, ...]:
    allowed = (*TASKS, *TASK_ALIASES)
    found = fields.some_of("tasks", allowed, "unknown-task")
    return tuple(dict.fromkeys(canonical_task(word) for word in found if word in allowed))


def _recipe(fields: Fields, *, partial: bool) -> Recipe:
    kind = fields.one_of("kind", RECIPES, "" if partial else None)
    recipe = Recipe(
        kind=kind,
        family=fields.text("family", ""),
        targets=fields.texts("targets"),
        defines=fields.pairs("defines"),
        programs=fields.texts("programs"),
        languages=fields.texts("languages") or (("C", "CXX") if kind == "cmake" else ()),
        allowed_external=fields.texts("allowed_external"),
        environment=fields.pairs("environment"),
        build_requires=fields.texts("build_requires"),
        precompiled=precompiled(fields.fields("precompiled")),
        from_source=from_source(fields.fields("from_source")),
        pythons=pythons(fields),
        native=native(fields.fields("native")),
        toolkit=tuple(kit(item) for item in fields.each("toolkit", "a kit")),
    )
    fields.finish()
    return recipe


def read_backend(fields: Fields, where: str) -> Backend:
    """The backend that a manifest describes; errors are collected in ``fields``."""
    name = fields.text("backend")
    backend = Backend(
        name=name,
        title=fields.text("title"),
        aliases=fields.texts("aliases"),
        label=fields.text("label"),
        distribution=fields.text("distribution"),
        homepage=fields.text("homepage"),
        license=fields.text("license"),
        purl=fields.text("purl"),
        tasks=_tasks(fields),
        pins=tuple(read_pin(item, name) for item in fields.each("pins", "a pin")),
        recipe=_recipe(fields.fields("recipe"), partial=False),
        launch=fields.tree("launch"),
        where=where,
        lines=fields.lines,
    )
    fields.finish()
    return backend


def read_adaptation(fields: Fields, where: str) -> Adaptation:
    """The adaptation that a manifest describes; errors are collected in ``fields``."""
    adaptation = Adaptation(
        backend=fields.text("backend"),
        device=fields.text("device"),
        pin=fields.text("pin"),
        layers=fields.texts("layers"),
        recipe=_recipe(fields.fields("recipe"), partial=True),
        tasks=_tasks(fields),
        requirements=fields.texts("requirements"),
        environment=fields.pairs("environment"),
        contact=fields.text("contact"),
        verified=fields.pairs("verified"),
        rules=tuple(requirement_rule(i) for i in fields.each("requirement_rules", "a rule")),
        where=where,
        status=fields.one_of("status", STATUSES, "ready"),
        missing=fields.text("missing", ""),
        commit=fields.text("commit", ""),
        models=fields.texts("models"),
        sdk=fields.one_of("sdk", SDK_USES, ""),
        image=image(fields),
        note=fields.text("note", ""),
        visible=fields.text("visible", ""),
        revision=fields.number("revision", 0),
        lines=fields.lines,
    )
    if adaptation.ready == bool(adaptation.missing or adaptation.commit):
        fields.fail(
            fields.get("missing") or fields.value,
            '"missing" goes with "status: needs-layers", and that with it; "commit" too',
            "a ready pair names its pin; one that waits says what is missing and from whom",
        )
    fields.finish()
    return adaptation


def load_manifests(roots: Iterable[Path]) -> Manifests:
    """Read every manifest below ``roots`` (later roots add to earlier ones); all errors at once."""
    roots = tuple(roots)
    errors: list[UniscaleError] = []
    backends: dict[str, Backend] = {}
    devices: dict[str, Device] = {}
    adaptations: dict[tuple[str, str], Adaptation] = {}
    for root in roots:
        for path in sorted(root.glob("**/*.y*ml")):
            folder, *inner = path.relative_to(root).parts
            if not _placed(path, root, folder, len(inner), errors):
                continue
            with Gathering(errors):
                if folder == "backends":
                    item = _read(path, root, errors, read_backend)
                    _add(backends, item.name, item, errors)
                elif folder == "devices":
                    chip = _read(path, root, errors, read_device)
                    _add(devices, chip.name, chip, errors)
                else:
                    pair = _read(path, root, errors, read_adaptation)
                    _add(adaptations, (pair.backend, pair.device), pair, errors)
    found = Manifests(roots[0], backends, devices, adaptations)
    errors.extend(cross_check(found, broken=bool(errors)))
    raise_all(errors)
    return found


def load_devices(roots: Iterable[Path]) -> dict[str, Device]:
    """The device manifests below ``roots`` alone, by name; all errors at once.

    For running, where backends and adaptations say nothing; `load_manifests` checks the whole.
    """
    errors: list[UniscaleError] = []
    devices: dict[str, Device] = {}
    for root in roots:
        for path in sorted((root / "devices").glob("*.yaml")):
            with Gathering(errors):
                chip = _read(path, root, errors, read_device)
                _add(devices, chip.name, chip, errors)
    raise_all(errors)
    return devices


def _placed(path: Path, root: Path, folder: str, depth: int, errors: list[UniscaleError]) -> bool:
    if folder in FOLDERS and depth == (2 if folder == "adaptations" else 1):
        if path.suffix == ".yaml":
            return True
        hint = f"rename it {path.stem}.yaml"
    else:
        hint = "it belongs to backends/, devices/ or adaptations/<device>/"
    errors.append(
        ManifestError(
            "is not where a manifest is read",
            where=path.relative_to(root.parent).as_posix(),
            hint=hint,
            slug="file-name",
        )
    )
    return False


def _read(
    path: Path, root: Path, errors: list[UniscaleError], read: Callable[[Fields, str], Item]
) -> Item:
    shown = path.relative_to(root.parent).as_posix()
    fields = Fields(load(path, shown=shown, told=errors), errors)
    item = read(fields, shown)
    if isinstance(item, Adaptation):
        name, file = f"{item.device}/{item.backend}", f"{path.parent.name}/{path.stem}"
        key = "device" if item.device != path.parent.name else "backend"
    else:
        name, file = item.name, path.stem
        key = "backend" if isinstance(item, Backend) else "device"
    if name != file:
        raise ManifestError(
            f"names {name!r}, but its file is called {file!r}", where=item.at(key), slug="file-name"
        )
    for part in name.split("/"):
        # The name becomes that of folders.
        check_name(part, what="manifest", error=ManifestError)
    return item


Key = TypeVar("Key")


def _add(known: dict[Key, Item], key: Key, item: Item, errors: list[UniscaleError]) -> None:
    if key in known:
        errors.append(
            ManifestError(
                "is there twice",
                where=item.where,
                hint=f"the other one is {known[key].where}; a site's folder adds manifests, it "
                "replaces none",
                slug="name-twice",
            )
        )
    known.setdefault(key, item)
