"""Finds source archives of Debian at the mirrors that the machine's apt is set up for."""

from __future__ import annotations

import os
import shutil
import subprocess

from uniscale_build.errors import SourceError

_NONE = "set UNISCALE_DEBIAN_MIRROR to the address of a mirror, the folder that holds pool/"


def mirrors() -> tuple[str, ...]:
    """The mirrors to ask, in order: ours by environment, else apt's by configuration."""
    given = os.environ.get("UNISCALE_DEBIAN_MIRROR", "")
    if not given and shutil.which("apt-get") is None:
        raise SourceError("no Debian mirror is known: there is no apt", hint=_NONE,
                          slug="no-mirror")  # fmt: skip
    if not given:
        # Of each repository that apt knows, once for each of its lists; no network is used.
        ran = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)"],
            capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        given = ran.stdout if ran.returncode == 0 else ""
    found = dict.fromkeys(url.rstrip("/") + "/" for url in given.split())
    if not found:
        raise SourceError("no Debian mirror is known: apt has no repository", hint=_NONE,
                          slug="no-mirror")  # fmt: skip
    return tuple(found)


def addresses(package: str, file: str) -> list[str]:
    """Where ``file`` of the source package may be, a mirror after the other; `SourceError`."""
    lead = package[:4] if package.startswith("lib") else package[:1]
    return [f"{mirror}pool/main/{lead}/{package}/{file}" for mirror in mirrors()]
