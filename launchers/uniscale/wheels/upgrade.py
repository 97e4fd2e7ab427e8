"""``uniscale upgrade``: the newest wheel of an index for each payload that is installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from packaging.version import Version
from uniscale_build.errors import LaunchError, UniscaleError, raise_all
from uniscale_build.ids import slug

from uniscale.wheels import catalog, environments, installers, payloads
from uniscale.wheels.install import InstallRequest, perform, unchanged, worked_out
from uniscale.wheels.installplan import LAUNCHER, Steps, owner
from uniscale.wheels.record import Payload


@dataclass(frozen=True)
class _Have:
    """An installed payload that an index can have a newer wheel of."""

    payload: Payload
    version: str  # of its distribution


def upgrade(
    backends: Sequence[str],
    *,
    index: str | None,
    offline: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Upgrade the named payloads, or all; what fails is told at the end and stops no other.

    A payload is replaced where it is: in this environment, or by a new environment of its own
    that takes the old one's place once it is finished.
    """
    have, skipped = _have(backends)
    index_read = catalog.read(catalog.which(index)) if have else None
    rows: list[dict[str, object]] = [*skipped]
    errors: list[UniscaleError] = []
    for one in have:
        request = InstallRequest(
            backend=one.payload.backend, device=one.payload.device, index=index, offline=offline,
            isolated=one.payload.python is not None,
        )  # fmt: skip
        row: dict[str, object] = {
            "backend": one.payload.backend, "device": one.payload.device, "from": one.version
        }  # fmt: skip
        try:
            steps = worked_out(request, index_read)
            row |= _step(one, steps, offline=offline, dry_run=dry_run)
        except UniscaleError as error:
            errors += error.findings()
            row |= {"to": None, "what": f"failed: {error.what}"}
        rows.append(row)
        if not as_json:
            _tell(row)
    if as_json:
        print(json.dumps({"payloads": rows, "dry_run": dry_run}, indent=2))
    else:
        for row in skipped:
            _tell(row)
    raise_all(errors)
    return 0


def _step(one: _Have, steps: Steps, *, offline: bool, dry_run: bool) -> dict[str, object]:
    found = steps.choice.wheel.version
    if unchanged(steps):
        return {"to": found, "what": "is the newest"}
    if Version(found) < Version(one.version):
        return {"to": found, "what": f"is newer than the index's {found}: left"}
    if dry_run:
        return {"to": found, "what": f"would become {found}"}
    if steps.isolated is None:
        installers.check_writable()
    perform(steps, offline=offline)
    return {"to": found, "what": f"is now {found}"}


def _tell(row: dict[str, object]) -> None:
    print(f"{row['backend']} ({row['device']}) {row['from']} {row['what']}")


def _have(words: Sequence[str]) -> tuple[list[_Have], list[dict[str, object]]]:
    """The payloads to upgrade, and rows for those that cannot be."""
    if words:
        every = [one for word in words for one in payloads.named(word)]
    else:
        every = list(payloads.find().payloads)
        if not every:
            raise LaunchError("no payload is installed", hint=payloads.HOW_TO_GET,
                              slug="no-payload")  # fmt: skip
    made = {one.payloads: one for one in environments.environments()}
    have: list[_Have] = []
    skipped: list[dict[str, object]] = []
    for payload in every:
        own = made.get(payload.prefix.parent)
        if own is not None:
            have.append(_Have(payload, own.version))
            continue
        brought = owner(payload)
        if brought is not None and slug(brought.metadata["Name"]) != LAUNCHER:
            have.append(_Have(payload, brought.version))
            continue
        why = "came with uniscale itself: build or install that again" if brought else (
            "was brought by no wheel: left"
        )  # fmt: skip
        skipped.append({"backend": payload.backend, "device": payload.device,
                        "from": payload.version, "to": None, "what": why})  # fmt: skip
    return have, skipped
