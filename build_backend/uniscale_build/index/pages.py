"""The pages that installers read: PEP 503 HTML and PEP 691 JSON with PEP 658/714, 592 and 700.

Pure functions. Every URL is relative, so an index works under any address and from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from uniscale_build.index.entry import Entry, stamp

_API = {"api-version": "1.1"}
HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="pypi:repository-version" content="1.1">'
)


def project_html(project: str, entries: Sequence[Entry], yanked: Mapping[str, str]) -> str:
    """The page of one project in one channel (two folders below the index)."""
    lines = [_anchor(entry, yanked.get(entry.file)) for entry in entries]
    title = escape(project)
    body = "\n".join(lines)
    return f"{HEAD}<title>{title}</title></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"


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
    return json.dumps(
        {
            "meta": _API,
            "name": project,
            "versions": sorted_versions({entry.version for entry in entries}),
            "files": [_file(entry, yanked.get(entry.file)) for entry in entries],
        },
        ensure_ascii=False,
    )


def _file(entry: Entry, reason: str | None) -> dict[str, object]:
    # Under its first name, "dist-info-metadata", it crashes pip 22.3 to 23.0 (hence PEP 714).
    return {
        "filename": entry.file,
        "url": f"../../packages/{entry.href}",
        "hashes": {"sha256": entry.sha256},
        "size": entry.size,
        "upload-time": stamp(entry.upload),
        **({"requires-python": entry.requires_python} if entry.requires_python else {}),
        "core-metadata": {"sha256": entry.metadata_sha256},
        "yanked": False if reason is None else (reason or True),
    }


def sorted_versions(versions: Iterable[str]) -> list[str]:
    """Versions, the oldest first."""
    from packaging.version import Version

    return sorted(versions, key=Version)


def channel_html(channel: str, projects: Iterable[str]) -> str:
    """The page of a channel: its projects."""
    title = escape(channel)
    body = "\n".join(f'<a href="{name}/">{name}</a><br>' for name in projects)
    return f"{HEAD}<title>{title}</title></head><body>\n<h1>{title}</h1>\n{body}\n</body></html>\n"


def channel_json(projects: Iterable[str]) -> str:
    """The same as JSON."""
    return json.dumps({"meta": _API, "projects": [{"name": name} for name in projects]})


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def catalog(
    entries: Sequence[Entry], yanked: Mapping[str, str], drift: Sequence[Mapping[str, str]]
) -> str:
    """``catalog.json``: every wheel with all that is known of it, one line each."""
    # Of wheels that tell their device differently, the one that came last is right.
    devices = {
        entry.device: entry.device_facts
        for entry in sorted(entries, key=lambda entry: (entry.upload, entry.file))
        if entry.device
    }
    wheels = [
        f'{entry.facts[:-1]},"yanked":{_dump(yanked[entry.file])}}}'
        if entry.file in yanked
        else f'{entry.facts[:-1]},"yanked":null}}'
        for entry in entries
    ]
    return "".join(
        (
            '{"schema":1,\n"devices":[\n',
            ",\n".join(devices[name] for name in sorted(devices)),
            '\n],\n"drift":',
            _dump(list(drift)),
            ',\n"wheels":[\n',
            ",\n".join(wheels),
            "\n]}\n",
        )
    )
