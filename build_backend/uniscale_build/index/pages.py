"""The pages that installers read: PEP 503 HTML and PEP 691 JSON with PEP 658/714, 592 and 700.

Pure functions. Every URL is relative, so an index works under any address and from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from uniscale_build.index.entry import Entry, stamp
from uniscale_build.index.state import Known

_API = {"api-version": "1.1"}
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="pypi:repository-version" content="1.1">'
)


def project_html(project: str, entries: Sequence[Entry], yanked: Mapping[str, str]) -> str:
    """The page of one project in one channel (two folders below the index)."""
    return page_html(project, [_anchor(entry, yanked.get(entry.file)) for entry in entries])


def page_html(name: str, lines: Iterable[str]) -> str:
    """A page called ``name`` with these lines of HTML."""
    title, body = escape(name), "\n".join(lines)
    return f"{_HEAD}<title>{title}</title></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"


def _anchor(entry: Entry, reason: str | None) -> str:
    python = escape(entry.requires_python)
    return "".join(
        (
            f'<a href="../../packages/{entry.href}#sha256={entry.sha256}"',
            f' data-requires-python="{python}"' if python else "",
            f' data-core-metadata="sha256={entry.metadata_sha256}"',
            f' data-dist-info-metadata="sha256={entry.metadata_sha256}"',
            f' data-yanked="{escape(reason)}"' if reason is not None else "",
            f">{entry.file}</a><br>",
        )
    )


def project_json(project: str, entries: Sequence[Entry], yanked: Mapping[str, str]) -> str:
    """The same as JSON, with sizes and times."""
    versions = sorted_versions({entry.version for entry in entries})
    files = ", ".join([_file(entry, yanked.get(entry.file)) for entry in entries])
    head = _dump({"meta": _API, "name": project, "versions": versions})
    return f'{head[:-1]}, "files": [{files}]}}'


def _file(entry: Entry, reason: str | None) -> str:
    """An object of JSON, put together from names and digests that need no quoting."""
    # Under its first name, "dist-info-metadata", it crashes pip 22.3 to 23.0 (hence PEP 714).
    python = f'"requires-python": {_dump(entry.requires_python)}, ' if entry.requires_python else ""
    return (
        f'{{"filename": "{entry.file}", "url": "../../packages/{entry.href}", '
        f'"hashes": {{"sha256": "{entry.sha256}"}}, "size": {entry.size}, '
        f'"upload-time": "{stamp(entry.upload)}", {python}'
        f'"core-metadata": {{"sha256": "{entry.metadata_sha256}"}}, '
        f'"yanked": {"false" if reason is None else _dump(reason or True)}}}'
    )


def sorted_versions(versions: Iterable[str]) -> list[str]:
    """Versions, the oldest first."""
    from packaging.version import Version

    return sorted(versions, key=Version)


def channel_html(channel: str, projects: Iterable[str]) -> str:
    """The page of a channel: its projects."""
    return page_html(channel, (f'<a href="{name}/">{name}</a><br>' for name in projects))


def channel_json(projects: Iterable[str]) -> str:
    """The same as JSON."""
    return json.dumps({"meta": _API, "projects": [{"name": name} for name in projects]})


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def catalog(
    wheels: Sequence[Known], yanked: Mapping[str, str], drift: Sequence[Mapping[str, str]]
) -> bytes:
    """``catalog.json``: every wheel with all that is known of it, one line each."""
    # Of wheels that tell their device differently, the one that came last is right.
    latest: dict[str, Known] = {}
    for wheel in wheels:
        before = latest.get(wheel.device)
        if before is None or (before.upload, before.file) < (wheel.upload, wheel.file):
            latest[wheel.device] = wheel
    latest.pop("", None)
    lines = [
        b'%b,"yanked":%b}' % (wheel.facts[:-1], _dump(yanked[wheel.file]).encode())
        if wheel.file in yanked
        else wheel.facts[:-1] + b',"yanked":null}'
        for wheel in wheels
    ]
    return b"".join(
        (
            b'{"schema":1,\n"devices":[\n',
            ",\n".join(latest[name].entry.device_facts for name in sorted(latest)).encode(),
            b'\n],\n"drift":',
            _dump(list(drift)).encode(),
            b',\n"wheels":[\n',
            b",\n".join(lines),
            b"\n]}\n",
        )
    )
