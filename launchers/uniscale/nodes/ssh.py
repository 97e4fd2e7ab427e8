"""Reaches a machine: OpenSSH (or, for this machine, a plain process) with our agent behind it.

The only words that a remote shell ever sees are the interpreter's path and one fixed line of
Python. Commands, variables and paths follow as JSON on the agent's standard input.
"""

from __future__ import annotations

import os
import shlex
import socket
from pathlib import Path

from uniscale_build.errors import SettingsError

from uniscale.nodes.hostfile import Host

VARIABLE = "UNISCALE_SSH"
AGENT = Path(__file__).with_name("node_agent.py")
# No quotes but double ones and no newline: it is the same word in every shell.
_FIRST = (
    "import sys;f=sys.stdin.buffer;"
    'exec(compile(f.read(int(f.readline() or 0)),"uniscale-node","exec"))'
)
_OPTIONS = (
    *("-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"),
)


def command(host: Host, python: str) -> list[str]:
    """The words that start the agent on ``host`` with the interpreter ``python`` there.

    ``UNISCALE_SSH`` replaces ``ssh`` (``ssh -F my-config``, a wrapper), as GIT_SSH_COMMAND does.
    """
    python = host.python or python
    if is_here(host):
        return [python, "-c", _FIRST]
    words = [*_program(), *_OPTIONS]
    words += ["-p", str(host.port)] if host.port else []
    words += ["-l", host.user] if host.user else []
    return [*words, "--", host.name, f"exec {shlex.quote(python)} -c {shlex.quote(_FIRST)}"]


def opening() -> bytes:
    """What the agent is sent first: its own text."""
    text = AGENT.read_bytes()
    return b"%d\n" % len(text) + text


def is_here(host: Host) -> bool:
    """True when ``host`` is this machine: its name, or an address that we bear."""
    if host.user or host.port:
        return False  # somebody else's login here, or another server than this machine's
    if host.name in ("localhost", socket.gethostname()):
        return True
    try:
        family, kind, _, _, place = socket.getaddrinfo(
            host.name, 0, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
        )[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except OSError:
        return False
    return True


def _program() -> list[str]:
    try:
        words = shlex.split(os.environ.get(VARIABLE, "ssh"))
    except ValueError as error:
        raise SettingsError(
            f"{VARIABLE} cannot be read: {error}",
            where=f"environment variable {VARIABLE}",
            slug="bad-ssh",
        ) from error
    return words or ["ssh"]
