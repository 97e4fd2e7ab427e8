"""``uniscale infer MODEL`` on a terminal: a conversation with the model, line by line."""

from __future__ import annotations

import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError

from uniscale.inference.messages import user
from uniscale.serving import client
from uniscale.talk import note

if TYPE_CHECKING:
    from uniscale.inference.infer import InferRequest, Running

_HELP = "/clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer"


def talk(request: InferRequest, engine: Running) -> int:
    """Read lines and print answers until the user ends it; the model sees the whole conversation.

    Raises `LaunchError` when the engine dies; what it refuses is told, and the talk goes on.
    """
    with suppress(ImportError):
        import readline  # noqa: F401  (line editing and history for input())
    system: list[dict[str, object]] = []
    if request.system:
        system.append({"role": "system", "content": request.system})
    told = list(system)
    images = request.images
    note(f"{engine.prepared.payload.title} is ready; {_HELP}")
    while True:
        line = _line()
        if line is None or line in ("/exit", "/quit", "/bye"):
            return 0
        if line == "/clear":
            told, images = list(system), request.images
        elif line.startswith("/"):
            note(f"there is no {line.split()[0]}; {_HELP}")
        elif line:
            asked = user(line, images)
            answer = _answer(engine, [*told, asked])
            if answer is not None:
                told += [asked, {"role": "assistant", "content": answer}]
                images = ()


def _line() -> str | None:
    try:
        return input("> ").encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip()
    except EOFError:
        print()
        return None
    except KeyboardInterrupt:
        print()
        return ""


def _answer(engine: Running, messages: list[dict[str, object]]) -> str | None:
    """Print the answer as it comes; None when there is none that could be gone on from."""
    text: list[str] = []
    try:
        with closing(client.chat(*engine.address, engine.body(messages, {}))) as pieces:
            for piece in pieces:
                sys.stderr.write(piece.reasoning)
                sys.stderr.flush()
                sys.stdout.write(piece.text)
                sys.stdout.flush()
                text.append(piece.text)
    except KeyboardInterrupt:
        print(" …")
        return "".join(text) or None
    except client.BrokenOff:
        engine.child.check_alive("while it answered", patience=1.0)
        raise
    except LaunchError as error:
        note(error.what)
        return None
    print()
    return "".join(text)
