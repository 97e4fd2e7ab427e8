"""Backends that cannot be in one wheel: their requirements contradict each other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError, UniscaleError, raise_all
from uniscale_build.manifests.model import Adaptation
from uniscale_build.plans.plan import Plan
from uniscale_build.project import Project

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version


@dataclass(frozen=True)
class _Asked:
    """One requirement of one adaptation, for this machine."""

    pair: Adaptation
    text: str
    requirement: Requirement


def check_together(project: Project, plan: Plan) -> None:
    """`ManifestError` (all at once) where two backends need different versions of a project.

    What no installer could satisfy is refused before anything is built, with the lines of both.
    """
    if len(plan.backends) < 2:
        return
    errors: list[UniscaleError] = []
    by_name: dict[str, list[_Asked]] = {}
    for item in plan.backends:
        for asked in _asked(item.adaptation):
            by_name.setdefault(_canonical(asked.requirement.name), []).append(asked)
    for name, found in sorted(by_name.items()):
        for one, other in itertools.combinations(found, 2):
            if one.pair is not other.pair and not _compatible(one.requirement, other.requirement):
                errors.append(_contradiction(project, name, one, other))
    raise_all(errors)


def _asked(pair: Adaptation) -> Iterator[_Asked]:
    from packaging.requirements import InvalidRequirement, Requirement

    for text in pair.requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue  # told where the requirements are compared with upstream's
        if requirement.marker is None or requirement.marker.evaluate():
            yield _Asked(pair, text, requirement)


def _compatible(one: Requirement, other: Requirement) -> bool:
    """True when some version, released or not, satisfies both.

    It is looked for among the versions that the two name and their neighbours: between two bounds
    there is always one of these.
    """
    if one.url or other.url:
        return one.url == other.url or not (one.url and other.url)
    both = one.specifier & other.specifier
    return any(both.contains(version, prereleases=True) for version in _candidates(one, other))


def _candidates(*requirements: Requirement) -> Iterator[Version]:
    from packaging.version import InvalidVersion, Version

    yield from (Version("0"), Version("999999"))
    for requirement in requirements:
        for bound in requirement.specifier:
            try:
                version = Version(re.sub(r"\.\*$", "", bound.version))
            except InvalidVersion:
                continue  # === may be followed by anything
            yield version
            words = [str(number) for number in version.release]
            yield Version(".".join([*words, "1"]))
            for end in range(len(words)):
                raised = [*version.release[:end], version.release[end] + 1]
                yield Version(".".join(map(str, raised)))


def _contradiction(project: Project, name: str, one: _Asked, other: _Asked) -> ManifestError:
    return ManifestError(
        f"{one.pair.backend} needs {one.text}, and {other.pair.backend} needs {other.text}: "
        "no version is both",
        where=f"{_place(project, one)} and {_place(project, other)}",
        hint=f"build one wheel for each (--backend {one.pair.backend}, then --backend "
        f"{other.pair.backend}) and install them into environments of their own",
        slug="requirements-contradict",
    )


def _place(project: Project, asked: _Asked) -> str:
    """``file:line`` of the requirement in its manifest."""
    where = asked.pair.where
    path = project.manifests.root.parent / where
    if not path.is_file():  # a site's own folder
        path = Path(where)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return asked.pair.at("requirements")
    for number, line in enumerate(lines, 1):
        if line.strip().lstrip("- ").strip("\"'") == asked.text:
            return f"{where}:{number}"
    return asked.pair.at("requirements")


def _canonical(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)
