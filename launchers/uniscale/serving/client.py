"""A client of OpenAI-compatible servers, on the standard library: ready yet? and one chat."""

from __future__ import annotations

import http.client
import json
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass

from uniscale_build.errors import LaunchError

CHAT = "/v1/chat/completions"
_LONGEST_REFUSAL = 65536  # bytes of an error's body that are read


class BrokenOff(LaunchError):
    """The server went away, or spoke nonsense, before its answer was complete."""

    slug = "broken-off"


@dataclass(frozen=True)
class Piece:
    """What one event of a streamed answer brings; most bring a few letters of ``text``."""

    text: str = ""
    reasoning: str = ""  # what a reasoning model thinks before it answers
    finish_reason: str | None = None
    usage: Mapping[str, object] | None = None


def ready(host: str, port: int, path: str, timeout: float) -> bool:
    """True when ``GET path`` answers 200 within ``timeout`` seconds."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path)
        with connection.getresponse() as response:
            return response.status == 200
    except (OSError, http.client.HTTPException):
        return False  # not listening yet, or still loading: the caller asks again
    finally:
        connection.close()


def chat(host: str, port: int, body: Mapping[str, object]) -> Generator[Piece, None, None]:
    """The answer to one chat request, piece by piece as the server sends it.

    ``body`` is the request without ``stream``. Raises `LaunchError` when the server refuses (with
    its own words) and `BrokenOff` when the answer ends before it is complete.
    """
    payload = json.dumps({**body, "stream": True}, ensure_ascii=False).encode()
    connection = http.client.HTTPConnection(host, port)
    try:
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
        connection.request("POST", CHAT, payload, headers)
        with connection.getresponse() as response:
            if response.status != 200:
                raise _refusal(response)
            yield from _pieces(response)
    except (OSError, http.client.HTTPException) as error:
        raise BrokenOff(f"the engine broke off: {str(error) or type(error).__name__}") from error
    finally:
        connection.close()


def _pieces(response: http.client.HTTPResponse) -> Iterator[Piece]:
    finished = False
    for line in response:
        field, _, data = line.decode("utf-8", "replace").partition(":")
        if field not in ("data", "error"):
            continue  # comments (keep-alive), event names, the blank lines between events
        if data.strip() == "[DONE]":
            return
        piece = _piece(data)
        finished = finished or piece.finish_reason is not None
        yield piece
    if not finished:
        raise BrokenOff("the engine broke off before its answer was complete")


def _piece(data: str) -> Piece:
    try:
        event = json.loads(data)
    except json.JSONDecodeError as error:
        raise BrokenOff(f"the engine sent something that is no event: {data.strip()[:80]!r}") from (
            error
        )
    if not isinstance(event, dict):
        raise BrokenOff(f"the engine sent something that is no event: {data.strip()[:80]!r}")
    if "error" in event or "choices" not in event:
        raise LaunchError(f"the engine failed: {_message(event)}", slug="engine-failed")
    usage = event.get("usage") if isinstance(event.get("usage"), dict) else None
    choices = event["choices"]
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return Piece(usage=usage)
    delta = choices[0].get("delta")
    if not isinstance(delta, dict):
        delta = {}
    return Piece(
        text=_text(delta.get("content")),
        reasoning=_text(delta.get("reasoning_content") or delta.get("reasoning")),
        finish_reason=choices[0].get("finish_reason"),
        usage=usage,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _refusal(response: http.client.HTTPResponse) -> LaunchError:
    body = response.read(_LONGEST_REFUSAL).decode("utf-8", "replace")
    try:
        told = _message(json.loads(body))
    except json.JSONDecodeError:
        told = body.strip()[:500] or response.reason
    return LaunchError(
        f"the engine refused the request ({response.status}): {told}", slug="engine-refused"
    )


def _message(event: object) -> str:
    """The words in an error object, however deep the engine put them."""
    if isinstance(event, dict):
        for key in ("error", "message", "detail"):
            if key in event:
                return _message(event[key])
    return event if isinstance(event, str) else json.dumps(event, ensure_ascii=False)[:500]
