"""Plan → source → patched tree → work tree → payload; each stage cached by its inputs.

Every stage looks into the store first, so that a second run does nothing and a run that was
interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build import __version__
from uniscale_build.build import toolkit
from uniscale_build.build.toolchain import Toolchain, compiler_cache, default_jobs, probe
from uniscale_build.errors import CompileError
from uniscale_build.git import worktree
from uniscale_build.git.db import GitDb
from uniscale_build.layers.layer import patched_tree
from uniscale_build.manifests.devices import Device
from uniscale_build.plans.plan import BackendPlan, Plan, build_record
from uniscale_build.plans.requirements import Applied
from uniscale_build.progress import Reporter, Silent
from uniscale_build.project import Project
from uniscale_build.records import record
from uniscale_build.sources import obtain as sources
from uniscale_build.store import Store, digest, disk_errors, write_atomic

if TYPE_CHECKING:
    from uniscale_build.build.payload import Assembled

PAYLOAD_SCHEMA = 2  # raise when the same inputs give another payload
PYTHON_SCHEMA = 1  # and this when they give another Python payload


@dataclass(frozen=True)
class Context:
    """Where a build happens and who listens."""

    project: Project
    store: Store
    reporter: Reporter = field(default_factory=Silent)

    @property
    def db(self) -> GitDb:
        """The object store."""
        return GitDb(self.store).open()


@dataclass(frozen=True)
class Payload:
    """A finished payload in the store."""

    name: str
    key: str
    prefix: Path
    info: Mapping[str, object]
    reused: bool


def payload_inputs(context: Context, plan: BackendPlan, toolchain: Toolchain) -> dict[str, str]:
    """Every input that can change a payload, by name: its cache key, and what ``explain`` shows."""
    inputs = plan_inputs(context.project, plan)
    for kit in toolkit.needed(plan.recipe.toolkit, plan.device, toolchain):
        inputs[f"toolkit {kit.project}"] = "taken: the SDK has none"
    return inputs | {f"toolchain {k}": v for k, v in toolchain.fingerprint().items()}


def plan_inputs(project: Project, plan: BackendPlan) -> dict[str, str]:
    """The inputs of a payload that the project decides, whatever the machine has."""
    facts = plan.as_json()
    superbuild = (project.root / "CMakeLists.txt").read_bytes()
    inputs = {
        "schema": str(PAYLOAD_SCHEMA),
        "uniscale": __version__,
        "pin": f"{plan.pin.version} {plan.pin.tree}",
        "layers": ", ".join(f"{layer.name}@{layer.result[:12]}" for layer in plan.layers),
        "tree": plan.tree,
        "tasks": ", ".join(plan.tasks),
        "superbuild": digest(superbuild.decode()),
        "launch": digest(facts["launch"]),
        "environment": digest(facts["environment"]),
        "device": digest(_device_facts(plan)),
        "words": digest(_layer_words(plan), _upstream_words(plan)),
        "verified": digest(dict(plan.adaptation.verified)),
        "requirements": digest(facts["requirements"], facts["requirement_rules"]),
    }
    if told := record.partly(plan.adaptation.verified):
        inputs["verified partly"] = digest(told)
    if plan.recipe.python:
        inputs["python schema"] = str(PYTHON_SCHEMA)
        inputs["python"] = ".".join(str(number) for number in sys.version_info[:2])
    recipe = facts["recipe"]
    assert isinstance(recipe, dict)
    for key, value in recipe.items():
        if key == "defines":
            inputs |= {f"define {name}": str(word) for name, word in value.items()}
        else:
            inputs[f"recipe {key}"] = json.dumps(value)
    return inputs


def _device_facts(plan: BackendPlan) -> list[object]:
    """What of the device manifest goes into a payload."""
    device = plan.device
    nodes, aliases = list(device.detect.nodes), list(device.aliases)
    return [plan.visible, nodes, aliases, device_words(device)]


def device_words(device: Device) -> dict[str, object]:
    """What a payload tells of its device for people and for installing."""
    return {
        "title": device.title,
        "names": list(device.names),
        "label": device.label,
        "image_packages": list(device.image_packages),
    }


def _layer_words(plan: BackendPlan) -> list[dict[str, object]]:
    """Each layer's place in the chain, and its reason and owner."""
    return [
        {"name": layer.name, "title": layer.title, "why": layer.why, "owner": layer.owner,
         "upstream": layer.upstream, "base": layer.base, "result": layer.result}
        for layer in plan.layers
    ]  # fmt: skip


def _upstream_words(plan: BackendPlan) -> dict[str, object]:
    backend = plan.backend
    return {"title": backend.title, "purl": backend.purl, "license": backend.license,
            "homepage": backend.homepage}  # fmt: skip


def _sdk_words(plan: BackendPlan, toolchain: Toolchain) -> dict[str, object] | None:
    """The device's SDK; without version and label when the build did not use it."""
    sdk = plan.device.sdk
    if sdk is None:
        return None
    return {"name": sdk.name, "version": toolchain.sdk_version or None,
            "label": toolchain.sdk_label or None}  # fmt: skip


def setting_inputs(plan: Plan) -> dict[str, str]:
    """The settings that change a payload."""
    return {
        "setting strip": str(plan.settings.strip).lower(),
        "setting cmake.args": " ".join(plan.settings.cmake_args),
    }


def build_payload(context: Context, plan: Plan, item: BackendPlan) -> Payload:
    """The payload of one backend, from the store or made now."""
    toolchain = probe(item.recipe.compiled, device=item.sdk_device)
    inputs = payload_inputs(context, item, toolchain) | setting_inputs(plan)
    key = digest(inputs)
    target = context.store.payloads / key
    reused = target.exists()
    if not reused:
        work = (plan.settings.build_dir or context.store.work) / item.name
        # Work folders of one name may be in several places; the lock is for this one.
        with context.store.lock(f"work-{item.name}-{digest(str(work))[:12]}",
                                context.reporter) as held:  # fmt: skip
            reused = target.exists()
            if not reused:
                _make_payload(context, plan, item, toolchain, key, work, held)
    remember(context, item.name, "payload", inputs)
    info = json.loads((target / item.name / "payload.json").read_text(encoding="utf-8"))
    return Payload(item.name, key, target / item.name, info, reused)


def prepare_source(context: Context, plan: Plan, item: BackendPlan, folder: Path) -> str:
    """The patched tree of ``item`` in ``folder``, every tree on the way verified; gives its id."""
    db = context.db
    local = context.project.root / "third_party" / item.backend.name
    sources.obtain(db, item.pin, local=local, reporter=context.reporter,
                   offline=plan.settings.offline)  # fmt: skip
    context.reporter.stage("patch", f"{len(item.layers)} layers on {item.pin.version}")
    tree = patched_tree(db, item.pin, item.layers)
    db.keep(f"patched/{item.name}", tree)
    worktree.materialise(db, tree, folder)
    return tree


def _make_payload(
    context: Context,
    plan: Plan,
    item: BackendPlan,
    toolchain: Toolchain,
    key: str,
    work: Path,
    held: int,
) -> None:
    from uniscale_build.build.payload import assemble

    source, install = work / "src", work / "install"
    prepare_source(context, plan, item, source)
    with disk_errors(work):
        shutil.rmtree(install, ignore_errors=True)
        _run_recipe(context, plan, item, toolchain, work, held)
        context.reporter.stage("payload", item.name)

        def fill(folder: Path) -> None:
            prefix = folder / item.name
            made = assemble(
                install, prefix, allowed_external=frozenset(item.recipe.allowed_external)
            )
            _require_programs(item, prefix)
            _describe(context, plan, item, toolchain, prefix, made, work)

        context.store.put_folder(context.store.payloads / key, fill)
        shutil.rmtree(install, ignore_errors=True)


def _run_recipe(
    context: Context,
    plan: Plan,
    item: BackendPlan,
    toolchain: Toolchain,
    work: Path,
    held: int,
) -> None:
    from uniscale_build.build.recipes import pep517
    from uniscale_build.build.recipes.cmake import NativeBuild, build

    settings, recipe = plan.settings, item.recipe
    jobs = settings.jobs or default_jobs()
    if recipe.python:
        python = pep517.PythonBuild(item, context.store, work, jobs, settings.offline)
        pep517.build(python, context.reporter, keep_open=[held])
        if recipe.native is None:
            return
        source, log = work / "src" / recipe.native.source, work / "native.log"
        targets, defines = recipe.native.targets, recipe.native.defines
        context.reporter.stage("native", f"{', '.join(targets)} of {recipe.native.source}")
    else:
        source, log, targets = work / "src", work / "build.log", recipe.targets
        defines = {"UNISCALE_BUILD_RECORD": json.dumps(build_record(item)), **recipe.defines}
    kits = toolkit.needed(recipe.toolkit, item.device, toolchain)
    added = toolkit.lay_out(context.store, kits, work / "toolkit", context.reporter,
                            offline=settings.offline)  # fmt: skip
    native = NativeBuild(
        superbuild=context.project.root,
        source=source,
        build=work / "build",
        install=work / "install",
        log=log,
        backend=item.backend.name,
        targets=targets,
        programs=recipe.programs,
        languages=recipe.compiled,
        defines={**added.defines, **defines},
        cmake_args=settings.cmake_args,
        environment={**added.environment, **recipe.environment},
        launcher=compiler_cache(settings.compiler_cache),
        jobs=jobs,
        strip=settings.strip,
    )
    build(native, toolchain, context.reporter, keep_open=[held])


def _require_programs(item: BackendPlan, prefix: Path) -> None:
    missing = [name for name in item.recipe.programs if not (prefix / "bin" / name).is_file()]
    if missing:
        raise CompileError(
            f"the build gave no {', '.join(missing)}",
            where=item.backend.where,
            hint="recipe.programs names what must be in bin/",
        )


def _describe(
    context: Context,
    plan: Plan,
    item: BackendPlan,
    toolchain: Toolchain,
    prefix: Path,
    made: Assembled,
    work: Path,
) -> None:
    """Write payload.json and the payload's own dist-info into the prefix."""
    from uniscale_build.build.distinfo import write_dist_info
    from uniscale_build.build.engine_flags import record_flags
    from uniscale_build.build.recipes import pep517
    from uniscale_build.build.tags import wheel_tag

    libraries = toolkit.library_folders(item.device, toolchain, work / "toolkit", work / "build")
    launch, note = record_flags(prefix, item.backend.launch, libraries)
    if note:
        context.reporter.note(note)
    python = item.recipe.python
    applied = pep517.rules_applied(item, prefix) if python else Applied()
    info = record.payload_json(
        {**item.as_json(), "layers": _layer_words(item)},
        distribution=item.backend.distribution,
        # Of this backend alone: the payload is the same in whatever wheel it travels.
        plan=digest(item.as_json(), setting_inputs(plan)),
        toolchain=toolchain.fingerprint(),
        launch=launch,
        verified=dict(item.adaptation.verified),
        visible=item.visible,
        nodes=item.device.detect.nodes,
        aliases=item.device.aliases,
        device=device_words(item.device),
        sdk=_sdk_words(item, toolchain),
        upstream=_upstream_words(item),
        external=made.external,
        dropped=applied.dropped,
        replaced=applied.replaced,
        provided=applied.provided,
    )
    text = json.dumps(info, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(prefix / "payload.json", text.encode())
    allowed = frozenset(item.recipe.allowed_external)
    tag = wheel_tag(made.elfs, files=made.files, allowed_external=allowed)
    if python:
        pep517.finish(item, prefix, tag)
        return
    write_dist_info(
        prefix,
        name=item.backend.distribution,
        version=item.pin.version,
        requires=item.adaptation.requirements,
        entry_points=None,
        tag=tag,
    )


def remember(context: Context, name: str, stage: str, inputs: Mapping[str, str]) -> None:
    """Keep the inputs of the last finished stage, for ``explain``."""
    path = context.store.records / f"{name}.json"
    with disk_errors(path):
        known = recall(context, name)
        if known.get(stage) != inputs:
            known[stage] = dict(inputs)
            write_atomic(path, json.dumps(known, indent=1, sort_keys=True).encode())


def recall(context: Context, name: str) -> dict[str, dict[str, str]]:
    """The inputs of the last finished stages, by stage; empty when there was none."""
    path = context.store.records / f"{name}.json"
    try:
        found: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return found
