from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from uniscale_build.errors import SourceError
from uniscale_build.progress import Silent
from uniscale_build.sources import pypi
from uniscale_build.sources.download import download
from uniscale_build.store import Store

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


_JSON = b"application/vnd.pypi.simple.v1+json"
ANSWERS = {
    "list": b"\r\n[1, 2]",
    "half": b'\r\n{"files": [{"filename": "x"}]}',
    "cut": b'Content-Length: 99\r\n\r\n{"files": []}',
    "chunks": b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "address": b'\r\n{"files": [{"filename": "x", "url": "http://[::1/x"}]}',
    "index": b'\r\n{"files": [{"filename": "demo-1.0.tar.gz", "url": "demo-1.0.tar.gz"}]}',
}


class Server(http.server.ThreadingHTTPServer):
    """Serves BODY; ``cut`` bytes at most per answer, ``plain`` ignores ranges."""

    cut: int | None = None
    plain = False
    fail = 0
    page = b""
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
        if answer := ANSWERS.get(self.path.split("/")[1]):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: " + _JSON + b"\r\n" + answer)
            return
        if self.path.startswith("/garbage"):
            self.wfile.write(b"nonsense\r\n\r\n")
            return
        if self.path.startswith("/page"):
            self.send_response(200)
            self.send_header("Content-Type", _JSON.decode())
            self.end_headers()
            self.wfile.write(self.server.page)
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


def test_a_bad_line_does_not_use_up_the_tries(server: Server, tmp_path: Path) -> None:
    server.cut = 50_000
    path = download(Store(tmp_path), url(server), SHA, "x.bin", Silent())
    assert path.read_bytes() == BODY
    assert len(server.requests) == 21


def test_a_line_that_brings_nothing_ends(server: Server, tmp_path: Path) -> None:
    server.cut = 0
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), url(server), SHA, "x.bin", Silent())
    assert (caught.value.slug, len(server.requests)) == ("no-network", 4)


def test_a_part_of_another_file_is_given_up(server: Server, tmp_path: Path) -> None:
    part = tmp_path / "downloads" / SHA / "x.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"<html>log in first</html>")
    assert download(Store(tmp_path), url(server), SHA, "x.bin", Silent()).read_bytes() == BODY
    assert server.requests == ["bytes=25-", ""]


def test_a_web_page_is_called_so(server: Server, tmp_path: Path) -> None:
    server.page = b"\n<!DOCTYPE html><title>Log in</title>"
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), url(server, "/page"), SHA, "x.bin", Silent())
    assert caught.value.slug == "wrong-hash" and "web page" in caught.value.what


@pytest.mark.parametrize("path", ["/garbage", "/chunks"])
def test_what_is_no_answer(server: Server, tmp_path: Path, path: str) -> None:
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), url(server, path), SHA, "x.bin", Silent())
    assert (caught.value.slug, len(server.requests)) == ("no-network", 4)


def test_certificates_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", str(tmp_path / "none.pem"))
    with pytest.raises(SourceError) as caught:
        download(Store(tmp_path), "https://127.0.0.1:1/x", SHA, "x.bin", Silent())
    assert (caught.value.slug, caught.value.where) == ("no-file", str(tmp_path / "none.pem"))


# What an index may answer that is none: path, and what is said of it.
NO_INDEX = {
    "/page/": "a web page",
    "/list/": "something else",
    "/half/": "something else",
    "/cut/": "IncompleteRead",
    "/garbage/": "nonsense",
    "/address/": "something else",
}


@pytest.fixture
def indexes(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("UNISCALE_INDEX_URL", raising=False)
    pypi.index_urls.cache_clear()
    yield
    pypi.index_urls.cache_clear()


@pytest.mark.parametrize("path", NO_INDEX)
@pytest.mark.usefixtures("indexes")
def test_an_index_that_is_none_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    server.page = b"<html>Log in</html>"
    monkeypatch.setenv("UNISCALE_INDEX_URL", url(server, path))
    with pytest.raises(SourceError) as caught:
        pypi.project_files("demo")
    assert caught.value.slug == "no-network"
    assert NO_INDEX[path] in (caught.value.where or ""), caught.value.where


@pytest.mark.usefixtures("indexes")
def test_the_next_index_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.page = b"<html>Log in</html>"
    monkeypatch.setenv("PIP_INDEX_URL", url(server, "/page/"))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", url(server, "/index/"))
    assert [file.name for file in pypi.project_files("demo")] == ["demo-1.0.tar.gz"]


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
    assert "secret" not in caught.value.render()
