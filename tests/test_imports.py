"""Imports go one way: what is imported when a module is loaded never leads back to it."""

from __future__ import annotations

import ast
import itertools
from collections import defaultdict
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD, LAUNCH = ROOT / "build_backend" / "uniscale_build", ROOT / "launchers" / "uniscale"


def imports(package: Path, *, late: bool = False) -> dict[str, set[str]]:
    """Each module of ``package`` and those of the package that it imports at its top level.

    With ``late``, also what its functions import when they are called.
    """
    files = {
        ".".join((package.name, *path.relative_to(package).with_suffix("").parts)): path
        for path in package.rglob("*.py")
    }
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    found: dict[str, set[str]] = {}
    for name, path in modules.items():
        found[name] = set()
        tree = ast.parse(path.read_bytes())
        for node in ast.walk(tree) if late else tree.body:
            if isinstance(node, ast.ImportFrom) and node.module:
                inside = {f"{node.module}.{alias.name}" for alias in node.names} & modules.keys()
                found[name] |= inside or ({node.module} & modules.keys())
    return found


@pytest.mark.parametrize("package", [BUILD, LAUNCH], ids=["uniscale_build", "uniscale"])
def test_modules_import_one_way(package: Path) -> None:
    order = list(TopologicalSorter(imports(package)).static_order())  # CycleError names a cycle
    assert f"{package.name}.__main__" in order


# Along the data flow: manifests → source → layers → plan → build → wheel → command line.
BUILDS = ["git", "manifests", "sources", "layers", "plans", "build", "wheels", "cli"]
# An engine → its process → machines → what is asked → served, then asked or trained → words.
SERVES = ["engines", "jobs", "nodes", "config", "serving", "inference", "cli"]
TRAINS = ["devices", "wheels", "serving", "training", "cli"]


@pytest.mark.parametrize(
    ("package", "flow", "late"),
    [(BUILD, BUILDS, False), (LAUNCH, SERVES, True), (LAUNCH, TRAINS, True)],
    ids=["build", "serve", "train"],
)
def test_packages_import_one_way(package: Path, flow: list[str], late: bool) -> None:
    graph: dict[str, set[str]] = defaultdict(set)
    for name, wanted in imports(package, late=late).items():
        # The package's own name stands for its version, `__main__` for everything.
        graph[_part(name)] |= {_part(other) for other in wanted} - {_part(name), "__init__"}
    order = list(TopologicalSorter(graph).static_order())
    shared = "errors" if package == BUILD else "frozen"
    assert order.index(shared) == min(order.index(one) for one in [shared, *flow])
    for before, after in itertools.pairwise(flow):
        assert before not in _below(graph, before), before
        assert after not in _below(graph, before), f"{before} needs {after}"


def _part(name: str) -> str:
    """The package that a module is in; one at the root stands for itself."""
    return [*name.split("."), "__init__"][1]


def _below(graph: dict[str, set[str]], part: str) -> set[str]:
    """All that ``part`` needs, directly or not."""
    found: set[str] = set()
    todo = list(graph[part])
    while todo:
        one = todo.pop()
        if one not in found:
            found.add(one)
            todo += graph[one]
    return found
