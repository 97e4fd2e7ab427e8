"""The engine's own flags, as users write them after ``--``: found, compared, checked.

Engines spell alike: ``--ctx-size 4096``, ``--ctx-size=4096`` and ``--ctx_size 4096`` are one flag
to llama.cpp's parser and to vLLM's, so names are compared with ``_`` read as ``-``.
"""

from __future__ import annotations

import re

from uniscale_build.errors import LaunchError, did_you_mean, raise_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# Compiled at the first flag of a user's: most have none on the way to exec.
_FLAG = r"(?P<name>--?[A-Za-z][A-Za-z0-9_.-]*)(?:=(?P<value>.*))?"


def name(token: str) -> str | None:
    """The flag's canonical name in ``token`` (``--ctx_size=8`` gives ``--ctx-size``), or None.

    Numbers (``-1``), lone dashes and anything with a blank before ``=`` are values, not flags.
    """
    match = _match(token)
    return None if match is None else _canonical(match["name"])


def value(tokens: Sequence[str], flag: str) -> str | None:
    """What ``tokens`` give ``flag``, the last time that they do; None when they do not.

    A flag with nothing behind it gives the empty string.
    """
    found = None
    for place, token in enumerate(tokens):
        match = _match(token)
        if match is None or _canonical(match["name"]) != _canonical(flag):
            continue
        after = tokens[place + 1] if place + 1 < len(tokens) else ""
        found = match["value"] if match["value"] is not None else after
    return found


def without(ours: Sequence[str], raw: Sequence[str]) -> tuple[str, ...]:
    """``ours`` without the flags (and their values) that ``raw`` gives too, negated or not.

    ``--no-webui`` of ours yields to a user's ``--webui``.
    """
    given = {_bare(found) for token in raw if (found := name(token)) is not None}
    if not given:
        return tuple(ours)
    kept: list[str] = []
    keep = True
    for token in ours:
        flag = name(token)
        if flag is not None:
            keep = _bare(flag) not in given
        if keep:
            kept.append(token)
    return tuple(kept)


def check(
    raw: Sequence[str], known: Iterable[str], *, engine: str, abbreviates: bool = False
) -> None:
    """Refuse every flag in ``raw`` that the engine's list ``known`` does not have.

    An empty list means that none was recorded when the wheel was built: nothing is checked then.
    A dotted flag (``--limit-mm-per-prompt.image``) passes when its first part is known, a short
    one with its value attached (``-O3``) when the short flag is. ``abbreviates``: the engine takes
    the beginning of a flag where that fits one alone, as argparse does (``--tp`` of SGLang).
    Raises `LaunchError`, all at once.
    """
    names = {_canonical(flag) for flag in known} if raw else set()
    if not names:
        return
    errors = []
    for token in raw:
        flag = name(token)
        if flag is None or flag in names or flag.split(".", 1)[0] in names:
            continue
        if not flag.startswith("--") and flag[:2] in names:
            continue
        if (
            abbreviates
            and flag.startswith("--")
            and sum(one.startswith(flag) for one in names) == 1
        ):
            continue
        errors.append(
            LaunchError(
                f"{engine} has no flag {flag}",
                where=f"-- {token}",
                hint=did_you_mean(flag, names) if _near(flag, names) else f"see {engine} --help",
                slug="unknown-flag",
            )
        )
    raise_all(errors)


def _match(token: str) -> re.Match[str] | None:
    return re.fullmatch(_FLAG, token, re.DOTALL) if token.startswith("-") else None


def _near(flag: str, names: set[str]) -> bool:
    return did_you_mean(flag, names).startswith("did you mean")


def _canonical(flag: str) -> str:
    return flag.replace("_", "-") if flag.startswith("--") else flag


def _bare(flag: str) -> str:
    return "--" + flag[5:] if flag.startswith("--no-") else flag
