"""Several engines behind one address: started, probed, started again, and stopped together.

One thread and one loop: a signal (an engine's death is one too) or a deadline wakes it. Engines
that can work are named to the gateway; one that dies is taken out at once and comes back later.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from uniscale import ports
from uniscale.engines.engines import Command
from uniscale.frozen import changed
from uniscale.jobs import logfile, run, signals, state, warden
from uniscale.serving import client, gateway
from uniscale.talk import note

_GRACE = 10.0  # seconds between SIGTERM and SIGKILL
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before an engine is started again
_STEADY = 1.0  # seconds of work after which a death says nothing about the next start
_HOPELESS = 3  # deaths in a row of an engine that never worked
_PROBE, _CHECK = 0.05, 5.0  # seconds between probes of an engine that loads, that works
_DEAF = 6  # probes without an answer before an engine that works counts as hung


@dataclass
class Worker:
    """One engine (or the gateway) and what became of it."""

    title: str
    make: Callable[[int], Command]  # its command at a port
    port: int
    log: Path
    start_timeout: float
    routed: bool = True  # False for the gateway: nothing is routed to it
    fixed: bool = False  # its port was promised to clients
    tls: bool = False
    command: Command = field(init=False)
    child: run.Child | None = None
    ready: bool = False
    worked: bool = False
    ready_since: float = 0.0
    deaths: int = 0  # in a row, of starts that did not come to work
    restarts: int = 0
    since: float = 0.0
    again: float = 0.0  # when it is due: to be started, or to be probed
    deaf: int = 0

    def __post_init__(self) -> None:
        self.command = self.make(self.port)

    @property
    def url(self) -> str:
        """Where the gateway finds it."""
        return ports.url(ports.reachable(self.command.host), self.command.port)

    def came_to_work(self, now: float) -> None:
        """Note that it answers, since ``now`` (s, monotonic)."""
        self.ready = self.worked = True
        self.ready_since = now

    def died(self, now: float) -> float:
        """Note its death at ``now`` (s, monotonic), and give the seconds until it starts again.

        Only starts in a row that came to no work make the pause longer: an engine that worked
        (somebody killed it, a request broke it) is missed, and starts again at once.
        """
        if self.ready and now - self.ready_since >= _STEADY:
            self.deaths = 0
        self.ready = False
        self.deaths += 1
        self.restarts += 1
        return float(min(_FIRST_PAUSE * 2 ** min(self.deaths - 1, 10), _LONGEST_PAUSE))

    def told(self) -> state.Process:
        """What `uniscale ps` shows of it."""
        pid = self.child.process.pid if self.child else 0
        word = "ready" if self.ready else "starting" if self.child else "waiting"
        return state.Process(
            title=self.title,
            pid=pid,
            start=(state.started(pid) or 0) if pid else 0,
            port=self.port,
            state=word,
            restarts=self.restarts,
            log=str(self.log),
        )


class Fleet:
    """The supervisor of one job."""

    def __init__(
        self,
        job: state.Job,
        workers: Sequence[Worker],
        manifest: Path,
        on_ready: Callable[[], None],
    ) -> None:
        self.job = job
        self.workers = list(workers)
        self.manifest = manifest
        self.on_ready = on_ready
        self.stopping: int | None = None
        self._told_ready = False
        self._urls: list[str] | None = None
        self._wakeup = -1

    def serve(self) -> int:
        """Run until a signal ends it; 130 after Ctrl-C, 0 after SIGTERM or SIGHUP.

        Raises `LaunchError` when an engine never came up; everything is stopped by then.
        """
        guard = warden.post()
        try:
            with signals.ending(self._end) as self._wakeup:
                self._route()
                while self.stopping is None:
                    for worker in self.workers:
                        self._step(worker, guard)
                    self._announce()
                    self._sleep()
                return 130 if self.stopping == signal.SIGINT else 0
        finally:
            self._stop(guard)
            guard.dismiss()

    def _end(self, number: int) -> None:
        self.stopping = number

    def _step(self, worker: Worker, guard: warden.Warden) -> None:
        now = time.monotonic()
        if worker.child is None:
            if now >= worker.again and self.stopping is None:
                self._start(worker, guard)
            return
        if worker.child.ended() is not None:
            self._bury(worker, guard)
        elif now >= worker.again:
            self._probe(worker)

    def _start(self, worker: Worker, guard: warden.Warden) -> None:
        if worker.restarts and worker.routed and not worker.fixed:
            # smg drains an address that leaves for seconds, and takes it back only then; to smg
            # an engine that comes back is a new one, its cache is empty.
            worker.port = ports.free_port()
        if worker.restarts:
            worker.command = worker.make(worker.port)
        worker.child = run.spawn(worker.command, worker.title, worker.log)
        guard.watch(worker.child.process.pid)
        worker.since = time.monotonic()
        worker.again = worker.since + _PROBE
        self._changed()

    def _bury(self, worker: Worker, guard: warden.Warden) -> None:
        child = worker.child
        assert child is not None
        pause = worker.died(time.monotonic())
        self._route()
        try:
            if not worker.worked and worker.deaths >= _HOPELESS:
                child.check_alive("each time that it was started")
        finally:
            child.stop()  # its workers end with it, and it is reaped
            guard.release(child.process.pid)
            worker.child = None
        worker.again = time.monotonic() + pause
        note(f"{worker.title} ended; it starts again in {pause:g} s (log: {worker.log})")
        self._changed()

    def _probe(self, worker: Worker) -> None:
        child = worker.child
        assert child is not None
        host, port = ports.reachable(worker.command.host), int(worker.command.port)
        if worker.tls:  # whose certificate it is does not matter here
            answers = ports.accepts(host, port, 1.0)
        else:
            answers = client.ready(host, port, worker.command.probe, 1.0)
        logfile.rotate(worker.log)
        now = time.monotonic()
        worker.again = now + (_CHECK if worker.ready or answers else _PROBE)
        if answers:
            worker.deaf = 0
            if not worker.ready:
                worker.came_to_work(now)
                self._route()
                self._changed()
        elif worker.ready:
            worker.deaf += 1
            if worker.deaf >= _DEAF:
                note(f"{worker.title} does not answer: it is ended")
                self._kill(worker, signal.SIGKILL)
        elif now - worker.since > worker.start_timeout:
            note(f"{worker.title} was not ready after {worker.start_timeout:g} s: it is ended")
            self._kill(worker, signal.SIGKILL)

    def _kill(self, worker: Worker, number: int) -> None:
        if worker.child is not None:
            with suppress(ProcessLookupError):
                os.killpg(worker.child.process.pid, number)

    def _route(self) -> None:
        urls = [worker.url for worker in self.workers if worker.routed and worker.ready]
        if urls != self._urls:
            gateway.write_manifest(self.manifest, urls)
            self._urls = urls

    def _announce(self) -> None:
        if not self._told_ready and all(worker.ready for worker in self.workers):
            self._told_ready = True
            self.on_ready()

    def _changed(self) -> None:
        self.job = changed(self.job, processes=tuple(one.told() for one in self.workers))
        try:
            self.job.save()
        except OSError as error:  # a full disk stops no engine
            note(f"cannot note what runs: {error.strerror}")

    def _sleep(self) -> None:
        due = min(worker.again for worker in self.workers)
        patience = min(max(due - time.monotonic(), 0.0), _CHECK)
        signals.wait(self._wakeup, patience)

    def _stop(self, guard: warden.Warden) -> None:
        alive = [worker for worker in self.workers if worker.child is not None]
        for worker in alive:
            self._kill(worker, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE
        for worker in alive:
            assert worker.child is not None
            worker.child.ended(max(deadline - time.monotonic(), 0.0))
        for worker in alive:
            assert worker.child is not None
            self._kill(worker, signal.SIGKILL)
            worker.child.process.wait()
            guard.release(worker.child.process.pid)
            worker.child, worker.ready = None, False
        self._changed()
