"""Where a wheel comes from: an in-toto Statement v1 with a SLSA v1 provenance predicate.

It is unsigned; signing wraps it and belongs to who publishes. A wheel cannot hold its own hash, so
the subjects of the statement inside it are the payloads' RECORDs, which hold the hash of every
file of a payload.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from uniscale_build import __version__
from uniscale_build.recordfile import file_sha256, payload_records
from uniscale_build.records.sbom import upstream_purl

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:uniscale:build:1"
BUILDER = "urn:uniscale:builder:local"


def provenance(
    payloads: Sequence[Mapping[str, Any]],
    *,
    prefixes: Mapping[str, Path],
    plan: Mapping[str, Any],
    epoch: int,
    folders: Mapping[str, str] | None = None,
    builder: str = BUILDER,
) -> str:
    """The statement for a wheel that holds ``payloads`` (contents of ``payload.json``).

    ``prefixes``, by ``<backend>-<device>``, are where their RECORDs are, ``folders`` what their
    folders in the wheel are called when it is not that; ``plan`` is the whole plan as JSON;
    ``epoch`` (seconds since 1970) stands for both ends of the build, whose real time would make
    every wheel different; ``builder`` is the URI of who built. `WheelError` when a payload has no
    RECORD.
    """
    when = datetime.datetime.fromtimestamp(epoch, datetime.timezone.utc)
    stamp = when.strftime("%Y-%m-%dT%H:%M:%SZ")
    plans = sorted({str(info["plan"]) for info in payloads})
    statement = {
        "_type": STATEMENT,
        "subject": [item for info in payloads for item in _subjects(info, prefixes, folders or {})],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "backends": [info["backend"] for info in payloads],
                    "device": plan.get("device"),
                    "version": plan.get("version"),
                    "settings": plan.get("settings", {}),
                },
                "internalParameters": {"plan": dict(plan)},
                "resolvedDependencies": [item for info in payloads for item in dependencies(info)],
            },
            "runDetails": {
                "builder": {"id": builder, "version": {"uniscale": __version__}},
                "metadata": {
                    "invocationId": f"urn:uniscale:plan:{'+'.join(plans)}",
                    "startedOn": stamp,
                    "finishedOn": stamp,
                },
            },
        },
    }
    return json.dumps(statement, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _subjects(
    info: Mapping[str, Any], prefixes: Mapping[str, Path], folders: Mapping[str, str]
) -> list[dict[str, Any]]:
    """A payload by its RECORDs: their names in the wheel and their digests."""
    name = f"{info['backend']}-{info['device']}"
    prefix, folder = prefixes[name], folders.get(name, name)
    return [
        {
            "name": f"uniscale_payloads/{folder}/{record.relative_to(prefix).as_posix()}",
            "digest": {"sha256": file_sha256(record)},
        }
        for record in payload_records(prefix)
    ]


def dependencies(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What went into a payload: the pin, its archives, each layer with its outcome, the tools."""
    backend, upstream = str(info["backend"]), info["upstream"]
    origin = str(upstream.get("origin", "")).split(" ")[0]
    known = "://" in origin and upstream["commit"]
    address = f"git+{origin}@{upstream['commit']}" if known else upstream_purl(info)
    found: list[dict[str, Any]] = [
        {
            "name": backend,
            "uri": address,
            "digest": {
                **({"gitCommit": upstream["commit"]} if upstream["commit"] else {}),
                "gitTree": upstream["tree"],
            },
            "annotations": {"version": upstream["version"], "purl": upstream_purl(info)},
        }
    ]
    for archive in upstream.get("archives", ()):
        found.append(
            {
                "name": archive["name"],
                "digest": {"sha256": archive["sha256"]},
                "annotations": {"carries": backend},
            }
        )
    for source in (info["settings"].get("from_source") or {}).get("sources", ()):
        found.append(
            {
                "name": source["name"],
                "uri": f"pkg:generic/{quote(source['name'])}@{quote(source['version'])}",
                "digest": {"gitTree": source["tree"]},
                "annotations": {"compiled_into": backend},
            }
        )
    for layer in info["layers"]:
        found.append(
            {
                "name": f"{backend}/{layer['name']}",
                "uri": f"urn:uniscale:layer:{quote(backend)}:{quote(str(layer['name']))}",
                "digest": {"gitTree": layer["result"]},
                "annotations": {
                    key: layer[key] for key in ("base", "title", "why", "owner") if layer.get(key)
                },
            }
        )
    for tool, version in sorted(info["toolchain"].items()):
        found.append(
            {
                "name": f"toolchain/{tool}",
                "uri": f"urn:uniscale:tool:{quote(tool)}:{quote(str(version), safe='')}",
                "annotations": {"version": version},
            }
        )
    return found
