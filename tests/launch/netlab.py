"""Two machines on this one: network namespaces with a real sshd each, and one to launch from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from .helpers import until

SSHD = "/usr/sbin/sshd"
NETWORK = "10.77.0"


def missing() -> str | None:
    """Why there can be no laboratory here; None when there can."""
    for program in ("ip", "nsenter", "ssh", "ssh-keygen", SSHD):
        if shutil.which(program) is None:
            return f"there is no {program}"
    if os.geteuid() != 0:
        return "network namespaces and sshd need root"
    name = f"us{uuid.uuid4().hex[:8]}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode != 0:
        return "this machine allows no network namespaces"
    subprocess.run(["ip", "netns", "del", name], check=True)
    return None


@dataclass
class Lab:
    """Machines ``10.77.0.1`` and ``10.77.0.2``, a network between them, and keys that fit."""

    root: Path
    name: str = field(default_factory=lambda: f"us{uuid.uuid4().hex[:8]}")
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def hosts(self) -> list[str]:
        return [f"{NETWORK}.1", f"{NETWORK}.2"]

    @property
    def environ(self) -> dict[str, str]:
        """What makes `uniscale` use this laboratory's keys."""
        return {"UNISCALE_SSH": f"ssh -F {self.root}/ssh_config"}

    def at(self, machine: str) -> list[str]:
        """The words before a command that is to run at ``machine`` (head, 1, 2)."""
        return ["nsenter", f"--net=/run/netns/{self.name}{machine}", "--"]

    def build(self) -> None:
        for machine in ("head", "1", "2"):
            _run("ip", "netns", "add", f"{self.name}{machine}")
            self._inside(machine, "ip", "link", "set", "lo", "up")
        self._inside("head", "ip", "link", "add", "br0", "type", "bridge")
        self._inside("head", "ip", "address", "add", f"{NETWORK}.254/24", "dev", "br0")
        self._inside("head", "ip", "link", "set", "br0", "up")
        for machine in ("1", "2"):
            other = f"{self.name}{machine}"
            peer = ("peer", "name", "wire0", "netns", other)
            self._inside("head", "ip", "link", "add", f"v{machine}", "type", "veth", *peer)
            self._inside("head", "ip", "link", "set", f"v{machine}", "master", "br0", "up")
            self._inside(machine, "ip", "address", "add", f"{NETWORK}.{machine}/24", "dev", "wire0")
            self._inside(machine, "ip", "link", "set", "wire0", "up")
        self._serve()

    def _inside(self, machine: str, *words: str) -> None:
        _run(*self.at(machine), *words)

    def _serve(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd asks for it, Debian's service makes it
        for key in ("host_key", "key"):
            words = ("-q", "-t", "ed25519", "-N", "", "-C", "uniscale test", "-f")
            _run("ssh-keygen", *words, str(self.root / key))
        (self.root / "sshd_config").write_text(
            f"HostKey {self.root}/host_key\nAuthorizedKeysFile {self.root}/key.pub\n"
            "StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin prohibit-password\n"
            "PasswordAuthentication no\n"
        )
        (self.root / "ssh_config").write_text(
            f"IdentityFile {self.root}/key\nIdentitiesOnly yes\nUserKnownHostsFile /dev/null\n"
            "StrictHostKeyChecking no\nLogLevel ERROR\n"
        )
        for machine in ("1", "2"):
            server = [*self.at(machine), SSHD, "-D", "-e", "-f", str(self.root / "sshd_config")]
            with (self.root / f"sshd{machine}.log").open("wb") as log:
                self.servers.append(subprocess.Popen(server, stderr=log))
        for machine, host in zip(("1", "2"), self.hosts, strict=True):
            probe = f"import socket; socket.create_connection(('{host}', 22), 1)"
            knock = [*self.at("head"), sys.executable, "-S", "-c", probe]
            until(partial(_succeeds, knock), f"sshd {machine} answers")

    @contextmanager
    def cut(self, machine: str) -> Iterator[None]:
        """The plug of ``machine`` is pulled."""
        self._inside("head", "ip", "link", "set", f"v{machine}", "down")
        try:
            yield
        finally:
            self._inside("head", "ip", "link", "set", f"v{machine}", "up")

    def close(self) -> None:
        for server in self.servers:
            server.kill()
            server.wait()
        for machine in ("head", "1", "2"):
            name = f"{self.name}{machine}"
            pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
            for pid in pids.stdout.split():
                subprocess.run(["kill", "-9", pid], capture_output=True)
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


@contextmanager
def laboratory(root: Path) -> Iterator[Lab]:
    """A laboratory in the folder ``root``; gone, with all that ran in it, at the end."""
    root.mkdir(parents=True)
    lab = Lab(root)
    try:
        lab.build()
        yield lab
    finally:
        lab.close()


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def _succeeds(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True).returncode == 0
