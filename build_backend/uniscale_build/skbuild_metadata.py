"""Gives scikit-build-core the version and dependencies of the source distribution."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniscale_build import __version__
from uniscale_build.project import Project
from uniscale_build.wheels.distribution import read_pyproject, tool_table


def dynamic_metadata(
    _settings: Mapping[str, Any], _project: Mapping[str, Any]
) -> dict[str, str | list[str]]:
    """The fields that pyproject.toml leaves open; called in the project's root."""
    pyproject = read_pyproject(Project(Path.cwd(), True))
    return {
        "version": __version__,
        "dependencies": list(tool_table(pyproject)["dependencies"]),
    }


def dynamic_wheel(_settings: Mapping[str, Any]) -> dict[str, bool]:
    """A wheel with payloads has more dependencies than the source distribution."""
    return {"dependencies": True}
