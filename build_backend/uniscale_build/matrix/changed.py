"""Which builds a change affects: the inputs of each now, and as they were at a revision of git.

The revision's manifests and layers are read out of git into a scratch folder; the checkout and its
index are not touched.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build import __version__
from uniscale_build.build.explain import Change
from uniscale_build.build.pipeline import PAYLOAD_SCHEMA
from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.git.db import run_git
from uniscale_build.matrix.rows import Row, all_rows
from uniscale_build.pathrules import path_problem
from uniscale_build.project import Project, is_project
from uniscale_build.store import Store

# Below the project's root: all that decides a plan.
_NUMBERS = {
    "schema": ("build_backend/uniscale_build/build/pipeline.py", r"^PAYLOAD_SCHEMA = (\d+)"),
    "uniscale": ("build_backend/uniscale_build/__init__.py", r'^__version__ = "([^"]+)"'),
}
_READ = (
    *("manifests", "patches", "CMakeLists.txt", "pyproject.toml"),
    *(file for file, _ in _NUMBERS.values()),
)


@dataclass(frozen=True)
class Changed:
    """What changed since ``commit``: the rows that are affected, each with what differs."""

    commit: str
    rows: tuple[Row, ...]
    why: Mapping[str, tuple[Change, ...]]  # id → inputs that differ; none: the row is new
    gone: tuple[str, ...]  # ids of builds that there are no more
    note: str = ""


def changed_since(
    project: Project, store: Store, rows: Sequence[Row], revision: str, every: Sequence[Row]
) -> Changed:
    """Those of ``rows`` whose result another plan decides than at ``revision``.

    ``every`` are all rows of the project. When the revision's manifests cannot be read by this
    version, all rows count as changed, and the note says why.
    """
    if revision.strip("0") == "" and len(revision) >= 40:
        # What CI services say on a branch's first push.
        note = "everything: there is nothing before the first push"
        return Changed(revision, tuple(rows), {row.id: () for row in rows}, (), note)
    commit = _commit(project.root, revision)
    with store.scratch() as scratch:
        try:
            before = {row.id: row.inputs for row in _rows_at(project, commit, scratch)}
        except UniscaleError as error:
            first = error.findings()[0]
            note = f"everything: the manifests at {revision} cannot be read ({first.what})"
            return Changed(commit, tuple(rows), {row.id: () for row in rows}, (), note)
    why = {}
    for row in rows:
        now = {**row.inputs, "uniscale": __version__, "schema": str(PAYLOAD_SCHEMA)}
        found = _differences(before.get(row.id), now)
        if found is not None:
            why[row.id] = found
    known = {row.id for row in every}
    gone = tuple(sorted(name for name in before if name not in known))
    return Changed(commit, tuple(row for row in rows if row.id in why), why, gone)


def _differences(
    before: Mapping[str, str] | None, now: Mapping[str, str]
) -> tuple[Change, ...] | None:
    """What differs; () for a build that was not there, None when all is the same."""
    if before is None:
        return ()
    found = [
        Change(name, before.get(name), now.get(name))
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]
    return tuple(found) or None


def _commit(root: Path, revision: str) -> str:
    ran = run_git(
        ["rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"],
        cwd=root, check=False,
    )  # fmt: skip
    if ran.code == 0 and ran.text:
        return ran.text
    inside = run_git(["rev-parse", "--git-dir"], cwd=root, check=False)
    if inside.code != 0:
        raise SettingsError(
            "this project is not in a git repository",
            where=str(root),
            hint="--changed-since needs its history",
            slug="no-repository",
        )
    shallow = run_git(["rev-parse", "--is-shallow-repository"], cwd=root, check=False)
    raise SettingsError(
        f'git knows no revision "{revision}"',
        where=str(root),
        hint="this is a shallow clone: fetch the history first (fetch-depth: 0, GIT_DEPTH: 0)"
        if shallow.text == "true"
        else "a commit, a branch or a tag, such as origin/main",
        slug="unknown-revision",
    )


def _rows_at(project: Project, commit: str, folder: Path) -> list[Row]:
    """The rows of the project as it was."""
    write_tree(project.root, commit, _READ, folder)
    if not is_project(folder):
        return []
    (folder / "CMakeLists.txt").touch()
    rows = all_rows(Project(folder, False, project.site))
    numbers = {name: _number(folder, name) for name in _NUMBERS}
    for row in rows:
        assert isinstance(row.inputs, dict)
        row.inputs.update(numbers)
    return rows


def _number(folder: Path, name: str) -> str:
    file, pattern = _NUMBERS[name]
    path = folder / file
    found = re.search(pattern, path.read_text("utf-8"), re.MULTILINE) if path.is_file() else None
    now = {"schema": str(PAYLOAD_SCHEMA), "uniscale": __version__}
    # A project that carries no build backend of its own is built by this one.
    return found[1] if found else now[name]


def write_tree(root: Path, commit: str, names: Iterable[str], folder: Path) -> None:
    """The files of ``commit`` below ``names`` (from ``root``) in ``folder``, byte for byte."""
    prefix = run_git(["rev-parse", "--show-prefix"], cwd=root).text
    listed = run_git(
        ["ls-tree", "-r", "-z", "--full-tree", commit, "--", *(f"{prefix}{n}" for n in names)],
        cwd=root,
    ).out
    files = []
    for line in listed.split(b"\0")[:-1]:
        head, path = line.split(b"\t", 1)
        mode, kind, oid = head.decode().split(" ")
        if kind == "blob" and mode != "120000" and path_problem(path) is None:
            files.append((path.decode("utf-8", "surrogateescape")[len(prefix) :], oid))
    # One call for all of them: `cat-file --batch` answers in the order of asking.
    asked = "".join(f"{oid}\n" for _, oid in files).encode()
    out = run_git(["cat-file", "--batch"], cwd=root, stdin=asked).out
    at = 0
    for name, _ in files:
        end = out.index(b"\n", at)
        size = int(out[at:end].split(b" ")[2])
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(out[end + 1 : end + 1 + size])
        at = end + 2 + size
