"""Configuration documents of engines that read a file in place of flags; pure functions."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from typing import Any

from uniscale_build.errors import LaunchError

_INTEGER = re.compile(r"-?(0|[1-9]\d*)")


def filled(base: Mapping[str, object], given: Mapping[str, object]) -> dict[str, object]:
    """``base`` with the values of ``given`` at their dotted places (``A.B.0.c``).

    Texts that are JSON numbers or booleans become these. Raises `LaunchError` for a place that
    leads through something that is no object or list.
    """
    document: dict[str, Any] = copy.deepcopy(_typed(dict(base)))
    for place, value in given.items():
        if value is not None:
            _put(document, place.split("."), _typed(value), place)
    return document


def _put(here: Any, keys: list[str], value: object, place: str) -> None:
    key, *rest = keys
    try:
        if isinstance(here, list):
            if rest:
                _put(here[int(key)], rest, value, place)
            else:
                here[int(key)] = value
            return
        if not isinstance(here, dict):
            raise TypeError
        if rest:
            _put(here.setdefault(key, {}), rest, value, place)
        else:
            here[key] = value
    except (TypeError, ValueError, IndexError) as error:
        raise LaunchError(
            f"the engine's configuration has no place {place}",
            where=f"argument {place}",
            slug="unknown-argument",
        ) from error


def _typed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _typed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_typed(item) for item in value]
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value
