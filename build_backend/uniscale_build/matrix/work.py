"""One build of the matrix in a process of its own: a job on standard input, events on standard
output, the log on standard error.

The process ends when the one that started it does, and takes the compilers along.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from uniscale_build.ending import ends_with

Event = Mapping[str, object]
_EVERY = 0.2  # seconds between two events of progress
_LOG_END = 400_000  # bytes of upstream's log that are kept


@dataclass(frozen=True)
class Job:
    """What a worker is told."""

    id: str
    backend: str
    device: str
    out: str  # a folder of its own, for the wheels
    jobs: int  # compile jobs at a time
    config: Mapping[str, str] = field(default_factory=dict)  # settings, as with pip

    def as_json(self) -> dict[str, object]:
        """For the worker's standard input."""
        return asdict(self)


class Events:
    """A reporter that writes what happens as JSON lines, and as plain lines to the log."""

    def __init__(self, stream: TextIO, log: TextIO) -> None:
        from uniscale_build.progress import Plain

        self._stream = stream
        self._log = Plain(log, every=5.0)
        self._last = 0.0

    def send(self, kind: str, **facts: object) -> None:
        """One event; a reader that has gone is not our failure."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps({"event": kind, **facts}), file=self._stream, flush=True)

    def stage(self, name: str, detail: str = "") -> None:
        """A stage begins."""
        self._log.stage(name, detail)
        self.send("stage", name=name, detail=detail)

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Progress, at most every `_EVERY` seconds."""
        self._log.advance(done, total, unit)
        now = time.monotonic()
        if now - self._last >= _EVERY or done == total:
            self._last = now
            self.send("advance", done=done, total=total, unit=unit)

    def note(self, text: str) -> None:
        """A note."""
        self._log.note(text)
        self.send("note", text=text)


def main() -> int:
    """Build what standard input says; the last event is ``done`` or ``failed``."""
    ends_with(os.getppid(), signal.SIGTERM)
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = Job(**json.load(sys.stdin))
    # Whatever else prints goes to the log: the events have standard output for themselves.
    events = Events(os.fdopen(os.dup(1), "w", encoding="utf-8"), sys.stderr)
    os.dup2(2, 1)
    from uniscale_build.errors import UniscaleError

    try:
        events.send("done", **_build(job, events))
        return 0
    except UniscaleError as error:
        print(error.render(), file=sys.stderr, flush=True)
        found = [item.as_json() for item in error.findings()]
        events.send("failed", errors=found, exit_code=error.exit_code)
        return error.exit_code
    except KeyboardInterrupt:
        events.send("stopped")
        return 130
    except Exception as error:  # noqa: BLE001  (told in one sentence; the log has the traceback)
        import traceback

        traceback.print_exc()
        what = f"the build stopped: {type(error).__name__}: {error}"
        crash = UniscaleError(what, hint="the log has the traceback", slug="crashed")
        events.send("failed", errors=[crash.as_json()], exit_code=1)
        return 1


def _interrupt(number: int, frame: object) -> None:
    # Once is enough: a second signal must not interrupt the cleaning up.
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _build(job: Job, events: Events) -> dict[str, object]:
    from uniscale_build import settings
    from uniscale_build.build.pipeline import Context
    from uniscale_build.plans.plan import make_plan
    from uniscale_build.project import find_project
    from uniscale_build.store import Store
    from uniscale_build.wheels.distribution import read_pyproject, tool_table
    from uniscale_build.wheels.split import build_one

    began = time.monotonic()
    project, store = find_project(), Store()
    given = {"jobs": str(job.jobs), **job.config, "backend": job.backend, "device": job.device}
    defaults = tool_table(read_pyproject(project)).get("settings")
    plan = make_plan(project, settings.read(given, defaults=defaults))
    folder = plan.settings.build_dir or store.work
    with _upstream_log(folder / plan.backends[0].name / "build.log"):
        made = build_one(Context(project, store, events), plan, Path(job.out))
    return {
        "wheels": [{"name": made.path.name, "size": made.size, "sha256": made.sha256}],
        "reused": all(payload.reused for payload in made.payloads),
        "seconds": round(time.monotonic() - began, 2),
    }


@contextlib.contextmanager
def _upstream_log(path: Path) -> Iterator[None]:
    """Put what upstream's build has written into our log: the next build writes over it."""
    began = time.time()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if path.stat().st_mtime >= began - 1:
                text = path.read_bytes()
                print(f"--- {path}", file=sys.stderr, flush=True)
                if len(text) > _LOG_END:
                    print(f"({len(text) - _LOG_END} bytes before this)", file=sys.stderr)
                print(text[-_LOG_END:].decode("utf-8", "replace"), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
