"""`uniscale.serving.client` against real sockets that answer as engines do, well and badly."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from uniscale.serving import client
from uniscale_build.errors import LaunchError

Serve = Callable[[bytes], int]
OK = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server that answers one connection with fixed bytes, then closes it."""
    threads = []

    def start(answer: bytes) -> int:
        server = socket.create_server(("127.0.0.1", 0))

        def work() -> None:
            with closing(server), server.accept()[0] as connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                head, _, body = request.partition(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
                while len(body) < length:
                    body += connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=work)
        thread.start()
        threads.append(thread)
        return int(server.getsockname()[1])

    yield start
    for thread in threads:
        thread.join()


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def words(text: str, finish: str | None = None) -> bytes:
    return event({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


def ask(port: int) -> list[client.Piece]:
    return list(client.chat("127.0.0.1", port, {"messages": []}))


def test_a_streamed_answer(serve: Serve) -> None:
    body = b": ping\n\nevent: x\n" + words("Hello ") + words("世界") + words("", "stop")
    body += event({"choices": [], "usage": {"completion_tokens": 2}}) + b"data: [DONE]\n\n"
    pieces = ask(serve(OK + body))
    assert "".join(piece.text for piece in pieces) == "Hello 世界"
    assert pieces[2].finish_reason == "stop"
    assert pieces[3].usage == {"completion_tokens": 2}


def test_chunked_and_in_crlf_lines(serve: Serve) -> None:
    body = words("Hi", "stop").replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n"
    parts = [body[:9], body[9:30], body[30:]]  # chunks end anywhere, also within a line
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [piece.text for piece in ask(serve(head + chunks))] == ["Hi"]


def test_reasoning_is_kept_apart(serve: Serve) -> None:
    delta = {"reasoning_content": "hmm", "content": None}
    body = event({"choices": [{"delta": delta}]}) + words("yes", "stop")
    pieces = ask(serve(OK + body))
    assert [(piece.text, piece.reasoning) for piece in pieces] == [("", "hmm"), ("yes", "")]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "broke off"),
        (b"nonsense\r\n\r\n", "broke off"),
        (OK, "before its answer was complete"),
        (OK + words("half"), "before its answer was complete"),
        (OK + b"data: {not json}\n\n", "sent something that is no event: '{not json}'"),
        (OK + b"data: [1]\n\n", "sent something that is no event"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nx", "broke off"),
    ],
)
def test_broken_off(serve: Serve, answer: bytes, told: str) -> None:
    with pytest.raises(client.BrokenOff) as caught:
        ask(serve(answer))
    assert told in caught.value.what


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b'{"error": {"message": "too long", "code": 400}}', "(400): too long"),
        (b'{"error": "bad key"}', "(400): bad key"),
        (b'{"detail": [{"msg": "x"}]}', '(400): [{"msg": "x"}]'),
        (b"<html>busy</html>", "(400): <html>busy</html>"),
        (b"", "(400): Bad Request"),
    ],
)
def test_refusals_keep_the_engines_words(serve: Serve, body: bytes, told: str) -> None:
    with pytest.raises(LaunchError) as caught:
        ask(serve(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n" + body))
    assert caught.value.slug == "engine-refused" and told in caught.value.what


@pytest.mark.parametrize("prefix", [b"data", b"error"])
def test_an_error_within_the_stream(serve: Serve, prefix: bytes) -> None:
    body = words("so far") + prefix + b': {"error": {"message": "out of memory"}}\n\n'
    with pytest.raises(LaunchError) as caught:
        ask(serve(OK + body))
    assert caught.value.what == "the engine failed: out of memory"


def test_ready(serve: Serve) -> None:
    assert client.ready("127.0.0.1", serve(OK), "/health", 5)
    loading = b"HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n"
    assert not client.ready("127.0.0.1", serve(loading), "/health", 5)
    assert not client.ready("127.0.0.1", serve(b"x"), "/health", 5)
    with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts, never answers
        assert not client.ready("127.0.0.1", mute.getsockname()[1], "/health", 0.1)
        port = mute.getsockname()[1]
    assert not client.ready("127.0.0.1", port, "/health", 5)
