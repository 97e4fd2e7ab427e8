from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.errors import SourceError
from uniscale_build.progress import Silent
from uniscale_build.sources.download import download
from uniscale_build.store import Store

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY; ``cut`` bytes at most per answer, ``plain`` ignores ranges."""

    cut: int | None = None
    plain = False
    fail = 0
    requests: list[str]


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append(asked)
        if self.server.fail:
            self.server.fail -= 1
            self.send_error(503)
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        start = 0
        if asked and not self.server.plain:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(BODY):
                self.send_error(416)
                return
        body = BODY[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.server.cut])

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # no waiting between tries
    made = Server(("127.0.0.1", 0), Handler)
    made.requests = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()


def url(server: Server, path: str = "/file") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_file_is_kept_under_its_hash(server: Server, tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = download(store, url(server), SHA, "x.bin", Silent())
    assert path.read_bytes() == BODY
    assert download(store, "http://nowhere.invalid/", SHA, "x.bin", Silent()) == path
    assert len(server.requests) == 1


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(
    server: Server, tmp_path: Path
) -> None:
    server.cut = 400_000
    path = download(Store(tmp_path), url(server), SHA, "x.bin", Silent())
    assert path.read_bytes() == BODY
    assert server.requests == ["", "bytes=400000-", "bytes=800000-"]


def test_a_part_of_a_killed_run_is_used(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "downloads" / SHA / "x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY[:1000])
    assert download(Store(tmp_path), url(server), SHA, "x.bin", Silent()).read_bytes() == BODY
    assert server.requests == ["bytes=1000-"]


def test_a_server_without_ranges_sends_the_whole_again(server: Server, tmp_path: Path) -> None:
    server.plain = True
    part = tmp_path / "downloads" / SHA / "x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"other bytes")
    assert download(Store(tmp_path), url(server), SHA, "x.bin", Silent()).read_bytes() == BODY


def test_a_part_that_is_too_long_starts_anew(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "downloads" / SHA / "x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(BODY + b"more")
    assert download(Store(tmp_path), url(server), SHA, "x.bin", Silent()).read_bytes() == BODY


def test_other_bytes_are_discarded_whole(server: Server, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), url(server), wrong, "x.bin", Silent())
    assert caught.value.slug == "wrong-hash"
    assert SHA in caught.value.what and wrong in caught.value.what
    assert not list((tmp_path / "downloads" / wrong).iterdir())


def test_a_busy_server_is_asked_again_and_a_missing_file_is_not(
    server: Server, tmp_path: Path
) -> None:
    server.fail = 2
    assert download(Store(tmp_path), url(server), SHA, "x.bin", Silent()).is_file()
    server.requests.clear()
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), url(server, "/missing"), "1" * 64, "x.bin", Silent())
    assert len(server.requests) == 1
    assert caught.value.slug == "no-network"


def test_secrets_stay_out_of_messages(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), "ftp://user:secret@host/x", SHA, "x", Silent())
    assert "secret" not in caught.value.what
