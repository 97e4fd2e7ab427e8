"""Can a payload start here? Everything that can be seen without starting it, with the cure."""

from __future__ import annotations

import functools
import glob
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import some
from uniscale_build.findings import Finding

from uniscale.devices.chips import Chips
from uniscale.wheels.record import FILE_NAME, Payload

if TYPE_CHECKING:
    from uniscale_build.manifests.devices import Device

_AGAIN = "install its wheel again: pip install --force-reinstall …"


def examine(payload: Payload, device: Device | None, chips: Chips) -> list[Finding]:
    """What keeps ``payload`` from starting, and what is worth knowing; faults have a hint.

    ``device`` is its device's manifest (None: this installation knows no such device).
    """
    told = json.loads((payload.prefix / FILE_NAME).read_text(encoding="utf-8"))
    places = search_path(payload)
    return [
        *_chips(payload, device, chips),
        *_machine(told),
        *_programs(payload, places),
        *_requirements(told, places),
        *_torch(payload, device, told, places),
        *_driver(payload, device, told),
        *_libraries(payload, device, told, places),
    ]


def search_path(payload: Payload) -> list[str]:
    """Where the payload's process will find packages: its prefix, its own site, then ours.

    One in an environment of its own sees ours only where that was made to see the system's.
    """
    from uniscale.wheels.environments import sees_the_system

    ours = sys.path if payload.python is None or sees_the_system(payload.python) else []
    return list(dict.fromkeys([str(payload.prefix), str(payload.prefix.parents[1]), *ours]))


def _chips(payload: Payload, device: Device | None, chips: Chips) -> Iterator[Finding]:
    if payload.device == "cpu":
        return
    if chips.of(payload.device) or any(glob.glob(pattern) for pattern in payload.nodes):
        return
    looked = ", ".join(payload.nodes) or "nothing tells how to find one"
    title = device.title if device is not None else payload.device
    yield Finding(
        "chips", "missing", f"no {title} is in this machine (looked for {looked})",
        hint="is its driver loaded? in a container, was the device passed in?",
    )  # fmt: skip


def _machine(told: Mapping[str, Any]) -> Iterator[Finding]:
    built = str(_table(told, "toolchain").get("machine", ""))
    if built and built != platform.machine():
        what = f"it was built for {built}, this machine is {platform.machine()}"
        yield Finding("machine", "wrong", what, hint="install the wheel for this kind of machine")


def _programs(payload: Payload, places: Sequence[str]) -> Iterator[Finding]:
    for task, launch in payload.launch.items():
        program, *rest = launch.argv
        if program == "python":
            module = rest[1].partition(".")[0] if rest[:1] == ["-m"] and len(rest) > 1 else ""
            if module and not _importable(module, places):
                what = f"{task}: its Python package {module} is not there"
                yield Finding("program", "missing", what, str(payload.prefix), _AGAIN)
            continue
        inside = payload.prefix / program
        path = f"{payload.prefix}/bin{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        found = str(inside) if "/" in program else shutil.which(program, path=path)
        if found is None or not os.path.exists(found):
            yield Finding("program", "missing", f"{task}: {program} is not there", "", _AGAIN)
        elif not os.access(found, os.X_OK):
            what = f"{task}: {program} may not be executed"
            yield Finding("program", "wrong", what, found, f"chmod +x {found}")


def _importable(module: str, places: Sequence[str]) -> bool:
    for place in places:
        folder = Path(place) / module
        if folder.is_dir() or folder.with_suffix(".py").is_file():
            return True
    return False


def _version(name: str, places: Sequence[str]) -> str | None:
    found = importlib.metadata.distributions(name=name, path=list(places))
    return next((one.version for one in found), None)


def _requirements(told: Mapping[str, Any], places: Sequence[str]) -> Iterator[Finding]:
    from packaging.requirements import InvalidRequirement, Requirement

    lacking: list[str] = []
    for text in _texts(_table(told, "requirements").get("kept")):
        try:
            wanted = Requirement(text)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        version = _version(wanted.name, places)
        if version is None:
            lacking.append(f"{wanted.name}{wanted.specifier}")
        elif not wanted.specifier.contains(version, prereleases=True):
            lacking.append(f"{wanted.name}{wanted.specifier} (here: {version})")
    if lacking:
        names = " ".join(f"'{one.partition(' ')[0]}'" for one in lacking[:4])
        what = f"{len(lacking)} of its requirements are not met: {some(lacking, 4)}"
        yield Finding("packages", "missing", what, hint=f"pip install {names}")


def _torch(
    payload: Payload, device: Device | None, told: Mapping[str, Any], places: Sequence[str]
) -> Iterator[Finding]:
    """The installed torch must be the one for the device: they all have the same name."""
    uses = any(_name(one) == "torch" for one in _texts(_table(told, "requirements").get("kept")))
    version = _version("torch", places)
    provided = "torch" in _texts(_table(told, "requirements").get("provided"))
    wanted = device.torch.packages if device is not None else ()
    if version is None:
        if provided:
            what = f"torch comes with {device.title if device else payload.device}'s image"
            yield Finding("torch", "missing", what, hint="start it in the vendor's image")
        return
    if not (uses or provided) or not wanted:
        return
    label = version.partition("+")[2]
    expected = next((one[6:].partition("<")[0] for one in wanted if one.startswith("torch+")), "")
    if label and expected and not label.startswith(expected):
        what = f"torch {version} is for {label}; {payload.device} needs torch+{expected}…"
        yield Finding("torch", "wrong", what, hint=f"install {' and '.join(wanted)}")
        return
    missing = [one for one in wanted if "+" not in one and _version(one, places) is None]
    if missing:
        what = f"torch {version} does not reach the chips without {', '.join(missing)}"
        hint = "it comes with the vendor's image"
        yield Finding("torch", "missing", what, hint=hint)
        return
    yield Finding("torch", "ok", f"torch {version}")


def _driver(payload: Payload, device: Device | None, told: Mapping[str, Any]) -> Iterator[Finding]:
    from uniscale_build.manifests.sdk import driver_version

    sdk = _table(told, "sdk")
    built = str(sdk.get("version") or "")
    if device is None or not built:
        return
    runs = driver_version(device)
    if not runs:
        return
    name = str(sdk.get("name") or "SDK")
    # Within one major version a driver runs what later minor versions built.
    if _numbers(runs)[:1] < _numbers(built)[:1]:
        what = f"it was built with {name} {built}; the driver here runs up to {runs}"
        hint = "update the driver, or install the wheel for an older SDK"
        yield Finding("driver", "wrong", what, hint=hint)
    else:
        what = f"the driver runs {name} {runs}, it was built with {built}"
        yield Finding("driver", "ok", what)


def _libraries(
    payload: Payload, device: Device | None, told: Mapping[str, Any], places: Sequence[str]
) -> Iterator[Finding]:
    wanted = _texts(told.get("external_libraries"))
    known = _system_libraries()
    folders = [*os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep), *_bundled(places)]
    folders += [str(payload.prefix / "lib")]
    lacking = [
        name
        for name in wanted
        if name not in known
        and not any(folder and os.path.exists(os.path.join(folder, name)) for folder in folders)
    ]
    if not lacking or not known:
        return
    hint = "apt-file search " + lacking[0]
    if device is not None and device.sdk is not None and device.sdk.vendor:
        hint = f"they may come with {device.sdk.vendor}"
    what = f"the machine lacks {', '.join(lacking)}"
    yield Finding("libraries", "missing", what, hint=hint)


def _bundled(places: Sequence[str]) -> Iterator[str]:
    """Folders of libraries that Python packages bring: torch's, and the vendor's own wheels."""
    for place in places:
        if os.path.isdir(os.path.join(place, "torch", "lib")):
            yield os.path.join(place, "torch", "lib")
        yield from glob.glob(os.path.join(glob.escape(place), "nvidia", "*", "lib"))


@functools.cache
def _system_libraries() -> frozenset[str]:
    """Names of the libraries that the dynamic linker finds by itself; empty: it tells nothing."""
    program = shutil.which("ldconfig", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin")
    if program is None:
        return frozenset()
    done = subprocess.run([program, "-p"], capture_output=True, check=False, timeout=20)
    text = done.stdout.decode("utf-8", "replace")
    return frozenset(re.findall(r"^\s+(\S+) \(", text, re.MULTILINE))


def _name(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))


def _table(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _texts(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
