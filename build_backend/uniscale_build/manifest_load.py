"""Reads the manifests of a project and of a site's own folders: all of them, all errors at once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from uniscale_build.errors import (
    ManifestError,
    SettingsError,
    UniscaleError,
    did_you_mean,
    raise_all,
)
from uniscale_build.ids import is_object_id, is_sha256, slug
from uniscale_build.manifest import (
    RECIPES,
    Adaptation,
    Backend,
    Device,
    Manifests,
    Origin,
    Pin,
    Recipe,
    canonical_task,
)
from uniscale_build.yamlfile import Fields, Value, load


def _tasks(fields: Fields) -> tuple[str, ...]:
    tasks = []
    for item in fields.items("tasks"):
        try:
            tasks.append(canonical_task(str(item.data)))
        except SettingsError as error:
            fields.fail(item, error.what, error.hint, "unknown-task")
    return tuple(dict.fromkeys(tasks))


def _origin(value: Value, errors: list[UniscaleError]) -> Origin:
    fields = Fields(value, errors, "an origin")
    kinds = [kind for kind in ("git", "sdist", "archive", "folder") if fields.get(kind)]
    if len(kinds) != 1:
        fields.fail(value, "an origin is one of git, sdist, archive, folder", slug="bad-pin")
        return Origin("folder", where=value.where)
    (kind,) = kinds
    target = fields.text(kind)
    origin = Origin(
        kind=kind,
        url="" if kind == "sdist" else target,
        project=fields.text("project") if kind == "sdist" else "",
        file=target if kind == "sdist" else "",
        sha256=fields.text("sha256") if kind in ("sdist", "archive") else "",
        path=fields.text("path", ""),
        drop=fields.texts("drop"),
        where=value.where,
    )
    if origin.sha256 and not is_sha256(origin.sha256):
        fields.fail(value, '"sha256" must be 64 hexadecimal digits', slug="bad-pin")
    if kind == "git" and urlsplit(target).scheme not in ("https", "ssh", "file"):
        fields.fail(value, f"git address {target!r} must be https, ssh or file", slug="bad-pin")
    if ".." in Path(origin.path).parts or Path(origin.path).is_absolute():
        fields.fail(value, '"path" must stay inside the archive', slug="path-escape")
    fields.finish()
    return origin


def _pin(value: Value, backend: str, errors: list[UniscaleError]) -> Pin:
    fields = Fields(value, errors, "a pin")
    pin = Pin(
        backend=backend,
        version=fields.text("version"),
        commit=fields.text("commit"),
        tree=fields.text("tree"),
        origins=tuple(_origin(item, errors) for item in fields.items("origins")),
        layers=fields.texts("layers"),
        note=fields.text("note", ""),
        where=value.where,
    )
    for key in ("commit", "tree"):
        found = fields.get(key)
        if found is not None and not is_object_id(str(found.data)):
            fields.fail(found, f'"{key}" must be a full object id of 40 digits', slug="bad-pin")
    if not pin.origins:
        fields.fail(value, "a pin needs at least one origin", slug="bad-pin")
    fields.finish()
    return pin


def _recipe(fields: Fields, *, partial: bool) -> Recipe:
    recipe = Recipe(
        kind=fields.one_of("kind", RECIPES, "" if partial else None),
        targets=fields.texts("targets"),
        defines=fields.pairs("defines"),
        programs=fields.texts("programs"),
        languages=fields.texts("languages") or (() if partial else ("C", "CXX")),
        allowed_external=fields.texts("allowed_external"),
        environment=fields.pairs("environment"),
        build_requires=fields.texts("build_requires"),
    )
    fields.finish()
    return recipe


def _backend(path: Path, shown: str, errors: list[UniscaleError]) -> Backend:
    fields = Fields(load(path, shown=shown), errors)
    name = fields.text("backend")
    launch = fields.get("launch")
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
        pins=tuple(_pin(item, name, errors) for item in fields.items("pins")),
        recipe=_recipe(fields.fields("recipe"), partial=False),
        launch=launch.plain() if launch is not None else {},  # type: ignore[arg-type]
        where=shown,
    )
    fields.finish()
    _same_as_file(fields.value, name, path.stem)
    return backend


def _device(path: Path, shown: str, errors: list[UniscaleError]) -> Device:
    fields = Fields(load(path, shown=shown), errors)
    name = fields.text("device")
    detect = fields.fields("detect")
    device = Device(
        name=name,
        title=fields.text("title"),
        vendor=fields.text("vendor"),
        aliases=fields.texts("aliases"),
        label=fields.text("label"),
        visible=fields.maybe("visible"),
        environment=fields.pairs("environment"),
        nodes=detect.texts("nodes"),
        commands=detect.texts("commands"),
        where=shown,
    )
    detect.finish()
    fields.finish()
    _same_as_file(fields.value, name, path.stem)
    return device


def _adaptation(path: Path, shown: str, errors: list[UniscaleError]) -> Adaptation:
    fields = Fields(load(path, shown=shown), errors)
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
        where=shown,
    )
    fields.finish()
    _same_as_file(fields.value, f"{adaptation.device}/{adaptation.backend}",
                  f"{path.parent.name}/{path.stem}")  # fmt: skip
    return adaptation


def _same_as_file(value: Value, name: str, file: str) -> None:
    if name != file:
        raise ManifestError(
            f"names {name!r}, but its file is called {file!r}", where=value.where, slug="file-name"
        )


def load_manifests(roots: Iterable[Path]) -> Manifests:
    """Read every manifest below ``roots`` (later roots add to earlier ones); all errors at once."""
    roots = tuple(roots)
    errors: list[UniscaleError] = []
    backends: dict[str, Backend] = {}
    devices: dict[str, Device] = {}
    adaptations: dict[tuple[str, str], Adaptation] = {}
    for root in roots:
        for path in sorted(root.glob("*/**/*.yaml")):
            shown = path.relative_to(root.parent).as_posix()
            kind = path.relative_to(root).parts[0]
            try:
                if kind == "backends":
                    item = _backend(path, shown, errors)
                    backends[item.name] = item
                elif kind == "devices":
                    chip = _device(path, shown, errors)
                    devices[chip.name] = chip
                elif kind == "adaptations":
                    pair = _adaptation(path, shown, errors)
                    adaptations[pair.backend, pair.device] = pair
            except UniscaleError as error:
                errors.extend(error.findings())
    found = Manifests(roots[0], backends, devices, adaptations)
    errors.extend(_cross_check(found))
    raise_all(errors)
    return found


def _cross_check(found: Manifests) -> list[UniscaleError]:
    errors: list[UniscaleError] = []
    for known in (found.backends, found.devices):
        owner: dict[str, str] = {}
        for item in known.values():
            for spelling in dict.fromkeys(slug(word) for word in (item.name, *item.aliases)):
                if spelling in owner:
                    errors.append(
                        ManifestError(
                            f'"{spelling}" means both {owner[spelling]} and {item.name}',
                            where=item.where,
                            slug="alias-twice",
                        )
                    )
                owner.setdefault(spelling, item.name)
    for pair in found.adaptations.values():
        backend = found.backends.get(pair.backend)
        if backend is None:
            errors.append(_unknown(pair, "backend", pair.backend, found.backends))
        elif backend.pin(pair.pin) is None:
            errors.append(_unknown(pair, "pin", pair.pin, [pin.version for pin in backend.pins]))
        if pair.device not in found.devices:
            errors.append(_unknown(pair, "device", pair.device, found.devices))
    return errors


def _unknown(pair: Adaptation, what: str, word: str, known: Iterable[str]) -> ManifestError:
    return ManifestError(
        f'there is no {what} "{word}"',
        where=pair.where,
        hint=did_you_mean(word, known),
        slug=f"unknown-{what}",
    )
