"""The compatibility tag of a wheel, computed from the ELF files in it and never chosen.

The platform follows the manylinux policies (PEP 600) as auditwheel reads them: which libraries
every Linux has, and which symbol versions come with which glibc generation.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from uniscale_build.build.elf import HOST_MACHINES, Elf
from uniscale_build.errors import UniscaleError, WheelError, raise_all

# Libraries that a manylinux wheel may expect of the system; with the first N that allows each.
_POLICY_LIBRARIES = {
    **dict.fromkeys(
        (
            "libGL.so.1", "libICE.so.6", "libSM.so.6", "libX11.so.6", "libXext.so.6",
            "libXrender.so.1", "libanl.so.1", "libatomic.so.1", "libc.so.6", "libdl.so.2",
            "libgcc_s.so.1", "libglib-2.0.so.0", "libgobject-2.0.so.0", "libgthread-2.0.so.0",
            "libm.so.6", "libnsl.so.1", "libpthread.so.0", "libresolv.so.2", "librt.so.1",
            "libstdc++.so.6", "libutil.so.1", "libz.so.1",
        ),
        5,
    ),
    "libexpat.so.1": 12,
    "libmvec.so.1": 24,
}  # fmt: skip
SYSTEM_LIBRARIES = frozenset(_POLICY_LIBRARIES)

# manylinux_2_N -> the newest symbol versions that arrive with it; a row holds what changes.
# glibc's own is 2.N. These are x86_64's rows: others' are the same or laxer, but for _LATER.
_STEPS: dict[int, dict[str, str]] = {
    5: {"GLIBCXX": "3.4.8", "CXXABI": "1.3.1", "GCC": "4.2.0"},
    12: {"GLIBCXX": "3.4.13", "CXXABI": "1.3.3", "GCC": "4.3.0", "ZLIB": "1.2.2.4"},
    17: {"GLIBCXX": "3.4.19", "CXXABI": "1.3.7", "GCC": "4.8.0", "ZLIB": "1.2.5.2"},
    24: {"GLIBCXX": "3.4.22", "CXXABI": "1.3.10", "LIBATOMIC": "1.2"},
    26: {},
    27: {"GLIBCXX": "3.4.24", "CXXABI": "1.3.11", "GCC": "7.0.0", "ZLIB": "1.2.9"},
    28: {},
    31: {"GLIBCXX": "3.4.28", "CXXABI": "1.3.12"},
    34: {"GLIBCXX": "3.4.29", "CXXABI": "1.3.13"},
    35: {"GLIBCXX": "3.4.30", "GCC": "12.0.0"},
    36: {},
    37: {"ZLIB": "1.2.12"},
    38: {},
    39: {"GLIBCXX": "3.4.33", "CXXABI": "1.3.15", "GCC": "14.0.0"},
    40: {},
    41: {},
}
# Versions that are names and not numbers.
_NAMED_VERSIONS = {"CXXABI_TM_1": 17, "CXXABI_FLOAT128": 24, "GLIBC_ABI_DT_RELR": 36}
_LATER = {("riscv64", "GLIBC_ABI_DT_RELR"): 38, ("loongarch64", "GLIBCXX_3.4.33"): 40}
_PREFIXES = ("GLIBC", "GLIBCXX", "CXXABI", "GCC", "LIBATOMIC", "ZLIB")
# The first policy that exists for an architecture.
_FIRST = {"x86_64": 5, "i686": 5, "riscv64": 31, "loongarch64": 36}

_MODULE = re.compile(
    r"\.(?P<abi>cpython-(?P<python>\d{2,3}[a-z]*)(?:-[^.]+)?|abi3|[a-z]+\d[^.]*)\.so\Z"
)
_ABI3 = re.compile(r"cp3(\d{1,2})")


def declared_abi3(prefix: Path) -> str | None:
    """The newest ``cp3X`` that a dist-info in ``prefix`` declares with ``abi3``; None without one.

    Upstream's own build knows for which limited API it compiled; files do not tell.
    """
    found = [
        int(declared[1])
        for path in prefix.glob("*.dist-info/WHEEL")
        for declared in re.finditer(r"^Tag: cp3(\d+)-abi3-", path.read_text("utf-8"), re.MULTILINE)
    ]
    return f"cp3{max(found)}" if found else None


def is_system(library: str) -> bool:
    """True for a library (by SONAME) that every manylinux system has, the loader included."""
    return (
        library in SYSTEM_LIBRARIES
        or library.startswith("ld-linux")
        or library in ("ld64.so.1", "ld64.so.2")
    )


def wheel_tag(
    elfs: Iterable[Elf],
    *,
    files: Iterable[str],
    allowed_external: frozenset[str] = frozenset(),
    abi3: str | None = None,
    python: tuple[int, int] | None = None,
) -> str:
    """The tag ``python-abi-platform`` of a wheel that holds ``elfs`` and ``files`` (names in it).

    ``allowed_external`` names libraries that the vendor's runtime provides: with one of them
    needed, the platform is plain ``linux_<machine>``. ``abi3`` (``cp39``) is the limited API that
    ``.abi3.so`` modules were built for (see `declared_abi3`); without it, and for modules whose
    name has no ABI, it is the Python that builds (``python``, default: this one), which is never
    too low.
    `WheelError` for libraries from nowhere, several machines, or modules of several Pythons.
    """
    host = [elf for elf in elfs if elf.machine in HOST_MACHINES]
    if not host:
        return "py3-none-any"
    errors: list[UniscaleError] = []
    interpreter = _python_tag(host, files, abi3, python or sys.version_info[:2], errors)
    machine = _machine(host, errors)
    external = external_libraries(host)
    errors.extend(
        unknown_library(library, users)
        for library, users in external.items()
        if not is_system(library) and library not in allowed_external
    )
    raise_all(errors)
    step = manylinux_step(host, external, machine)
    platform = f"linux_{machine}" if step is None else f"manylinux_2_{step}_{machine}"
    return f"{interpreter}-{platform}"


def external_libraries(elfs: Sequence[Elf]) -> dict[str, tuple[str, ...]]:
    """Libraries that ``elfs`` need and are not among them, each with the files that need it."""
    inside = {elf.path.name for elf in elfs} | {elf.soname for elf in elfs}
    users: dict[str, list[str]] = {}
    for elf in elfs:
        for library in elf.needed:
            if library not in inside:
                users.setdefault(library, []).append(str(elf.path))
    return {library: tuple(sorted(users[library])) for library in sorted(users)}


def unknown_library(library: str, users: Sequence[str]) -> WheelError:
    """The error for a needed library that neither payload, system nor vendor runtime has."""
    more = f" and {len(users) - 1} more" if len(users) > 1 else ""
    return WheelError(
        f"{library} is needed and nothing provides it: it is not in the payload, not part of "
        "every Linux, and not declared as the vendor's",
        where=f"{users[0]}{more}",
        hint="link it statically, install it into the payload, or list it under the device's "
        "external libraries when the vendor's runtime brings it",
        slug="unknown-library",
    )


def manylinux_step(elfs: Iterable[Elf], external: Iterable[str], machine: str) -> int | None:
    """N of the oldest ``manylinux_2_N`` that ``elfs`` run on; None when no policy covers them.

    Zlib's unversioned private symbols, which auditwheel looks at too, are not: no build that
    links zlib's public header can name them.
    """
    step = _FIRST.get(machine, 17)
    for library in external:
        if library in _POLICY_LIBRARIES:
            step = max(step, _POLICY_LIBRARIES[library])
        elif not is_system(library):
            return None
    for elf in elfs:
        if elf.isa_level > 1:
            return None
        for library, versions in elf.versions.items():
            if library.startswith("ld-linux") or library in ("ld64.so.1", "ld64.so.2"):
                continue
            for version in versions:
                needed = version_step(version, machine)
                if needed is None:
                    return None
                step = max(step, needed)
    return step


def version_step(version: str, machine: str = "x86_64") -> int | None:
    """N of the first policy with symbol version ``GLIBCXX_3.4.29``; 0 for versions no policy rules.

    None for versions that no policy allows (``GLIBC_PRIVATE``, one newer than the newest policy).
    """
    if (machine, version) in _LATER:
        return _LATER[machine, version]
    if version in _NAMED_VERSIONS:
        return _NAMED_VERSIONS[version]
    prefix, _, number = version.partition("_")
    if prefix not in _PREFIXES:
        return 0
    if not re.fullmatch(r"\d+(\.\d+)*", number):
        return None
    wanted = _numbers(number)
    newest: tuple[int, ...] = ()
    for step, changes in _STEPS.items():
        newest = (2, step) if prefix == "GLIBC" else _numbers(changes.get(prefix, "")) or newest
        if wanted <= newest:
            return step
    return None


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")) if text else ()


def _machine(elfs: Sequence[Elf], errors: list[UniscaleError]) -> str:
    """The one machine of all ``elfs``; an error is noted when there are several."""
    examples = {elf.machine: elf.path for elf in reversed(elfs)}
    if len(examples) > 1:
        listed = ", ".join(f"{name} ({examples[name]})" for name in sorted(examples))
        errors.append(
            WheelError(
                f"one wheel cannot hold code for several machines: {listed}",
                hint="was a file of another build left in the install folder?",
                slug="mixed-machines",
            )
        )
    return elfs[0].machine


def _python_tag(
    elfs: Sequence[Elf],
    files: Iterable[str],
    abi3: str | None,
    python: tuple[int, int],
    errors: list[UniscaleError],
) -> str:
    """``py3-none``, ``cp3X-abi3`` or ``cp3X-cp3X``: the strictest that the modules ask for."""
    running = f"cp{python[0]}{python[1]}"
    pythons: dict[str, str] = {}
    limited: list[str] = []
    for name in sorted(files):
        found = _MODULE.search(PurePosixPath(name).name)
        if found is None:
            continue
        if found["abi"] == "abi3":
            limited.append(name)
        elif found["python"] is not None:
            pythons.setdefault(f"cp{found['python']}", name)
        elif found["abi"].startswith(("pypy", "graalpy", "abi3t")):
            errors.append(_foreign(name, found["abi"]))
    for elf in elfs:
        if elf.python_module and elf.path.name.count(".") == 1:
            pythons.setdefault(running, str(elf.path))
    if len(pythons) > 1:
        listed = ", ".join(f"{tag} ({pythons[tag]})" for tag in sorted(pythons))
        errors.append(
            WheelError(
                f"one wheel cannot hold modules for several Pythons: {listed}",
                hint="build with one interpreter, or against the limited API (abi3)",
                slug="mixed-pythons",
            )
        )
    if pythons:
        tag = min(pythons)
        # Free-threaded and debug builds carry their letters in the ABI and not in the version.
        return f"{tag.rstrip('abcdefghijklmnopqrstuvwxyz')}-{tag}"
    if not limited:
        return "py3-none"
    return f"{_floor(abi3, running, errors)}-abi3"


def _floor(abi3: str | None, running: str, errors: list[UniscaleError]) -> str:
    if abi3 is None:
        return running
    if _ABI3.fullmatch(abi3) is None:
        errors.append(
            WheelError(
                f"{abi3!r} is no limited API version",
                hint="it is written like cp39",
                slug="bad-abi3",
            )
        )
    return abi3


def _foreign(name: str, abi: str) -> WheelError:
    return WheelError(
        f"no tag can be computed for a module with ABI {abi!r}",
        where=name,
        hint="CPython's own ABI (.cpython-3XY-….so) and abi3 are known",
        slug="unknown-abi",
    )
