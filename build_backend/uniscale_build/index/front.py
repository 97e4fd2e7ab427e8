"""The front page: the catalog for scripts and for the page, the page itself, drift reports.

The page is plain files that work from a folder too; there the catalog can only come as a script.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape, unescape
from pathlib import Path

from uniscale_build.errors import IndexSiteError, UniscaleError
from uniscale_build.index import pages
from uniscale_build.index.site import Site
from uniscale_build.index.state import Known

_ASSETS = Path(__file__).parent / "assets"
_HTML = re.compile(rb"\s*<!doctype html", re.IGNORECASE)
_TITLE = re.compile(r"<title>([^<]*)</title>")
_SUBJECT = re.compile(r"Drift of (\S+)(?: on (\S+))?")
_REPORT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.html")


def check_drift(paths: Sequence[Path], errors: list[UniscaleError]) -> dict[str, bytes]:
    """Drift reports by file name; what is none goes to ``errors``."""
    found = {}
    for path in paths:
        data = path.read_bytes() if path.is_file() else b""
        if _REPORT.fullmatch(path.name) is None or _HTML.match(data) is None:
            errors.append(
                IndexSiteError("this is no drift report", where=str(path), slug="no-report",
                               hint="uniscale-build drift … --html FILE.html writes one")
            )  # fmt: skip
        found[path.name] = data
    return found


def put_drift(site: Site, reports: Mapping[str, bytes]) -> None:
    """Publish drift reports."""
    for name, data in reports.items():
        site.put(site.drift / name, data)


def drift_reports(site: Site) -> list[dict[str, str]]:
    """The reports that are there: title, URL, and the backend and device that they are of."""
    found = []
    for path in sorted(site.drift.glob("*.html")):
        title = _TITLE.search(path.read_text(encoding="utf-8", errors="replace"))
        text = unescape(title[1]).strip() if title else path.stem
        subject = _SUBJECT.match(text)
        backend, device = (subject[1], subject[2] or "") if subject else ("", "")
        found.append({"title": text, "url": f"drift/{path.name}", "backend": backend,
                      "device": device})  # fmt: skip
    return found


def write(site: Site, wheels: Sequence[Known], yanked: Mapping[str, str]) -> int:
    """Write the catalog and the front page; gives how many files changed."""
    text = pages.catalog(wheels, yanked, drift_reports(site))
    written = site.put(site.root / "catalog.json", text)
    script = b"window.UNISCALE_CATALOG = %b;\n" % text[:-1]
    written += site.put(site.root / "catalog.js", script)
    for path in sorted(_ASSETS.iterdir()):
        if path.suffix in (".css", ".js"):
            written += site.put(site.root / path.name, path.read_bytes())
    page = (_ASSETS / "page.html").read_text(encoding="utf-8")
    page = page.replace("<!--channels-->", _channels(wheels))
    return written + site.put(site.root / "index.html", page.encode())


def _channels(wheels: Sequence[Known]) -> str:
    """The channels with what is in them, for browsers without JavaScript."""
    found: dict[str, set[str]] = {}
    for wheel in wheels:
        if wheel.device:
            found.setdefault(wheel.device, set()).add(wheel.project)
    items = (
        f'<li><a href="{escape(device)}/">{escape(device)}</a>: {", ".join(sorted(projects))}</li>'
        for device, projects in sorted(found.items())
    )
    return f"<ul>{''.join(items)}</ul>"
