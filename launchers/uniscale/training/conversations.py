"""Rows of training data as samples that TRL takes: prompt and completion, or plain text.

Each answer of a conversation is a sample of its own, with all that stands before it as its prompt:
so every answer is learned, nothing else is, and any chat template does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniscale_build.errors import Problems, SettingsError, UniscaleError, did_you_mean

from uniscale import tables
from uniscale.tables import Row

MOST_ERRORS = 20  # that are told; the others are counted
_ROLES = ("system", "developer", "user", "assistant", "tool")
_SPEAKERS = {
    **{one: one for one in _ROLES},
    **dict.fromkeys(("human", "user_a", "prompter"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model", "bing", "bard"), "assistant"),
    **dict.fromkeys(("observation", "function", "function_response"), "tool"),
}
Message = dict[str, Any]
Sample = dict[str, Any]


class Unfit(Exception):
    """A row that is not what its format promises; its text says why."""


@dataclass(frozen=True)
class Source:
    """Where samples come from: a file, folder or data set of the hub, and how its rows are read."""

    path: str
    format: str | None = None  # of FORMATS; None: told by the columns of the first row
    columns: Mapping[str, str] = field(default_factory=dict)  # our name -> the file's
    split: str = "train"


def read(source: Source, *, text: bool = False) -> list[Sample]:
    """All samples; every bad row at once, with its place. ``text`` asks for plain text alone.

    Raises `SettingsError` (or `Problems`) also when there is no row at all.
    """
    errors: list[UniscaleError] = []
    samples = list(_samples(source, errors, text))
    if errors:
        told = errors[:MOST_ERRORS]
        if len(errors) > len(told):
            more = f"and {len(errors) - len(told)} more rows are not right"
            told.append(SettingsError(more, where=source.path, slug="bad-data"))
        raise Problems(told)
    if not samples:
        raise SettingsError("there is no row in the data", where=source.path, slug="bad-data")
    return samples


def _samples(source: Source, errors: list[UniscaleError], text: bool) -> Iterator[Sample]:
    name = source.format
    if name is not None and name not in FORMATS:
        hint = did_you_mean(name, FORMATS)
        raise SettingsError(f"there is no data format {name}", hint=hint, slug="bad-data")
    for row in _rows(source, errors):
        data = _renamed(row, source.columns)
        if name is None:
            name = _format_of(data, row.place, text)
        try:
            yield from FORMATS[name](data)
        except Unfit as unfit:
            errors.append(
                SettingsError(f"{unfit} (format: {name})", where=row.place, slug="bad-data")
            )


def _rows(source: Source, errors: list[UniscaleError]) -> Iterator[Row]:
    path = Path(source.path).expanduser()
    if path.exists():
        return tables.rows(path, errors, split=source.split)
    if source.path.count("/") == 1 and not path.suffix and not source.path.startswith((".", "/")):
        return _of_hub(source)
    near = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = did_you_mean(path.name, near) if near else "there is no such folder"
    raise SettingsError(
        f"there is no {path.name}",
        where=str(path),
        hint=hint if hint.startswith(("did", "there")) else None,
        slug="bad-data",
    )


def _of_hub(source: Source) -> Iterator[Row]:
    try:
        import datasets
    except ImportError as error:
        raise SettingsError(
            f"{source.path} is no file here, and reading it from the hub needs datasets",
            where=source.path, hint="pip install 'uniscale[train]'", slug="no-package",
        ) from error  # fmt: skip
    try:
        found = datasets.load_dataset(source.path, split=source.split)
    except Exception as error:
        # What it raises depends on the hub, the network and the data set's own files.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise SettingsError(
            f"the data set {source.path} cannot be had: {reason}",
            where=source.path, hint="it is no path here either", slug="bad-data",
        ) from error  # fmt: skip
    for number, data in enumerate(found, start=1):
        yield Row(f"{source.path} row {number}", dict(data))


def _renamed(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    data = dict(row.data)
    for ours, theirs in columns.items():
        if theirs not in row.data:
            raise SettingsError(
                f"there is no column {theirs}", where=row.place,
                hint=did_you_mean(theirs, row.data), slug="bad-data",
            )  # fmt: skip
        data[ours] = row.data[theirs]
    return data


def _format_of(data: Mapping[str, object], place: str, text: bool) -> str:
    keys = {key for key, value in data.items() if value is not None}
    tests = (
        ("openai", "messages" in keys),
        ("sharegpt", "conversations" in keys),
        ("alpaca", {"instruction", "output"} <= keys),
        ("prompt", bool({"prompt", "question"} & keys) and bool(_ANSWERS & keys)),
        ("text", "text" in keys),
    )
    for name, holds in sorted(tests, key=lambda one: one[0] != "text") if text else tests:
        if holds:
            return name
    raise SettingsError(
        f"the columns {', '.join(data) or '(none)'} are in no known format",
        where=place,
        hint="known: messages (OpenAI); conversations (ShareGPT); instruction, input, output "
        "(Alpaca); prompt or question, with completion or answer; text\n"
        "other names: --column prompt=NAME",
        slug="bad-data",
    )


def _turns(messages: list[Message], tools: object = None) -> Iterator[Sample]:
    """One sample for each answer; `Unfit` when there is none, or one that answers nothing."""
    more = {"tools": tools if isinstance(tools, str) else json.dumps(tools)} if tools else {}
    answers = [place for place, one in enumerate(messages) if one["role"] == "assistant"]
    if not answers:
        raise Unfit("no message is the assistant's: there is nothing to learn")
    if all(one["role"] in ("system", "assistant") for one in messages[: answers[0] + 1]):
        raise Unfit("the assistant speaks before anybody asked")
    for place in answers:
        yield {"prompt": messages[:place], "completion": [messages[place]], **more}


def _content(value: object, what: str) -> str:
    if isinstance(value, list) and all(isinstance(one, dict) for one in value):
        kinds = {str(one.get("type")) for one in value}
        if kinds - {"text"}:
            raise Unfit(f"{what} holds {', '.join(sorted(kinds - {'text'}))}: only text is learned")
        value = "".join(str(one.get("text", "")) for one in value)
    if not isinstance(value, str):
        raise Unfit(f"{what} is missing" if value is None else f"{what} is not text")
    if not value.strip():
        raise Unfit(f"{what} is empty")
    return value


def _openai(data: Mapping[str, Any]) -> Iterator[Sample]:
    listed = data.get("messages")
    if isinstance(listed, str):  # a CSV cell
        try:
            listed = json.loads(listed)
        except json.JSONDecodeError as error:
            raise Unfit(f'"messages" is not JSON: {error.msg}') from error
    if not isinstance(listed, list) or not listed:
        raise Unfit('"messages" must be a list of messages')
    messages: list[Message] = []
    for number, one in enumerate(listed, start=1):
        if not isinstance(one, dict):
            raise Unfit(f"message {number} is not an object")
        role = one.get("role")
        if role not in _ROLES:
            raise Unfit(
                f"message {number} has the role {role!r}; {did_you_mean(str(role), _ROLES)}"
            )
        kept = {key: value for key, value in one.items() if value is not None}
        if not kept.get("tool_calls"):
            kept = {"role": role, "content": _content(one.get("content"), f"message {number}")}
        messages.append(kept)
    yield from _turns(messages, data.get("tools"))


def _sharegpt(data: Mapping[str, Any]) -> Iterator[Sample]:
    listed = data.get("conversations")
    if not isinstance(listed, list) or not listed:
        raise Unfit('"conversations" must be a list of turns')
    messages = [_said("system", data["system"])] if data.get("system") else []
    for number, one in enumerate(listed, start=1):
        if not isinstance(one, dict):
            raise Unfit(f"turn {number} is not an object")
        speaker = str(one.get("from", one.get("role")))
        role = _SPEAKERS.get(speaker.lower())
        if role is None:
            raise Unfit(f"turn {number} is from {speaker!r}; {did_you_mean(speaker, _SPEAKERS)}")
        messages.append(
            _said(role, _content(one.get("value", one.get("content")), f"turn {number}"))
        )
    yield from _turns(messages, data.get("tools"))


def _said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def _alpaca(data: Mapping[str, Any]) -> Iterator[Sample]:
    messages = [_said("system", str(data["system"]))] if data.get("system") else []
    history = data.get("history") or []
    if not isinstance(history, list):
        raise Unfit('"history" must be a list of [question, answer]')
    for pair in history:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise Unfit('"history" must be a list of [question, answer]')
        asked, answered = (_content(one, '"history"') for one in pair)
        messages += [_said("user", asked), _said("assistant", answered)]
    asked = _content(data.get("instruction"), '"instruction"')
    if data.get("input"):
        asked += "\n\n" + _content(data["input"], '"input"')
    messages += [
        _said("user", asked),
        _said("assistant", _content(data.get("output"), '"output"')),
    ]
    # The history is context here, as the format means it: the last answer is what is learned.
    yield {"prompt": messages[:-1], "completion": messages[-1:]}


_ANSWERS = {"completion", "response", "answer"}


def _prompt(data: Mapping[str, Any]) -> Iterator[Sample]:
    asked = data.get("prompt", data.get("question"))
    answered = next((data[key] for key in sorted(_ANSWERS) if data.get(key) is not None), None)
    if isinstance(asked, list) and isinstance(answered, list):  # TRL's own conversational form
        yield from list(_openai({"messages": [*asked, *answered]}))[-1:]
        return
    messages = [_said("system", str(data["system"]))] if data.get("system") else []
    messages += [
        _said("user", _content(asked, "the prompt")),
        _said("assistant", _content(answered, "the completion")),
    ]
    yield {"prompt": messages[:-1], "completion": messages[-1:]}


def _text(data: Mapping[str, Any]) -> Iterator[Sample]:
    yield {"text": _content(data.get("text"), '"text"')}


FORMATS: Mapping[str, Callable[[Mapping[str, Any]], Iterator[Sample]]] = {
    "openai": _openai,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt": _prompt,
    "text": _text,
}
