"""Patterns that pick builds: ``vllm-*_MLU``, ``{vllm,sglang}-cpu``, lists of them."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from uniscale_build.errors import Gathering, SettingsError, UniscaleError, did_you_mean, raise_all
from uniscale_build.matrix.rows import Row
from uniscale_build.plans.pairs import STATES, Pair

_MOST = 10_000  # patterns that braces may give


def split(text: str) -> list[str]:
    """The patterns of one option: commas and blanks separate them, but not inside braces."""
    found, depth, word = [], 0, ""
    for char in text:
        depth += (char == "{") - (char == "}")
        if depth < 0:
            break
        if depth == 0 and (char == "," or char.isspace()):
            found.append(word)
            word = ""
        else:
            word += char
    if depth != 0:
        raise SettingsError(
            f"the braces of {text!r} do not match",
            hint="write {a,b} to mean a or b",
            slug="bad-selector",
        )
    return [item for item in (*found, word) if item]


def expand(pattern: str) -> list[str]:
    """The patterns that braces stand for: ``a{b,c}`` gives ``ab`` and ``ac``; braces may nest."""
    start = pattern.find("{")
    if start < 0:
        return [pattern]
    depth, parts, part = 0, [], ""
    for place in range(start, len(pattern)):
        char = pattern[place]
        depth += (char == "{") - (char == "}")
        if depth == 0:
            break
        if char == "," and depth == 1:
            parts.append(part)
            part = ""
        elif place > start:
            part += char
    found: list[str] = []
    for middle in (*parts, part):
        for text in expand(middle):
            found += [pattern[:start] + text + rest for rest in expand(pattern[place + 1 :])]
            if len(found) > _MOST:
                raise SettingsError(
                    f"the braces of {pattern!r} stand for too many patterns", slug="bad-selector"
                )
    return found


def words(texts: Iterable[str]) -> dict[str, list[str]]:
    """Each pattern of some options, and what its braces stand for; all faults at once."""
    found: dict[str, list[str]] = {}
    errors: list[UniscaleError] = []
    for text in texts:
        with Gathering(errors):
            found |= {word: expand(word) for word in split(text)}
    raise_all(errors)
    return found


def matches(names: Sequence[str], patterns: Iterable[str]) -> bool:
    """True when one of ``patterns`` is one of ``names``, in any case, or fits one of the first two.

    Those are the names proper. Aliases are only ever taken whole: ``*aarch64`` means a platform,
    although it is an alias of a device too.
    """
    folded = [name.casefold() for name in names]
    return any(
        one in folded or any(fnmatch.fnmatchcase(name, one) for name in folded[:2])
        for one in (pattern.casefold() for pattern in patterns)
    )


def select(
    rows: Sequence[Row], only: Iterable[str], skip: Iterable[str], pairs: Iterable[Pair] = ()
) -> list[Row]:
    """The rows that fit a pattern of ``only`` (when there is one) and none of ``skip``.

    A pattern that fits no row at all is a `SettingsError`: a misspelt one must not build nothing.
    ``pairs`` are looked through for why there is no such build.
    """
    wanted, unwanted = words(only), words(skip)
    waiting = [pair for pair in pairs if pair.state not in ("buildable", "needs-sdk")]
    errors: list[UniscaleError] = [
        _unknown(word, patterns, rows, waiting)
        for word, patterns in (*wanted.items(), *unwanted.items())
        if not any(matches(row.names, patterns) for row in rows)
    ]
    raise_all(errors)
    yes = [pattern for patterns in wanted.values() for pattern in patterns]
    no = [pattern for patterns in unwanted.values() for pattern in patterns]
    return [
        row
        for row in rows
        if (not wanted or matches(row.names, yes)) and not matches(row.names, no)
    ]


def _unknown(
    word: str, patterns: list[str], rows: Sequence[Row], waiting: Sequence[Pair]
) -> SettingsError:
    near = [
        pair
        for pair in waiting
        if matches((f"{pair.backend}-{pair.device}", pair.backend, pair.device), patterns)
    ]
    if near:
        lines = [f"{pair.backend} on {pair.device}: {STATES[pair.state]}: {pair.what}"
                 for pair in near[:4]]  # fmt: skip
        more = [f"and {len(near) - 4} more: uniscale-build matrix"] if len(near) > 4 else []
        return SettingsError(
            f'no build of "{word}" can be planned yet',
            where=near[0].where,
            hint="\n".join([*lines, *more]),
            slug="not-ready",
        )
    return SettingsError(
        f'no build is called "{word}"',
        hint=did_you_mean(word, {name for row in rows for name in row.names[:2]}),
        slug="unknown-build",
    )
