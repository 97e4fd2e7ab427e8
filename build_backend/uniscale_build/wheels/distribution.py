"""What the ``uniscale`` wheel holds beside payloads: packages, data, metadata."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import uniscale_build
from uniscale_build.errors import SettingsError
from uniscale_build.plans.plan import Plan
from uniscale_build.project import Project

_SKIP = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache")
# Files of the checkout that `uniscale-build` needs when it runs from an installed wheel.
_DATA = ("CMakeLists.txt", "pyproject.toml", "README.md")


def read_pyproject(project: Project) -> dict[str, Any]:
    """The project's pyproject.toml; a `SettingsError` when it is missing or broken."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    path = project.root / "pyproject.toml"
    try:
        found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        return found
    except FileNotFoundError as error:
        raise SettingsError("pyproject.toml is not there", where=str(path)) from error
    except ValueError as error:
        raise SettingsError(f"pyproject.toml cannot be read: {error}", where=str(path)) from error


def tool_table(pyproject: Mapping[str, Any]) -> Mapping[str, Any]:
    """``[tool.uniscale]``, empty when absent."""
    table: Mapping[str, Any] = pyproject.get("tool", {}).get("uniscale", {})
    return table


def packages(project: Project) -> Iterator[tuple[str, Path]]:
    """Name in the wheel → file, for the two packages and the data that they carry."""
    if project.checkout:
        launchers = project.root / "launchers" / "uniscale"
        builder = project.root / "build_backend" / "uniscale_build"
    else:
        builder = Path(uniscale_build.__file__).parent
        launchers = builder.parent / "uniscale"
    for package in (launchers, builder):
        for name, path in walk(package):
            if not name.startswith("data/"):
                yield f"{package.name}/{name}", path
    for folder in ("manifests", "patches"):
        for name, path in walk(project.root / folder):
            yield f"uniscale_build/data/{folder}/{name}", path
    for name in _DATA:
        if (project.root / name).is_file():
            yield f"uniscale_build/data/{name}", project.root / name


def licence(project: Project) -> Path | None:
    """The licence text: the checkout's, or the one beside the installed packages."""
    if project.checkout:
        path = project.root / "LICENSE"
        return path if path.is_file() else None
    site = Path(uniscale_build.__file__).parents[1]
    return next(site.glob("uniscale-*.dist-info/licenses/LICENSE"), None)


def walk(root: Path) -> Iterator[tuple[str, Path]]:
    """Every file below ``root`` by its relative name, sorted, caches left out."""
    for base, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in _SKIP)
        for name in sorted(files):
            if not name.endswith((".pyc", ".pyo")):
                path = Path(base, name)
                yield path.relative_to(root).as_posix(), path


def metadata(project: Project, plan: Plan) -> str:
    """The text of METADATA: pyproject.toml with the plan's version and dependencies."""
    from pyproject_metadata import ConfigurationError, StandardMetadata

    pyproject = read_pyproject(project)
    table = dict(pyproject["project"])
    table["version"] = plan.version
    table["dependencies"] = [*tool_table(pyproject).get("dependencies", ()), *plan.requirements]
    table["dynamic"] = []
    # An installed wheel has its licence in its dist-info only, where these patterns find nothing.
    table.pop("license-files", None)
    try:
        standard = StandardMetadata.from_pyproject({**pyproject, "project": table}, project.root)
        standard.validate()
    except ConfigurationError as error:
        raise SettingsError(
            f"pyproject.toml: {error}", where=str(project.root / "pyproject.toml")
        ) from error
    message = standard.as_rfc822()
    if licence(project) is not None:
        message["License-File"] = "LICENSE"
    return str(message)


def entry_points(project: Project) -> str:
    """The text of entry_points.txt."""
    scripts = read_pyproject(project)["project"].get("scripts", {})
    lines = ["[console_scripts]", *(f"{name} = {target}" for name, target in scripts.items())]
    return "\n".join(lines) + "\n"
