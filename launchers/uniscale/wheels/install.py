"""``uniscale install``: the right prebuilt wheel for this machine, from a wheel index."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LaunchError, StoreError, UniscaleError
from uniscale_build.ids import slug
from uniscale_build.progress import human

from uniscale import folders
from uniscale.devices import devices
from uniscale.wheels import catalog as catalogs
from uniscale.wheels import environments, installers, machine
from uniscale.wheels.catalog import Catalog, Wheel
from uniscale.wheels.choosing import choose
from uniscale.wheels.fetch import fetch
from uniscale.wheels.installers import Wanted
from uniscale.wheels.installplan import LAUNCHER, Steps, constraints_file, plan, requirements
from uniscale.wheels.offered import asked_device

_OTHERS = 8  # told on a terminal; --json has all


@dataclass(frozen=True, kw_only=True)
class InstallRequest:
    """What ``uniscale install`` is asked for."""

    backend: str
    device: str | None = None
    version: str | None = None
    index: str | None = None
    isolated: bool = False
    offline: bool = False
    dry_run: bool = False
    as_json: bool = False


def install(request: InstallRequest) -> int:
    """Choose, tell, check, install; raises before anything is changed where it cannot be done."""
    steps = worked_out(request)
    if steps.isolated is None and not request.dry_run:
        installers.check_writable()
    done = unchanged(steps)
    if not request.as_json:
        _tell(steps, done=done)
    if not (request.dry_run or done):
        perform(steps, offline=request.offline)
    if request.as_json:
        told = {**as_json(steps), "dry_run": request.dry_run, "already": done}
        print(json.dumps(told, indent=2, ensure_ascii=False))
    elif request.dry_run:
        print("nothing was installed (--dry-run)")
    elif not done:
        print(f"installed: {steps.choice.held.backend} ({steps.machine.device.name}); "
              "see uniscale list")  # fmt: skip
    return 0


def worked_out(request: InstallRequest, index: Catalog | None = None) -> Steps:
    """The steps of a request; nothing is changed."""
    known = devices.known()
    found = index or catalogs.read(catalogs.which(request.index))
    device, seen = asked_device(request.device, known, found.devices)
    fits = machine.inspect(device, seen)
    choice = choose(found, _backend(request.backend, found), fits, request.version)
    return plan(found, choice, fits, isolated=request.isolated)


def _backend(word: str, index: Catalog) -> str:
    """The backend as the index names it; its manifest's aliases are understood too."""
    if any(slug(word) == slug(name) for name in index.backends()):
        return word
    from uniscale_build.manifests.load import load_manifests

    try:
        return load_manifests(devices.folders()).backend(word).name
    except UniscaleError:
        return word  # the index may have what we do not know; if not, choosing says so


def unchanged(steps: Steps) -> bool:
    """True when this very wheel is installed already."""
    if steps.isolated is not None:
        made = environments.environments()
        return any(one.sha256 == steps.choice.wheel.sha256 for one in made)
    return steps.there is not None and _same(steps)


def _same(steps: Steps) -> bool:
    """True when the installed distribution has the bytes of the wheel: by their RECORDs."""
    import importlib.metadata

    wheel = steps.choice.wheel
    noted = importlib.metadata.distribution(wheel.name).read_text("direct_url.json") or ""
    return steps.there == wheel.version and wheel.sha256 in noted


def perform(steps: Steps, *, offline: bool = False) -> None:
    """Fetch, check and install; `UniscaleError` says what failed and that nothing is half done."""
    from uniscale_build.cli.live import reporter

    with reporter() as live:
        path = fetch(steps.catalog, steps.choice.wheel, live)
        more = [fetch(steps.catalog, one, live) for one in _also(steps)]
    links = path.parent if steps.catalog.local(steps.choice.wheel) else None
    constraints = _write_constraints(steps)
    if steps.isolated is None:
        _into_this(steps, path, more, Wanted((), constraints, offline, links))
    else:
        _into_its_own(steps, path, Wanted((), constraints, offline, links))


def _also(steps: Steps) -> list[Wheel]:
    return [steps.launcher] if steps.launcher is not None else []


def _exactly(wheel: Wheel, address: str) -> str:
    return f"{wheel.name} @ {address}#sha256={wheel.sha256}"


def _into_this(steps: Steps, path: Path, more: list[Path], base: Wanted) -> None:
    from dataclasses import replace

    installer = installers.find(sys.executable)
    wheels = [steps.choice.wheel, *_also(steps)]
    pairs = zip(wheels, [path, *more], strict=True)
    names = tuple(_exactly(wheel, file.as_uri()) for wheel, file in pairs)
    before = _distributions()
    commands = [installer.install(replace(base, requirements=names))]
    if steps.there == steps.choice.wheel.version:
        # An installer takes an equal version for the same thing; these are other bytes.
        again = replace(base, requirements=names[:1], alone=True, again=True)
        commands.append(installer.install(again))
    for command in commands:
        try:
            installers.run(command, what=f"installing {steps.choice.wheel.file}",
                           offline=base.offline)  # fmt: skip
        except LaunchError as error:
            after = _distributions()
            changed = sorted(name for name in {*before, *after}
                             if before.get(name) != after.get(name))  # fmt: skip
            told = f"changed: {', '.join(changed)}" if changed else "nothing was changed"
            raise LaunchError(f"{error.what}; {told}", where=error.where, hint=error.hint,
                              slug=error.slug) from error  # fmt: skip


def _distributions() -> dict[str, str]:
    import importlib.metadata

    importlib.invalidate_caches()
    found = importlib.metadata.distributions()
    return {one.metadata["Name"]: one.version for one in found if one.metadata["Name"]}


def _into_its_own(steps: Steps, path: Path, base: Wanted) -> None:
    """An environment of its own; older ones of the same backend and device go at last."""
    from dataclasses import replace

    wheel, held = steps.choice.wheel, steps.choice.held
    assert steps.isolated is not None
    needs = tuple(str(one) for one in requirements(wheel) if slug(one.name) != LAUNCHER)
    image = bool(steps.kept)
    with environments.fresh(steps.isolated, system=image) as place:
        if place is None:
            return
        folder, python = place
        if image:
            _check_image(steps, python)
        installer = installers.find(python)
        if needs:
            # The launchers run in their own Python: the engine's needs no uniscale.
            command = installer.install(replace(base, requirements=needs))
            installers.run(command, what="installing what it requires", offline=base.offline,
                           bound=True)  # fmt: skip
        alone = replace(base, requirements=(_exactly(wheel, path.as_uri()),), alone=True)
        installers.run(installer.install(alone), what=f"installing {wheel.file}", bound=True)
        environments.Environment(
            folder=folder,
            python=python,
            payloads=environments.packages(folder) / folders.PAYLOADS,
            name=wheel.name,
            version=wheel.version,
            file=wheel.file,
            sha256=wheel.sha256,
            index=steps.catalog.where,
        ).save()
    stem = f"{held.backend}-{steps.machine.device.name}-"
    for old in environments.environments():
        if old.folder != folder and old.folder.name[:-12] == stem:
            environments.remove(old.folder)


def _check_image(steps: Steps, python: str) -> None:
    """The image's packages must be seen from the new environment, in the same versions."""
    import subprocess

    code = "import importlib.metadata as m, sys\nprint(*(m.version(n) for n in sys.argv[1:]))"
    ran = subprocess.run([python, "-c", code, *steps.kept], capture_output=True, text=True,
                         check=False)  # fmt: skip
    if ran.returncode != 0 or ran.stdout.split() != list(steps.kept.values()):
        raise LaunchError(
            f"an environment of its own would not see {', '.join(steps.kept)} of the image",
            where=sys.prefix,
            hint="they are in this environment alone: install without --isolated",
            slug="image-package",
        )


def _write_constraints(steps: Steps) -> Path | None:
    from uniscale_build.store import write_atomic

    if not steps.constraints:
        return None
    path = constraints_file(steps)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, steps.constraints.encode())
    except OSError as error:
        raise StoreError(f"the constraints cannot be written: {error.strerror}", where=str(path),
                         hint=f"point {folders.DATA} to a folder that you may write to",
                         slug="read-only") from error  # fmt: skip
    return path


def as_json(steps: Steps) -> dict[str, object]:
    """The facts for ``--json``."""
    from uniscale_build.sources.download import without_secrets

    wheel, held = steps.choice.wheel, steps.choice.held
    address = without_secrets(steps.catalog.address(wheel))
    return {
        "backend": held.backend,
        "device": steps.machine.device.name,
        "version": held.version,
        "wheel": {
            "file": wheel.file, "url": address, "sha256": wheel.sha256, "size": wheel.size,
            "distribution": wheel.name, "version": wheel.version,
            "requires": list(wheel.requires_dist),
            "sdk": None if wheel.sdk is None else vars(wheel.sdk),
        },
        "machine": steps.machine.as_json(),
        "index": steps.catalog.where,
        "isolated": None if steps.isolated is None
        else str(environments.root() / steps.isolated),
        "replaces": steps.there,
        "launcher": steps.launcher.file if steps.launcher else None,
        "kept": dict(steps.kept),
        "constraints": str(constraints_file(steps)) if steps.constraints else None,
        "remarks": list(_remarks(steps)),
        "others": [one.as_json() for one in steps.choice.others],
    }  # fmt: skip


def _remarks(steps: Steps) -> list[str]:
    device = steps.machine.device
    told = list(steps.choice.remarks)
    if not steps.machine.seen and device.name != devices.FALLBACK:
        told.append(f"no {device.title} was found in this machine")
    if steps.torch_from_index is not None:
        told.append(
            f"{steps.torch_from_index} comes from your installer's index, where it may be the "
            "build for CUDA (some GiB); for the one for processors, add PyTorch's cpu index "
            "(PIP_EXTRA_INDEX_URL, or UV_TORCH_BACKEND=cpu for uv)"
            + ("" if steps.isolated else ", or install torch from it first")
        )
    return told


def _tell(steps: Steps, *, done: bool) -> None:
    from uniscale_build.sources.download import without_secrets

    wheel, held, device = steps.choice.wheel, steps.choice.held, steps.machine.device
    how = f"found {steps.machine.seen}" if steps.machine.seen else device.title
    commit = f" at {held.commit[:9]}" if held.commit else ""
    layers = ", ".join(layer["name"] for layer in held.layers) or "none"
    rows = [
        ("device", f"{device.name} ({how})"),
        ("wheel", f"{wheel.file} ({human(wheel.size, 'bytes')})"),
        ("from", without_secrets(steps.catalog.address(wheel))),
        ("sha256", wheel.sha256),
        ("upstream", f"{held.version}{commit}, layers: {layers}"),
    ]
    if wheel.sdk is not None:
        here = steps.machine.sdk or "not known"
        rows.append(("sdk", f"built with {wheel.sdk.name} {wheel.sdk.version}; here: {here}"))
    if steps.launcher is not None:
        rows.append(("with", steps.launcher.file))
    place = environments.root() / steps.isolated if steps.isolated else Path(sys.prefix)
    instead = f", in place of {steps.there}" if steps.there and not done else ""
    rows.append(("into", f"{place}{instead}"))
    if steps.constraints:
        rows.append(("constraints", str(constraints_file(steps))))
        rows += [("", line) for line in steps.constraints.splitlines() if line[0] != "#"]
    print(f"{held.backend} {held.version} for {device.name}")
    for key, text in rows:
        print(f"  {key:<12}{text}")
    for remark in _remarks(steps):
        print(f"  note: {remark}")
    others = steps.choice.others
    if others:
        print("not taken:")
    for one in others[:_OTHERS]:
        print(f"  {one.wheel.file}: {one.why}")
    if len(others) > _OTHERS:
        print(f"  and {len(others) - _OTHERS} more (see --json)")
    if done:
        print("it is installed already")
