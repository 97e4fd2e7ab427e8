"""Chooses the wheel of an index that fits this machine, and says why the others do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from uniscale_build.errors import IndexSiteError, SettingsError, did_you_mean
from uniscale_build.ids import slug

from uniscale.wheels.catalog import Catalog, Held, Wheel
from uniscale.wheels.machine import Machine

_SHOWN = 12  # reasons in an error; an index may hold thousands of wheels


@dataclass(frozen=True)
class Rejected:
    """A wheel that holds the backend and was not taken."""

    wheel: Wheel
    why: str

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``."""
        return {"file": self.wheel.file, "why": self.why}


@dataclass(frozen=True)
class Choice:
    """The wheel to install, its payload of the backend, and the others with their reasons."""

    wheel: Wheel
    held: Held
    remarks: tuple[str, ...]  # what could not be checked
    others: tuple[Rejected, ...]


def choose(catalog: Catalog, backend: str, machine: Machine, version: str | None = None) -> Choice:
    """The best wheel with ``backend`` for ``machine``: highest version, then nearest SDK.

    ``version`` is one version, of upstream or of the wheel, or a specifier (``>=0.31,<0.33``).
    Pre-releases count only when there is nothing else or they are asked for. `SettingsError` for
    a backend that the index has not, or a version that is none; `IndexSiteError` when nothing
    fits, with every reason.
    """
    wanted = _wanted(version)
    pairs = _pairs(catalog, backend)
    fitting: list[tuple[Wheel, Held]] = []
    rejected: list[Rejected] = []
    for wheel, held in pairs:
        faults = list(_faults(wheel, held, machine, wanted))
        if faults:
            rejected.append(Rejected(wheel, "; ".join(faults)))
        else:
            fitting.append((wheel, held))
    if not fitting:
        raise _none(catalog, pairs, rejected, machine, version)
    fitting.sort(key=lambda pair: _rank(pair[0], pair[1], machine), reverse=True)
    best, *others = fitting
    behind = [Rejected(wheel, _behind(wheel, held, *best)) for wheel, held in others]
    return Choice(*best, _remarks(best[0], machine), (*behind, *rejected))


def _pairs(catalog: Catalog, backend: str) -> list[tuple[Wheel, Held]]:
    pairs = [
        (wheel, held)
        for wheel in catalog.wheels
        for held in wheel.payloads
        if slug(held.backend) == slug(backend)
    ]
    if not pairs:
        raise SettingsError(
            f"the index has no wheel with {backend}",
            where=catalog.where,
            hint=did_you_mean(backend, catalog.backends()),
            slug="unknown-backend",
        )
    return pairs


def _wanted(version: str | None) -> SpecifierSet | str | None:
    if version is None or not version.strip():
        return None
    try:
        if version.strip()[0] in "<>=!~":
            return SpecifierSet(version, prereleases=True)
        Version(version)
    except (InvalidSpecifier, InvalidVersion) as error:
        raise SettingsError(
            f"{version!r} is no version", where="--version",
            hint="one version (0.32.0), or bounds (>=0.31,<0.33)", slug="bad-version",
        ) from error  # fmt: skip
    return version.strip()


def _faults(
    wheel: Wheel, held: Held, machine: Machine, wanted: SpecifierSet | str | None
) -> Iterable[str]:
    """Why ``wheel`` is not for ``machine``, every reason."""
    if slug(wheel.device) != slug(machine.device.name):
        yield f"for {wheel.device}"
        return  # its SDK and driver are another's: nothing further can be compared
    if wanted is not None and not _is_wanted(wheel, held, wanted):
        yield f"version {held.version}"
    if wheel.yanked and not isinstance(wanted, str):
        yield f"taken back: {wheel.yanked}"
    if wheel.requires_python and not _takes(wheel.requires_python, machine.python):
        yield f"needs Python {wheel.requires_python}, this is {machine.python}"
    if not any(tag in machine.tags for tag in wheel.tags):
        yield _tag_fault(wheel.tags, machine)
    elif wheel.glibc and machine.glibc and _numbers(wheel.glibc) > _numbers(machine.glibc):
        yield f"needs glibc {wheel.glibc}, this machine has {machine.glibc}"
    if wheel.sdk is not None and wheel.sdk.version:
        built = _numbers(wheel.sdk.version)[:2]
        if machine.sdk and _numbers(machine.sdk)[:2] < built:
            yield f"needs {wheel.sdk.name} {wheel.sdk.version}, this machine has {machine.sdk}"
        # Within one major version a driver runs what later minor versions built.
        if machine.driver and _numbers(machine.driver)[:1] < built[:1]:
            yield (
                f"needs a driver for {wheel.sdk.name} {wheel.sdk.version}, this one runs up to "
                f"{machine.driver}"
            )


def _is_wanted(wheel: Wheel, held: Held, wanted: SpecifierSet | str) -> bool:
    names = [held.version, wheel.version] if _alone(wheel) else [held.version]
    if isinstance(wanted, SpecifierSet):
        return any(wanted.contains(_version(name)) for name in names)
    asked = Version(wanted)
    found = [_version(name) for name in names]
    return any(asked in (one, Version(one.public)) for one in found)


def _takes(requires_python: str, python: str) -> bool:
    try:
        return SpecifierSet(requires_python).contains(python, prereleases=True)
    except InvalidSpecifier:
        return True  # pip reads it as no bound either


def _tag_fault(tags: Sequence[str], machine: Machine) -> str:
    """The part of the tags that does not fit, in words."""
    own = {tuple(tag.split("-", 2)[:2]) for tag in machine.tags}
    parts = [tuple(tag.split("-", 2)) for tag in tags if tag.count("-") >= 2]
    if not any(part[:2] in own for part in parts):
        pythons = sorted({"-".join(dict.fromkeys(part[:2])) for part in parts})
        return f"for {', '.join(pythons)}, this is Python {machine.python}"
    platforms = sorted({part[2] for part in parts})
    for name in platforms:
        found = re.fullmatch(r"manylinux_(\d+)_(\d+)_(\w+)", name)
        if found and found[3] != machine.architecture:
            return f"for {found[3]}, this machine is {machine.architecture}"
        if found and machine.glibc and (int(found[1]), int(found[2])) > _numbers(machine.glibc):
            return f"needs glibc {found[1]}.{found[2]}, this machine has {machine.glibc}"
    return f"for {', '.join(platforms)}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))


def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")  # below everything that can be read


def _alone(wheel: Wheel) -> bool:
    """True for a distribution of its own, False for a bundle, which is named uniscale."""
    return slug(wheel.name) != "uniscale"


def _rank(wheel: Wheel, held: Held, machine: Machine) -> tuple[object, ...]:
    """The greater, the better; equal ones are told apart by their file names at last."""
    upstream, own = _version(held.version), _version(wheel.version)
    sdk = _numbers(wheel.sdk.version)[:2] if wheel.sdk is not None else ()
    same_major = bool(machine.sdk and sdk) and sdk[:1] == _numbers(machine.sdk)[:1]
    best_tag = min((machine.tags[tag] for tag in wheel.tags if tag in machine.tags), default=0)
    return (
        not upstream.is_prerelease,
        upstream,
        _alone(wheel),
        Version(own.public),
        same_major,
        sdk if machine.sdk else (),
        own,
        -best_tag,
        wheel.time,
        wheel.file,
    )


def _behind(wheel: Wheel, held: Held, best: Wheel, best_held: Held) -> str:
    """Why a wheel that would do is not the best."""
    if _version(held.version) != _version(best_held.version):
        if _version(held.version) > _version(best_held.version):
            return f"{held.version} is a pre-release"
        return f"{held.version} is older than {best_held.version}"
    if _alone(wheel) != _alone(best):
        return "a bundle with uniscale itself; the payload alone is there"
    ours, theirs = _version(wheel.version), _version(best.version)
    if Version(ours.public) != Version(theirs.public):
        return f"{wheel.version} is older than {best.version}"
    if wheel.sdk is not None and best.sdk is not None and wheel.sdk.version != best.sdk.version:
        return f"{best.sdk.name} {best.sdk.version} is nearer than {wheel.sdk.version}"
    return "fits, but the other one has the better tag or is newer"


def _remarks(wheel: Wheel, machine: Machine) -> tuple[str, ...]:
    told = [f"it was taken back: {wheel.yanked}"] if wheel.yanked else []
    if wheel.sdk is None or not wheel.sdk.version:
        return tuple(told)
    built = f"{wheel.sdk.name} {wheel.sdk.version}"
    if not machine.sdk:
        why = f": {machine.sdk_note}" if machine.sdk_note else ""
        told.append(f"it was built with {built}; what this machine has is not known{why}")
    elif _numbers(machine.sdk)[:1] != _numbers(wheel.sdk.version)[:1]:
        told.append(f"it was built with {built}; this machine has {machine.sdk}")
    return tuple(told)


def _none(
    catalog: Catalog,
    pairs: Sequence[tuple[Wheel, Held]],
    rejected: Sequence[Rejected],
    machine: Machine,
    version: str | None,
) -> IndexSiteError:
    backend = pairs[0][1].backend
    devices = list(dict.fromkeys(wheel.device for wheel, _ in pairs))
    asked = f"{backend} {version}" if version else backend
    if machine.device.name not in devices:
        hint = f"there is {backend} for {', '.join(devices)}; choose with --device"
        return IndexSiteError(f"the index has no {asked} for {machine.device.name}",
                              where=catalog.where, hint=hint, slug="no-wheel")  # fmt: skip
    near = [one for one in rejected if slug(one.wheel.device) == slug(machine.device.name)]
    lines = [f"{one.wheel.file}: {one.why}" for one in near[:_SHOWN]]
    if len(near) > _SHOWN:
        lines.append(f"and {len(near) - _SHOWN} more (see --json)")
    return IndexSiteError(
        f"no wheel of {asked} for {machine.device.name} fits this machine",
        where=catalog.where,
        hint="\n".join(lines),
        slug="no-wheel",
    )
