"""What installing a chosen wheel will do here: worked out and checked before anything is done."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from uniscale_build.errors import LaunchError, UniscaleError, raise_all
from uniscale_build.ids import slug

from uniscale import folders
from uniscale.devices.devices import FALLBACK
from uniscale.wheels import payloads
from uniscale.wheels.catalog import Catalog, Wheel
from uniscale.wheels.choosing import Choice
from uniscale.wheels.machine import Machine
from uniscale.wheels.record import Payload

LAUNCHER = "uniscale"
TORCH = "torch"
CPU_BUILD = "cpu"  # the local version of PyTorch's builds without CUDA


@dataclass(frozen=True)
class Steps:
    """All that will be done, for ``--dry-run`` and for doing it."""

    catalog: Catalog
    choice: Choice
    machine: Machine
    isolated: str | None  # the new environment's name
    kept: Mapping[str, str]  # packages of the vendor's image that are here: name → version
    absent: tuple[str, ...]  # those that are not here; no other may come in their place
    launcher: Wheel | None  # the uniscale that the wheel requires, where this one is too old
    there: str | None  # the version that is installed of this distribution
    torch: str | None = None  # the CPU build of PyTorch that is here, and stays
    torch_from_index: str | None = None  # requires PyTorch, whose build the index decides

    @property
    def constraints(self) -> str:
        """The text of the constraints file; empty when nothing that is here has to stay."""
        if self.torch is not None:
            head = "# This environment's PyTorch for processors: none for CUDA in its place.\n"
            return head + f"{TORCH}=={self.torch}\n"
        lines = [f"{name}=={version}" for name, version in sorted(self.kept.items())]
        lines += [f"{name}<0" for name in sorted(self.absent)]
        if not lines:
            return ""
        head = f"# Packages of the image of {self.machine.device.title}: kept as they are, and\n"
        return head + "# none from an index in place of one that is not there.\n" + "".join(
            f"{line}\n" for line in lines
        )  # fmt: skip


def plan(catalog: Catalog, choice: Choice, machine: Machine, *, isolated: bool) -> Steps:
    """The steps; `LaunchError` for what cannot be done here, all reasons at once."""
    wheel = choice.wheel
    every = (*machine.device.image_packages, *wheel.image_packages)
    names = dict.fromkeys(str(canonicalize_name(name)) for name in every)
    found = {name: installed(name) for name in names}
    kept = {name: version for name, version in found.items() if version is not None}
    absent = tuple(name for name, version in found.items() if version is None)
    errors = list(_conflicts(wheel, machine, kept, absent))
    launcher = None
    if not isolated:
        errors += _in_the_way(wheel)
        try:
            launcher = _launcher(catalog, wheel, machine)
        except LaunchError as error:
            errors.append(error)
    raise_all(errors)
    device = machine.device.name
    torch, from_index = _torch(wheel, device, names, isolated=isolated)
    return Steps(
        catalog=catalog,
        choice=choice,
        machine=machine,
        isolated=f"{choice.held.backend}-{device}-{wheel.sha256[:12]}" if isolated else None,
        kept=kept,
        absent=absent,
        launcher=launcher,
        there=None if isolated else installed(wheel.name),
        torch=torch,
        torch_from_index=from_index,
    )


def _torch(
    wheel: Wheel, device: str, image: Iterable[str], *, isolated: bool
) -> tuple[str | None, str | None]:
    """For a processor: the CPU build that is here and stays, or what an index will serve.

    On Linux the package index has PyTorch built for CUDA under the plain version, some GiB of it;
    the builds for processors have the local version ``cpu`` and come from an index of their own.
    Installers take one for the other, so the one that is here is pinned whole.
    """
    if device != FALLBACK or TORCH in image:
        return None, None
    here = None if isolated else installed(TORCH)
    needs = [one for one in requirements(wheel) if canonicalize_name(one.name) == TORCH]
    if here is not None and all(_satisfies(one, here) for one in needs):
        return (here if _is_cpu_build(here) else None), None
    open_ones = [
        str(one) for one in needs
        if one.url is None and not any(_is_cpu_build(spec.version) for spec in one.specifier)
    ]  # fmt: skip
    return None, ", ".join(open_ones) or None


def _is_cpu_build(version: str) -> bool:
    return version.partition("+")[2] == CPU_BUILD


def installed(name: str) -> str | None:
    """The version of a distribution in this environment."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def requirements(wheel: Wheel) -> list[Requirement]:
    """What the wheel requires on this Python, without extras."""
    found = []
    for text in wheel.requires_dist:
        try:
            one = Requirement(text)
        except InvalidRequirement as error:
            raise LaunchError(f"the wheel has a requirement that cannot be read: {text}",
                              where=wheel.file, slug="bad-metadata") from error  # fmt: skip
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            found.append(one)
    return found


def _satisfies(one: Requirement, version: str) -> bool:
    try:
        return one.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _conflicts(
    wheel: Wheel, machine: Machine, kept: Mapping[str, str], absent: Iterable[str]
) -> Iterable[UniscaleError]:
    """Requirements that the vendor's image does not satisfy."""
    image = f"the image of {machine.device.title}"
    for one in requirements(wheel):
        name = canonicalize_name(one.name)
        if name in kept and not _satisfies(one, kept[name]):
            yield LaunchError(
                f"it needs {one}, and {image} has {name} {kept[name]}, which is never replaced",
                where=wheel.file,
                hint="use the image that this wheel was made for, or another --version",
                slug="image-package",
            )
        elif name in absent:
            yield LaunchError(
                f"it needs {one}, which comes with {image} and is not in this environment",
                where=sys.prefix,
                hint="install into the image's own Python (or an environment that sees its "
                "packages)",
                slug="image-package",
            )


def owner(payload: Payload) -> importlib.metadata.Distribution | None:
    """The distribution that brought a payload which is installed in a packages folder."""
    line = f"\n{folders.PAYLOADS}/{payload.prefix.name}/payload.json,"
    folder = payload.prefix.parent.parent
    for found in importlib.metadata.distributions(path=[str(folder)]):
        if line in "\n" + (found.read_text("RECORD") or ""):
            return found
    return None


def _in_the_way(wheel: Wheel) -> Iterable[UniscaleError]:
    """Payloads that would hide what is installed, or that would go with what is replaced."""
    coming = {(slug(one.backend), slug(wheel.device)) for one in wheel.payloads}
    found = payloads.find()
    for payload in (*found.payloads, *(one.payload for one in found.hidden)):
        brought = owner(payload) if payload.python is None else None
        if brought is None:
            continue
        name, version = brought.metadata["Name"], brought.version
        same = canonicalize_name(name) == canonicalize_name(wheel.name)
        hint = f"add --isolated, or take that one out first: pip uninstall {name}"
        if (slug(payload.backend), slug(payload.device)) in coming:
            if not same:
                what = f"{payload.title} is here already, from {name} {version}: two would be one "
                yield LaunchError(f"{what}too many", where=str(payload.prefix), hint=hint,
                                  slug="payload-there")  # fmt: skip
        elif same:
            yield LaunchError(
                f"{name} {version} holds {payload.title} too, which would go when it is replaced",
                where=str(payload.prefix), hint=hint, slug="payload-there",
            )  # fmt: skip


def _launcher(catalog: Catalog, wheel: Wheel, machine: Machine) -> Wheel | None:
    """The plain uniscale of the index, when the wheel requires another than is installed.

    It comes from this index or not at all: on another one, the name may be somebody else's.
    """
    wanted = [one for one in requirements(wheel) if canonicalize_name(one.name) == LAUNCHER]
    here = installed(LAUNCHER)
    if not wanted or (here is not None and all(_satisfies(one, here) for one in wanted)):
        return None
    fitting = [
        one
        for one in catalog.wheels
        if canonicalize_name(one.name) == LAUNCHER and not one.payloads
        and all(_satisfies(need, one.version) for need in wanted)
        and any(tag in machine.tags for tag in one.tags)
    ]  # fmt: skip
    need = " and ".join(map(str, wanted))
    if not fitting:
        raise LaunchError(
            f"it needs {need}, which the index has not", where=catalog.where,
            hint="who publishes it adds the plain uniscale wheel: uniscale-build wheel --split",
            slug="no-launcher",
        )  # fmt: skip
    for payload in payloads.find().payloads:
        brought = owner(payload) if payload.python is None else None
        if brought is not None and canonicalize_name(brought.metadata["Name"]) == LAUNCHER:
            what = f"replacing uniscale {here} would take {payload.title} with it"
            raise LaunchError(
                f"it needs {need}, and {what}",
                where=str(payload.prefix), hint="add --isolated", slug="payload-there",
            )  # fmt: skip
    return max(fitting, key=lambda one: Version(one.version))


def constraints_file(steps: Steps) -> Path:
    """Where the constraints of this environment are kept."""
    name = steps.isolated or canonicalize_name(sys.prefix.replace("/", "-").strip("-"))
    return Path(folders.data()) / "constraints" / f"{name}-{steps.machine.device.name}.txt"
