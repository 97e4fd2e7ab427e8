"""Headers and libraries that an SDK lacks, taken from pinned wheels and laid out as one root."""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import re
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.build import precompiled
from uniscale_build.build.toolchain import Toolchain
from uniscale_build.errors import UniscaleError, WheelError, raise_all
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.model import Kit
from uniscale_build.members import check_names
from uniscale_build.progress import Reporter
from uniscale_build.store import Store, disk_errors, write_atomic


@dataclass(frozen=True)
class Added:
    """What the kits of a build add to it; nothing where the SDK has all."""

    defines: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def needed(kits: Sequence[Kit], device: Device, toolchain: Toolchain) -> tuple[Kit, ...]:
    """The kits that the SDK which ``toolchain`` has found does not make needless."""
    roots = device.sdk.roots if device.sdk else ()
    folder = toolchain.environment.get(roots[0].variable, "") if roots else ""
    return tuple(kit for kit in kits if not (folder and Path(folder, kit.unless).exists()))


def library_folders(
    device: Device, toolchain: Toolchain, root: Path, build: Path
) -> tuple[Path, ...]:
    """Where the libraries are that a build was linked with: kits, stubs of drivers, the SDK."""
    roots = device.sdk.roots if device.sdk else ()
    homes = [Path(toolchain.environment[one.variable]) for one in roots
             if toolchain.environment.get(one.variable)]  # fmt: skip
    return (root / "lib", build, *(home / name for home in homes for name in ("lib64", "lib")))


def lay_out(
    store: Store, kits: Sequence[Kit], root: Path, reporter: Reporter, *, offline: bool
) -> Added:
    """Fill ``root`` with what ``kits`` name and give what a build needs to know of it.

    A root that is complete is kept. `SourceError` when a wheel cannot be had, `WheelError` (all at
    once) for patterns that fit nothing and names that leave the root.
    """
    if not kits:
        return Added()
    wheels = [precompiled.fetch(store, kit, reporter, offline=offline) for kit in kits]
    mark = root / "uniscale-kits.json"
    wanted = json.dumps(
        [
            [wheel.parent.name, kit.strip, list(kit.members)]
            for wheel, kit in zip(wheels, kits, strict=True)
        ]
    )
    if not (mark.is_file() and mark.read_text(encoding="utf-8") == wanted):
        with disk_errors(root):
            shutil.rmtree(root, ignore_errors=True)
            for wheel, kit in zip(wheels, kits, strict=True):
                reporter.stage("toolkit", wheel.name)
                _unpack(wheel, kit, root)
            _link_names(root)
            write_atomic(mark, wanted.encode())

    def filled(pairs: Mapping[str, str]) -> dict[str, str]:
        return {name: text.replace("{toolkit}", str(root)) for name, text in pairs.items()}

    added = Added()
    for kit in kits:
        added = dataclasses.replace(
            added,
            defines={**added.defines, **filled(kit.defines)},
            environment={**added.environment, **filled(kit.environment)},
        )
    return added


def _unpack(wheel: Path, kit: Kit, root: Path) -> None:
    errors: list[UniscaleError] = []
    lead = kit.strip.strip("/") + "/" if kit.strip.strip("/") else ""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            chosen: dict[str, str] = {}
            for pattern in kit.members:
                fitting = [name for name in names if fnmatch.fnmatchcase(name, pattern)]
                if not fitting:
                    errors.append(
                        WheelError(
                            f"no member of {wheel.name} fits {pattern!r}",
                            where=kit.where,
                            hint="look what the wheel has: python -m zipfile -l WHEEL",
                            slug="no-member",
                        )
                    )
                chosen |= {name: name.removeprefix(lead) for name in fitting}
            errors.extend(check_names(sorted(chosen.values()), what="wheel"))
            raise_all(errors)
            for name, place in chosen.items():
                target = root / place
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as source, target.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
    except zipfile.BadZipFile as error:
        raise WheelError(f"not a wheel: {error}", where=str(wheel), slug="bad-zip") from error


def _link_names(root: Path) -> None:
    """``libx.so`` beside each ``libx.so.13``: wheels leave out the name that linkers look for."""
    for library in sorted(root.rglob("lib*.so.*")):
        plain = library.with_name(re.sub(r"\.so\..*", ".so", library.name))
        if not plain.exists():
            plain.symlink_to(library.name)
