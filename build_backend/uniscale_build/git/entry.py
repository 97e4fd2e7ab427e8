"""One file of a tree."""

from __future__ import annotations

from dataclasses import dataclass

SYMLINK = "120000"
GITLINK = "160000"


@dataclass(frozen=True)
class Entry:
    """One file of a tree: mode (``100644``, ``100755``, ``120000``, ``160000``) and blob id."""

    mode: str
    oid: str
