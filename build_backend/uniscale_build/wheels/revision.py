"""Revisions: wheels of one upstream version that differ, because our layers or settings changed.

Two files of one name cannot be in an index. A wheel whose bytes are in the index already keeps
its revision; another one gets the next that is free.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from uniscale_build.errors import IndexSiteError, SettingsError
from uniscale_build.settings import AUTO, Settings
from uniscale_build.wheels import catalogfile


@dataclass(frozen=True)
class Stored:
    """A wheel of an index: its revision, and the patched tree in it."""

    file: str
    sha256: str
    revision: int
    tree: str

    @property
    def tags(self) -> str:
        """What tells the files of one version apart: Python, ABI, platform."""
        return self.file.removesuffix(".whl").split("-", 2)[-1]


Wheels = tuple[Mapping[str, Any], ...]
Counted = int | Wheels | None


def read(settings: Settings) -> Counted:
    """The revision that ``settings`` name, None for none, or the wheels of the index to count from.

    `SettingsError` for ``auto`` without an index, `IndexSiteError` for one that cannot be read.
    """
    if settings.revision != AUTO:
        assert not isinstance(settings.revision, str)
        return settings.revision
    if not settings.index:
        raise SettingsError(
            "revision=auto counts on from an index, and none is named",
            hint="name it: -C index=SITE, a folder or an address; for the first wheels: revision=0",
            slug="no-index",
        )
    return _catalog(settings.index)


def of(wheels: Wheels, name: str, base: str, before: str = ".") -> list[Stored]:
    """The wheels of the distribution ``name`` in version ``base``, of any revision, in order.

    ``before`` is what comes in a version before its revision.
    """
    pattern = re.compile(rf"{re.escape(base)}(?:{re.escape(before)}(\d+))?")
    found = []
    for wheel in wheels:
        version = pattern.fullmatch(str(wheel["version"]))
        if wheel["name"] == name and version is not None:
            tree = next((str(one["tree"]) for one in wheel["payloads"]), "")
            number = int(version[1] or 0)
            found.append(Stored(str(wheel["file"]), str(wheel["sha256"]), number, tree))
    return sorted(found, key=lambda one: (one.revision, one.file))


def choose(
    stored: Sequence[Stored],
    tree: str,
    tags: str,
    sha256: Callable[[int], str],
    *,
    at_least: int = 0,
) -> int:
    """The revision for a wheel of ``tree`` with ``tags``; ``sha256`` gives its digest as one.

    Among wheels for the same Python and platform only equal bytes share a revision; a wheel for
    another one joins the newest revision when that has the same tree. Where trees differ no digest
    is asked for: it costs writing the wheel.
    """
    if not stored:
        return at_least
    newest = stored[-1]
    same = [one for one in stored if one.tags == tags]
    if same and same[-1].tree == tree and sha256(same[-1].revision) == same[-1].sha256:
        return same[-1].revision
    joins = newest.tree == tree and not (same and same[-1].revision == newest.revision)
    return max(newest.revision + (0 if joins else 1), at_least)


def _catalog(index: str) -> Wheels:
    """The wheels that the catalog of an index (folder, address) tells, checked for what we read."""
    where, data = _bytes(index)
    try:
        told = json.loads(data)
        if told["schema"] != catalogfile.SCHEMA:
            raise ValueError(f"its schema is {told['schema']}, not {catalogfile.SCHEMA}")
        wheels = tuple(told["wheels"])
        for wheel in wheels:
            [wheel[key] for key in ("name", "version", "file", "sha256")]
            [payload["tree"] for payload in wheel["payloads"]]
    except (ValueError, KeyError, TypeError) as error:
        raise IndexSiteError(
            f"the catalog cannot be read: {error or 'it is no catalog'}", where=where,
            hint="uniscale-build index --out SITE writes it again", slug="bad-catalog",
        ) from error  # fmt: skip
    return wheels


def _bytes(index: str) -> tuple[str, bytes]:
    from uniscale_build.sources.download import without_secrets

    base = catalogfile.address(index)
    where = without_secrets(base) if "://" in index else unquote(urlsplit(base).path)
    try:
        return where, catalogfile.fetch(base, where)
    except IndexSiteError as error:
        raise _missing(where, error.what) from error


def _missing(where: str, why: str) -> IndexSiteError:
    return IndexSiteError(
        f"there is no catalog to count revisions from: {why}",
        where=where,
        hint="uniscale-build index DIST --out SITE makes one; for its first wheels: revision=0",
        slug="no-catalog",
    )
