"""The plan of a configuration as it was read before, while its text is the same.

Reading YAML strictly and checking every key takes longer than everything else before exec (60 to
90 ms of CPU). A file that was found good is good as long as its bytes are the same, so its plan is
kept as JSON, with the bytes: they are compared, no clock is trusted. Only what depends on that one
file is kept: no defaults lists, hostfiles, recipes, or variables of the environment.
"""

from __future__ import annotations

import json
import os
from zlib import crc32

from uniscale_build import __version__

from uniscale import folders
from uniscale.config.plans import ModelPlan, ServePlan
from uniscale.frozen import told

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

_SLOTS = 64  # files that are kept, so that they do not pile up
# Where another file, a variable or this machine has a say: defaults lists, ``${oc.env:…}``,
# hostfiles, vLLM's recipes and FlagScale's layout.
_ELSEWHERE = ("defaults", "oc.env", "nodes", "hostfile", "model_id", "serve_id")


def plan(path: str, settings: Sequence[str]) -> ServePlan:
    """The plan in the configuration at ``path``; raises what `servefile.read` raises."""
    if not os.path.isfile(path):  # a pipe gives its text once
        return _read(path, settings)
    try:
        with open(path, "rb") as stream:
            raw = stream.read(1 << 20)
    except OSError:
        return _read(path, settings)  # which says it in our words
    text = raw.decode("utf-8", "surrogateescape")
    key: dict[str, object] = {
        "path": os.path.abspath(path),
        "text": text,
        "settings": list(settings),
        "reader": [__version__, os.stat(os.path.dirname(__file__)).st_mtime_ns],
    }
    slot = f"{crc32(json.dumps([key['path'], key['settings']]).encode()) % _SLOTS}.json"
    place = os.path.join(folders.cache(), "configurations", slot)
    known = _known(place, key)
    if known is None:
        known = _read(path, settings)
        said = "\n".join((text, *settings))
        if not any(word in said for word in _ELSEWHERE):
            _keep(place, key, known)
    return known


def _read(path: str, settings: Sequence[str]) -> ServePlan:
    from pathlib import Path

    from uniscale.config import servefile

    return servefile.read(Path(path), settings)


def _known(place: str, key: dict[str, object]) -> ServePlan | None:
    try:
        with open(place, encoding="utf-8") as stream:
            kept = json.load(stream)
        return _plan(kept["plan"]) if kept["key"] == key else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # not there, or another version's: it is read anew


def _keep(place: str, key: dict[str, object], read: ServePlan) -> None:
    text = json.dumps({"key": key, "plan": _plain(read)})
    if _plan(json.loads(text)["plan"]) != read:
        return  # something in it has no place in JSON
    from uniscale.jobs import state

    try:
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        state.write(place, text)  # for this user alone: the file may hold a token
    except OSError:
        return  # next time it is read again


def _plain(read: ServePlan) -> dict[str, Any]:
    return {**told(read), "models": [told(one) for one in read.models]}


def _plan(kept: dict[str, Any]) -> ServePlan:
    def tuples(fields: dict[str, Any], *names: str) -> dict[str, Any]:
        return {**fields, **{name: tuple(fields[name]) for name in names}}

    gateway = kept["gateway"]
    if gateway is not None:
        lists = [name for name, value in gateway.items() if isinstance(value, list)]
        kept = {**kept, "gateway": tuples(gateway, *lists)}
    models = tuple(ModelPlan(**tuples(one, "engines", "raw")) for one in kept["models"])
    return ServePlan(**{**tuples(kept, "nodes", "warnings"), "models": models})
