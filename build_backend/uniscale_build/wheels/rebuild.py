"""Whether a wheel can be made again: pins and layers to the same trees, it to the same bytes.

This needs the project that it was built from, and its pinned sources (from the cache or from where
the pins say they are).
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.ending import interrupted_by_signals
from uniscale_build.errors import UniscaleError
from uniscale_build.ids import slug
from uniscale_build.members import PROVENANCE
from uniscale_build.progress import Reporter
from uniscale_build.wheels.trust import Check, Subject, compare, counted

if TYPE_CHECKING:
    from uniscale_build.manifests.model import Pin
    from uniscale_build.plans.plan import Plan
    from uniscale_build.project import Project
    from uniscale_build.store import Store

_BUILD = "pip install 'uniscale[build]'"


def check_trees(subject: Subject, reporter: Reporter, *, offline: bool = False) -> list[Check]:
    """Apply the layers of this project to the pins, and compare every tree with the record's."""
    checks = []
    for folder, info in subject.infos.items():
        name = f"tree of {folder}"
        try:
            checks.append(_check_tree(name, info, reporter, offline))
        except ModuleNotFoundError as error:
            what = f"{error.name} is not installed, which reads sources"
            checks.append(Check(name, "unchecked", what, _BUILD))
        except UniscaleError as error:
            state = "unchecked" if error.slug in ("no-source", "no-project") else "failed"
            checks.append(Check(name, state, error.findings()[0].what, error.hint or ""))
    return checks


def _check_tree(name: str, info: Mapping[str, Any], reporter: Reporter, offline: bool) -> Check:
    from uniscale_build.git.db import GitDb
    from uniscale_build.layers.layer import find_layer, patched_tree
    from uniscale_build.project import find_project
    from uniscale_build.sources.obtain import obtain
    from uniscale_build.store import Store

    project = find_project()
    pin = _pin(project, info)
    if pin is None:
        what = f"this project has no pin of {info['backend']} with tree {info['upstream']['tree']}"
        return Check(name, "failed", what, "check out the version that the wheel was built from")
    backend = project.manifests.backend(str(info["backend"])).name
    layers = [find_layer(project.patches, backend, one["name"]) for one in info["layers"]]
    for layer, told in zip(layers, info["layers"], strict=True):
        if (layer.base, layer.result) != (told["base"], told["result"]):
            what = f"layer {layer.name} of this project is another than the wheel's"
            return Check(name, "failed", what, "check out the version that it was built from")
    db = GitDb(Store()).open()
    local = project.root / "third_party" / backend
    obtain(db, pin, local=local, reporter=reporter, offline=offline)
    tree = patched_tree(db, pin, layers)
    if tree != info["patched_tree"]:
        return Check(name, "failed", f"pin and layers give {tree}, not {info['patched_tree']}")
    return Check(
        name, "passed", f"pin {pin.version} with {counted(len(layers), 'layer')} gives tree {tree}"
    )


def _pin(project: Project, info: Mapping[str, Any]) -> Pin | None:
    backend = project.manifests.backends.get(str(info["backend"]))
    pins = backend.pins if backend is not None else ()
    return next((pin for pin in pins if pin.tree == info["upstream"]["tree"]), None)


def check_rebuild(subject: Subject, reporter: Reporter, *, offline: bool = False) -> Check:
    """Build the wheel again, from its plan, in a fresh cache, and compare every byte."""
    try:
        return _rebuild(subject, reporter, offline)
    except ModuleNotFoundError as error:
        return Check("rebuild", "unchecked", f"{error.name} is not installed, which builds", _BUILD)
    except UniscaleError as error:
        first = error.findings()[0]
        hint = first.hint or ""
        if first.slug == "compile":  # its log went with the fresh cache
            names = ",".join(str(info["backend"]) for info in subject.infos.values())
            hint = f"to see all of it: uniscale-build wheel --split --backend {names}"
        return Check("rebuild", "unchecked", f"it cannot be built here: {first.what}", hint)


def _rebuild(subject: Subject, reporter: Reporter, offline: bool) -> Check:
    from uniscale_build.build.pipeline import Context
    from uniscale_build.project import find_project
    from uniscale_build.store import Store
    from uniscale_build.wheels.bundle import NAME, build_wheel
    from uniscale_build.wheels.split import build_split
    from uniscale_build.wheels.wheelread import read_wheel

    raw = subject.documents.get(PROVENANCE)
    if raw is None:
        return Check("rebuild", "unchecked", "it has no provenance that tells its plan")
    statement = json.loads(raw)
    told = statement["predicate"]["buildDefinition"]["internalParameters"]["plan"]
    started = statement["predicate"]["runDetails"]["metadata"]["startedOn"]
    project = find_project()
    revisions = {one["backend"]: 0 for one in told["backends"]} | told.get("revisions", {})
    plan = _plan(project, told, offline).revised(revisions)
    differing = _differing(told, plan.as_json())
    if differing:
        return Check("rebuild", "failed", f"this project plans another wheel: {differing}",
                     "check out the version that it was built from")  # fmt: skip
    with (
        interrupted_by_signals(),  # what is told to end leaves neither compilers nor this folder
        tempfile.TemporaryDirectory(prefix="uniscale-verify-") as folder,
        _dated(started),
    ):
        context = Context(project, _fresh(Path(folder), Store()), reporter)
        out = Path(folder, "out")
        if slug(subject.name) == NAME:
            wheels = [build_wheel(context, plan, out)]
        else:
            wheels = list(build_split(context, plan, out))
        # The plain wheel comes first: it is what a split one requires.
        named = (one for one in wheels if slug(read_wheel(one.path).name) == slug(subject.name))
        made = next(named, wheels[-1])
        if made.sha256 == subject.sha256:
            return Check("rebuild", "passed", f"the same wheel came out, SHA-256 {made.sha256}")
        rows = {row.name: row for row in read_wheel(made.path).rows}
        infos = [one.info for one in made.payloads]
    return compare(subject, rows, lambda word: _tools(subject, infos) or f"is it {word}?")


def _plan(project: Project, told: Mapping[str, Any], offline: bool) -> Plan:
    """The plan that this project makes of the settings that a wheel was built with."""
    from uniscale_build.plans.plan import make_plan
    from uniscale_build.settings import Settings

    kinds = told["settings"]
    settings = Settings(
        backends=tuple(one["backend"] for one in told["backends"]),
        device=told["device"],
        tasks=tuple(dict.fromkeys(task for one in told["backends"] for task in one["tasks"])),
        strip=bool(kinds["strip"]),
        compression=kinds["compression"],
        cmake_args=tuple(kinds["cmake_args"]),
        offline=offline,
    )
    plan = make_plan(project, settings)
    if _differing(told, plan.as_json()) and not kinds["cmake_args"]:
        source = make_plan(project, replace(settings, kernels="source"))
        if not _differing(told, source.as_json()):
            return source
    return plan


def _differing(told: Mapping[str, Any], made: Mapping[str, Any]) -> str:
    """The places where two plans differ, "" for none; a split wheel's version is its own."""
    ours = {**made, "version": told["version"]}
    if json.loads(json.dumps(ours)) == told:
        return ""
    return ", ".join(_paths(told, json.loads(json.dumps(ours)), "")) or "in order"


def _paths(told: Any, made: Any, at: str) -> Iterator[str]:
    if isinstance(told, dict) and isinstance(made, dict):
        for key in sorted({*told, *made}):
            yield from _paths(told.get(key), made.get(key), f"{at}.{key}" if at else key)
    elif isinstance(told, list) and isinstance(made, list) and len(told) == len(made):
        for number, (one, other) in enumerate(zip(told, made, strict=True)):
            yield from _paths(one, other, f"{at}[{number}]")
    elif told != made:
        yield at


def _fresh(folder: Path, known: Store) -> Store:
    """A cache without payloads and wheels; sources are those of the user's cache."""
    from uniscale_build.store import Store

    root = folder / "cache"
    known.prepare()
    known.git.mkdir(parents=True, exist_ok=True)
    root.mkdir()
    (root / "git").symlink_to(known.git)
    (root / "downloads").symlink_to(known.downloads)
    return Store(root)


@contextlib.contextmanager
def _dated(stamp: str) -> Iterator[None]:
    """``SOURCE_DATE_EPOCH`` as the wheel's, for as long as it is built again."""
    before = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromisoformat(stamp.replace("Z", "+00:00"))
    os.environ["SOURCE_DATE_EPOCH"] = str(int(moment.timestamp()))
    try:
        yield
    finally:
        if before is None:
            del os.environ["SOURCE_DATE_EPOCH"]
        else:
            os.environ["SOURCE_DATE_EPOCH"] = before


def _tools(subject: Subject, infos: list[Mapping[str, Any]]) -> str:
    """What of the toolchain is another than the wheel's."""
    found = []
    for info in infos:
        told = next((one for one in subject.infos.values() if one["backend"] == info["backend"]),
                    None)  # fmt: skip
        if told is None:
            continue
        for tool in sorted({*told["toolchain"], *info["toolchain"]}):
            one, other = told["toolchain"].get(tool), info["toolchain"].get(tool)
            if one != other:
                found.append(f"it was built with {tool} {one}; here it is {other}")
    return "\n".join(found)
