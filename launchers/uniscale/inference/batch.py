"""``uniscale infer --input``: every row of a file asked, answers beside the rows, resumable."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale.inference.batchfile import Batch
from uniscale.inference.messages import user
from uniscale.meter import Meter, duration
from uniscale.serving import client
from uniscale.talk import note

if TYPE_CHECKING:
    from uniscale.inference.infer import InferRequest, Running

_ATTEMPTS = 3  # for a row whose connection broke while the engine lives
_OWN = ("max_tokens", "temperature", "top_p", "seed", "stop")  # that a row may set for itself
_TEXTS = ("prompt", "question", "instruction", "input", "text")  # columns that ask, best first


@dataclass(frozen=True)
class Answer:
    """What came of one row."""

    text: str | None = None
    finish: str | None = None
    tokens: int | None = None
    error: str | None = None


def ask_all(request: InferRequest) -> int:
    """Ask all rows of the input that have no answer yet, and write the output; 1 if any failed.

    Raises `SettingsError` for files that cannot be used and `LaunchError` when the engine cannot be
    started or dies; the answers so far stay, and the same command goes on from there.
    """
    from uniscale.inference.infer import running

    batch = Batch.of(request)
    rows = batch.read()
    began = time.monotonic()
    with batch.journal() as journal:
        done = journal.answers(len(rows))
        left = [place for place in range(len(rows)) if place not in done]
        if done:
            note(f"going on: {len(done)} of {len(rows)} rows have their answer")
        if left:
            with running(request) as engine:
                for place, answer in _answered(request, engine, rows, left):
                    journal.add(place, vars(answer))
                    done[place] = vars(answer)
        batch.write(rows, done)
        failed = sum(1 for one in done.values() if one["error"])
        if not failed:
            journal.remove()
    return _tell(request, len(rows), failed, time.monotonic() - began)


def _answered(
    request: InferRequest, engine: Running, rows: list[dict[str, Any]], left: list[int]
) -> Iterator[tuple[int, Answer]]:
    """The answers as they come, `request.concurrency` rows at a time, with a meter."""
    waiting = iter(left)
    pool = ThreadPoolExecutor(request.concurrency)
    flying: dict[Future[Answer], int] = {}
    failed, began = 0, time.monotonic()
    try:
        with Meter(_words) as meter:
            number = 0
            while True:
                for place in islice(waiting, request.concurrency - len(flying)):
                    flying[pool.submit(_one, request, engine, rows[place])] = place
                if not flying:
                    break
                ready, _ = wait(flying, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in ready:
                    answer = future.result()
                    number += 1
                    failed += answer.error is not None
                    yield flying.pop(future), answer
                engine.child.check_alive("while it answered")
                # Rows that cannot be asked take no time and say nothing of the others.
                speed = (number - failed) / max(time.monotonic() - began, 1e-6)
                meter.show(
                    {
                        "phase": "asking", "step": number, "steps": len(left), "failed": failed,
                        "speed": speed, "eta": (len(left) - number) / speed if speed else None,
                    },
                    last=number == len(left),
                )  # fmt: skip
    finally:
        # Whoever is still asking ends with the engine, which our caller stops.
        pool.shutdown(wait=False, cancel_futures=True)


def _words(facts: Mapping[str, Any]) -> str:
    parts = [f"{facts.get('step', 0)}/{facts.get('steps', '?')} rows"]
    if facts.get("failed"):
        parts.append(f"{facts['failed']} failed")
    if facts.get("speed"):
        speed = facts["speed"]
        parts.append(f"{speed:.3g} rows/s" if speed < 100 else f"{speed:,.0f} rows/s")
    if facts.get("eta"):
        parts.append(f"{duration(facts['eta'])} left")
    return "  ".join(parts)


def _one(request: InferRequest, engine: Running, row: Mapping[str, Any]) -> Answer:
    """Ask one row; whatever is wrong with it or its answer is the row's own error."""
    try:
        body = engine.body(_messages(request, row), _settings(row))
    except UniscaleError as error:
        return Answer(error=f"{error.slug}: {error.what}")
    for attempt in range(_ATTEMPTS):
        try:
            with closing(client.chat(*engine.address, body)) as pieces:
                return _collected(pieces)
        except client.BrokenOff as error:
            last: LaunchError = error
            if engine.child.ended(0.2) is not None:
                break
            time.sleep(0.1 * 2**attempt)
        except LaunchError as error:
            return Answer(error=f"{error.slug}: {error.what}")
    return Answer(error=f"{last.slug}: {last.what}")


def _collected(pieces: Iterator[client.Piece]) -> Answer:
    text, finish, tokens = [], None, None
    for piece in pieces:
        text.append(piece.text)
        finish = piece.finish_reason or finish
        if piece.usage is not None:
            count = piece.usage.get("completion_tokens")
            tokens = count if isinstance(count, int) else tokens
    return Answer("".join(text), finish, tokens)


def _messages(request: InferRequest, row: Mapping[str, Any]) -> list[dict[str, object]]:
    """The row's conversation: its messages, or its prompt, with system message and images."""
    body = row.get("body")
    inside = body if isinstance(body, dict) else row  # OpenAI's batch files have a body
    listed = inside.get("messages")
    if listed == "":  # a table has the column for every row
        listed = None
    if isinstance(listed, str):
        try:
            listed = json.loads(listed)
        except json.JSONDecodeError as error:
            raise _bad(f'"messages" is not JSON: {error.msg}') from error
    system = inside.get("system") or request.system
    before: list[dict[str, object]] = [{"role": "system", "content": system}] if system else []
    if listed is not None:
        if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
            raise _bad('"messages" must be a list of messages')
        messages = [one for one in listed if isinstance(one, dict)]
        # What is to be answered stands last: an answer that is there already is not sent.
        while messages and messages[-1].get("role") == "assistant":
            messages.pop()
        if not messages:
            raise _bad('"messages" asks nothing')
        return messages if messages[0].get("role") == "system" else [*before, *messages]
    key = next((key for key in _TEXTS if inside.get(key) not in (None, "")), "")
    text = inside.get(key)
    if not key:
        empty = ", ".join(f'"{one}"' for one in ("messages", *_TEXTS) if one in inside)
        why = f"{empty} is empty" if empty else f"no column messages, {', '.join(_TEXTS)}"
        raise _bad(f"the row asks nothing: {why}")
    if not isinstance(text, str) or not text.strip():
        raise _bad(f'"{key}" is {"blank" if isinstance(text, str) else "not text"}')
    if isinstance(inside.get("instruction"), str) and inside.get("input") and "prompt" not in row:
        text = f"{inside['instruction']}\n\n{inside['input']}"
    images = inside.get("images") or inside.get("image") or ()
    images = (images,) if isinstance(images, str) else tuple(map(str, images))
    return [*before, user(text, images)]


def _settings(row: Mapping[str, Any]) -> dict[str, object]:
    body = row.get("body")
    if isinstance(body, dict):
        return {key: value for key, value in body.items() if key not in ("messages", "model")}
    found: dict[str, object] = {}
    for key in _OWN:
        value = row.get(key)
        if isinstance(value, str) and key != "stop":  # a CSV cell
            try:
                value = json.loads(value) if value.strip() else None
            except json.JSONDecodeError as error:
                raise _bad(f'"{key}" must be a number, not {value!r}') from error
        if value is not None:
            found[key] = value
    return found


def _bad(what: str) -> SettingsError:
    return SettingsError(what, slug="bad-row")


def _tell(request: InferRequest, rows: int, failed: int, seconds: float) -> int:
    output = str(request.output)
    if request.as_json:
        told = {"rows": rows, "failed": failed, "output": output, "seconds": round(seconds, 3)}
        print(json.dumps(told, ensure_ascii=False, indent=2))
    else:
        note(f"{rows - failed} of {rows} rows answered in {duration(seconds)}: {output}")
    if failed:
        column = f"{request.answer_column}_error"
        note(f"{failed} failed (see {column}); the same command asks these again")
    return 1 if failed else 0


def check(request: InferRequest) -> None:
    """Raise `SettingsError` for options that cannot go together."""
    problems: list[UniscaleError] = []
    if request.prompt is not None:
        problems.append(_usage("a prompt and --input are two ways to ask", "leave one out"))
    if request.output is None:
        problems.append(_usage("--input needs --output", "--output FILE.jsonl, .csv or .parquet"))
    if request.images:
        problems.append(_usage("images come from the rows", "a column image or images"))
    raise_all(problems)


def _usage(what: str, hint: str) -> SettingsError:
    return SettingsError(what, where="uniscale infer", hint=hint, slug="usage")
