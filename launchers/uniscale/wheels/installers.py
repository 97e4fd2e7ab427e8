"""pip or uv, whichever there is: what puts wheels into an environment and takes them out.

They are run, never imported; what they say goes to standard error line by line, and the reason of
a failure into our error.
"""

from __future__ import annotations

import os
import re
import shutil
import site
import subprocess
import sys
import sysconfig
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import LaunchError

_TAIL = 12  # lines of the installer that an error repeats
# By either of these the owner of a system's Python lets installers change it.
_ALLOWED = ("PIP_BREAK_SYSTEM_PACKAGES", "UV_BREAK_SYSTEM_PACKAGES")
# These would put the wheel where no payload is looked for, or show packages that are not there.
_ELSEWHERE = ("PYTHONPATH", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "UV_TARGET", "UV_PREFIX")


@dataclass(frozen=True)
class Installer:
    """How to run it: ``head`` are the words before install or uninstall."""

    name: str  # pip or uv
    head: tuple[str, ...]
    python: str  # the interpreter of the environment that it changes

    def install(self, wanted: Wanted) -> list[str]:
        """The command that installs ``wanted``."""
        words = [*self.head, "install"]
        if self.name == "uv":
            words += ["--python", self.python]
            words += ["--reinstall"] if wanted.again else []
        else:
            words += ["--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
            words += ["--force-reinstall"] if wanted.again else []
        words += ["--no-deps"] if wanted.alone else []
        if wanted.constraints is not None:
            words += ["-c", str(wanted.constraints)]
        words += ["--no-index"] if wanted.offline else []
        words += ["--find-links", str(wanted.links)] if wanted.links is not None else []
        return [*words, *wanted.requirements]

    def uninstall(self, name: str) -> list[str]:
        """The command that removes a distribution."""
        if self.name == "uv":
            return [*self.head, "uninstall", "--python", self.python, name]
        return [*self.head, "uninstall", "-y", "--disable-pip-version-check", name]


@dataclass(frozen=True)
class Wanted:
    """What is to be in an environment afterwards."""

    requirements: tuple[str, ...]  # name @ file:///…#sha256=…
    constraints: Path | None = None
    offline: bool = False
    links: Path | None = None  # a folder of wheels for what they require
    alone: bool = False  # without what they require
    again: bool = False  # replace them where the same version is there


def find(python: str, environ: Mapping[str, str] | None = None) -> Installer:
    """The installer for the environment of ``python``: its own pip, else uv, else our pip.

    `LaunchError` when there is none.
    """
    env = os.environ if environ is None else environ
    if _runs([python, "-m", "pip", "--version"]):
        return Installer("pip", (python, "-m", "pip"), python)
    if uv := shutil.which("uv", path=env.get("PATH")):
        return Installer("uv", (uv, "pip"), python)
    if python != sys.executable:
        if _runs([sys.executable, "-m", "uv", "--version"]):
            return Installer("uv", (sys.executable, "-m", "uv", "pip"), python)
        # pip learnt to change another environment with 22.3.
        if _runs([sys.executable, "-m", "pip", "--python", python, "--version"]):
            return Installer("pip", (sys.executable, "-m", "pip", "--python", python), python)
        if _runs([python, "-m", "ensurepip"]):
            return Installer("pip", (python, "-m", "pip"), python)
    elif _runs([python, "-m", "uv", "--version"]):
        return Installer("uv", (python, "-m", "uv", "pip"), python)
    raise LaunchError(
        "there is neither pip nor uv to install with",
        where=python,
        hint=f"{python} -m ensurepip\nor install uv, which needs no pip: it only has to be on PATH",
        slug="no-installer",
    )


def _runs(command: Sequence[str]) -> bool:
    try:
        ran = subprocess.run(
            command, capture_output=True, check=False, stdin=subprocess.DEVNULL, timeout=120,
            env=_environment(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return ran.returncode == 0


def _environment() -> dict[str, str]:
    """Ours, without what makes an installer look, or write, elsewhere; pip and uv are allowed the
    same."""
    found = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
    return found | (dict.fromkeys(_ALLOWED, "1") if _owner_allows() else {})


def _owner_allows() -> bool:
    """True when the user says that a system's Python may be changed."""
    off = ("", "0", "f", "false", "n", "no", "off")
    return any(os.environ.get(key, "").lower() not in off for key in _ALLOWED)


def check_writable() -> None:
    """`LaunchError` when this Python's packages are the system's, or cannot be written.

    Asked before anything is downloaded: an installer would find out half-way.
    """
    in_venv = sys.prefix != sys.base_prefix
    marker = Path(sysconfig.get_path("stdlib")) / "EXTERNALLY-MANAGED"
    if not in_venv and marker.is_file() and not _owner_allows():
        raise LaunchError(
            "this Python belongs to the system, whose own tools install its packages (PEP 668)",
            where=str(marker),
            hint="add --isolated: an environment of its own, which uniscale finds\n"
            "or work in one: python3 -m venv ENV",
            slug="externally-managed",
        )
    folder = Path(sysconfig.get_path("purelib"))
    if not in_venv and site.ENABLE_USER_SITE:
        return  # pip goes to the user's own folder when it may not write here
    if not os.access(folder, os.W_OK | os.X_OK):
        raise LaunchError(
            "this environment cannot be written",
            where=str(folder),
            hint="add --isolated: an environment of its own below your data folder",
            slug="read-only",
        )


def run(command: Sequence[str], *, what: str, offline: bool = False, bound: bool = False) -> None:
    """Run an installer's command; `LaunchError` with its own reason when it fails.

    A ``bound`` one dies when we are killed, as what it fills is then nobody's. One that changes
    this environment is left to finish: a half-installed package would be worse.
    """
    from uniscale.jobs import run as processes

    tail: deque[str] = deque(maxlen=_TAIL)
    try:
        process = subprocess.Popen(
            list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=_environment(),
            stdin=subprocess.DEVNULL, errors="replace",
            preexec_fn=processes.bound() if bound else None,  # safe: we have one thread
        )  # fmt: skip
    except OSError as error:
        raise LaunchError(f"{command[0]} cannot be run: {error.strerror}", slug="no-installer"
                          ) from error  # fmt: skip
    assert process.stdout is not None
    try:
        for line in process.stdout:
            text = line.rstrip()
            if text:
                tail.append(text)
                print(f"  {text}", file=sys.stderr, flush=True)
        code = process.wait()
    except BaseException:
        process.terminate()  # Ctrl-C: pip and uv take back what they have begun
        process.wait()
        raise
    if code == 0:
        return
    lines = list(tail)
    # uv tells its reason below the word error, pip on the same line.
    first = next((n for n, line in enumerate(lines) if re.match(r"\W*(?i:error)\b", line)), -4)
    said = "\n".join(lines[first:]) or f"it ended with {code}"
    more = "\nit may not use the network (--offline)" if offline else ""
    raise LaunchError(
        f"{what} failed", where=os.path.basename(command[0]),
        hint=said + more, slug="install-failed",
    )  # fmt: skip
