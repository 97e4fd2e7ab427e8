"""The only prober of compilers and tools: what is there, what version, or how to get it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import ToolchainError, UniscaleError, raise_all
from uniscale_build.processors import cores

if TYPE_CHECKING:
    from uniscale_build.manifests.devices import Device

# language of CMake: (variable that overrides, names to look for, Debian package)
_COMPILERS = {
    "C": ("CC", ("cc", "gcc", "clang"), "gcc"),
    "CXX": ("CXX", ("c++", "g++", "clang++"), "g++"),
    "CUDA": ("CUDACXX", ("nvcc",), "nvidia-cuda-toolkit"),
    "HIP": ("HIPCXX", ("hipcc", "amdclang++"), "hipcc"),
}
# Variables that change what a compiler makes.
_FLAGS = ("CFLAGS", "CXXFLAGS", "CPPFLAGS", "LDFLAGS", "CUDAFLAGS", "HIPFLAGS")


@dataclass(frozen=True)
class Compiler:
    """A compiler that answered: its language, command, first version line and target."""

    language: str
    command: str
    version: str
    target: str


@dataclass(frozen=True)
class Toolchain:
    """What a native build uses; ``fingerprint`` is what of it can change the result."""

    compilers: tuple[Compiler, ...]
    machine: str
    libc: str
    flags: Mapping[str, str]
    sdk: Mapping[str, str] = field(default_factory=dict)  # name → version of the device's SDK
    sdk_label: str = ""  # its tag in a wheel's version, like cu130
    sdk_version: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # that the SDK needs for a build

    def fingerprint(self) -> dict[str, str]:
        """Name → value for cache keys and the record: no paths, no job counts."""
        found = {
            f"compiler.{item.language}": f"{item.version} ({item.target})"
            for item in self.compilers
        }
        found |= {"machine": self.machine, "libc": self.libc, **self.sdk}
        return found | {f"flags.{name}": value for name, value in self.flags.items()}


def _ask(command: Sequence[str], argument: str) -> str:
    try:
        ran = subprocess.run(
            [*command, argument], capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{command[0]} does not run: {error}", slug="bad-compiler") from error
    if ran.returncode != 0:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        raise ToolchainError(
            f"{shlex.join([*command, argument])} failed: {said[0] if said else 'it said nothing'}",
            slug="bad-compiler",
        )
    return ran.stdout.strip()


def find_compiler(language: str, environ: Mapping[str, str] | None = None) -> Compiler:
    """The compiler for a CMake language; `ToolchainError` says how to install one."""
    env = os.environ if environ is None else environ
    variable, names, package = _COMPILERS[language]
    given = shlex.split(env.get(variable, ""))
    for name in given[:1] or names:
        path = shutil.which(name, path=env.get("PATH"))
        if path:
            command = [path, *given[1:]]
            lines = _ask(command, "--version").splitlines()
            version = next((line for line in lines if "release" in line), lines[0] if lines else "")
            target = _ask(command, "-dumpmachine") if language in ("C", "CXX") else ""
            return Compiler(language, " ".join(command), version, target)
    looked = f"{variable}={given[0]}" if given else ", ".join(names)
    raise ToolchainError(
        f"there is no {language} compiler (looked for {looked})",
        hint=f"apt-get install {package}, or set {variable} to one",
        slug="no-compiler",
    )


def probe(
    languages: Sequence[str],
    environ: Mapping[str, str] | None = None,
    *,
    device: Device | None = None,
) -> Toolchain:
    """All compilers that ``languages`` need, and the SDK of ``device``; every fault is named."""
    from uniscale_build.manifests.sdk import Sdk, find_sdk

    env = dict(os.environ if environ is None else environ)
    errors: list[UniscaleError] = []
    sdk = Sdk("")
    if device is not None:
        sdk = find_sdk(device, env)
        env |= sdk.environment
    found = []
    for language in languages:
        try:
            found.append(find_compiler(language, env))
        except ToolchainError as error:
            errors.append(error)
    raise_all(errors)
    return Toolchain(
        compilers=tuple(found),
        machine=platform.machine(),
        libc="-".join(platform.libc_ver()),
        flags={name: env[name] for name in _FLAGS if env.get(name)},
        sdk=sdk.fingerprint(),
        sdk_label=sdk.label,
        sdk_version=sdk.version,
        environment=sdk.environment,
    )


def compiler_cache(choice: str) -> str | None:
    """The launcher for ``compiler-cache=``: a path, or None; an asked-for one must be there."""
    if choice == "none":
        return None
    for name in ("ccache", "sccache") if choice == "auto" else (choice,):
        if path := shutil.which(name):
            return path
    if choice == "auto":
        return None
    raise ToolchainError(
        f"{choice} is not installed",
        hint=f"apt-get install {choice}, or compiler-cache=auto",
        slug="no-compiler-cache",
    )


def default_jobs() -> int:
    """One job a core that we may use, and no more than one for each 1.5 GB of free memory."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        line = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        by_memory = int(line.split()[1]) * 1024 // 1_500_000_000
    except (OSError, StopIteration, ValueError):
        by_memory = cores()
    return max(1, min(cores(), by_memory))


def has_program(name: str, least: tuple[int, ...]) -> bool:
    """True when ``name`` is on PATH, runs, and is of version ``least`` or newer."""
    path = shutil.which(name)
    if path is None:
        return False
    try:
        text = _ask([path], "--version")
    except ToolchainError:
        return False
    found = re.search(r"(\d+(?:\.\d+)+)", text)
    return found is not None and tuple(int(n) for n in found[1].split(".")) >= least
