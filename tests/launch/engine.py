"""A small OpenAI-like server that payloads of these tests carry; standard library only.

It stands where llama-server or vLLM would: the launcher knows engines only by ``payload.json``.
Flags beyond the common ones make it misbehave in the ways that real engines do.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--alias", default="nameless")
    parser.add_argument("--webui", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--record", type=Path, help="write what this process was given")
    parser.add_argument("--die-at-start", metavar="WORDS")
    parser.add_argument("--die-answering", action="store_true")
    parser.add_argument("--break-off", action="store_true", help="close in mid-answer, stay alive")
    parser.add_argument("--not-ready", type=float, default=0, help="seconds of loading")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--worker", type=Path, help="start a worker, write its pid here")
    parser.add_argument("--refuse", type=int, help="answer chats with this status")
    parser.add_argument("--garbage", action="store_true", help="send something that is no event")
    parser.add_argument("--answer", choices=["echo", "request", "endless"], default="echo")
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    parser.add_argument("--count", type=Path, help="add a byte to this file for each chat")
    parser.add_argument("--finish", default="stop")
    parser.add_argument("--realtime", action="store_true", help="a WebSocket that echoes")
    return parser.parse_args()


class Handler(BaseHTTPRequestHandler):
    options: argparse.Namespace
    started: float

    def do_GET(self) -> None:
        if self.options.realtime and self.headers.get("Upgrade", "").lower() == "websocket":
            self._echo()
            return
        if self.path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": self.options.alias}]})
            return
        loading = time.monotonic() - self.started < self.options.not_ready
        self._reply(503 if loading else 200, {"status": "loading" if loading else "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.options.count:
            with self.options.count.open("ab") as stream:
                stream.write(b".")
        time.sleep(self.options.delay)
        if self.options.refuse:
            self._reply(self.options.refuse, {"error": {"message": "no such luck"}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self._stream(body)

    def _stream(self, body: dict[str, Any]) -> None:
        prompt = body["messages"][-1]["content"]
        answer = {
            "echo": prompt,
            "request": json.dumps(body, ensure_ascii=False),
            "endless": "and on " * 100_000,
        }[self.options.answer]
        self.wfile.write(b": keep-alive\n\n")
        self._event({"choices": [{"delta": {"reasoning_content": "thinking\n"}}]})
        for word in answer.split(" "):
            if self.options.die_answering:
                os._exit(9)
            if self.options.garbage:
                self.wfile.write(b"data: <html>\n\n")
            self._event({"choices": [{"delta": {"content": word + " "}}]})
            if self.options.break_off:
                return
            if self.options.answer == "endless":
                time.sleep(0.01)
        self._event({"choices": [{"delta": {}, "finish_reason": self.options.finish}]})
        if body.get("stream_options"):
            self._event({"choices": [], "usage": {"completion_tokens": len(answer.split(" "))}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _echo(self) -> None:
        """RFC 6455: shake hands, then send each short text back until the client closes."""
        self.protocol_version = "HTTP/1.1"
        self.close_connection = True
        secret = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        accept = base64.b64encode(hashlib.sha1(secret.encode()).digest()).decode()
        self.send_header("Sec-WebSocket-Accept", accept)
        self.end_headers()
        while True:
            kind, length = self.rfile.read(2)
            mask = self.rfile.read(4)
            text = bytes(one ^ mask[at % 4] for at, one in enumerate(self.rfile.read(length & 127)))
            self.wfile.write(bytes([kind, len(text)]) + text)
            if kind & 15 == 8:
                return

    def _event(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        self.wfile.flush()

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def handle(self) -> None:
        try:
            super().handle()
        except (BrokenPipeError, ConnectionResetError):
            print("the client has gone", flush=True)

    def log_message(self, format: str, *words: object) -> None:  # noqa: A002
        print(format % words, flush=True)


def main() -> None:
    options = parse()
    print("engine: loading", options.model, flush=True)
    if options.die_at_start is not None:
        sys.exit(f"engine: \x1b[31m{options.die_at_start}\x1b[0m")
    if options.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.worker:
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        options.worker.write_text(str(worker.pid))
    if options.record:
        facts = {
            "argv": sys.argv,
            "pid": os.getpid(),
            "group": os.getpgrp(),
            "cwd": os.getcwd(),
            "environ": dict(os.environ),
            "python": sys.executable,
        }
        options.record.with_suffix(".part").write_text(json.dumps(facts))
        options.record.with_suffix(".part").rename(options.record)
    Handler.options, Handler.started = options, time.monotonic()
    with ThreadingHTTPServer((options.host, options.port), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
