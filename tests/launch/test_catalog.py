"""`uniscale.wheels.catalog`: indexes that are whole, half written, elsewhere, or none."""

from __future__ import annotations

import functools
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uniscale.wheels import catalog
from uniscale_build.errors import IndexSiteError, SettingsError, UniscaleError

from .indexes import Index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    found = Index(tmp_path / "a site")
    found.add(sdk={"name": "none", "version": None, "label": None})
    found.add_plain()
    return found


@pytest.fixture
def server(index: Index) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=str(index.root))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}"
        made.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Nothing."""


def refused(where: str) -> UniscaleError:
    with pytest.raises(UniscaleError) as caught:
        catalog.read(where)
    return caught.value


def test_a_folder_an_address_and_the_file_are_the_same(index: Index, server: str) -> None:
    places = [str(index.root), str(index.root / "catalog.json"), index.root.as_uri(), server,
              f"{server}/", f"{server}/catalog.json"]  # fmt: skip
    found = [catalog.read(place) for place in places]
    assert all(one.wheels == found[0].wheels for one in found)
    plain, wheel = sorted(found[0].wheels, key=lambda one: len(one.payloads))
    assert (wheel.device, wheel.payloads[0].backend) == ("cpu", "llama.cpp")
    assert plain.device == ""
    path = found[0].local(wheel)
    assert path is not None and path.is_file() and found[2].local(wheel) == path
    assert found[3].local(wheel) is None
    assert found[3].address(wheel) == f"{server}/packages/{wheel.file.replace('+', '%2B')}"


def test_an_index_without_a_catalog(index: Index, server: str) -> None:
    (index.root / "catalog.json").unlink()
    for place in (str(index.root), server):
        error = refused(place)
        assert (error.slug, error.exit_code) == ("no-catalog", 12)
    assert refused(str(index.root / "none")).slug == "no-index"
    assert refused("http://127.0.0.1:9").slug == "no-index"
    assert refused("ftp://example.org").slug == "bad-index"


def test_no_index_at_all() -> None:
    with pytest.raises(SettingsError, match=catalog.VARIABLE):
        catalog.which(None, {})
    assert catalog.which(None, {catalog.VARIABLE: "x"}) == "x"
    assert catalog.which("y", {catalog.VARIABLE: "x"}) == "y"


def test_a_half_written_catalog(index: Index) -> None:
    whole = (index.root / "catalog.json").read_bytes()
    for end in (0, 1, len(whole) // 2, len(whole.rstrip()) - 1):
        (index.root / "catalog.json").write_bytes(whole[:end])
        assert refused(str(index.root)).slug == "bad-catalog"
    (index.root / "catalog.json").write_bytes(b"\xff\xfe[]")
    assert refused(str(index.root)).slug == "bad-catalog"
    (index.root / "catalog.json").write_text('{"schema": 2, "wheels": []}')
    assert refused(str(index.root)).slug == "catalog-schema"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"url": "https://elsewhere.example/x.whl"}, "leads out of the index"),
        ({"url": "../x.whl"}, "leads out of the index"),
        ({"url": "packages/%2e%2e/%2e%2e/x.whl"}, "leads out of the index"),
        ({"url": "/etc/passwd"}, "leads out of the index"),
        ({"url": "packages/other.whl"}, "is not the address of"),
        ({"sha256": "abc"}, "is no SHA-256"),
        ({"size": "big"}, "must be a number"),
        ({"size": True}, "must be a number"),
        ({"version": "9"}, "is not of"),
        ({"name": "other"}, "is not of"),
        ({"tags": ["cp311-cp311-win32"]}, "has other tags"),
        ({"device": None}, "for no device"),
        ({"payloads": [1]}, "must be an object"),
        ({"requires_dist": [1]}, "must hold texts"),
        ({"name": "a\x1b[31m"}, "control characters"),
    ],
)
def test_entries_that_cannot_be_so(index: Index, change: dict[str, Any], told: str) -> None:
    index.tamper([{**one, **change} for one in index.catalog["wheels"] if one["payloads"]])
    error = refused(str(index.root))
    assert told in str(error) and {one.slug for one in error.findings()} == {"bad-catalog"}


def test_all_faults_at_once_but_not_thousands(index: Index) -> None:
    index.tamper([{"file": 1} for _ in range(1000)])
    error = refused(str(index.root))
    assert 2 <= len(error.findings()) <= 10
    (index.root / "catalog.json").write_text(json.dumps([]))
    with pytest.raises(IndexSiteError, match="does not list wheels"):
        catalog.read(str(index.root))
