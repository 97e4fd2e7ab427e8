"""The software bill of materials: CycloneDX 1.6 JSON, for ``.dist-info/sboms/`` (PEP 770).

One component for each backend: upstream at its commit as the ancestor, our layers as patches.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from uniscale_build import __version__
from uniscale_build.recordfile import file_sha256, payload_records

# A layer's state towards upstream, in CycloneDX's words for a patch.
_PATCH_TYPES = {"backport": "backport"}


def sbom(
    payloads: Sequence[Mapping[str, Any]],
    *,
    name: str,
    version: str,
    epoch: int,
    prefixes: Mapping[str, Path] | None = None,
) -> str:
    """The bill of materials of the wheel ``name`` ``version``, which holds ``payloads``.

    ``payloads`` are contents of ``payload.json``; ``epoch`` (seconds since 1970) dates the
    document; ``prefixes``, by ``<backend>-<device>``, adds the distributions in each payload.
    The serial number is derived from the content: equal wheels have equal documents.
    """
    root = _purl(name, version)
    components = [_component(info, prefixes or {}) for info in payloads]
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "tools": {
                "components": [
                    {"type": "application", "name": "uniscale-build", "version": __version__}
                ]
            },
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": version,
                "purl": root,
            },
        },
        "components": components,
        "dependencies": [
            {"ref": root, "dependsOn": [component["bom-ref"] for component in components]},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    return _serialised(document)


def renamed(text: str, version: str) -> str:
    """The bill ``text`` of a wheel, for the same wheel under another version.

    `ValueError`, `KeyError` or `TypeError` for what is no bill of ours.
    """
    document = json.loads(text)
    component = document["metadata"]["component"]
    before, after = component["bom-ref"], _purl(component["name"], version)
    component.update({"bom-ref": after, "purl": after, "version": version})
    for one in document["dependencies"]:
        if one["ref"] == before:
            one["ref"] = after
    document.pop("serialNumber", None)
    return _serialised(document)


def _purl(name: str, version: str) -> str:
    """The package URL of a wheel of ours."""
    return f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='.-_~')}"


def _serialised(document: dict[str, Any]) -> str:
    """The document's text, with a serial number that follows from what it says."""
    content = json.dumps(document, sort_keys=True, ensure_ascii=False).encode("utf-8")
    serial = uuid.UUID(bytes=hashlib.sha256(content).digest()[:16], version=5)
    document["serialNumber"] = f"urn:uuid:{serial}"
    return json.dumps(document, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def upstream_purl(info: Mapping[str, Any]) -> str:
    """The package URL of a payload's upstream at its commit.

    The manifest's purl where the record has it, else GitHub's for an origin there, else a generic
    one that names the origin.
    """
    upstream = info["upstream"]
    # Of a source that only an archive is known of, the version is all there is to name it by.
    commit = upstream["commit"] or upstream["version"]
    origin = str(upstream.get("origin", ""))
    if given := upstream.get("purl"):
        return f"{given}@{commit}"
    found = re.match(r"https://github\.com/([\w.-]+)/([\w.-]+?)(?:\.git)?(?:$|[ /#])", origin)
    if found is not None:
        return f"pkg:github/{found[1].lower()}/{found[2].lower()}@{commit}"
    address = origin.split(" ")[0]
    where = f"?vcs_url=git%2B{quote(f'{address}@{commit}', safe='')}" if "://" in address else ""
    return f"pkg:generic/{quote(str(info['backend']), safe='.-_~')}@{commit}{where}"


def _component(info: Mapping[str, Any], prefixes: Mapping[str, Path]) -> dict[str, Any]:
    """A payload as a component."""
    name, upstream = f"{info['backend']}-{info['device']}", info["upstream"]
    found: dict[str, Any] = {
        "type": "application",
        "bom-ref": f"payload:{name}",
        "name": info["distribution"],
        "version": info["version"],
        "description": f"{info['backend']} for {info['device']}",
        "pedigree": {
            "ancestors": [_ancestor(info)],
            "patches": [_patch(str(info["backend"]), layer) for layer in info["layers"]],
        },
        "properties": _properties(info),
    }
    if upstream.get("license"):
        found["licenses"] = [{"expression": str(upstream["license"])}]
    parts = [_compiled_in(name, source) for source in _sources(info)]
    if name in prefixes:
        parts += [_distribution(name, record) for record in payload_records(prefixes[name])]
    if parts:
        found["components"] = parts
    return found


def _sources(info: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Other projects that the payload's compiled members hold."""
    found: Sequence[Mapping[str, Any]] = (info["settings"].get("from_source") or {}).get(
        "sources", ()
    )
    return found


def _compiled_in(payload: str, source: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"payload:{payload}/{source['name']}",
        "name": source["name"],
        "version": source["version"],
        "purl": f"pkg:generic/{quote(source['name'])}@{quote(source['version'])}",
        "properties": [{"name": "uniscale:tree", "value": source["tree"]}],
    }


def _distribution(payload: str, record: Path) -> dict[str, Any]:
    """A distribution in a payload; its hash is its RECORD's, which has those of its files."""
    name, _, version = record.parent.name.removesuffix(".dist-info").partition("-")
    return {
        "type": "library",
        "bom-ref": f"payload:{payload}/{record.parent.name}",
        "name": name,
        "version": version,
        "hashes": [{"alg": "SHA-256", "content": file_sha256(record)}],
    }


def _ancestor(info: Mapping[str, Any]) -> dict[str, Any]:
    upstream = info["upstream"]
    found: dict[str, Any] = {
        "type": "application",
        "name": info["backend"],
        "version": upstream["version"],
        "purl": upstream_purl(info),
    }
    address = str(upstream.get("origin", "")).split(" ")[0]
    if "://" in address:
        found["externalReferences"] = [{"type": "vcs", "url": address}]
    return found


def _patch(backend: str, layer: Mapping[str, Any]) -> dict[str, Any]:
    """A layer as a patch; where its text is, relative to the project's sources."""
    reason = {"type": "enhancement", "name": layer.get("title") or layer["name"]}
    if layer.get("why"):
        reason["description"] = layer["why"]
    return {
        "type": _PATCH_TYPES.get(str(layer.get("upstream", "")), "unofficial"),
        "diff": {"url": f"patches/{quote(backend)}/{quote(str(layer['name']))}"},
        "resolves": [reason],
    }


def _properties(info: Mapping[str, Any]) -> list[dict[str, str]]:
    """What CycloneDX has no field for, under our own prefix, in a fixed order."""
    pairs = [
        ("backend", info["backend"]),
        ("device", info["device"]),
        ("patched_tree", info["patched_tree"]),
        ("plan", info["plan"]),
        ("upstream_tree", info["upstream"]["tree"]),
        *(("external_library", library) for library in info["external_libraries"]),
        *((f"toolchain.{key}", value) for key, value in sorted(info["toolchain"].items())),
    ]
    return [{"name": f"uniscale:{key}", "value": str(value)} for key, value in pairs]
