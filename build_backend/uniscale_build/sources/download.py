"""Downloads: resumable, verified by SHA-256, kept once under that hash."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from uniscale_build.errors import SourceError
from uniscale_build.ids import is_sha256
from uniscale_build.progress import Reporter
from uniscale_build.store import Store, disk_errors

_CHUNK = 1 << 20
_TRIES = 4
TIMEOUT = 30.0  # seconds without a byte


def open_url(url: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Open ``url`` (http, https, file); user and password in it become a header; `SourceError`."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http", "file"):
        raise SourceError(
            "is not an http, https or file address", where=without_secrets(url), slug="bad-url"
        )
    sent = {"User-Agent": "uniscale", **(headers or {})}
    if parts.username:
        word = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        sent["Authorization"] = "Basic " + base64.b64encode(word).decode()
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=host))
    bundle = next(
        (os.environ[k] for k in ("PIP_CERT", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
         if os.environ.get(k)), None,
    )  # fmt: skip
    context = _trust(bundle) if parts.scheme == "https" else None
    request = urllib.request.Request(url, headers=sent)
    response: http.client.HTTPResponse = urllib.request.urlopen(
        request, timeout=TIMEOUT, context=context
    )
    return response


def _trust(bundle: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=bundle)
    except OSError as error:  # of which SSLError is one
        raise SourceError(
            f"the certificates cannot be read: {error.strerror or error}",
            where=bundle,
            hint="PIP_CERT, REQUESTS_CA_BUNDLE or SSL_CERT_FILE names that file",
            slug="no-file",
        ) from error


def without_secrets(url: str) -> str:
    """``url`` without user and password, for messages."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def download(store: Store, url: str, sha256: str, name: str, reporter: Reporter) -> Path:
    """The file at ``url`` whose SHA-256 is ``sha256``, from the store when it is there.

    A transfer that breaks off goes on where it stopped; bytes with another hash are discarded.
    """
    if not is_sha256(sha256):
        raise SourceError(f"{sha256!r} is not a SHA-256", where=url, slug="bad-pin")
    target = store.downloads / sha256 / name
    if target.is_file():
        return target
    with store.lock(f"download-{sha256[:16]}", reporter), disk_errors(target):
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / (name + ".part")
        begun = part.exists()
        _transfer(url, part, reporter)
        if begun and hash_file(part) != sha256:
            part.unlink()  # what an earlier run left was perhaps of another file
            _transfer(url, part, reporter)
        found = hash_file(part)
        if found != sha256:
            page = _is_page(part)
            part.unlink()
            raise SourceError(
                f"a web page came in place of {name}: is a login or a proxy in the way?"
                if page
                else f"{name} has SHA-256 {found}, but the pin says {sha256}",
                where=without_secrets(url),
                hint="the download was discarded; if the same comes again, the file at the "
                "address is not the one that was pinned: do not build from it",
                slug="wrong-hash",
            )
        part.replace(target)
    return target


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(200).lstrip().lower().startswith((b"<!doctype html", b"<html"))


def hash_file(path: Path) -> str:
    """The SHA-256 of a file in hex."""
    with path.open("rb") as handle:
        return (
            hashlib.file_digest(handle, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _hash_stream(handle)
        )


def _hash_stream(handle: object) -> str:
    total = hashlib.sha256()
    while chunk := handle.read(_CHUNK):  # type: ignore[attr-defined]
        total.update(chunk)
    return total.hexdigest()


def _transfer(url: str, part: Path, reporter: Reporter) -> None:
    last: Exception | None = None
    attempt, longest = 0, _size(part)
    while attempt < _TRIES:
        if attempt:
            time.sleep(min(2.0**attempt / 2, 4.0))
        attempt += 1
        try:
            return _continue(url, part, reporter)
        except urllib.error.HTTPError as error:
            error.close()
            last = error
            if error.code == 416:  # the part is as long as the file, or longer
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                break
        except _BrokenOffError as error:
            last = error.reason
            if (size := _size(part)) > longest:  # a bad line, but a line
                attempt, longest = 1, size
    reason = getattr(last, "reason", None) or last
    raise SourceError(
        f"cannot be downloaded: {reason}",
        where=without_secrets(url),
        hint="what has come so far is kept; run the same command again to go on",
        slug="no-network",
    )


class _BrokenOffError(Exception):
    """The other side, or the way there, failed; not the disk on which the file is written."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


@contextlib.contextmanager
def _network() -> Iterator[None]:
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenOffError(error) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _continue(url: str, part: Path, reporter: Reporter) -> None:
    have = _size(part)
    headers = {"Range": f"bytes={have}-"} if have else {}
    with _network():
        opened = open_url(url, headers)
    with opened as response:
        if have and getattr(response, "status", 200) != 206:
            have = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with part.open("ab" if have else "wb") as out:
            while chunk := _chunk(response):
                out.write(chunk)
                have += len(chunk)
                reporter.advance(have, total, "bytes")
            if total is not None and have < total:
                raise _BrokenOffError(http.client.IncompleteRead(b"", total - have))


def _chunk(response: http.client.HTTPResponse) -> bytes:
    with _network():
        return response.read(_CHUNK)
