"""``uniscale doctor``: chips, payloads, what cannot start and why, on one screen."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError
from uniscale_build.findings import Finding

from uniscale import folders
from uniscale.devices import chips
from uniscale.wheels import fitness, payloads
from uniscale.wheels.payloads import HOW_TO_GET, Found
from uniscale.wheels.record import Payload

if TYPE_CHECKING:
    from uniscale_build.manifests.devices import Device

_MARKS = {"ok": "ok", "missing": "--", "wrong": "!!", "note": "  "}
_STYLES = {"ok": "green", "missing": "red", "wrong": "red", "note": "dim"}


@dataclass(frozen=True)
class Examined:
    """One payload and what was found out about it."""

    title: str
    version: str
    tasks: tuple[str, ...]
    verified: str
    prefix: str
    findings: tuple[Finding, ...]

    @property
    def starts(self) -> bool:
        """True when nothing that can be seen keeps it from starting."""
        return not any(finding.fault for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``."""
        return {**asdict(self), "starts": self.starts}


def doctor(*, as_json: bool) -> int:
    """Print what this machine can run; 0 when every payload here can start, 13 otherwise."""
    from uniscale.devices import devices

    known = devices.known()
    seen = chips.here(known)
    found = payloads.find()
    examined = [*(_examined(one, known, seen) for one in found.payloads), *_broken(found)]
    around = list(_around())
    healthy = bool(examined) and all(one.starts for one in examined)
    if as_json:
        told = {
            "machine": _machine(),
            "chips": [chip.as_json() for chip in seen.chips],
            "chips_from": seen.source,
            "chips_note": seen.note or None,
            "payloads": [one.as_json() for one in examined],
            "around": [asdict(one) for one in around],
            "healthy": healthy,
        }
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _show(list(_lines(seen, known, examined, found, around)))
    return 0 if healthy else LaunchError.exit_code


def _machine() -> dict[str, object]:
    from uniscale import __version__

    libc = " ".join(platform.libc_ver()).strip()
    return {
        "uniscale": __version__,
        "python": platform.python_version(),
        "environment": sys.prefix,
        "system": f"{platform.system()} {platform.machine()}",
        "libc": libc,
        "cores": os.cpu_count(),
        "memory": _memory(),  # bytes
    }


def _memory() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def _examined(payload: Payload, known: Mapping[str, Device], seen: chips.Chips) -> Examined:
    device = known.get(payload.device)
    verified = payload.verified
    words = [word for word, done in (("built", verified.built), ("run", verified.ran)) if done]
    return Examined(
        title=payload.title,
        version=payload.version,
        tasks=payload.tasks,
        verified=" and ".join(words) or "not verified",
        prefix=str(payload.prefix),
        findings=tuple(fitness.examine(payload, device, seen)),
    )


def _broken(found: Found) -> Iterator[Examined]:
    for one in found.broken:
        finding = Finding("record", "wrong", one.error.what, str(one.prefix), one.error.hint or "")
        yield Examined(one.prefix.name, "", (), "", str(one.prefix), (finding,))


def _around() -> Iterator[Finding]:
    """What commands need beside a payload; nothing here keeps one engine from starting."""
    yield _package("gateway", "smg", "several engines behind one address", "uniscale[gateway]")
    yield _package("chips", "gpustack-runtime", "names, memory and topology of chips")
    if importlib.util.find_spec("trl") is None:
        what = "trl is not installed: no fine-tuning"
        yield Finding("training", "note", what, hint="pip install 'uniscale[train]'")
    else:
        yield Finding("training", "ok", f"trl {importlib.metadata.version('trl')}")
    if shutil.which("ssh") is None:
        what = "ssh is not installed: no job over several machines"
        yield Finding("machines", "note", what, hint="apt-get install openssh-client")
    else:
        yield Finding("machines", "ok", "ssh")
    place = Path(folders.jobs())
    there = next(one for one in (place, *place.parents) if one.exists())
    if not os.access(there, os.W_OK):
        what = "what runs cannot be noted: uniscale ps shows nothing"
        hint = f"point {folders.STATE} to a folder that you may write to"
        yield Finding("state", "wrong", what, str(place), hint)


def _package(name: str, package: str, purpose: str, install: str = "") -> Finding:
    try:
        return Finding(name, "ok", f"{package} {importlib.metadata.version(package)}")
    except importlib.metadata.PackageNotFoundError:
        what = f"{package} is not installed: no {purpose}"
        return Finding(name, "note", what, hint=f"pip install '{install or package}'")


Line = tuple[str, str]  # style, text


def _lines(
    seen: chips.Chips,
    known: Mapping[str, Device],
    examined: list[Examined],
    found: Found,
    around: list[Finding],
) -> Iterator[Line]:
    machine = _machine()
    yield "bold", f"uniscale {machine['uniscale']} on this machine"
    yield "", f"   Python {machine['python']} in {machine['environment']}"
    gib = int(str(machine["memory"])) / (1 << 30)
    yield "", f"   {machine['system']}, {machine['libc']}, {machine['cores']} cores, {gib:.0f} GiB"
    yield "bold", "Chips"
    yield from _chip_lines(seen, known)
    yield "bold", "Payloads"
    if not examined:
        yield "red", "-- none is installed"
        yield from (("", f"      hint: {line}") for line in HOW_TO_GET.splitlines())
    for one in examined:
        yield from _payload_lines(one)
    for hidden in found.hidden:
        yield "dim", f"   hidden: {hidden.payload.title} in {hidden.payload.prefix}"
    yield "bold", "Beside them"
    for finding in around:
        yield from _finding_lines(finding, "")


def _chip_lines(seen: chips.Chips, known: Mapping[str, Device]) -> Iterator[Line]:
    kinds: dict[tuple[object, ...], list[int]] = {}
    for chip in seen.chips:
        key = (chip.device, chip.name, chip.memory, chip.driver, chip.runtime)
        kinds.setdefault(key, []).append(chip.index)
    for (device, name, memory, driver, runtime), indexes in kinds.items():
        title = name or (known[str(device)].title if device in known else device)
        told = [f"{len(indexes)} × {title} ({device}; {_span(indexes)})"]
        told += [f"{memory} MiB"] if memory else []
        told += [f"driver {driver}"] if driver else []
        told += [f"runs SDK {runtime}"] if runtime else []
        yield "green", f"ok {', '.join(told)}"
    if not kinds:
        yield "dim", "   none found: engines run on the processor"
    if seen.note:
        yield "dim", f"   by device files alone: {seen.note}"


def _span(indexes: list[int]) -> str:
    whole = indexes == list(range(indexes[0], indexes[-1] + 1))
    if whole and len(indexes) > 2:
        return f"{indexes[0]} to {indexes[-1]}"
    return ",".join(map(str, indexes))


def _payload_lines(one: Examined) -> Iterator[Line]:
    faults = [finding for finding in one.findings if finding.fault]
    told = f"{one.title} {one.version}".rstrip()
    if one.tasks:
        told += f": {', '.join(one.tasks)}; {one.verified} before it was published"
    if one.starts:
        notes = [finding.what for finding in one.findings]
        yield "green", f"ok {told}" + "".join(f"; {note}" for note in notes)
        return
    yield "red", f"-- {told}"
    for finding in faults:
        yield from _finding_lines(finding, "   ")


def _finding_lines(finding: Finding, indent: str) -> Iterator[Line]:
    mark = _MARKS[finding.state]
    yield _STYLES[finding.state], f"{indent}{mark} {finding.name}: {finding.what}"
    if finding.fault and finding.where:
        yield "", f"{indent}   --> {finding.where}"
    if finding.hint and finding.state != "ok":
        first, *rest = finding.hint.splitlines()
        yield "", f"{indent}   hint: {first}"
        yield from (("", f"{indent}         {line}") for line in rest)


def _show(lines: list[Line]) -> None:
    if not sys.stdout.isatty():
        for _, text in lines:
            print(text)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    for style, text in lines:
        console.print(Text(text, style=style))
