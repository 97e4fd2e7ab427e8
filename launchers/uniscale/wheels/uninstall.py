"""``uniscale uninstall``: takes one payload out, and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError

from uniscale.wheels import environments, installers, payloads
from uniscale.wheels.environments import Environment
from uniscale.wheels.record import Payload


def uninstall(
    backend: str, *, device: str | None, dry_run: bool = False, as_json: bool = False
) -> int:
    """Remove the payload of ``backend``: its distribution, or its environment.

    `LaunchError` for one that came with a bundle (uniscale itself would go), that no wheel brought,
    or that an engine still runs from; `SettingsError` when several devices' are meant.
    """
    payload = _only(payloads.named(backend, device))
    place, name, version = _place(payload)
    pids = environments.users(place.folder if isinstance(place, Environment) else payload.prefix)
    if pids:
        raise LaunchError(
            f"{payload.title} is in use by process {', '.join(map(str, pids))}",
            where=str(payload.prefix),
            hint="end it first: uniscale ps, uniscale stop",
            slug="in-use",
        )
    where = place.folder if isinstance(place, Environment) else Path(sys.prefix)
    if not dry_run:
        _remove(place, name)
    if as_json:
        told = {"backend": payload.backend, "device": payload.device, "distribution": name,
                "version": version, "from": str(where), "dry_run": dry_run}  # fmt: skip
        print(json.dumps(told, indent=2))
    else:
        print(f"{'would remove' if dry_run else 'removed'}: {payload.title}, {name} {version}, "
              f"from {where}")  # fmt: skip
    return 0


def _only(found: Sequence[Payload]) -> Payload:
    first = found[0]
    others = [one for one in found if one.device != first.device]
    if others:
        told = "\n".join(f"--device {one.device}" for one in (first, *others))
        raise SettingsError(
            f"{first.backend} is here for {len({one.device for one in found})} devices",
            where="--device", hint=f"choose one:\n{told}", slug="several-payloads",
        )  # fmt: skip
    return first


def _place(payload: Payload) -> tuple[Environment | None, str, str]:
    """The environment that the payload has to itself, and its distribution's name and version."""
    if payload.python is not None:
        for made in environments.environments():
            if made.payloads == payload.prefix.parent:
                return made, made.name, made.version
    from uniscale.wheels.installplan import LAUNCHER, owner

    brought = owner(payload)
    if brought is None:
        raise LaunchError(
            f"no wheel brought {payload.title}",
            where=str(payload.prefix),
            hint=f"it is a folder that {payloads.VARIABLE} or a checkout names: remove it yourself",
            slug="no-wheel",
        )
    name = str(brought.metadata["Name"])
    if name == LAUNCHER:
        raise LaunchError(
            f"{payload.title} came in one wheel with uniscale itself ({brought.version})",
            where=str(payload.prefix),
            hint=f"both go with: {sys.executable} -m pip uninstall {name}",
            slug="bundle",
        )
    return None, name, brought.version


def _remove(place: Environment | None, name: str) -> None:
    if place is not None:
        environments.remove(place.folder)
        return
    installers.check_writable()
    installer = installers.find(sys.executable)
    installers.run(installer.uninstall(name), what=f"removing {name}")
