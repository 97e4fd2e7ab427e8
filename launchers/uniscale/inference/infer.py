"""``uniscale infer``: a prompt, a file or a conversation, to an engine that lives for that long."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

from uniscale_build.errors import LaunchError, SettingsError, raise_all

from uniscale import ports
from uniscale.inference.messages import user
from uniscale.jobs import run
from uniscale.serving import client
from uniscale.serving.prepare import Prepared, Request, prepare
from uniscale.serving.serve import check
from uniscale.talk import note

_QUIET = 2.0  # seconds of loading before we say that we wait
_LAST_BREATH = 1.0  # seconds between a dying engine's last word and its end


class InferRequest(Request, kw_only=True):
    """What ``uniscale infer`` is asked for; None leaves a value to the model or the engine."""

    prompt: str | None
    system: str | None
    max_tokens: int | None
    temperature: float | None
    start_timeout: float  # seconds
    as_json: bool
    images: tuple[str, ...] = ()  # files or addresses that go with the prompt
    input: str | None = None  # file with a prompt in each row
    output: str | None = None
    concurrency: int = 8  # rows that are asked at a time
    answer_column: str = "answer"


@dataclass(frozen=True)
class Running:
    """An engine that is ready: where it listens, and how a request to it is written."""

    prepared: Prepared
    child: run.Child
    address: tuple[str, int]
    request: InferRequest

    def body(
        self, messages: Sequence[Mapping[str, object]], settings: Mapping[str, object]
    ) -> dict[str, object]:
        """The body of one chat request; ``settings`` win over the command's."""
        return {**_body(self.request, self.prepared, messages), **settings}


@contextmanager
def running(request: InferRequest) -> Iterator[Running]:
    """The engine for ``request``, ready to answer; stopped at the end, whatever the end is."""
    prepared = prepare(request, task="infer", host=ports.LOOPBACK, port=ports.free_port())
    for warning in prepared.command.warnings:
        note(f"warning: {warning}")
    check(prepared.command)
    address = _address(prepared)
    with run.child(prepared.command, title=prepared.payload.title) as engine:
        _wait(engine, prepared, request.start_timeout)
        yield Running(prepared, engine, address, request)


def infer(request: InferRequest) -> int:
    """Print the model's answer on standard output as it comes; all else goes to standard error.

    With an input file, its rows are asked (`uniscale.inference.batch`); with neither prompt nor
    file, on a terminal, a conversation begins (`uniscale.inference.chat`).

    Raises `LaunchError` when the engine can't be started, dies, or refuses the request, and
    `SettingsError` for a prompt or number that can't be sent.
    """
    if request.input is not None:
        from uniscale.inference import batch

        batch.check(request)
        _checked(request, "-")
        return batch.ask_all(request)
    prompt = _prompt(request)
    if prompt is None:
        from uniscale.inference import chat

        _checked(request, "-")
        with running(request) as engine:
            return chat.talk(request, engine)
    _checked(request, prompt)
    messages = [user(prompt, request.images)]
    if request.system:
        messages.insert(0, {"role": "system", "content": request.system})
    with running(request) as engine:
        try:
            # Closed at once when we are interrupted: engines stop working for nobody.
            with closing(client.chat(*engine.address, engine.body(messages, {}))) as pieces:
                if request.as_json:
                    return _print_json(pieces, engine.prepared)
                return _print_text(pieces)
        except client.BrokenOff:
            engine.child.check_alive("while it answered", patience=_LAST_BREATH)
            raise


def _prompt(request: InferRequest) -> str | None:
    """What is asked; None where a conversation is meant."""
    if request.output is not None:
        raise SettingsError(
            "--output needs --input", where="uniscale infer", hint="--input FILE", slug="usage"
        )
    if request.prompt is not None:
        return _from_stdin() if request.prompt == "-" else request.prompt
    if sys.stdin is not None and sys.stdin.isatty() and not request.as_json:
        return None
    raise SettingsError(
        "Missing argument 'PROMPT'", where="uniscale infer",
        hint="- reads it from standard input; --input FILE asks every row of a file;\n"
        "without any, on a terminal, you talk with the model", slug="usage",
    )  # fmt: skip


def _address(prepared: Prepared) -> tuple[str, int]:
    host, port = prepared.command.host, int(prepared.command.port)
    if "/" in host or port == 0:
        raise LaunchError(
            f"infer cannot reach an engine at {host} port {port}",
            hint="leave host and port to infer, or name an address and a port",
            slug="bad-host",
        )
    return ports.reachable(host), port


def _wait(engine: run.Child, prepared: Prepared, timeout: float) -> None:
    host, port = _address(prepared)
    told = time.monotonic() + _QUIET

    def probe(seconds: float) -> bool:
        nonlocal told
        if time.monotonic() > told:
            told = math.inf
            note(f"{engine.title} is loading (log: {engine.log})")
        return client.ready(host, port, prepared.command.probe, seconds)

    engine.wait_ready(probe, timeout)


def _checked(request: InferRequest, prompt: str) -> None:
    problems = []
    if not prompt.strip():
        problems.append(SettingsError("the prompt is empty", slug="bad-prompt"))
    for name, text in (("prompt", prompt), ("--system", request.system or "")):
        try:
            text.encode()
        except UnicodeEncodeError:
            problems.append(SettingsError(f"the {name} is not UTF-8 text", slug="bad-prompt"))
    numbers = {"--temperature": request.temperature, "--start-timeout": request.start_timeout}
    for name, number in numbers.items():
        if number is not None and not math.isfinite(number):
            problems.append(SettingsError(f"{name} must be a finite number", slug="bad-number"))
    raise_all(problems)


def _from_stdin() -> str:
    data = b"" if sys.stdin is None else sys.stdin.buffer.read()
    # Undecodable bytes become surrogates, as in sys.argv, and are refused with the rest.
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")


def _body(
    request: InferRequest, prepared: Prepared, messages: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    usual = prepared.model.generation
    wanted = {
        "model": prepared.command.served_name,
        "messages": list(messages),
        "max_tokens": usual.max_tokens if request.max_tokens is None else request.max_tokens,
        "temperature": usual.temperature if request.temperature is None else request.temperature,
        "stream_options": {"include_usage": True} if request.as_json or request.input else None,
    }
    return {key: value for key, value in wanted.items() if value is not None}


def _print_text(pieces: Iterator[client.Piece]) -> int:
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a letter that the terminal lacks is no failure
    last, finish = "", None
    for piece in pieces:
        # The bare minimum between the engine and the reader: one write and one flush per piece.
        if piece.text:
            sys.stdout.write(piece.text)
            sys.stdout.flush()
            last = piece.text
        if piece.reasoning:
            sys.stderr.write(piece.reasoning)
            sys.stderr.flush()
        finish = piece.finish_reason or finish
    if not last.endswith("\n"):
        print(flush=True)
    if finish == "length":
        note("the answer was cut off; allow more with --max-tokens N")
    return 0


def _print_json(pieces: Iterator[client.Piece], prepared: Prepared) -> int:
    text, reasoning, finish, usage = [], [], None, None
    for piece in pieces:
        text.append(piece.text)
        reasoning.append(piece.reasoning)
        finish = piece.finish_reason or finish
        usage = piece.usage or usage
    answer = {
        "text": "".join(text),
        "reasoning": "".join(reasoning) or None,
        "finish_reason": finish,
        "usage": usage,
        "model": prepared.command.served_name,
        "backend": prepared.payload.backend,
        "device": prepared.payload.device,
    }
    print(json.dumps(answer, ensure_ascii=False, indent=2))
    return 0
