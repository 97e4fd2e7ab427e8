"""Builds the rows of a matrix with an executor: begins them, follows them, keeps the record.

One build that fails takes no other along; an interrupted run keeps what is complete and can go on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from packaging.utils import parse_wheel_filename

from uniscale_build.errors import UniscaleError, WheelError
from uniscale_build.manifests.model import ANY_PYTHON
from uniscale_build.matrix.rows import Row
from uniscale_build.matrix.state import Build, Folder, Made
from uniscale_build.matrix.work import Event
from uniscale_build.recordfile import file_sha256
from uniscale_build.store import disk_errors

_TICK = 0.25  # seconds between two looks at the clock


class Executor(Protocol):
    """Where builds run."""

    def obstacle(self, row: Row) -> str:
        """Why a row cannot be built there; "" when it can."""

    def ready(self, build: Build) -> bool:
        """True when ``build`` may begin now."""

    def begin(self, build: Build, waiting: int) -> None:
        """Begin a build; ``waiting`` others want to begin too."""

    def withdraw(self, build: Build) -> bool:
        """Take back a build that was not begun yet; False when it cannot be."""

    def events(self, timeout: float) -> Iterable[tuple[str, Event]]:
        """(id, event) pairs, after ``timeout`` seconds at most."""

    def wheels(self, build: Build) -> Path:
        """The folder with the wheels of a build that is done."""

    def stop(self) -> None:
        """End everything that runs."""

    def close(self) -> None:
        """Nothing more will be asked."""


class View(Protocol):
    """Who watches."""

    def changed(self, build: Build, what: str) -> None:
        """Something is new: ``state``, ``stage``, ``advance``, or else the text of a note."""

    def tick(self) -> None:
        """Time has passed."""


class Runner:
    """One run over ``builds``; ``about`` is kept in the record for ``--resume``."""

    def __init__(
        self,
        builds: Sequence[Build],
        executor: Executor,
        folder: Folder,
        view: View,
        about: Mapping[str, object],
        keep_going: bool = False,
    ) -> None:
        self.builds = list(builds)
        self._by_id = {build.id: build for build in self.builds}
        self._executor = executor
        self._folder = folder
        self._view = view
        self._about = about
        self._keep_going = keep_going

    def run(self) -> None:
        """Until nothing is left to do; on an interruption stops the workers and passes it on."""
        self._save()
        try:
            while self._begin() or self._running():
                for name, event in self._executor.events(_TICK):
                    self._handle(self._by_id[name], event)
                self._view.tick()
        except BaseException:
            self._executor.stop()
            for build in self.builds:
                if build.state == "running":
                    self._end(build, "stopped")
            raise

    def _running(self) -> bool:
        return any(build.state == "running" for build in self.builds)

    def _begin(self) -> bool:
        """Begin what can be begun; True while more waits."""
        failed = any(build.state == "failed" for build in self.builds)
        waiting = [build for build in self.builds if build.state == "waiting"]
        if failed and not self._keep_going:
            self._withdraw()
            return False
        for number, build in enumerate(waiting):
            if self._executor.ready(build):
                build.state, build.began = "running", time.monotonic()
                self._executor.begin(build, len(waiting) - number - 1)
                self._save()
                self._view.changed(build, "state")
        return any(build.state == "waiting" for build in self.builds)

    def _withdraw(self) -> None:
        """Nothing new begins after a failure: not what waits elsewhere either."""
        for build in self.builds:
            if build.state == "running" and self._executor.withdraw(build):
                build.state, build.stage = "waiting", ""

    def _handle(self, build: Build, event: Event) -> None:
        kind = str(event["event"])
        if build.state != "running":
            return
        if kind == "stage":
            detail = str(event["detail"])
            build.stage = f"{event['name']}: {detail}" if detail else str(event["name"])
            build.done, build.total, build.unit = 0, None, ""
            self._view.changed(build, "stage")
        elif kind == "advance":
            total = event["total"]
            build.done, build.unit = int(str(event["done"])), str(event["unit"])
            build.total = None if total is None else int(str(total))
            self._view.changed(build, "advance")
        elif kind == "note":
            self._view.changed(build, str(event["text"]))
        elif kind == "node":
            before, build.node = build.node, str(event["name"])
            if before:
                self._view.changed(build, f"{before} was lost; begins again on {build.node}")
            build.began = time.monotonic()
        elif kind == "done":
            self._complete(build, event)
        elif kind == "failed":
            errors = event["errors"]
            assert isinstance(errors, list)
            self._fail(build, errors, int(str(event["exit_code"])))
        elif kind == "ended":
            # A worker's last word is "done" or "failed"; this one had none.
            what = f"the build's process ended with code {event['code']} and said nothing"
            hint = "it was killed, most likely for want of memory: use fewer --at-once"
            error = UniscaleError(what, hint=hint, slug="worker-died")
            self._fail(build, [error.as_json()], error.exit_code)

    def _complete(self, build: Build, event: Event) -> None:
        told = event["wheels"]
        assert isinstance(told, list)
        wheels = tuple(Made(str(w["name"]), int(w["size"]), str(w["sha256"])) for w in told)
        source = self._executor.wheels(build)
        try:
            for wheel in wheels:
                self._check(build, wheel, source)
            with disk_errors(self._folder.path, "give --out"):
                for wheel in wheels:
                    (source / wheel.name).replace(self._folder.path / wheel.name)
        except UniscaleError as error:
            self._fail(build, [item.as_json() for item in error.findings()], error.exit_code)
            return
        build.wheels, build.reused = wheels, bool(event["reused"])
        self._end(build, "done")

    def _check(self, build: Build, wheel: Made, source: Path) -> None:
        """What came must be what was said, fit the row, and clash with no other build."""
        if file_sha256(source / wheel.name) != wheel.sha256:
            raise WheelError(f"{wheel.name} arrived damaged", where=str(source), slug="bad-wheel")
        for other in self.builds:
            for theirs in other.wheels:
                if theirs.name == wheel.name and theirs.sha256 != wheel.sha256:
                    raise WheelError(
                        f"{wheel.name} is not the one of that name that {other.id} gave",
                        where=str(self._folder.path / wheel.name),
                        hint="both builds must not go into one folder",
                        slug="wheel-twice",
                    )
        tags = parse_wheel_filename(wheel.name)[3]
        if build.row.python == ANY_PYTHON and not all(
            tag.interpreter.startswith("py") or tag.abi == "abi3" for tag in tags
        ):
            raise WheelError(
                f"{wheel.name} does not fit every Python",
                where=f"manifests/backends/{build.row.backend}.yaml",
                hint='take "pythons: [any]" out of its recipe',
                slug="not-any-python",
            )

    def _fail(self, build: Build, errors: list[Mapping[str, object]], code: int) -> None:
        build.errors, build.exit_code = tuple(errors), code or 1
        self._end(build, "failed")

    def _end(self, build: Build, state: str) -> None:
        build.state = state
        build.seconds = time.monotonic() - build.began
        shutil.rmtree(self._folder.parts / build.id, ignore_errors=True)
        self._save()
        self._view.changed(build, "state")

    def _save(self) -> None:
        self._folder.save(self.builds, self._about)
