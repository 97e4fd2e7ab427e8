"""Downloads: resumable, verified by SHA-256, kept once under that hash."""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
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
        raise SourceError("is not an http, https or file address", where=url, slug="bad-url")
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
    context = ssl.create_default_context(cafile=bundle) if parts.scheme == "https" else None
    request = urllib.request.Request(url, headers=sent)
    response: http.client.HTTPResponse = urllib.request.urlopen(
        request, timeout=TIMEOUT, context=context
    )
    return response


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
        _transfer(url, part, reporter)
        found = hash_file(part)
        if found != sha256:
            part.unlink()
            raise SourceError(
                f"{name} has SHA-256 {found}, but the pin says {sha256}",
                where=without_secrets(url),
                hint="the download was discarded; if the same comes again, the file at the "
                "address is not the one that was pinned: do not build from it",
                slug="wrong-hash",
            )
        part.replace(target)
    return target


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
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(min(2.0**attempt / 2, 4.0))
        try:
            return _continue(url, part, reporter)
        except urllib.error.HTTPError as error:
            error.close()
            last = error
            if error.code == 416:  # the part is as long as the file, or longer
                part.unlink(missing_ok=True)
            elif error.code < 500 and error.code not in (408, 429):
                break
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError,
                ConnectionError) as error:  # fmt: skip
            last = error
    reason = getattr(last, "reason", None) or last
    raise SourceError(
        f"cannot be downloaded: {reason}",
        where=without_secrets(url),
        hint="what has come so far is kept; run the same command again to go on",
        slug="no-network",
    )


def _continue(url: str, part: Path, reporter: Reporter) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    with open_url(url, headers) as response:
        if have and getattr(response, "status", 200) != 206:
            have = 0  # the server sends the whole file again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        with part.open("ab" if have else "wb") as out:
            while chunk := response.read(_CHUNK):
                out.write(chunk)
                have += len(chunk)
                reporter.advance(have, total, "bytes")
            if total is not None and have < total:
                raise http.client.IncompleteRead(b"", total - have)
