"""One wheel of an index: what its own documents say of it, ready to be written into pages.

Everything is taken from the wheel, whose RECORD is verified on the way. Wheels come from outside:
every name in one that becomes a path is checked here.
"""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from uniscale_build.errors import IndexSiteError, UniscaleError, WheelError, raise_all
from uniscale_build.ids import check_name
from uniscale_build.members import PROVENANCE, SBOM
from uniscale_build.records.record import check_payload
from uniscale_build.wheels.wheelread import Wheel, read_wheel

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]*\.whl")
_PAYLOAD = re.compile(r"uniscale_payloads/([^/]+)/payload\.json")
# Folders of an index that are no channel.
RESERVED = ("all", "packages", "drift", "variants")


@dataclass(frozen=True)
class Entry:
    """A wheel as pages tell it. Texts are free of tabs and line ends.

    ``device`` is "" for what is in every channel; ``facts`` is its object in the catalog and
    ``device_facts`` its device's, both JSON; ``upload`` is in seconds since 1970.
    """

    file: str
    sha256: str
    size: int
    project: str
    version: str
    device: str
    upload: int
    requires_python: str
    metadata_sha256: str
    facts: str
    device_facts: str

    @property
    def href(self) -> str:
        """The file's name in a URL."""
        return _quoted(self.file)


@dataclass(frozen=True)
class Sidecars:
    """What is published beside a wheel: its METADATA, and its provenance where it has one."""

    metadata: bytes
    provenance: bytes | None


def _quoted(file: str) -> str:
    """A name that `check_file_name` lets pass, in a URL; ten times as fast as ``quote``."""
    return file.replace("+", "%2B").replace("!", "%21")


def check_file_name(path: Path) -> None:
    """`WheelError` for a name that cannot be published."""
    if _FILE.fullmatch(path.name) is None:
        raise WheelError(
            f"{path.name!r} is no wheel's name",
            where=str(path),
            hint="it is name-version-python-abi-platform.whl",
            slug="bad-file-name",
        )


def read_entry(path: Path, upload: int) -> tuple[Entry, Sidecars]:
    """The wheel at ``path``, verified whole, and its sidecars; errors all at once."""
    check_file_name(path)
    wheel = read_wheel(path)
    about = HeaderParser().parsestr(wheel.text("METADATA"))
    payloads = _payloads(wheel)
    device = _device(wheel, payloads)
    metadata = wheel.documents[f"{wheel.dist_info}/METADATA"]
    provenance = _provenance(wheel)
    entry = Entry(
        file=path.name,
        sha256=wheel.sha256,
        size=wheel.size,
        project=re.sub(r"[-_.]+", "-", wheel.name).lower(),
        version=wheel.version,
        device=device["device"] if device else "",
        upload=upload,
        requires_python=" ".join(str(about.get("Requires-Python", "")).split()),
        metadata_sha256=_sha256(metadata),
        facts=_dump(_facts(wheel, about, payloads, device, upload, provenance is not None)),
        device_facts=_dump(device) if device else "",
    )
    return entry, Sidecars(metadata, provenance)


def _sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _payloads(wheel: Wheel) -> dict[str, dict[str, Any]]:
    """The payload records of a wheel, by their folders."""
    found: dict[str, dict[str, Any]] = {}
    errors: list[UniscaleError] = []
    for name, data in sorted(wheel.documents.items()):
        folder = _PAYLOAD.fullmatch(name)
        if folder is None:
            continue
        try:
            info = json.loads(data)
        except ValueError as error:
            problems = [f"it is no JSON: {error}"]
        else:
            problems = check_payload(info)
        errors += [
            WheelError(f"{name}: {problem}", where=str(wheel.path), slug="bad-record",
                       hint="build the wheel again")
            for problem in problems
        ]  # fmt: skip
        if not problems:
            found[folder[1]] = info
    raise_all(errors)
    return found


def _device(wheel: Wheel, payloads: Mapping[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The catalog's object for the device that the payloads are for; None without payloads."""
    names = sorted({str(info["device"]) for info in payloads.values()})
    if not names:
        return None
    name = check_name(names[0], what="device", error=IndexSiteError)
    if len(names) > 1 or name.lower() in RESERVED:
        what = f"is for {', '.join(names)}" if len(names) > 1 else f"has a device called {name}"
        raise IndexSiteError(
            f"the wheel {what}",
            where=str(wheel.path),
            hint="an index has a folder for each device, and a wheel lies in one of them",
            slug="bad-device",
        )
    about = next(iter(payloads.values()))["device_environment"]
    return {
        "device": name,
        "title": str(about.get("title") or name),
        "names": _texts(about.get("names")),
        "aliases": _texts(about.get("aliases")),
        "label": str(about.get("label") or ""),
        "visible": about.get("visible"),
        "image_packages": _texts(about.get("image_packages")),
        "channel": f"{name}/",
    }


def _facts(
    wheel: Wheel,
    about: Message,
    payloads: Mapping[str, dict[str, Any]],
    device: Mapping[str, Any] | None,
    upload: int,
    provenance: bool,
) -> dict[str, object]:
    """The wheel's object in ``catalog.json``."""
    href = f"packages/{_quoted(wheel.path.name)}"
    time, sbom = _bill(wheel)
    sdks = [info["sdk"] for info in payloads.values() if isinstance(info.get("sdk"), dict)]
    return {
        "file": wheel.path.name,
        "url": href,
        "sha256": wheel.sha256,
        "size": wheel.size,
        "name": re.sub(r"[-_.]+", "-", wheel.name).lower(),
        "version": wheel.version,
        "requires_python": about.get("Requires-Python"),
        "requires_dist": [" ".join(text.split()) for text in about.get_all("Requires-Dist", [])],
        "tags": list(wheel.tags),
        "glibc": _glibc(wheel.tags),
        "device": device["device"] if device else None,
        "sdk": max(sdks, key=lambda sdk: bool(sdk.get("version")), default=None),
        "image_packages": device["image_packages"] if device else [],
        "payloads": [_payload(folder, info) for folder, info in payloads.items()],
        "time": time,
        "upload_time": stamp(upload),
        "sbom": sbom,
        "provenance": f"{href}.provenance.json" if provenance else None,
    }


@functools.lru_cache(maxsize=1024)  # wheels come many at a time
def stamp(moment: int) -> str:
    """Seconds since 1970 as ISO 8601, in UTC."""
    found = datetime.datetime.fromtimestamp(moment, datetime.timezone.utc)
    return found.strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds(text: str) -> int:
    """What `stamp` made of it; `ValueError` for anything else."""
    return int(datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def _payload(folder: str, info: Mapping[str, Any]) -> dict[str, object]:
    upstream = info["upstream"]
    return {
        "payload": f"{info['backend']}-{info['device']}",
        "folder": folder,
        "backend": info["backend"],
        "title": str(upstream.get("title") or info["backend"]),
        "homepage": upstream.get("homepage") or None,
        "license": upstream.get("license") or None,
        "version": info["version"],
        "commit": upstream.get("commit") or None,
        "tree": info["patched_tree"],
        "tasks": info["tasks"],
        "layers": [
            {"name": layer["name"], "title": layer.get("title") or layer["name"],
             "why": layer.get("why") or ""}
            for layer in info["layers"]
        ],
        "verified": info["verified"],
    }  # fmt: skip


def _glibc(tags: tuple[str, ...]) -> str | None:
    """The oldest glibc that one of the tags is for, as ``2.35``; None where none says it."""
    found = [re.search(r"-manylinux_(\d+)_(\d+)_", tag) for tag in tags]
    versions = [(int(one[1]), int(one[2])) for one in found if one is not None]
    return ".".join(map(str, min(versions))) if versions else None


def _bill(wheel: Wheel) -> tuple[int | None, str | None]:
    """When the wheel was made (SOURCE_DATE_EPOCH), and its SBOM's name in it."""
    data = wheel.documents.get(f"{wheel.dist_info}/{SBOM}")
    if data is None:
        return None, None
    try:
        text = str(json.loads(data)["metadata"]["timestamp"])
        return seconds(text), f"{wheel.dist_info}/{SBOM}"
    except (ValueError, KeyError, TypeError) as error:
        raise WheelError(
            f"its SBOM cannot be read: {error}", where=str(wheel.path), slug="bad-sbom",
            hint="build the wheel again",
        ) from error  # fmt: skip


def _provenance(wheel: Wheel) -> bytes | None:
    """The wheel's own statement, with the wheel itself as its first subject."""
    data = wheel.documents.get(f"{wheel.dist_info}/{PROVENANCE}")
    if data is None:
        return None
    try:
        return about_wheel(data, wheel.path.name, wheel.sha256)
    except (ValueError, KeyError, TypeError) as error:
        raise WheelError(
            f"its provenance cannot be read: {error}", where=str(wheel.path),
            hint="build the wheel again", slug="bad-provenance",
        ) from error  # fmt: skip


def about_wheel(data: bytes, file: str, sha256: str) -> bytes:
    """The provenance in a wheel, as it is published: the wheel itself is its first subject."""
    statement = json.loads(data)
    subject = {"name": file, "digest": {"sha256": sha256}}
    statement["subject"] = [subject, *statement["subject"]]
    return (json.dumps(statement, sort_keys=True, indent=1, ensure_ascii=False) + "\n").encode()


def _texts(value: object) -> list[str]:
    return [str(word) for word in value] if isinstance(value, list) else []
