"""The recipes for Python backends: upstream's own build in an environment of its own.

The patched tree is built where it lies (a fixed path), the wheel that comes out is unpacked into
the install tree, and compiled members of a pinned wheel are added where the recipe names one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import uniscale_build
from uniscale_build.build import distinfo, precompiled
from uniscale_build.build.compile import OutOfMemory, fewer_jobs, run_build
from uniscale_build.build.recipes import wheeltree
from uniscale_build.build.unpack import unpack
from uniscale_build.errors import CompileError, ToolchainError, WheelError
from uniscale_build.git import worktree
from uniscale_build.git.db import GitDb
from uniscale_build.plans.plan import BackendPlan
from uniscale_build.plans.requirements import Applied, apply_rules, check_declared
from uniscale_build.progress import Reporter
from uniscale_build.sources import obtain
from uniscale_build.store import Store, write_atomic

# What PEP 518 says for a tree that does not say what its build needs.
_LEGACY = ("setuptools>=40.8", "wheel")
# 1 January 2020, UTC: what upstream's build writes as a date is the same every day.
_EPOCH = "1577836800"
# Variables that would let the builder's own environment into the isolated one.
_OURS = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_USER",
    "PIP_REQUIRE_VIRTUALENV",
)


@dataclass(frozen=True)
class PythonBuild:
    """Everything that one Python build needs, resolved."""

    item: BackendPlan
    store: Store
    work: Path  # holds src (the patched tree); env, wheels and install are made in it
    jobs: int
    offline: bool

    @property
    def install(self) -> Path:
        """Where the built distribution is unpacked."""
        return self.work / "install"


def build(python: PythonBuild, reporter: Reporter, keep_open: Sequence[int] = ()) -> None:
    """Build and unpack into ``python.install``; halves the jobs when memory ends.

    `ManifestError` when the adaptation's requirements are not those of what was built,
    `WheelError` when it is another distribution or version than the manifest says.
    """
    if python.item.recipe.kind == "wheel":
        shutil.rmtree(python.work / "wheels", ignore_errors=True)
        wheeltree.pack(python.work / "src", python.work / "wheels")
    else:
        _compile(python, reporter, keep_open)
    _unpack(python, reporter)
    pinned = python.item.recipe.precompiled
    if pinned is not None:
        wheel = precompiled.fetch(python.store, pinned, reporter, offline=python.offline)
        names = precompiled.take(wheel, pinned, python.install)
        reporter.stage("precompiled", f"{len(names)} members of {wheel.name}")
    _check_identity(python.item, python.install)
    _check_content(python.item, python.install)
    adaptation = python.item.adaptation
    check_declared(adaptation.requirements, rules_applied(python.item, python.install),
                   adaptation.where)  # fmt: skip


def _compile(python: PythonBuild, reporter: Reporter, keep_open: Sequence[int]) -> None:
    jobs, extra = python.jobs, _lay_out_sources(python, reporter)
    while True:
        try:
            return _run(python, jobs, extra, reporter, keep_open)
        except OutOfMemory:
            if jobs == 1:
                raise
            jobs = max(1, jobs // 2)
            reporter.note(fewer_jobs(jobs))


def rules_applied(item: BackendPlan, prefix: Path) -> Applied:
    """The requirements of the distribution in ``prefix``, as built, after the device's rules."""
    given = _metadata(item, prefix).get_all("Requires-Dist", [])
    return apply_rules(given, item.adaptation.rules)


def finish(item: BackendPlan, prefix: Path, tag: str) -> None:
    """Make the payload's dist-info true: our requirements, its real tag, a RECORD of what is there.

    Call it last: RECORD lists what is under ``prefix`` by then.
    """
    folder = _dist_info(item, prefix)
    path = folder / "METADATA"
    text = path.read_text(encoding="utf-8")
    requires = rules_applied(item, prefix).metadata
    write_atomic(path, with_requirements(text, requires).encode("utf-8"))
    about = distinfo.wheel_file(tag, distinfo.generator("pep517"))
    write_atomic(folder / "WHEEL", about.encode("utf-8"))
    distinfo.normalise_dist_info(prefix, main=item.backend.distribution)


def with_requirements(metadata: str, requires: Sequence[str]) -> str:
    """The text of METADATA with ``requires`` in place of its requirements, at the same place."""
    head, gap, body = metadata.partition("\n\n")
    if not gap:  # no description follows the fields
        head, gap = head.rstrip("\n"), "\n"
    lines = head.split("\n")
    at = next((n for n, line in enumerate(lines) if line.startswith("Requires-Dist:")), len(lines))
    kept = lines[:at]
    kept += [f"Requires-Dist: {text}" for text in requires]
    kept += [line for line in lines[at:] if not line.startswith("Requires-Dist:")]
    return "\n".join(kept) + gap + body


def upstream_requires(source: Path) -> tuple[str, ...]:
    """What upstream's pyproject.toml asks for to build; `CompileError` when it is broken."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    path = source / "pyproject.toml"
    if not path.is_file():
        return _LEGACY
    try:
        found: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CompileError(f"pyproject.toml cannot be read: {error}", where=str(path)) from error
    requires = found.get("build-system", {}).get("requires", _LEGACY)
    return tuple(str(text) for text in requires)


def _lay_out_sources(python: PythonBuild, reporter: Reporter) -> dict[str, str]:
    """The sources that are compiled in, each in a folder of its own; the environment tells where.

    `SourceError` names every origin of the one that cannot be had.
    """
    given = python.item.recipe.from_source
    if given is None:
        return {}
    db = GitDb(python.store).open()
    folders = {pin.backend: python.work / "sources" / pin.backend for pin in given.sources}
    for pin in given.sources:
        tree = obtain.obtain(db, pin, reporter=reporter, offline=python.offline)
        worktree.materialise(db, tree, folders[pin.backend])
    return {
        name: re.sub(r"\{(\w+)\}", lambda word: str(folders[word[1]]), text)
        for name, text in given.environment.items()
    }


def _run(
    python: PythonBuild,
    jobs: int,
    extra: Mapping[str, str],
    reporter: Reporter,
    keep_open: Sequence[int],
) -> None:
    recipe, source = python.item.recipe, python.work / "src"
    pinned = recipe.precompiled or recipe.from_source
    requires = (pinned.build_requires if pinned else ()) or recipe.build_requires
    spec = python.work / "uniscale-spec.json"
    content = {
        "python": sys.executable,
        "pip": str(_pip_runner()),
        "requires": list(requires or upstream_requires(source)),
        "env": str(python.work / "env"),
        "source": str(source),
        "wheels": str(python.work / "wheels"),
        "offline": python.offline,
    }
    write_atomic(spec, json.dumps(content).encode())
    package = str(Path(uniscale_build.__file__).parent.parent)
    run_build(
        [sys.executable, "-m", "uniscale_build.build.recipes.pip_steps", str(spec)],
        log=python.work / "build.log",
        # Only the driver needs our package; it takes it out for upstream's build.
        env={**_environment(python, jobs), **extra, "PYTHONPATH": package},
        cwd=python.work,
        reporter=reporter,
        keep_open=keep_open,
    )


def _unpack(python: PythonBuild, reporter: Reporter) -> None:
    """The one wheel that was built, in ``python.install``."""
    wheels = sorted((python.work / "wheels").glob("*.whl"))
    if len(wheels) != 1:
        raise WheelError(
            f"upstream's build gave {len(wheels)} wheels, not one",
            where=str(python.work / "build.log"),
            slug="not-one-wheel",
        )
    reporter.stage("unpack", wheels[0].name)
    python.install.mkdir(parents=True, exist_ok=True)
    unpack(wheels[0], python.install)
    shutil.rmtree(python.work / "wheels", ignore_errors=True)


def _environment(python: PythonBuild, jobs: int) -> dict[str, str]:
    """The build's environment: the user's, without our own packages; the recipe's words win."""
    recipe = python.item.recipe
    env = {key: text for key, text in os.environ.items() if key not in _OURS}
    # No path of this machine in what is compiled: equal plans give equal bytes.
    flags = f"-g0 -ffile-prefix-map={python.work}={python.item.name}"
    for name in ("CFLAGS", "CXXFLAGS"):
        env[name] = f"{env.get(name, '')} {flags}".strip()
    own: Mapping[str, str] = {
        "SOURCE_DATE_EPOCH": env.get("SOURCE_DATE_EPOCH", _EPOCH),
        "PYTHONHASHSEED": "0",
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "MAX_JOBS": str(jobs),
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
        "LC_ALL": "C.UTF-8",
    }
    chosen = recipe.precompiled.environment if recipe.precompiled else {}
    return {**env, **own, **recipe.environment, **chosen}


def _pip_runner() -> Path:
    """The script by which pip works on another environment than its own."""
    found = importlib.util.find_spec("pip")
    runner = Path(found.origin).with_name("__pip-runner__.py") if found and found.origin else None
    if runner is None or not runner.is_file():
        raise ToolchainError(
            "there is no pip that is new enough" if found else "there is no pip",
            where=sys.executable,
            hint="python -m pip install --upgrade pip (22.3 or newer), or python -m ensurepip",
            slug="no-pip",
        )
    return runner


def _dist_info(item: BackendPlan, prefix: Path) -> Path:
    wanted = re.sub(r"[-_.]+", "_", item.backend.distribution).lower()
    folders = sorted(prefix.glob("*.dist-info"))
    for folder in folders:
        if re.sub(r"[-_.]+", "_", folder.name.split("-")[0]).lower() == wanted:
            return folder
    had = ", ".join(folder.name for folder in folders) or "nothing"
    raise WheelError(
        f"upstream's build did not give the distribution {item.backend.distribution}",
        where=item.backend.where,
        hint=f'it gave {had}; "distribution" names it',
        slug="other-distribution",
    )


def _metadata(item: BackendPlan, prefix: Path) -> Message:
    path = _dist_info(item, prefix) / "METADATA"
    return HeaderParser().parsestr(path.read_text(encoding="utf-8"))


def _check_content(item: BackendPlan, prefix: Path) -> None:
    """`WheelError` when the build gave metadata and nothing else."""
    found = (path.relative_to(prefix) for path in prefix.rglob("*") if path.is_file())
    # The scripts in bin are made from the metadata.
    made = [path for path in found if path.parts[0] != "bin" or not _is_script(prefix / path)]
    if all(path.parts[0].endswith(".dist-info") for path in made):
        raise WheelError(
            f"upstream's build of {item.backend.name} gave no file but its metadata",
            where=item.backend.where,
            hint="does the build find its packages? See the log, and what upstream's "
            "pyproject.toml or setup.py calls a package",
            slug="empty-payload",
        )


def _is_script(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == b"#!"


def _check_identity(item: BackendPlan, prefix: Path) -> None:
    from packaging.version import Version

    version = str(_metadata(item, prefix)["Version"])
    if Version(version).public != Version(item.pin.version).public:
        raise WheelError(
            f"upstream's build gave version {version}, and the pin says {item.pin.version}",
            where=item.pin.where,
            hint="a tree without git needs to be told, by the recipe's environment: "
            "SETUPTOOLS_SCM_PRETEND_VERSION, for example",
            slug="other-version",
        )
