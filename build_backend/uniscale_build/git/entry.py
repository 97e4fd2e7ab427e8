"""One file of a tree."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SYMLINK = "120000"
GITLINK = "160000"


@dataclass(frozen=True)
class Entry:
    """One file of a tree: mode (``100644``, ``100755``, ``120000``, ``160000``) and blob id."""

    mode: str
    oid: str


def blob_id(data: bytes) -> str:
    """The id that git gives a file's bytes."""
    value = hashlib.sha1(b"blob %d\0" % len(data), usedforsecurity=False)
    value.update(data)
    return value.hexdigest()
