"""FlagScale's metadata, read as it is: ``diff.yaml`` beside a patch set, ``patch_history.yaml``.

People typed these files at a prompt. What does not fit is reported as a `Quirk` and worked around
where that is safe; only what cannot be read at all is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.ids import slug
from uniscale_build.manifests.model import Backend, Manifests, canonical_task
from uniscale_build.yamlfile import Fields, Value, load

FLAGSCALE = "FlagScale"
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
_KEYS = (
    "backends_commit",
    "backends_version",
    "commit",
    "contact",
    "device_type",
    "models",
    "task",
)


@dataclass(frozen=True)
class Quirk:
    """Something odd in what was read, and what was made of it; the import goes on."""

    what: str
    where: str

    def as_json(self) -> dict[str, str]:
        """The same facts for ``--json``."""
        return {"what": self.what, "where": self.where}


@dataclass(frozen=True)
class Meta:
    """What one ``diff.yaml`` says, spelled as it is there; empty where it says nothing."""

    where: str
    device: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    commits: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""  # of FlagScale itself
    contact: str = ""
    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


def read_meta(path: Path, shown: str, quirks: list[Quirk]) -> Meta:
    """The ``diff.yaml`` at ``path``; what is missing or odd in it is added to ``quirks``."""
    errors: list[UniscaleError] = []
    value = load(path, shown=shown)
    fields = Fields(value, errors)
    meta = Meta(
        where=shown,
        device=fields.text("device_type", ""),
        versions=fields.pairs("backends_version"),
        commits=fields.pairs("backends_commit"),
        commit=fields.text("commit", ""),
        contact=fields.text("contact", ""),
        models=_words(fields, "models"),
        tasks=_words(fields, "task"),
    )
    # A value of the wrong kind is no reason to refuse the patches beside it.
    quirks += [Quirk(error.what, error.where or shown) for error in errors]
    if isinstance(value.data, dict):
        quirks += [Quirk(f'"{key}" is missing', shown) for key in _KEYS if key not in value.data]
        quirks += [
            Quirk(f'unknown key "{key}" is ignored', found.where)
            for key, found in value.data.items()
            if key not in _KEYS
        ]
    for name, commit in [*meta.commits.items(), (FLAGSCALE, meta.commit)]:
        if commit and not _COMMIT.fullmatch(commit):
            quirks.append(Quirk(f"the commit of {name}, {commit!r}, is not a commit id", shown))
    return meta


def _words(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of texts, or the one text that somebody wrote in place of a list."""
    value = fields.get(key)
    if value is not None and isinstance(value.data, str):
        return (value.data,)
    return fields.texts(key)


def plain_version(word: str) -> str:
    """``v0.8.3`` as ``0.8.3``; anything that is not a version as it is."""
    match = re.fullmatch(r"[vV](\d.*)", word.strip())
    return match[1] if match else word.strip()


def tasks_of(
    meta: Meta, history: Mapping[str, tuple[str, ...]], backend: Backend, quirks: list[Quirk]
) -> tuple[str, ...]:
    """Our names of the tasks that the set serves.

    ``history`` maps the tasks that ``patch_history.yaml`` has for the device to backends; it helps
    out where ``diff.yaml`` names a model in place of a task.
    """
    found: list[str] = []
    for word in meta.tasks:
        try:
            found.append(canonical_task(word))
        except SettingsError:
            quirks.append(Quirk(f'"{word}" is not a task (a model, perhaps); left out', meta.where))
    if not found:
        for word, backends in history.items():
            if backend.name in backends:
                try:
                    found.append(canonical_task(word))
                except SettingsError:
                    quirks.append(
                        Quirk(f'"{word}" is not a task; left out', "hardware/patch_history.yaml")
                    )
        if found:
            quirks.append(
                Quirk(f"the task is taken from patch_history.yaml: {', '.join(found)}", meta.where)
            )
    if not found:
        found = list(backend.tasks)
        quirks.append(
            Quirk(f"no task is known; assumed what {backend.name} can do: {', '.join(found)}",
                  meta.where)
        )  # fmt: skip
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class History:
    """``patch_history.yaml``: device → task → backends → FlagScale commits, oldest first."""

    entries: Mapping[str, Mapping[str, Mapping[str, tuple[str, ...]]]] = field(default_factory=dict)

    def tasks(self, device: str, manifests: Manifests) -> dict[str, tuple[str, ...]]:
        """The tasks of ``device`` (any spelling) with our names of their backends."""
        found: dict[str, list[str]] = {}
        for name, tasks in self.entries.items():
            if slug(name) != slug(device):
                continue
            for task, groups in tasks.items():
                for word in dict.fromkeys(part for key in groups for part in key.split("+")):
                    try:
                        found.setdefault(task, []).append(manifests.backend(word).name)
                    except SettingsError:
                        continue  # FlagScale itself, or a backend that we do not have
        return {task: tuple(dict.fromkeys(names)) for task, names in found.items()}

    def newest(self, device: str, backend: str) -> str:
        """The newest FlagScale commit for the pair (as FlagScale spells them), or nothing."""
        for task in self.entries.get(device, {}).values():
            for key, commits in task.items():
                if backend in key.split("+") and commits:
                    return commits[-1]
        return ""


def read_history(path: Path, shown: str, quirks: list[Quirk]) -> History:
    """The ``patch_history.yaml`` at ``path`` (an empty one when it is not there)."""
    if not path.is_file():
        return History()
    try:
        value = load(path, shown=shown)
    except UniscaleError as error:
        quirks += [Quirk(f"is ignored: {e.what}", e.where or shown) for e in error.findings()]
        return History()
    return History(
        {
            device: {
                task: {key: _commits(found, quirks) for key, found in _mapping(tasks, quirks)}
                for task, tasks in _mapping(groups, quirks)
            }
            for device, groups in _mapping(value, quirks)
        }
    )


def _mapping(value: Value, quirks: list[Quirk]) -> list[tuple[str, Value]]:
    if isinstance(value.data, dict):
        return list(value.data.items())
    if value.data is not None:
        quirks.append(Quirk("a mapping is expected here; ignored", value.where))
    return []


def _commits(value: Value, quirks: list[Quirk]) -> tuple[str, ...]:
    if not isinstance(value.data, list):
        quirks.append(Quirk("a list of commits is expected here; ignored", value.where))
        return ()
    words = [str(item.data) for item in value.data]
    odd = [word for word in words if not _COMMIT.fullmatch(word)]
    quirks += [Quirk(f"{word!r} is not a commit id; ignored", value.where) for word in odd]
    return tuple(word for word in words if word not in odd)
