"""The PEP 517 and PEP 660 hooks: thin, light to import, failures told as sentences.

Front ends call each hook in a process of its own, in the project's root.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from uniscale_build.plans.plan import Plan
    from uniscale_build.project import Project

Config = Mapping[str, object] | None
P = ParamSpec("P")
R = TypeVar("R")

SKBUILD = "scikit-build-core==1.1.2"
# What a native recipe imports or runs, beside pyproject.toml's own list. pip is only asked which
# package index the user has set up.
NATIVE = (SKBUILD, "pip", "pyelftools==0.33")
PROGRAMS = {"cmake": ("cmake==4.4.4", (3, 26)), "ninja": ("ninja==1.13.2", (1, 10))}


def _told(hook: Callable[P, R]) -> Callable[P, R]:
    """The hook, its failures printed as sentences and turned into exit codes."""

    @functools.wraps(hook)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        from uniscale_build.errors import UniscaleError

        try:
            return hook(*args, **kwargs)
        except UniscaleError as error:
            print(f"\n{error.render()}\n", file=sys.stderr, flush=True)
            raise SystemExit(error.exit_code) from None
        except KeyboardInterrupt:
            print("\ninterrupted; run the same command again to go on", file=sys.stderr)
            raise SystemExit(130) from None

    return call


def _resolve(config_settings: Config) -> tuple[Project, Plan]:
    from uniscale_build import settings
    from uniscale_build.plans.plan import make_plan
    from uniscale_build.project import find_project
    from uniscale_build.wheels.distribution import read_pyproject, tool_table

    project = find_project(Path.cwd())
    defaults = tool_table(read_pyproject(project)).get("settings")
    return project, make_plan(project, settings.read(config_settings, defaults=defaults))


@_told
def get_requires_for_build_wheel(config_settings: Config = None) -> list[str]:
    """What building needs: nothing more for the plain wheel, the native tools with a backend."""
    _, plan = _resolve(config_settings)
    if not plan.backends:
        return []
    from uniscale_build.build.toolchain import has_program

    needs = [*NATIVE]
    for name, (requirement, least) in PROGRAMS.items():
        if not has_program(name, least):
            needs.append(requirement)
    for item in plan.backends:
        if item.recipe.kind == "cmake":  # the others bring theirs into an environment of their own
            needs += item.recipe.build_requires
    return list(dict.fromkeys(needs))


get_requires_for_build_editable = get_requires_for_build_wheel


@_told
def get_requires_for_build_sdist(config_settings: Config = None) -> list[str]:
    """scikit-build-core writes the source distribution."""
    del config_settings
    return [SKBUILD]


@_told
def prepare_metadata_for_build_wheel(
    metadata_directory: str, config_settings: Config = None
) -> str:
    """Write the dist-info folder that the wheel will have, without building anything."""
    from uniscale_build.plans.together import check_together
    from uniscale_build.wheels import distribution
    from uniscale_build.wheels.bundle import NAME

    project, plan = _resolve(config_settings)
    check_together(project, plan)
    folder = Path(metadata_directory) / f"{NAME}-{plan.version}.dist-info"
    folder.mkdir(parents=True, exist_ok=True)
    text = distribution.metadata(project, plan)
    (folder / "METADATA").write_text(text, encoding="utf-8")
    (folder / "entry_points.txt").write_text(distribution.entry_points(project), encoding="utf-8")
    return folder.name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def _wheel(wheel_directory: str, config_settings: Config, *, editable: bool) -> str:
    from uniscale_build.build.pipeline import Context
    from uniscale_build.progress import Plain
    from uniscale_build.store import Store
    from uniscale_build.wheels.bundle import build_wheel as build

    project, plan = _resolve(config_settings)
    context = Context(project, Store(), Plain(sys.stdout))
    made = build(context, plan, Path(wheel_directory), editable=editable)
    return made.path.name


@_told
def build_wheel(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel that the settings ask for; gives its file name."""
    del metadata_directory
    return _wheel(wheel_directory, config_settings, editable=False)


@_told
def build_editable(
    wheel_directory: str, config_settings: Config = None, metadata_directory: str | None = None
) -> str:
    """The same wheel with the two packages left in the checkout; payloads are built as usual."""
    del metadata_directory
    return _wheel(wheel_directory, config_settings, editable=True)


@_told
def build_sdist(sdist_directory: str, config_settings: Config = None) -> str:
    """The source distribution: the checkout without upstream sources, which come by their pins."""
    from scikit_build_core.build import build_sdist as build

    del config_settings  # settings choose what a wheel holds; the source is always whole
    name: str = build(sdist_directory, {})
    return name
