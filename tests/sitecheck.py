"""Looks at an index as installers do, and says what is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag


class _Anchors(HTMLParser):
    """The links of a page, with their attributes and texts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep links."""
        if tag == "a":
            self.found.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        """A link's text."""
        if self.found and data.strip():
            self.found[-1].setdefault("text", data)


def anchors(page: Path) -> list[dict[str, str | None]]:
    """The links of an HTML page in order."""
    parser = _Anchors()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.found


def sha256(path: Path) -> str:
    """Of a file, in hex."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def catalog(site: Path) -> dict[str, Any]:
    """The catalog."""
    found: dict[str, Any] = json.loads((site / "catalog.json").read_text(encoding="utf-8"))
    return found


def files(site: Path, channel: str) -> set[str]:
    """The wheels that a channel offers."""
    return {
        str(one["text"])
        for page in site.glob(f"{channel}/*/index.html")
        for one in anchors(page)
    }  # fmt: skip


def _check_link(page: Path, address: str, digest: str, size: int | None = None) -> str:
    """The file that a page leads to is as stated; gives the SHA-256 of its metadata."""
    assert "+" not in address
    wheel = (page.parent / unquote(address)).resolve()
    assert wheel.parent == page.parents[2].resolve() / "packages", address
    assert sha256(wheel) == digest
    assert size in (None, wheel.stat().st_size)
    return sha256(wheel.with_name(f"{wheel.name}.metadata"))


def check_site(site: Path, *, complete: bool = True) -> set[str]:
    """Every promise of an index, on whatever is there; gives the wheels of channel ``all``.

    Each link leads to a file with the hash that it states, sidecars are the wheel's own, the
    catalog's files exist, only whole files are published. Where a run was killed (not
    ``complete``), the HTML and the JSON of a project may be of different moments.
    """
    for page in site.glob("*/*/index.json"):
        told = json.loads(page.read_text(encoding="utf-8"))
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", page.parent.name)
        assert told["name"] == page.parent.name and told["meta"] == {"api-version": "1.1"}
        for one in told["files"]:
            beside = _check_link(page, one["url"], one["hashes"]["sha256"], one["size"])
            assert one["core-metadata"] == {"sha256": beside}
        assert {one["filename"].split("-")[1] for one in told["files"]} == set(told["versions"])
    for page in site.glob("*/*/index.html"):
        links = anchors(page)
        for link in links:
            address, fragment = urldefrag(str(link["href"]))
            beside = _check_link(page, address, fragment.removeprefix("sha256="))
            assert link["data-core-metadata"] == f"sha256={beside}"
            assert link["data-core-metadata"] == link["data-dist-info-metadata"]
        if complete:
            told = json.loads(page.with_name("index.json").read_text(encoding="utf-8"))
            assert [
                (one["text"], one.get("data-requires-python", ""), "data-yanked" in one)
                for one in links
            ] == [
                (one["filename"], one.get("requires-python", ""), one["yanked"] is not False)
                for one in told["files"]
            ]
    for listing in site.glob("*/index.html"):
        if listing.parent.name not in ("packages", "drift"):
            for one in anchors(listing):
                assert (listing.parent / str(one["href"]) / "index.html").is_file()
    if (site / "catalog.json").exists():
        for wheel in catalog(site)["wheels"]:
            path = site / unquote(wheel["url"])
            assert (sha256(path), path.stat().st_size) == (wheel["sha256"], wheel["size"])
            if wheel["provenance"]:
                statement = json.loads((site / unquote(wheel["provenance"])).read_text())
                subject = {"name": wheel["file"], "digest": {"sha256": wheel["sha256"]}}
                assert statement["subject"][0] == subject
    return files(site, "all")


def look(site: Path) -> dict[str, bytes]:
    """Everything that is published, by name."""
    return {
        path.relative_to(site).as_posix(): path.read_bytes()
        for path in sorted(site.rglob("*"))
        if path.is_file() and ".uniscale" not in path.parts
    }
