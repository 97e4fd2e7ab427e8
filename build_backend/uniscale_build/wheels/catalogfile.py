"""Gets ``catalog.json`` of a wheel index, from a folder or an address, whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from uniscale_build.errors import IndexSiteError, SettingsError

SCHEMA = 1
FILE_NAME = "catalog.json"
_LARGEST = 256 << 20  # bytes; ten thousand wheels make some 20 MB


def address(index: str) -> str:
    """The catalog's own address (``file:`` for a folder); ``index`` may name the file itself.

    `SettingsError` for an address that no index is read from.
    """
    if "://" not in index:
        path = Path(index).expanduser().absolute()
        path = path / FILE_NAME if path.suffix != ".json" else path
        return path.as_uri()
    parts = urlsplit(index)
    if parts.scheme not in ("http", "https", "file"):
        raise SettingsError(
            f"{parts.scheme} is no address that an index is read from",
            where="--index",
            hint="http, https, file, or a folder",
            slug="bad-index",
        )
    return index if parts.path.endswith(".json") else f"{index.rstrip('/')}/{FILE_NAME}"


def fetch(base: str, shown: str) -> bytes:
    """The bytes at `address` ``base``; `IndexSiteError`, which calls the index ``shown``."""
    import http.client
    import urllib.error

    from uniscale_build.sources.download import open_url

    if base.startswith("file://"):
        return _read_file(Path(unquote(urlsplit(base).path)), shown)
    try:
        with open_url(base) as response:
            raw: bytes = response.read(_LARGEST + 1)
            length = response.headers.get("Content-Length", "")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (404, 410):
            raise _no_catalog(shown) from error
        hint = {401: "put user and password into the address", 403: "you may not read it"}
        raise _unreachable(shown, f"it answers {error.code} {error.reason}",
                           hint.get(error.code, "try again later")) from error  # fmt: skip
    except urllib.error.URLError as error:
        raise _unreachable(shown, f"{error.reason}") from error
    except (http.client.HTTPException, OSError) as error:
        raise _unreachable(shown, str(error) or type(error).__name__) from error
    if length.isdigit() and len(raw) < int(length):
        raise _unreachable(shown, "the connection broke off")
    return _sized(raw, shown)


def _read_file(path: Path, shown: str) -> bytes:
    try:
        return _sized(path.read_bytes(), shown)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not path.parent.is_dir():
            raise _unreachable(shown, "there is no such folder", "is the path right?") from error
        raise _no_catalog(shown) from error
    except OSError as error:
        raise _unreachable(shown, f"{os.strerror(error.errno or 0).lower()}", None) from error


def _sized(raw: bytes, shown: str) -> bytes:
    if len(raw) > _LARGEST:
        raise IndexSiteError(f"its {FILE_NAME} is larger than {_LARGEST >> 20} MiB", where=shown,
                             slug="bad-catalog")  # fmt: skip
    return raw


def _no_catalog(shown: str) -> IndexSiteError:
    return IndexSiteError(
        f"the index has no {FILE_NAME}",
        where=shown,
        hint="it is made by: uniscale-build index DIST… --out DIR\n"
        "a plain package index is for pip: pip install --index-url …",
        slug="no-catalog",
    )


def _unreachable(
    shown: str, why: str, hint: str | None = "a folder works without a network: --index DIR"
) -> IndexSiteError:
    return IndexSiteError(f"the index cannot be read: {why}", where=shown, hint=hint,
                          slug="no-index")  # fmt: skip
