"""``uniscale config``: a configuration as it is understood, each value with its origin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from uniscale.config import config, servefile
from uniscale.serving.asked import root_of


def show_config(path: str, settings: Sequence[str], *, as_json: bool) -> int:
    """Print every value of the merged configuration with its file and line.

    What it serves and trains is checked as `uniscale serve` and `train` would.
    """
    if config.is_config(path):
        root = config.compose(Path(path), settings)
    else:
        root = root_of([path], settings)
    rows = list(config.leaves(root))
    if isinstance(root.data, dict) and "serve" in root.data:
        servefile.plan(root)
    if isinstance(root.data, dict) and "train" in root.data:
        from uniscale.training import trainfile

        trainfile.plan_of(root)
    if as_json:
        told = {place: {"value": one.plain(), "from": one.where} for place, one in rows}
        print(json.dumps(told, indent=2, ensure_ascii=False))
        return 0
    shown = [(f"{place} = {_shown(one.plain())}", one.where) for place, one in rows]
    width = min(max((len(text) for text, _ in shown), default=0), 60)
    for text, where in shown:
        print(f"{text.ljust(width)}  # {where}")
    return 0


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if text and text.isprintable() else json.dumps(text, ensure_ascii=False)
