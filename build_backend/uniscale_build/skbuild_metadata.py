"""Gives scikit-build-core the dependencies that pyproject.toml keeps in ``[tool.uniscale]``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uniscale_build.distribution import read_pyproject, tool_table
from uniscale_build.project import Project


def dynamic_metadata(
    field: str, _settings: Mapping[str, Any], _project: Mapping[str, Any] | None = None
) -> list[str]:
    """The launchers' dependencies; scikit-build-core calls this in the project's root."""
    if field != "dependencies":
        raise ValueError(f"only dependencies come from here, not {field}")
    pyproject = read_pyproject(Project(Path.cwd(), True))
    return list(tool_table(pyproject)["dependencies"])
