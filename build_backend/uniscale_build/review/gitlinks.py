"""Compares the project's submodules (gitlinks and ``.gitmodules``) with the pins of its manifests.

Read with GitPython, which parses the index, HEAD and the configuration itself: no process, nothing
of the repository's own configuration is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import ManifestError, UniscaleError, did_you_mean
from uniscale_build.git.entry import GITLINK
from uniscale_build.manifests.model import Backend
from uniscale_build.project import Project

if TYPE_CHECKING:
    import git


@dataclass(frozen=True)
class Submodule:
    """What ``.gitmodules`` says of one path."""

    name: str
    url: str
    ignore: str


@dataclass(frozen=True)
class Links:
    """The project's gitlinks by path, and its ``.gitmodules`` by path."""

    commits: Mapping[str, str]
    modules: Mapping[str, Submodule]


def read_links(root: Path) -> Links | None:
    """What the repository around ``root`` links to, paths from ``root``; None without a repository.

    The index counts (what the next commit will have); HEAD where the index cannot be read.
    """
    if not any((folder / ".git").exists() for folder in (root, *root.parents)):
        return None
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    import git

    try:
        repo = git.Repo(root, search_parent_directories=True)
    except git.exc.GitError:
        return None
    with repo:
        if repo.working_tree_dir is None:
            return None
        top = Path(repo.working_tree_dir).resolve()
        prefix = root.resolve().relative_to(top).as_posix()
        lead = "" if prefix == "." else f"{prefix}/"
        commits = {
            path[len(lead) :]: commit
            for path, commit in _commits(repo).items()
            if path.startswith(lead)
        }
        modules = _modules(top / ".gitmodules")
    return Links(commits, {path[len(lead) :]: module for path, module in modules.items()
                           if path.startswith(lead)})  # fmt: skip


def _commits(repo: git.Repo) -> dict[str, str]:
    link = int(GITLINK, 8)
    try:
        return {str(path): entry.hexsha for (path, _), entry in repo.index.entries.items()
                if entry.mode == link}  # fmt: skip
    except (AssertionError, ValueError, OSError):
        pass  # an index of a version that GitPython does not read
    try:
        items: Iterable[Any] = repo.head.commit.tree.traverse()
        return {str(item.path): item.hexsha for item in items if item.mode == link}
    except ValueError:
        return {}  # no commit yet


def _modules(path: Path) -> dict[str, Submodule]:
    import configparser

    from git.config import GitConfigParser

    if not path.is_file():
        return {}
    found = {}
    try:
        with GitConfigParser(str(path), read_only=True, merge_includes=False) as parser:
            for section in parser.sections():
                if not section.startswith("submodule "):
                    continue
                values = {key: str(parser.get_value(section, key, "")) for key in
                          ("path", "url", "ignore")}  # fmt: skip
                name = section.removeprefix("submodule ").strip('"')
                found[values["path"]] = Submodule(name, values["url"], values["ignore"])
    except (configparser.Error, UnicodeDecodeError, OSError) as error:
        raise ManifestError(
            f"cannot be read: {error}", where=path.name, slug="gitmodules"
        ) from error
    return found


def gitlink_findings(
    project: Project, backend: str | None = None
) -> tuple[list[UniscaleError], list[UniscaleError]]:
    """Errors and warnings where ``third_party/<backend>`` is not what the manifest pins."""
    try:
        links = read_links(project.root)
    except UniscaleError as error:
        return [error], []
    errors: list[UniscaleError] = []
    warnings: list[UniscaleError] = []
    if links is None:
        return errors, warnings
    if backend is None:
        errors += _unowned(project, links)
    for owner in project.manifests.backends.values():
        path = f"third_party/{owner.name}"
        if backend not in (None, owner.name) or not (
            path in links.commits or path in links.modules
        ):
            continue
        errors += _commit_errors(owner, path, links)
        errors += _module_errors(owner, path, links)
        warnings += _module_warnings(owner, path, links)
    return errors, warnings


def _unowned(project: Project, links: Links) -> Iterable[UniscaleError]:
    """Gitlinks in third_party that are of no backend."""
    known = project.manifests.backends
    for path in sorted(links.commits):
        folder, _, name = path.partition("/")
        if folder == "third_party" and name not in known:
            yield ManifestError(
                f'there is no backend "{name}"',
                where=path,
                hint=did_you_mean(name, known),
                slug="unknown-backend",
            )


def _commit_errors(owner: Backend, path: str, links: Links) -> list[UniscaleError]:
    pins = [pin for pin in owner.pins if pin.commit]
    commit = links.commits.get(path)
    if commit is None:
        return [
            ManifestError(
                f".gitmodules has {path}, but there is no gitlink",
                where=".gitmodules",
                hint=f"git submodule add, or remove its section; {owner.where} pins "
                + (pins[0].commit[:12] if pins else "nothing"),
                slug="gitlink",
            )
        ]
    if not pins or commit == pins[0].commit:
        return []
    others = [pin.version for pin in pins if pin.commit == commit]
    which = f"the pin {others[0]}, not the first one" if others else "no pin"
    return [
        ManifestError(
            f"{path} is at {commit[:12]}: {which} ({pins[0].version}, {pins[0].commit[:12]})",
            where=pins[0].where,
            hint=f"git update-index --cacheinfo {GITLINK},{pins[0].commit},{path} follows the "
            "manifest; else correct the pin",
            slug="gitlink",
        )
    ]


def _module_errors(owner: Backend, path: str, links: Links) -> list[UniscaleError]:
    module = links.modules.get(path)
    if module is None:
        return [
            ManifestError(
                f"{path} is a gitlink without a section in .gitmodules",
                where=".gitmodules",
                hint="add one with path and url, or git clone --recurse-submodules fails",
                slug="gitmodules",
            )
        ]
    urls = [o.url for pin in owner.pins for o in pin.origins if o.kind == "git"]
    if urls and _same(module.url) not in map(_same, urls):
        return [
            ManifestError(
                f"the submodule comes from {module.url}, the pins from {urls[0]}",
                where=".gitmodules",
                hint="one of the two is wrong",
                slug="gitmodules",
            )
        ]
    return []


def _module_warnings(owner: Backend, path: str, links: Links) -> list[UniscaleError]:
    module = links.modules.get(path)
    if module is None or module.ignore == "all":
        return []
    return [
        ManifestError(
            f"{path} has no ignore = all: work in place makes the project look changed",
            where=".gitmodules",
            hint=f'git config -f .gitmodules "submodule.{module.name}.ignore" all',
            slug="gitmodules",
        )
    ]


def _same(url: str) -> str:
    return url.rstrip("/").removesuffix(".git").lower()
