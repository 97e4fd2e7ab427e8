"""Several machines under one job: all reached, all checked, all started, all ended together.

Nothing starts before every machine has said that it can. When one fails, all end; when this
process or its connection goes, however it goes, every agent ends what it had started.
"""

from __future__ import annotations

import json
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from uniscale_build.errors import LaunchError, UniscaleError, raise_all

from uniscale.frozen import changed
from uniscale.jobs import logfile, signals, state
from uniscale.nodes.hostfile import Host
from uniscale.nodes.link import Link
from uniscale.nodes.nodes import RECORD, Node
from uniscale.talk import note

_REACH = 90.0  # seconds for all machines to answer
_SIGN = 5.0  # seconds between signs of life
_END = 20.0  # seconds for all machines to end: an agent gives its task ten


@dataclass
class Cluster:
    """The supervisor of one job on several machines."""

    job: state.Job
    nodes: Sequence[Node]
    python: str = sys.executable
    folder: str | None = None  # where each machine starts it; None: the login's home
    probe: str | None = None  # on the first machine: it works once this address answers there
    together: bool = False  # one that ends, even well, ends all
    on_ready: Callable[[], None] = lambda: None
    on_line: Callable[[bytes], None] | None = None  # what the first machine writes, as it comes
    on_look: Callable[[], None] = lambda: None  # several times a second, with on_line
    stopping: int | None = field(default=None, init=False)
    links: list[Link] = field(default_factory=list, init=False)
    _mark: str = field(default_factory=lambda: secrets.token_hex(16), init=False)
    _wakeup: int = field(default=-1, init=False)
    _signed: float = field(default=0.0, init=False)
    _read: int = field(default=0, init=False)

    def run(self) -> int:
        """Run until all have ended; 0 when all did well, 130 after Ctrl-C, 143 after SIGTERM.

        Raises `LaunchError` for machines that cannot be reached or refuse (nothing was started
        then), and for one that fails (everything has ended by then).
        """
        try:
            with signals.ending(self._end) as self._wakeup:
                self._open()
                if self._reach():
                    self._go()
                    self._watch()
        finally:
            self._close()
        failures: list[UniscaleError] = []
        if self.stopping is None:
            failures += [one for link in self.links if (one := link.failure()) is not None]
        raise_all(failures)
        return 128 + self.stopping if self.stopping is not None else 0

    def _end(self, number: int) -> None:
        self.stopping = number

    def _open(self) -> None:
        for node in self.nodes:
            log = self.job.folder / f"node-{node.rank}.log"
            self.links.append(Link.open(node.host, self.python, log, self._task(node)))
        self._changed()

    def _task(self, node: Node) -> dict[str, object]:
        return {
            "argv": list(node.argv),
            "environment": dict(node.environment),
            "local": dict(node.local),
            "head": node.head,
            "folder": self.folder,
            "mark": f"{self._mark}-{node.rank}",
            "probe": self.probe if node.rank == 0 else None,
        }

    def _reach(self) -> bool:
        deadline = time.monotonic() + _REACH
        while self.stopping is None and any(link.state == "reaching" for link in self.links):
            if time.monotonic() > deadline:
                raise_all([self._silent(link) for link in self.links if link.state == "reaching"])
            self._listen()
        refused = [link for link in self.links if link.state != "fit"]
        return self.stopping is None and not refused

    def _silent(self, link: Link) -> UniscaleError:
        what = f"{link.host.name} did not answer within {_REACH:g} s"
        return LaunchError(what, where=str(link.log), slug="no-node")

    def _go(self) -> None:
        self._note()
        for link in self.links:
            link.send({"go": True})

    def _watch(self) -> None:
        told = False
        while self.stopping is None and not all(link.over for link in self.links):
            self._listen()
            if any(link.failure() is not None for link in self.links):
                return
            if self.together and any(link.over for link in self.links):
                return
            if not told and self._works():
                told = True
                self.on_ready()

    def _works(self) -> bool:
        if self.probe is not None:
            return self.links[0].state == "ready"
        return all(link.pid or link.over for link in self.links)

    def _listen(self) -> None:
        now = time.monotonic()
        if now - self._signed > _SIGN:
            self._signed = now
            for link in self.links:
                logfile.rotate(link.log)
                if link.state != "reaching":
                    link.send(b"\n")
        open_links = {link.fileno: link for link in self.links if not link.over}
        patience = 0.2 if self.on_line else _SIGN
        before = [(link.state, link.pid) for link in self.links]
        for number in signals.wait(self._wakeup, patience, tuple(open_links)):
            open_links[number].hear()
        if before != [(link.state, link.pid) for link in self.links]:
            self._changed()
            self._note()
        self._follow()

    def _follow(self) -> None:
        self.on_look()
        if self.on_line is None or not self.links:
            return
        self._read = logfile.resumed(self.links[0].log, self._read)
        with self.links[0].log.open("rb") as stream:
            stream.seek(self._read)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            self.on_line(line)

    def _changed(self) -> None:
        self.job = changed(self.job, processes=tuple(link.told() for link in self.links))
        try:
            self.job.save()
        except OSError as error:
            note(f"cannot note what runs: {error.strerror}")

    def _note(self) -> None:
        """What `uniscale stop` would need if we were gone: machines, pids, start times, mark."""
        told = [
            {
                **asdict(link.host),
                "pid": link.pid,
                "start": link.start,
                "mark": f"{self._mark}-{rank}",
            }
            for rank, link in enumerate(self.links)
            if not link.over
        ]
        path = self.job.folder / RECORD
        if told:
            facts = {"python": self.python, "nodes": told}
            state.write(path, json.dumps(facts))
        else:
            path.unlink(missing_ok=True)

    def _close(self) -> None:
        self._follow()
        for link in self.links:
            link.send({"stop": True})
        deadline = time.monotonic() + _END
        waiting = [link for link in self.links if link.pid and not link.over]
        try:
            while waiting and time.monotonic() < deadline:
                _hear(waiting)
                waiting = [link for link in waiting if not link.over]
            # What it says about being ended by us is of no interest to anybody.
            if not any(link.asked for link in self.links[:1]):
                self._follow()
        finally:
            for link in self.links:
                link.close()
        if any(link.pid for link in self.links):
            self._left()
        else:
            (self.job.folder / RECORD).unlink(missing_ok=True)
        self._changed()

    def _left(self) -> None:
        """A machine that broke off may still run something for a minute: its record stays."""
        left = [link for link in self.links if link.pid and link.state != "ended"]
        for link in left:
            note(
                f"{link.host.name} ends its part by itself within a minute; make sure with "
                f"uniscale stop {self.job.id}"
            )
        if not left:
            (self.job.folder / RECORD).unlink(missing_ok=True)


def _hear(links: Sequence[Link]) -> None:
    speaking = {link.fileno: link for link in links}
    for number in signals.wait(None, 0.5, tuple(speaking)):
        speaking[number].hear()


def clear(folder: Path) -> int:
    """End what the record in ``folder`` says may be left on other machines; how much there was.

    Raises `LaunchError` for every machine that cannot be reached; the record stays then.
    """
    path = folder / RECORD
    told = json.loads(path.read_text(encoding="utf-8"))
    links = []
    for one in told["nodes"]:
        host = Host(**{key: one[key] for key in Host.__dataclass_fields__})
        links.append(Link.open(host, told["python"], folder / "stop.log", {"sweep": one["mark"]}))
    deadline = time.monotonic() + _REACH
    try:
        while (waiting := [one for one in links if not one.over]) and time.monotonic() < deadline:
            _hear(waiting)
    finally:
        for link in links:
            link.close()
    unreached = [
        LaunchError(
            f"{link.host.name} cannot be reached: what it may still run ends by itself",
            where=str(link.log), slug="no-node",
        )
        for link in links
        if link.state != "ended"
    ]  # fmt: skip
    raise_all(unreached)
    path.unlink()
    return sum(int(link.facts.get("swept", 0)) for link in links)
