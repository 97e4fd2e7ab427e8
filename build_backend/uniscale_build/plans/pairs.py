"""Every backend on every device: what can be built here, what it needs, and who could help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from uniscale_build.errors import UniscaleError
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.hints import way_in
from uniscale_build.manifests.model import Backend
from uniscale_build.manifests.sdk import unfit_sdk, where_expected
from uniscale_build.plans.plan import BackendPlan, make_plan
from uniscale_build.project import Project
from uniscale_build.settings import Settings

# state → the words for people
STATES = {
    "buildable": "builds here",
    "needs-sdk": "needs its SDK",
    "needs-layers": "waits for layers",
    "no-source": "source unknown",
    "broken": "broken",
    "not-adapted": "not adapted",
}


@dataclass(frozen=True)
class Pair:
    """One backend on one device; ``what`` is the way forward, ``who`` could go it."""

    backend: str
    device: str
    state: str  # one of STATES
    pin: str
    what: str
    who: str
    where: str  # manifest and line

    def as_json(self) -> dict[str, str]:
        """The same facts for ``--json``."""
        return asdict(self)


def all_pairs(project: Project, environ: Mapping[str, str] | None = None) -> list[Pair]:
    """Every pair, backends and devices in the order of their names; nothing is fetched.

    Of the SDKs that are there, compilers with a bound on their version are asked for it.
    """
    manifests = project.manifests
    absent: dict[str, list[UniscaleError]] = {}
    pairs = []
    for backend in manifests.backends.values():
        for device in manifests.devices.values():
            if device.name not in absent:
                absent[device.name] = unfit_sdk(device, environ)
            pairs.append(_pair(project, backend, device, absent[device.name]))
    return pairs


def _pair(project: Project, backend: Backend, device: Device, absent: list[UniscaleError]) -> Pair:
    found = project.manifests.adaptations.get((backend.name, device.name))
    if found is None:
        where = f"manifests/adaptations/{device.name}/{backend.name}.yaml"
        return Pair(backend.name, device.name, "not-adapted", "", way_in(backend, device),
                    device.contact or device.vendor, where)  # fmt: skip
    if not found.ready:
        return Pair(backend.name, device.name, "needs-layers", found.pin,
                    found.missing, found.contact, found.at("status"))  # fmt: skip
    try:
        plan = make_plan(project, Settings(backends=(backend.name,), device=device.name))
    except UniscaleError as error:
        first = error.findings()[0]
        state = "no-source" if first.slug == "no-tree" else "broken"
        return Pair(backend.name, device.name, state, found.pin, first.what, found.contact,
                    first.where or found.where)  # fmt: skip
    return _planned(plan.backends[0], absent)


def _planned(plan: BackendPlan, absent: list[UniscaleError]) -> Pair:
    device, found = plan.device, plan.adaptation
    if plan.sdk_device is not None and absent and device.sdk is not None:
        what = f"needs {device.sdk.name} at {where_expected(device)}: {absent[0].what}"
        return Pair(plan.backend.name, device.name, "needs-sdk", found.pin, what,
                    absent[0].hint or "", device.at("sdk"))  # fmt: skip
    told = "; ".join(f"{state} {text}" for state, text in found.verified.items())
    return Pair(plan.backend.name, device.name, "buildable", found.pin, told, found.contact,
                found.where)  # fmt: skip
