"""Finds a device's SDK: its folders, the environment that its script sets, its compiler.

Everything that is wrong is told at once, each with what to do. Nothing of the caller's environment
changes: what a build needs is in `Sdk.environment`.
"""

from __future__ import annotations

import glob
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import Gathering, ToolchainError, UniscaleError, raise_all
from uniscale_build.manifests import devices
from uniscale_build.manifests.devices import Device, Probe, Root

_TIMEOUT = 120.0  # seconds; for one script or one small compilation on a busy machine
_SHELLS_OWN = ("_", "PWD", "OLDPWD", "SHLVL", "SHELLOPTS", "BASHOPTS")


@dataclass(frozen=True)
class Sdk:
    """An SDK that was found and answered."""

    name: str
    roots: Mapping[str, str] = field(default_factory=dict)  # variable (or default) → folder
    environment: Mapping[str, str] = field(default_factory=dict)  # to be set for a build
    compiler: str = ""
    version: str = ""
    label: str = ""

    def fingerprint(self) -> dict[str, str]:
        """Name → value for cache keys and the record: no paths."""
        return {"sdk": f"{self.name} {self.version}".strip()} if self.name else {}


def find_sdk(device: Device, environ: Mapping[str, str] | None = None) -> Sdk:
    """The SDK of ``device`` on this machine; `ToolchainError` or `Problems` says what is wrong.

    A device without an SDK gives an empty `Sdk`.
    """
    env = dict(os.environ if environ is None else environ)
    wanted = device.sdk
    if wanted is None:
        return Sdk("")
    errors: list[UniscaleError] = []
    roots = _roots(device, wanted, env, errors)
    raise_all(errors)
    given = {name: path for name, path in roots.items() if not name.startswith("/")}
    first = Path(next(iter(roots.values()), "/"))
    changed = {**given, **_script(device, wanted, first, {**env, **given})}
    env |= changed
    compiler, version = "", ""
    if wanted.compiler is not None:
        folders = [first / path for path in wanted.compiler.paths]
        with Gathering(errors):
            compiler, version = _compiler(device, wanted.compiler, folders, env)
    for program in wanted.programs:
        if shutil.which(program, path=env.get("PATH")) is None:
            errors.append(_fault(device, f"{program} is not there", "no-program"))
    raise_all(errors)
    if compiler and shutil.which(Path(compiler).name, path=env.get("PATH")) != compiler:
        changed["PATH"] = os.pathsep.join([str(Path(compiler).parent), env.get("PATH", "")])
    return Sdk(wanted.name, roots, changed, compiler, version, wanted.label(version))


def missing_sdk(device: Device, environ: Mapping[str, str] | None = None) -> list[UniscaleError]:
    """What `find_sdk` would miss, by looking at folders and names alone: nothing is run."""
    env = dict(os.environ if environ is None else environ)
    errors: list[UniscaleError] = []
    sdk = device.sdk
    if sdk is None:
        return errors
    roots = _roots(device, sdk, env, errors)
    if sdk.compiler is not None and roots:
        folders = [str(Path(next(iter(roots.values())), path)) for path in sdk.compiler.paths]
        search = os.pathsep.join([*folders, env.get("PATH", "")])
        if shutil.which(sdk.compiler.program, path=search) is None:
            errors.append(_fault(device, f"there is no {sdk.compiler.program}", "no-compiler"))
    return errors


def unfit_sdk(device: Device, environ: Mapping[str, str] | None = None) -> list[UniscaleError]:
    """What `missing_sdk` tells, and a compiler whose version the manifest rules out.

    The compiler is asked for its version where there are bounds, and for nothing else.
    """
    env = dict(os.environ if environ is None else environ)
    errors = missing_sdk(device, env)
    probe = device.sdk.compiler if device.sdk else None
    if errors or device.sdk is None or probe is None or not (probe.least or probe.below):
        return errors
    roots = _roots(device, device.sdk, env, errors)
    folders = [Path(next(iter(roots.values()), "/"), path) for path in probe.paths]
    with Gathering(errors):
        _version(device, probe, folders, env)
    return errors


def how_to_install(device: Device) -> str:
    """What brings the SDK: Debian's command where there is one, the vendor's name for it."""
    sdk = device.sdk
    if sdk is None:
        return ""
    ways = [f"apt-get install {' '.join(sdk.debian)}"] if sdk.debian else []
    return ", or ".join([*ways, *([sdk.vendor] if sdk.vendor else [])])


def where_expected(device: Device) -> str:
    """Where the SDK is looked for, in a few words."""
    words = []
    for root in device.sdk.roots if device.sdk else ():
        if "{" not in root.default:
            words.append(" or ".join(word for word in (root.variable, root.default) if word))
    return "; ".join(words) or "PATH"


def _fault(device: Device, what: str, slug: str, hint: str = "") -> ToolchainError:
    sdk = device.sdk
    return ToolchainError(
        f"{sdk.name if sdk else device.title}: {what}",
        where=device.at("sdk"),
        hint=hint or how_to_install(device) or None,
        slug=slug,
    )


def _roots(
    device: Device, sdk: devices.Sdk, env: Mapping[str, str], errors: list[UniscaleError]
) -> dict[str, str]:
    """Variable (or, where the vendor has none, default) → folder that is there and whole."""
    found: dict[str, str] = {}
    checked: set[str] = set()
    for root in sdk.roots:
        variable, path = _candidate(root, sdk, env, found)
        if not path:
            continue
        if path not in checked:
            checked.add(path)
            error = _check_root(device, root, variable, path)
            if error is not None:
                errors.append(error)
                continue
        elif path not in found.values():
            continue  # what is wrong with it is told already
        found[root.variable or path] = path
    return found


def _candidate(
    root: Root, sdk: devices.Sdk, env: Mapping[str, str], found: Mapping[str, str]
) -> tuple[str, str]:
    """The variable that names the folder ("" for the default), and the folder ("" for none)."""
    # "{MUSA_HOME}" says that two variables name one folder: the one that is set counts.
    twins = [other.variable for other in sdk.roots if other.default == f"{{{root.variable}}}"]
    for variable in (root.variable, *twins):
        if variable and env.get(variable):
            return variable, env[variable]
    try:
        path = root.default.format_map(found)
    except (KeyError, ValueError, IndexError):
        return "", ""  # it lies in a root that was not found, which is told already
    path = (sorted(glob.glob(path)) or [path])[-1]
    if not Path(path).is_dir() and not found:
        path = _beside_compiler(sdk, env) or path
    return "", path


def _beside_compiler(sdk: devices.Sdk, env: Mapping[str, str]) -> str:
    """The folder above the compiler on PATH, where the distribution may have put it."""
    if not sdk.debian or sdk.compiler is None:
        return ""
    path = shutil.which(sdk.compiler.program, path=env.get("PATH"))
    return str(Path(path).resolve().parent.parent) if path else ""


def _check_root(device: Device, root: Root, variable: str, path: str) -> ToolchainError | None:
    named = f"{variable}={path}" if variable else path
    if not Path(path).is_dir():
        if variable:
            return _fault(device, f"{named} is no folder", "no-sdk",
                          f"set {variable} to where the SDK is, or unset it")  # fmt: skip
        elsewhere = f"; elsewhere? set {root.variable}" if root.variable else ""
        return _fault(device, f"is not installed ({path} is not there)", "no-sdk",
                      f"{how_to_install(device)}{elsewhere}")  # fmt: skip
    if not any(Path(path).iterdir()):
        return _fault(device, f"{named} is an empty folder", "empty-sdk")
    missing = [name for name in root.holds if not Path(path, name).exists()]
    if missing:
        return _fault(device, f"{named} has no {', '.join(missing)}", "partial-sdk")
    return None


def _script(device: Device, sdk: devices.Sdk, root: Path, env: Mapping[str, str]) -> dict[str, str]:
    """What the SDK's script changes in the environment; empty without one."""
    if not sdk.script:
        return {}
    path = root / sdk.script
    if not path.is_file():
        raise _fault(device, f"has no {sdk.script}", "partial-sdk")
    return captured(path, env)


def captured(script: Path, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that sourcing ``script`` in bash sets or changes; `ToolchainError` if it fails.

    Variables that it removes are set to the empty text.
    """
    # Twice in one shell: what bash itself sets is in both and so in no difference.
    text = f"env -0; printf '\\0'; set --; . {shlex.quote(str(script))} >&2 || exit 97; env -0"
    try:
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-c", text], env=dict(env), capture_output=True,
            check=False, timeout=_TIMEOUT, stdin=subprocess.DEVNULL, cwd=script.parent,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"cannot be run: {error}", where=str(script), slug="sdk-script"
                             ) from error  # fmt: skip
    if ran.returncode != 0:
        said = ran.stderr.decode("utf-8", "replace").strip().splitlines()
        raise ToolchainError(
            f"fails with exit code {ran.returncode}" + (f": {said[-1]}" if said else ""),
            where=str(script),
            hint="source it in a shell to see; the SDK may be damaged",
            slug="sdk-script",
        )
    before, _, after = ran.stdout.decode("utf-8", "surrogateescape").partition("\0\0")
    old, new = _variables(before), _variables(after)
    changed = {name: value for name, value in new.items() if old.get(name) != value}
    changed |= {name: "" for name in old if name not in new}
    return {name: value for name, value in changed.items() if name not in _SHELLS_OWN}


def _variables(text: str) -> dict[str, str]:
    pairs = (word.partition("=") for word in text.split("\0") if "=" in word)
    return {name: value for name, _, value in pairs}


def _compiler(
    device: Device, probe: Probe, folders: list[Path], env: Mapping[str, str]
) -> tuple[str, str]:
    """The compiler's path and version, after it has compiled a line when the manifest wants so."""
    path, version = _version(device, probe, folders, env)
    if probe.suffix:
        _prove(device, path, probe.suffix, env)
    return path, version


def _version(
    device: Device, probe: Probe, folders: list[Path], env: Mapping[str, str]
) -> tuple[str, str]:
    """The compiler's path and what it tells of its version, which must be within the bounds."""
    search = os.pathsep.join([*map(str, folders), env.get("PATH", "")])
    path = shutil.which(probe.program, path=search)
    if path is None:
        raise _fault(device, f"there is no {probe.program}", "no-compiler")
    code, text = _run([path, *probe.arguments], env)
    found = re.search(probe.version, text)
    if code != 0 or found is None:
        said = (text.strip().splitlines() or ["it said nothing"])[-1]
        raise _fault(
            device, f"{path} does not tell its version: {said}", "bad-compiler",
            f"run {shlex.join([path, *probe.arguments])} to see",
        )  # fmt: skip
    version = found[1]
    if probe.least and _parts(version) < _parts(probe.least):
        raise _fault(device, f"{path} is {version}, {probe.least} is needed", "old-compiler")
    if probe.below and _parts(version) >= _parts(probe.below):
        raise _fault(
            device, f"{path} is {version}, too new: below {probe.below} is needed", "new-compiler"
        )
    return path, version


def _prove(device: Device, path: str, suffix: str, env: Mapping[str, str]) -> None:
    """Compile one function; a compiler that rejects the host's compiler says so here."""
    with tempfile.TemporaryDirectory(prefix="uniscale-probe-") as folder:
        source = Path(folder, f"probe{suffix}")
        source.write_text("#include <stddef.h>\nint probe(void) { return 0; }\n", encoding="ascii")
        ccbin = env.get("NVCC_CCBIN") or env.get("CUDAHOSTCXX")
        host = ["-ccbin", ccbin] if ccbin and suffix == ".cu" else []
        code, text = _run([path, *host, "-c", str(source), "-o", f"{source}.o"], env)
    if code == 0:
        return
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = next((line for line in lines if "error" in line.lower()), "it said nothing")
    if re.search(r"unsupported (GNU|clang) version", text):
        raise _fault(
            device, f"{path} does not work with this host compiler: {told}", "host-compiler",
            "apt-get install an older g++ and set CUDAHOSTCXX to it, or use a newer toolkit",
        )  # fmt: skip
    raise _fault(
        device, f"{path} cannot compile an empty function: {told}", "bad-compiler",
        f"try: echo 'int f() {{ return 0; }}' > x{suffix} && {path} -c x{suffix}",
    )  # fmt: skip


def _run(command: list[str], env: Mapping[str, str]) -> tuple[int, str]:
    try:
        ran = subprocess.run(
            command, env=dict(env), capture_output=True, text=True, errors="replace", check=False,
            timeout=_TIMEOUT, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return 124, f"no answer in {_TIMEOUT:.0f} s"
    except OSError as error:
        return 126, str(error)
    return ran.returncode, ran.stdout + ran.stderr


def driver_version(device: Device, environ: Mapping[str, str] | None = None) -> str:
    """The newest SDK version that this machine's driver runs; "" when nothing tells it."""
    probe = device.sdk.driver if device.sdk is not None else None
    env = os.environ if environ is None else environ
    path = shutil.which(probe.program, path=env.get("PATH")) if probe is not None else None
    if probe is None or path is None:
        return ""
    code, text = _run([path, *probe.arguments], env)
    found = re.search(probe.version, text)
    return found[1] if code == 0 and found is not None else ""


def _parts(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))
