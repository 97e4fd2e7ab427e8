"""How far a port has come, as it is kept in the git folder of its work tree."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from uniscale_build.git.db import Entry
from uniscale_build.inplace.tree import InTree
from uniscale_build.manifests.model import Origin, Pin
from uniscale_build.porting.plan import Request
from uniscale_build.porting.resolutions import Conflict


@dataclass(frozen=True)
class State:
    """How far a port has come; all trees are complete in the work tree's repository."""

    request: Request
    digest: str  # of the plan
    done: Mapping[int, str]  # the result of each layer that is settled
    base: str  # what the layer at work stands on
    tree: str  # with markers, as it was put in the work tree
    conflicts: tuple[Conflict, ...]
    phase: str = "open"  # "open" | "taken" | "opening" | "finishing"
    source: str = ""  # opening: the tree that the work tree held before
    by_hand: bool = False  # a person has resolved something already
    expected: Mapping[str, tuple[str, str]] | None = None  # finishing: base and result by layer
    new: Pin | None = None  # a new pin as the port began with it: its source may change or go


def to_json(state: State) -> bytes:
    """The state as it is written."""
    data = asdict(replace(state, conflicts=()))
    data["done"] = {str(at): tree for at, tree in state.done.items()}
    data["conflicts"] = [
        {
            "path": os.fsdecode(conflict.path),
            "stages": {str(n): [e.mode, e.oid] for n, e in conflict.stages.items()},
            "marked": bool(conflict.marked),
        }
        for conflict in state.conflicts
    ]
    return json.dumps(data, indent=1).encode()


def from_json(data: dict[str, Any], tree: InTree) -> State:
    """The state as it was read; texts with markers come from the repository of ``tree``."""
    data["request"] = Request(**data["request"])
    data["done"] = {int(at): oid for at, oid in data["done"].items()}
    data["expected"] = {n: (a, b) for n, (a, b) in (data["expected"] or {}).items()}
    if new := data.get("new"):
        origins = tuple(
            Origin(**{**origin, "drop": tuple(origin["drop"])}) for origin in new["origins"]
        )
        data["new"] = Pin(**{**new, "origins": origins, "layers": tuple(new["layers"])})
    texts = tree.repo.list_tree(data["tree"]) if data["conflicts"] else {}
    conflicts = []
    for item in data["conflicts"]:
        path = os.fsencode(item["path"])
        stages = {int(n): Entry(mode, oid) for n, (mode, oid) in item["stages"].items()}
        marked = tree.repo.read_blob(texts[path].oid) if item["marked"] else b""
        conflicts.append(Conflict(path, stages, marked))
    data["conflicts"] = tuple(conflicts)
    return State(**data)
