"""The launcher's end of one machine of a job: its agent, what it said, and its log."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniscale_build.errors import LaunchError

from uniscale.jobs import run
from uniscale.jobs.state import Process, started
from uniscale.nodes import ssh
from uniscale.nodes.hostfile import Host

_UNREACHED = 255  # exit code of ssh for a machine that it cannot reach


@dataclass
class Link:
    """One machine: reaching it, what runs there, how that ended."""

    host: Host
    log: Path
    process: subprocess.Popen[bytes]
    task: dict[str, object]  # what the agent is told once it is there
    rest: bytes = b""
    state: str = "reaching"  # then fit, starting, ready, ended; or refused, lost
    pid: int = 0  # there
    start: int = 0  # of that pid, in clock ticks since that machine's boot
    code: int | None = None  # how it ended
    asked: bool = False  # it ended because we said so
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, host: Host, python: str, log: Path, task: dict[str, object]) -> Link:
        """Begin to reach ``host``; its output and ssh's words go to ``log``.

        Raises `LaunchError` when ssh itself cannot be started.
        """
        words = ssh.command(host, python)
        try:
            with log.open("ab") as stream:
                process = subprocess.Popen(
                    words,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stream,
                    bufsize=0,
                    preexec_fn=run.bound(),  # safe: this process has one thread
                )
        except OSError as error:
            hint = "install OpenSSH's client" if words[0] == "ssh" else None
            raise LaunchError(
                f"{words[0]} cannot be started: {error.strerror}", where=host.name, hint=hint,
                slug="no-ssh",
            ) from error  # fmt: skip
        link = cls(host, log, process, task)
        link.send(ssh.opening())
        return link

    @property
    def fileno(self) -> int:
        """What becomes readable when the machine says something."""
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    @property
    def over(self) -> bool:
        """True when nothing more comes from this machine."""
        return self.state in ("ended", "lost", "refused")

    def send(self, data: bytes | dict[str, object]) -> None:
        """Say something; that the other end has gone shows when it is read."""
        if isinstance(data, dict):
            data = (json.dumps(data) + "\n").encode()
        assert self.process.stdin is not None
        with suppress(OSError, ValueError):
            while data:
                data = data[self.process.stdin.write(data) or 0 :]

    def hear(self) -> None:
        """Take in what the machine said; its end too."""
        data = os.read(self.fileno, 65536)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            # What a login shell prints before the agent begins is no answer.
            with suppress(ValueError, TypeError):
                self._told(json.loads(line))
        if not data and not self.over:
            self.state = "lost"
            self.process.wait()

    def _told(self, facts: dict[str, Any]) -> None:
        self.facts.update(facts)
        if "hello" in facts:
            # Not before: what reads the agent's text would swallow the line behind it.
            self.send(self.task)
        elif "refused" in facts:
            self.state, self.problems = "refused", [str(one) for one in facts["refused"]]
        elif "fit" in facts:
            self.state = "fit"
        elif "started" in facts:
            self.state, self.pid, self.start = "starting", facts["started"], facts["at"]
        elif "ready" in facts:
            self.state = "ready"
        elif "ended" in facts or "swept" in facts:
            self.state, self.code = "ended", facts.get("ended", 0)
            self.asked = bool(facts.get("asked"))

    def told(self) -> Process:
        """What `uniscale ps` shows: the machine, and the process here that leads to it."""
        pid = self.process.pid
        return Process(
            title=self.host.name,
            pid=pid,
            start=started(pid) or 0,
            port=0,
            state=self.state,
            restarts=0,
            log=str(self.log),
        )

    def failure(self) -> LaunchError | None:
        """Why this machine did not do its part; None when it did, or was told to end."""
        if self.state == "refused":
            what = f"{self.host.name} cannot start it: {'; '.join(self.problems)}"
            hint = "every machine needs the same environment at the same path"
            return LaunchError(what, where=self.host.name, hint=hint, slug="bad-node")
        if self.state == "lost":
            return self._lost()
        if self.state != "ended" or self.code == 0 or self.asked:
            return None
        code = self.code or 0
        told = f"exit code {code}" if code >= 0 else f"killed by {run.signal_name(-code)}"
        return self._logged(f"{self.host.name} ended early ({told})", "node-died")

    def _lost(self) -> LaunchError:
        if self.pid:
            return self._logged(f"the connection to {self.host.name} broke off", "node-lost")
        if self.process.returncode == _UNREACHED:
            return self._logged(f"ssh does not reach {self.host.name}", "no-node")
        what = f"{self.host.name} has no Python that runs our agent"
        return self._logged(what, "no-node", "name its interpreter: python=/path in the hostfile")

    def _logged(self, what: str, slug: str, hint: str = "") -> LaunchError:
        last = run.tail(self.log)
        lines = ["its last lines:", *last] if last else []
        hints = "\n".join(filter(None, [hint, *lines]))
        return LaunchError(what, where=str(self.log), hint=hints or None, slug=slug)

    def close(self) -> None:
        """Let go: the agent ends what it started when its input closes."""
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
