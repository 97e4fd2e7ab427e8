"""Reads pins: the exact upstream sources, and the origins that their bytes may come from."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from uniscale_build.ids import is_object_id, is_sha256
from uniscale_build.manifests.model import Origin, Pin
from uniscale_build.yamlfile import Fields

ORIGINS = ("git", "sdist", "wheel", "debian", "archive", "folder")
# Origins that are a file's name at a place the machine is set up for.
FILES = ("sdist", "wheel", "debian")


def _origin(fields: Fields) -> Origin:
    targets = {kind: fields.text(kind, "") for kind in ORIGINS}
    kinds = [kind for kind, target in targets.items() if target]
    kind = kinds[0] if len(kinds) == 1 else "folder"
    target = targets[kind]
    origin = Origin(
        kind=kind,
        url="" if kind in FILES else target,
        project=fields.text("project", ""),
        file=target if kind in FILES else "",
        sha256=fields.text("sha256", ""),
        path=fields.text("path", ""),
        drop=fields.texts("drop"),
        where=fields.value.where,
    )
    for word in _origin_faults(origin, kinds):
        fields.fail(fields.value, word, slug="path-escape" if "inside" in word else "bad-pin")
    fields.finish()
    return origin


def _origin_faults(origin: Origin, kinds: list[str]) -> Iterable[str]:
    if len(kinds) != 1:
        yield f"an origin is one of {', '.join(ORIGINS)}"
        return
    hashed = origin.kind in (*FILES, "archive")
    if hashed and not is_sha256(origin.sha256):
        yield '"sha256" must be 64 hexadecimal digits'
    if not hashed and origin.sha256:
        yield f'"sha256" is not for {origin.kind}: the pin\'s tree is what is checked'
    if (origin.kind in FILES) != bool(origin.project):
        yield '"project" names the project of an sdist or wheel, or the source package of debian'
    if origin.kind == "git" and urlsplit(origin.url).scheme not in ("https", "ssh", "file"):
        yield f"git address {origin.url!r} must be https, ssh or file"
    if origin.kind == "archive" and urlsplit(origin.url).scheme not in ("https", "file"):
        yield f"archive address {origin.url!r} must be https or file"
    if origin.kind == "sdist" and not origin.file.lower().endswith((".tar.gz", ".zip")):
        yield f"{origin.file!r} is not the name of a source distribution (.tar.gz or .zip)"
    if origin.kind == "wheel" and not _WHEEL.fullmatch(origin.file):
        yield f"{origin.file!r} is not the name of a wheel without compiled code (-none-any.whl)"
    if origin.kind == "debian" and not _ORIG.fullmatch(origin.file):
        yield f"{origin.file!r} is not the name of a Debian source archive (.orig.tar.xz or .gz)"
    if origin.kind in FILES and "/" in origin.file:
        yield f'"{origin.kind}" is a file name; it must stay inside the downloads folder'
    path = PurePosixPath(origin.path)
    if ".." in path.parts or path.is_absolute():
        yield '"path" must stay inside the archive'


_ORIG = re.compile(r"[^/]+\.orig\.tar\.(?:gz|bz2|xz)")
_SDIST = re.compile(r"(.+)-([^-]+?)(?:\.tar\.gz|\.zip)", re.IGNORECASE)
# What is compiled is no source.
_WHEEL = re.compile(r"([^-/]+)-([^-/]+)(?:-\d[^-/]*)?-[^-/]+-none-any\.whl", re.IGNORECASE)


def read_pin(fields: Fields, backend: str) -> Pin:
    """One pin of ``backend`` (or of another project that is called so)."""
    pin = Pin(
        backend=backend,
        version=fields.text("version"),
        commit=fields.text("commit", ""),
        tree=fields.text("tree", ""),
        origins=tuple(_origin(item) for item in fields.each("origins", "an origin")),
        layers=fields.texts("layers"),
        note=fields.text("note", ""),
        where=fields.value.where,
    )
    for key in ("commit", "tree"):
        found = fields.get(key)
        if found is not None and not is_object_id(str(found.data)):
            fields.fail(found, f'"{key}" must be a full object id of 40 digits', slug="bad-pin")
    for word in _pin_faults(pin):
        fields.fail(fields.value, word, slug="bad-pin")
    fields.finish()
    return pin


def _pin_faults(pin: Pin) -> Iterable[str]:
    if not pin.origins:
        yield "a pin needs at least one origin"
    if not (pin.commit and pin.tree) and not pin.note:
        missing = " and ".join(key for key in ("commit", "tree") if not getattr(pin, key))
        yield f'a pin without {missing} needs a "note" that says why'
    if not pin.commit and pin.tree and any(origin.kind == "git" for origin in pin.origins):
        yield "a git origin needs the commit"
    for origin in pin.origins:
        named = (_WHEEL if origin.kind == "wheel" else _SDIST).fullmatch(origin.file)
        if origin.kind not in ("sdist", "wheel") or origin.path or named is None:
            continue
        if re.sub(r"[-_.]+", "-", named[1]).lower() != re.sub(r"[-_.]+", "-", origin.project):
            yield f"the pin is of project {origin.project}, but its file is {origin.file}"
        if named[2] != pin.version:
            yield f"the pin is version {pin.version}, but its file is {origin.file}"
