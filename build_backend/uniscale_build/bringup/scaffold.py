"""Writes the first manifests and a test for a new device or a new backend.

What is written is read back together with everything that is there already: a name that somebody
has, or an answer that makes no sense, is refused before a file is touched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.ids import check_name, slug
from uniscale_build.ids import label as make_label
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.model import Backend
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.store import Store, write_atomic
from uniscale_build.yamledit import scalar

# What packing adds to upstream's files.
DROP = ("PKG-INFO", "setup.cfg", "*.egg-info/*")


@dataclass(frozen=True)
class DeviceAnswers:
    """What somebody knows of a new chip; ``sdk_roots`` are ``VARIABLE=folder``."""

    name: str
    title: str
    vendor: str
    contact: str
    source: str
    label: str = ""
    aliases: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    visible: str = ""
    sdk: str = ""
    sdk_roots: tuple[str, ...] = ()
    compiler: str = ""
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class BackendAnswers:
    """What somebody knows of a new upstream; from ``project`` on the index, or ``folder``."""

    name: str
    title: str
    homepage: str
    license: str
    contact: str
    tasks: tuple[str, ...]
    version: str
    project: str = ""
    folder: Path | None = None


def _listed(words: tuple[str, ...]) -> str:
    return f"[{', '.join(scalar(word) for word in words)}]"


def device_yaml(answers: DeviceAnswers) -> str:
    """The text of the device's manifest: what was answered, and its source."""
    lines = [
        f"device: {scalar(answers.name)}",
        f"title: {scalar(answers.title)}",
        f"vendor: {scalar(answers.vendor)}",
        f"aliases: {_listed(answers.aliases)}",
        f"label: {scalar(answers.label or make_label(answers.name))}",
        f"contact: {scalar(answers.contact)}",
    ]
    known = []
    if answers.visible:
        lines.append(f"visible: {scalar(answers.visible)}")
        known.append("visible")
    if answers.nodes:
        lines += ["detect:", f"  nodes: {_listed(answers.nodes)}"]
        known.append("detect")
    if answers.sdk:
        lines += _sdk_lines(answers)
        known.append("sdk")
    unknown = [name for name in ("visible", "detect", "sdk") if name not in known]
    lines.append("facts:")
    if known:
        lines += [f"  - of: {_listed(tuple(known))}", "    level: documented",
                  f"    source: {scalar(answers.source)}"]  # fmt: skip
    if unknown:
        lines += [f"  - of: {_listed(tuple(unknown))}", "    level: unknown"]
    return "\n".join(lines) + "\n"


def _sdk_lines(answers: DeviceAnswers) -> list[str]:
    lines = ["sdk:", f"  name: {scalar(answers.sdk)}", f"  vendor: {scalar(answers.sdk)}"]
    for number, word in enumerate(answers.sdk_roots):
        variable, sign, folder = word.partition("=")
        if not sign or not variable:
            raise SettingsError(f"--sdk-root {word!r} is not VARIABLE=folder", slug="bad-value")
        lines += ["  roots:"] if number == 0 else []
        lines += [f"    - variable: {scalar(variable)}", f"      default: {scalar(folder)}"]
    if answers.compiler:
        lines += ["  compiler:", f"    program: {scalar(answers.compiler)}", "    paths: [bin]"]
    return lines


def adaptation_yaml(backend: Backend, device: str, contact: str) -> str:
    """The text of an adaptation on the backend's first pin, without layers yet."""
    return "\n".join(
        [
            f"backend: {scalar(backend.name)}",
            f"device: {scalar(device)}",
            f"pin: {scalar(backend.pins[0].version)}",
            "layers: []",
            f"tasks: {_listed(backend.tasks)}",
            f"contact: {scalar(contact)}",
            "verified:",
            "  scaffolded: nothing was built or run yet",
            "",
        ]
    )


_DEVICE_TEST = '''\
"""What the manifest of {name} promises."""

from __future__ import annotations

from pathlib import Path

from uniscale_build.plans.plan import make_plan
from uniscale_build.project import find_project
from uniscale_build.settings import Settings


def test_every_name_of_{word}_leads_to_it() -> None:
    manifests = find_project(Path(__file__)).manifests
    device = manifests.device("{name}")
    assert device.contact and device.facts
    for alias in device.aliases:
        assert manifests.device(alias) is device


def test_every_adaptation_to_{word}_can_be_planned() -> None:
    project = find_project(Path(__file__))
    for backend, device in project.manifests.adaptations:
        if device == "{name}":
            plan = make_plan(project, Settings(backends=(backend,), device=device))
            assert plan.backends[0].tree
'''
_BACKEND_TEST = '''\
"""What the manifest of {name} promises."""

from __future__ import annotations

from pathlib import Path

from uniscale_build.plans.plan import make_plan
from uniscale_build.project import find_project
from uniscale_build.settings import Settings


def test_{word}_can_be_planned_for_cpu() -> None:
    project = find_project(Path(__file__))
    (item,) = make_plan(project, Settings(backends=("{name}",), device="cpu")).backends
    assert item.pin.tree == "{tree}"
    assert item.tasks
'''


def _word(name: str) -> str:
    return slug(name).replace("-", "_").replace("+", "_")


def scaffold_device(project: Project, answers: DeviceAnswers) -> list[str]:
    """Write the manifest, the adaptations and the test; gives the paths below the root."""
    check_name(answers.name, what="device")
    files = {f"manifests/devices/{answers.name}.yaml": device_yaml(answers)}
    for word in answers.backends:
        backend = project.manifests.backend(word)
        if not backend.pins or not backend.pins[0].tree:
            raise SettingsError(f"{backend.name} has no pin that can be built",
                                where=backend.at("pins"), slug="no-pin")  # fmt: skip
        path = f"manifests/adaptations/{answers.name}/{backend.name}.yaml"
        files[path] = adaptation_yaml(backend, answers.name, answers.contact)
    word = _word(answers.name)
    files[f"tests/test_device_{word}.py"] = _DEVICE_TEST.format(name=answers.name, word=word)
    return _write(project, files)


def scaffold_backend(
    project: Project, store: Store, answers: BackendAnswers, reporter: Reporter
) -> list[str]:
    """Fetch the source, take its tree, write the manifest, its adaptation to cpu and the test."""
    from uniscale_build.git.db import GitDb

    check_name(answers.name, what="backend")
    if bool(answers.project) == bool(answers.folder):
        raise SettingsError("name the source: either --project or --folder", slug="bad-value")
    db = GitDb(store).open()
    tree, origin = _source(db, answers, reporter)
    names = {path.decode("utf-8", "replace") for path in db.list_tree(tree)}
    kind = "pep517" if {"pyproject.toml", "setup.py"} & names else "cmake"
    if kind == "cmake" and "CMakeLists.txt" not in names:
        raise SettingsError(
            f"{answers.name} {answers.version} has neither pyproject.toml, setup.py nor "
            "CMakeLists.txt at its root",
            hint="a layer can add one; write the manifest by hand then",
            slug="no-recipe",
        )
    text = _backend_yaml(answers, tree, origin, kind)
    files = {f"manifests/backends/{answers.name}.yaml": text}
    cpu = {
        "backend": scalar(answers.name), "device": "cpu", "pin": scalar(answers.version),
        "tasks": _listed(answers.tasks), "contact": scalar(answers.contact),
    }  # fmt: skip
    files[f"manifests/adaptations/cpu/{answers.name}.yaml"] = "".join(
        f"{key}: {value}\n" for key, value in cpu.items()
    )
    word = _word(answers.name)
    files[f"tests/test_backend_{word}.py"] = _BACKEND_TEST.format(
        name=answers.name, word=word, tree=tree
    )
    return _write(project, files)


def _source(db: object, answers: BackendAnswers, reporter: Reporter) -> tuple[str, list[str]]:
    """The tree of the source and the lines of its origin."""
    from uniscale_build.errors import did_you_mean
    from uniscale_build.git.db import GitDb
    from uniscale_build.manifests.model import Origin
    from uniscale_build.sources import pypi
    from uniscale_build.sources.obtain import import_origin

    assert isinstance(db, GitDb)
    if answers.folder is not None:
        origin = Origin("folder", url=str(answers.folder.expanduser().absolute()))
        return import_origin(db, origin, reporter), [f"      - folder: {scalar(origin.url)}"]
    releases = pypi.releases(answers.project)
    if answers.version not in releases:
        raise SettingsError(
            f"{answers.project} has no source distribution of version {answers.version}",
            hint=did_you_mean(answers.version, list(releases)[-12:]),
            slug="no-version",
        )
    file = releases[answers.version]
    origin = Origin("sdist", project=answers.project, file=file.name, sha256=file.sha256, drop=DROP)
    lines = [
        f"      - sdist: {scalar(file.name)}",
        f"        project: {scalar(answers.project)}",
        f"        sha256: {file.sha256}",
        f"        drop: {_listed(DROP)}",
    ]
    return import_origin(db, origin, reporter), lines


def _backend_yaml(answers: BackendAnswers, tree: str, origin: list[str], kind: str) -> str:
    name = make_label(answers.name).replace(".", "")
    lines = [
        f"backend: {scalar(answers.name)}",
        f"title: {scalar(answers.title)}",
        "aliases: []",
        f"label: {name}",
        f"distribution: {scalar(slug(answers.project) if answers.project else f'uniscale-{name}')}",
        f"homepage: {scalar(answers.homepage)}",
        f"license: {scalar(answers.license)}",
        f"purl: {scalar(f'pkg:generic/{slug(answers.name)}')}",
        f"tasks: {_listed(answers.tasks)}",
        "",
        "pins:",
        f"  - version: {scalar(answers.version)}",
        f"    tree: {tree}",
        "    layers: []",
        "    note: the commit was not asked for; this is the tree of what was given",
        "    origins:",
        *origin,
        "",
        "recipe:",
        f"  kind: {kind}",
    ]
    return "\n".join(lines) + "\n"


def _write(project: Project, files: Mapping[str, str]) -> list[str]:
    """Write all files, or none: whatever the loader says against them is raised before."""
    for name in files:
        if (project.root / name).exists():
            raise SettingsError(
                "is there already", where=name, hint="nothing is overwritten", slug="file-exists"
            )
    _rehearse(project, files)
    for name, text in files.items():
        path = project.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, text.encode())
    project.__dict__.pop("manifests", None)  # they are read again when they are asked for
    return list(files)


def _rehearse(project: Project, files: Mapping[str, str]) -> None:
    """Read the manifests with the new ones among them, in a folder of links beside them."""
    with tempfile.TemporaryDirectory(prefix="uniscale-") as folder:
        root = Path(folder)
        (root / "patches").symlink_to(project.patches)
        known = project.root / "manifests"
        for path in known.glob("**/*.yaml"):
            link = root / "manifests" / path.relative_to(known)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        for name, text in files.items():
            if name.startswith("manifests/"):
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text, encoding="utf-8")
        try:
            load_manifests((root / "manifests", *project.site))
        except UniscaleError as error:
            for finding in error.findings():
                finding.hint = finding.hint or "nothing was written"
            raise
