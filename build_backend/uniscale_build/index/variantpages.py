"""The pages of ``variants/``: PEP 503 HTML and PEP 691 JSON, with the variants' own documents.

Pure functions. Variants lie beside their page, wheels without a device in ``packages/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from uniscale_build.index.entry import Entry, stamp
from uniscale_build.index.pages import page_html, sorted_versions


@dataclass(frozen=True)
class Link:
    """A file as a page tells it; a document that is no wheel has neither version nor metadata."""

    file: str
    url: str
    version: str
    sha256: str
    size: int
    upload: int | None = None
    requires_python: str = ""
    metadata: str = ""
    why: str | None = None  # it was withdrawn

    @staticmethod
    def of(entry: Entry, *, url: str, why: str | None) -> Link:
        """A wheel of the index at ``url``."""
        return Link(entry.file, url, entry.version, entry.sha256, entry.size, entry.upload,
                    entry.requires_python, entry.metadata_sha256, why)  # fmt: skip

    @staticmethod
    def document(file: str) -> Link:
        """A file beside the page that is no wheel.

        It changes when variants are added, at another moment than the page: no hash is told.
        """
        return Link(file, quoted(file), "", "", 0)


def quoted(file: str) -> str:
    """A file's name in a URL; the characters are those of versions, tags and labels."""
    return file.replace("+", "%2B").replace("!", "%21")


def html(project: str, links: Sequence[Link]) -> str:
    """The page of one project."""
    return page_html(project, map(_anchor, links))


def _anchor(link: Link) -> str:
    python = escape(link.requires_python)
    told = f'data-core-metadata="sha256={link.metadata}"' if link.metadata else ""
    return "".join(
        (
            f'<a href="{link.url}{f"#sha256={link.sha256}" if link.sha256 else ""}"',
            f' data-requires-python="{python}"' if python else "",
            f" {told} {told.replace('core-metadata', 'dist-info-metadata')}" if told else "",
            f' data-yanked="{escape(link.why)}"' if link.why is not None else "",
            f">{link.file}</a><br>",
        )
    )


def as_json(project: str, links: Sequence[Link]) -> str:
    """The same as JSON."""
    return json.dumps(
        {
            "meta": {"api-version": "1.1"},
            "name": project,
            "versions": sorted_versions(_versions(links)),
            "files": [_file(link) for link in links],
        },
        ensure_ascii=False,
    )


def _versions(links: Iterable[Link]) -> set[str]:
    return {link.version for link in links if link.version}


def _file(link: Link) -> dict[str, object]:
    return {
        "filename": link.file,
        "url": link.url,
        "hashes": {"sha256": link.sha256} if link.sha256 else {},
        **({"size": link.size} if link.sha256 else {}),
        **({"upload-time": stamp(link.upload)} if link.upload is not None else {}),
        **({"requires-python": link.requires_python} if link.requires_python else {}),
        **({"core-metadata": {"sha256": link.metadata}} if link.metadata else {}),
        "yanked": False if link.why is None else (link.why or True),
    }
