"""One vocabulary for all engines: vLLM's names to an engine's own flags; pure functions.

Arguments come from the command line or a configuration as text, bool, number, None, list or dict.
``None`` leaves an argument out, ``False`` turns it off, a dict becomes JSON where the engine takes
one, ``8K`` is 8192 and ``8k`` is 8000 where a number of tokens is meant (as in vLLM).
"""

from __future__ import annotations

import json
import re

from uniscale_build.errors import LaunchError, UniscaleError, did_you_mean, raise_all

from uniscale.engines import flags
from uniscale.engines.enginefile import EngineFile, Rule
from uniscale.frozen import Frozen, changed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_SIZE = r"(\d+(?:\.\d+)?)([kKmMgG]?)"
_POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
_NAME = r"[A-Za-z][A-Za-z0-9_.-]*"


class Spoken(Frozen):
    """Arguments in an engine's own words."""

    words: tuple[str, ...]  # flags and values
    document: Mapping[str, object]  # dotted place -> value, for engines with a document
    warnings: tuple[str, ...]


class _Speaker:
    """Collects words, warnings and errors while arguments are translated."""

    def __init__(self, engine: EngineFile, known: frozenset[str]) -> None:
        self.engine = engine
        self.known = known
        self.words: list[str] = []
        self.document: dict[str, object] = {}
        self.warnings: list[str] = []
        self.errors: list[UniscaleError] = []

    def refuse(self, name: str, what: str, hint: str | None = None, slug: str = "argument") -> None:
        self.errors.append(LaunchError(what, where=f"argument {name}", hint=hint, slug=slug))


def speak(
    engine: EngineFile,
    common: Mapping[str, object],
    own: Mapping[str, object],
    *,
    known: Sequence[str] = (),
    recorded: Mapping[str, str] | None = None,
) -> Spoken:
    """``common`` (vLLM's names) and ``own`` (the engine's names) as the engine's flags.

    ``known`` is the flag list that the payload recorded (empty: unchecked), ``recorded`` its
    flags for common names, which win over the engine file's. Raises `LaunchError` for every
    argument that the engine does not know, cannot do, or whose value means nothing to it.
    """
    speaker = _Speaker(engine, frozenset(map(_canonical, known)))
    rules = {**engine.arguments, **_recorded_rules(engine, recorded or {})}
    for name, value in common.items():
        if name.replace("-", "_") not in {key.replace("-", "_") for key in own}:
            _common(speaker, rules, name.replace("-", "_"), value, common)
    for name, value in own.items():
        _own(speaker, name, value, rules)
    raise_all(speaker.errors)
    return Spoken(tuple(speaker.words), dict(speaker.document), tuple(speaker.warnings))


def _recorded_rules(engine: EngineFile, recorded: Mapping[str, str]) -> dict[str, Rule]:
    rules = {}
    for name, flag in recorded.items():
        rule = engine.arguments.get(name, Rule())
        # Several flags, or parts, are more than a record can say.
        rules[name] = rule if len(rule.flags) > 1 or rule.parts else changed(rule, flags=(flag,))
    return rules


def _common(
    speaker: _Speaker,
    rules: Mapping[str, Rule],
    name: str,
    value: object,
    given: Mapping[str, object],
) -> None:
    rule = rules.get(name)
    if rule is None:
        _unruled(speaker, rules, name, value)
        return
    if value is None:
        return
    title = speaker.engine.title
    if rule.impossible and _text(value) not in rule.values:
        speaker.refuse(name, f"{title} cannot do {name}", rule.impossible, "impossible-argument")
        return
    if rule.ignored:
        if value not in (False, "false"):
            speaker.warnings.append(f"{name} has no effect on {title}: {rule.ignored}")
        return
    differs = rule.approximate.get(_text(value), rule.approximate.get("*"))
    if differs and (not rule.beside or given.get(rule.beside) not in (None, 1, "1")):
        speaker.warnings.append(f"{name} is only approximated by {title}: {differs}")
    _apply(speaker, rule, name, value)


def _unruled(speaker: _Speaker, rules: Mapping[str, Rule], name: str, value: object) -> None:
    flag = _flag(name, speaker.engine)
    listed = _canonical(flag) in speaker.known or _root(flag) in speaker.known
    if re.fullmatch(_NAME, name) and (listed or (speaker.engine.passthrough and not speaker.known)):
        if value is not None:
            speaker.words += _written(speaker, name, (flag,), value, speaker.engine.lists)
        return
    known = [*rules, *(one.lstrip("-").replace("-", "_") for one in speaker.known)]
    hint = did_you_mean(name, known)
    if not hint.startswith("did you mean"):
        hint = "a flag of one engine goes to engine_args, or behind -- on the command line"
    speaker.refuse(
        name, f'{speaker.engine.title} has no argument "{name}"', hint, "unknown-argument"
    )


def _own(speaker: _Speaker, name: str, value: object, rules: Mapping[str, Rule]) -> None:
    bare = name.lstrip("-")
    if not re.fullmatch(_NAME, bare):
        speaker.refuse(name, f"{name!r} cannot be a flag", slug="unknown-argument")
        return
    if speaker.engine.variable is not None:
        speaker.document[bare] = value
        return
    flag = _flag(bare, speaker.engine)
    if speaker.known and not {_canonical(flag), _root(flag)} & speaker.known:
        if bare.replace("-", "_") in rules:  # a common name in the engine's own block
            _common(speaker, rules, bare.replace("-", "_"), value, {})
            return
        hint = did_you_mean(_canonical(flag), speaker.known)
        if not hint.startswith("did you mean"):
            hint = f"see {speaker.engine.name} --help"
        speaker.refuse(name, f"{speaker.engine.title} has no flag {flag}", hint, "unknown-flag")
        return
    if value is not None:
        speaker.words += _written(speaker, name, (flag,), value, speaker.engine.lists)


def _apply(speaker: _Speaker, rule: Rule, name: str, value: object) -> None:
    if rule.parts:
        _parts(speaker, rule, name, value)
        return
    converted = value
    if rule.convert == "size":
        converted = _size(speaker, name, value)
    mapped = rule.values.get(_text(value))
    if mapped is not None:
        if not mapped:
            return
        converted = mapped
    elif rule.only:
        known = ", ".join(rule.values)
        speaker.refuse(name, f"{name} cannot be {_text(value)!r}", f"known: {known}", "bad-value")
        return
    if rule.key:
        speaker.document[rule.key] = converted
        return
    lists = rule.lists or speaker.engine.lists
    speaker.words += _written(speaker, name, rule.flags, converted, lists)
    speaker.words += rule.also


def _parts(speaker: _Speaker, rule: Rule, name: str, value: object) -> None:
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            speaker.refuse(name, f"{name} is not JSON: {error.msg}", slug="bad-value")
            return
    if not isinstance(value, dict):
        speaker.refuse(
            name, f"{name} must be a mapping of {', '.join(rule.parts)}", slug="bad-value"
        )
        return
    for key, part in value.items():
        flag = rule.parts.get(str(key))
        if flag is None:
            hint = did_you_mean(str(key), rule.parts)
            title = speaker.engine.title
            speaker.refuse(
                f"{name}.{key}", f"{title} has no {name}.{key}", hint, "unknown-argument"
            )
        elif flag and part is not None:
            speaker.words += [flag, _text(part)]


def _written(
    speaker: _Speaker, name: str, spelt: Sequence[str], value: object, lists: str
) -> list[str]:
    words: list[str] = []
    for flag in spelt:
        if speaker.known and not {_canonical(flag), _root(flag)} & speaker.known:
            title = speaker.engine.title
            speaker.refuse(name, f"this build of {title} has no flag {flag}", slug="unknown-flag")
        elif value is True or value == "true":
            words.append(flag)
        elif value is False or value == "false":
            words += _off(speaker, flag)
        elif isinstance(value, (list, tuple)):
            words += _list(flag, value, lists)
        elif _text(value).startswith("-"):
            # As one word: a parser would take `-1` or `--x` behind a flag for a flag of its own.
            words.append(f"{flag}={_text(value)}" if flag.startswith("--") else flag + _text(value))
        else:
            words += [flag, _text(value)]
    return words


def _off(speaker: _Speaker, flag: str) -> list[str]:
    negated = "--no-" + flag[2:]
    if speaker.known:
        return [negated] if _canonical(negated) in speaker.known else []
    return [negated] if speaker.engine.negation else []


def _list(flag: str, items: Sequence[object], style: str) -> list[str]:
    if not items:
        return []
    if style == "json":
        return [flag, json.dumps(items, ensure_ascii=False)]
    texts = [_text(item) for item in items]
    if style == "comma":
        return [flag, ",".join(texts)]
    if style == "repeat":
        return [word for text in texts for word in (flag, text)]
    return [flag, *texts]


def _size(speaker: _Speaker, name: str, value: object) -> object:
    text = _text(value).strip()
    if text in ("-1", "auto"):  # as many as fit
        return text
    match = re.fullmatch(_SIZE, text)
    number = float(match[1]) * _POWERS[match[2]] if match else 0.5
    if number != int(number):
        hint = "a whole number; 8k is 8000, 8K is 8192"
        speaker.refuse(name, f"{name} cannot be {text!r}", hint, "bad-value")
        return None
    return int(number)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list, tuple)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _flag(name: str, engine: EngineFile) -> str:
    bare = name.lstrip("-")
    # Dotted parts (--compilation-config.pass_config.x) are names of fields: kept as they are.
    first, dot, rest = bare.partition(".")
    spelt = first.replace("-", "_") if engine.underscores else first.replace("_", "-")
    return ("-" if len(bare) == 1 else "--") + spelt + dot + rest


def _root(flag: str) -> str:
    return _canonical(flag.split(".", 1)[0])


def _canonical(flag: str) -> str:
    return flags.name(flag) or flag
