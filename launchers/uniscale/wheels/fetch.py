"""Brings a wheel of an index to this machine and checks that it is what the catalog says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

from uniscale_build.errors import IndexSiteError, UniscaleError, raise_all
from uniscale_build.progress import Reporter
from uniscale_build.sources.download import download, hash_file, without_secrets
from uniscale_build.store import Store
from uniscale_build.wheels.wheelread import Wheel as Read
from uniscale_build.wheels.wheelread import read_wheel

from uniscale.wheels.catalog import Catalog, Wheel

_HINT = "do not install it; tell who publishes the index"


def fetch(catalog: Catalog, wheel: Wheel, reporter: Reporter) -> Path:
    """The wheel's file on this machine, checked whole: hash, RECORD, and the catalog's words.

    From a folder it is used where it lies; from an address it is kept in the cache by its hash,
    and a transfer that broke off goes on. `IndexSiteError` or `WheelError` when it is not the
    wheel that the catalog names: nothing has been given to pip by then.
    """
    shown = without_secrets(catalog.address(wheel))
    path = catalog.local(wheel)
    if path is None:
        reporter.stage("download", wheel.file)
        try:
            path = download(Store(), catalog.address(wheel), wheel.sha256, wheel.file, reporter)
        except UniscaleError as error:
            raise _translated(error, shown) from error
    elif not path.is_file():
        raise IndexSiteError(
            "the catalog names a wheel that is not in the index", where=str(path),
            hint="the index is half written or damaged", slug="no-file",
        )  # fmt: skip
    elif hash_file(path) != wheel.sha256:
        raise IndexSiteError(
            "the wheel is not the one that the catalog names: its SHA-256 is another",
            where=str(path), hint=_HINT, slug="wrong-hash",
        )  # fmt: skip
    reporter.stage("check", wheel.file)
    errors: list[UniscaleError] = [
        IndexSiteError(f"the wheel is not what the catalog says: {fault}", where=shown,
                       hint=_HINT, slug="wrong-catalog")
        for fault in _differences(read_wheel(path), wheel)
    ]  # fmt: skip
    raise_all(errors)
    return path


def _translated(error: UniscaleError, shown: str) -> IndexSiteError:
    if error.slug == "wrong-hash":
        what = "the wheel is not the one that the catalog names: its SHA-256 is another"
        return IndexSiteError(what, where=shown, hint=_HINT, slug="wrong-hash")
    return IndexSiteError(f"the wheel {error.what}", where=shown, hint=error.hint, slug=error.slug)


def _differences(read: Read, wheel: Wheel) -> Iterable[str]:
    """What the catalog and the wheel tell differently, where installing relies on it."""
    metadata = HeaderParser().parsestr(read.text("METADATA"))
    requires = {" ".join(text.split()) for text in metadata.get_all("Requires-Dist", [])}
    if requires != set(wheel.requires_dist):
        yield "it requires other packages"
    if (metadata.get("Requires-Python") or "") != wheel.requires_python:
        yield "it is for other Python versions"
    told = {
        (one.folder, wheel.device, one.backend, one.version, one.tree) for one in wheel.payloads
    }
    held = set()
    for name, raw in read.documents.items():
        if name.startswith("uniscale_payloads/"):
            info = json.loads(raw)
            held.add((name.split("/")[1], info.get("device"), info.get("backend"),
                      info.get("version"), info.get("patched_tree")))  # fmt: skip
    if told != held:
        yield "it holds other payloads"
