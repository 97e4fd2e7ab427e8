"""The words of ``uniscale serve``, read without typer: the short way to exec.

Importing typer and building its commands takes longer than everything else before exec. The rule
on this way: modules import neither dataclasses (`uniscale.frozen` has records), typing, pathlib nor
what imports them; tests/launch/test_exec_path.py lists the modules. What is
not plainly one of the options below (help, an abbreviation, a mistake) is left to typer, which
says it better; a test holds the two against each other.
"""

from __future__ import annotations

from functools import partial

from uniscale.ports import LARGEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

VALUES = {
    "--backend": "backend", "-b": "backend", "--device": "device", "-d": "device",
    "--host": "host", "--name": "name", "--devices": "devices", "--nodes": "nodes",
    "--api-keys": "api_keys",
}  # fmt: skip
NUMBERS = {"--port": ("port", LARGEST), "--replicas": ("replicas", 1 << 31)}
LISTS = {"--arg": "arguments", "--engine-arg": "engine_arguments", "--set": "settings"}
SWITCHES = {"--dry-run": "dry_run", "--json": "as_json", "--verbose": "verbose", "-v": "verbose"}


def action(words: Sequence[str]) -> Callable[[], int] | None:
    """What a plain ``serve …`` asks for, as `uniscale.cli.app.parse` gives it; None: ask typer."""
    if not words or words[0] != "serve":
        return None
    cut = words.index("--") if "--" in words else len(words)
    told = _told(words[1:cut])
    if told is None or not told["models"]:
        return None
    from uniscale.serving.asked import Asked, serve_asked

    dry_run, as_json = told.pop("dry_run"), told.pop("as_json")
    del told["verbose"]
    told |= {key: tuple(told[key]) for key in ("models", *LISTS.values())}
    asked = Asked(**told, raw=tuple(words[cut + 1 :]))
    return partial(serve_asked, asked, dry_run=dry_run, as_json=as_json)


def _told(words: Sequence[str]) -> dict[str, Any] | None:
    told: dict[str, Any] = dict.fromkeys(VALUES.values())
    told |= {name: None for name, _ in NUMBERS.values()}
    told |= {name: [] for name in ("models", *LISTS.values())}
    told |= dict.fromkeys(SWITCHES.values(), False)
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            if not word:
                return None
            told["models"].append(word)
        elif word in SWITCHES:
            told[SWITCHES[word]] = True
        else:
            option, equals, value = word.partition("=")
            if not equals:
                value = next(rest, "")
            if not value or value.startswith("-") or not _take(told, option, value, bool(equals)):
                return None
    return told


def _take(told: dict[str, Any], option: str, value: str, joined: bool) -> bool:
    if option in VALUES and (option.startswith("--") or not joined):
        told[VALUES[option]] = value
    elif option in LISTS:
        told[LISTS[option]].append(value)
    elif option in NUMBERS:
        name, most = NUMBERS[option]
        if not (value.isascii() and value.isdigit() and len(value) < 10):
            return False
        if not 1 <= int(value) <= most:
            return False
        told[name] = int(value)
    else:
        return False
    return True
