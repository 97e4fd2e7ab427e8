"""What a matrix run has done: kept beside its wheels, so that it can go on after anything."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import SettingsError, StoreError
from uniscale_build.matrix.rows import Row
from uniscale_build.recordfile import file_sha256
from uniscale_build.store import disk_errors, write_atomic

SCHEMA = 1
FILE = "matrix.json"
# waiting → running → done | failed; stopped: was running when we were interrupted.
STATES = ("waiting", "running", "done", "failed", "stopped", "skipped")


@dataclass(frozen=True)
class Made:
    """One wheel of a build."""

    name: str
    size: int  # bytes
    sha256: str


@dataclass
class Build:
    """One row on its way to its wheels, as the table shows it."""

    row: Row
    state: str = "waiting"
    stage: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    began: float = 0.0  # time.monotonic()
    seconds: float = 0.0
    reused: bool = False
    kept: bool = False  # by --resume, from the run before
    node: str = ""  # of a cluster
    wheels: tuple[Made, ...] = ()
    errors: tuple[Mapping[str, object], ...] = ()
    exit_code: int = 0

    @property
    def id(self) -> str:
        """The row's."""
        return self.row.id

    def as_json(self, log: str) -> dict[str, object]:
        """For the record and for ``--json``."""
        return {
            "id": self.id,
            "backend": self.row.backend,
            "device": self.row.device,
            "python": self.row.python,
            "platform": self.row.platform,
            "digest": self.row.digest,
            "state": self.state,
            "seconds": round(self.seconds, 2),
            "reused": self.reused,
            "node": self.node,
            "wheels": [vars(wheel) for wheel in self.wheels],
            "errors": list(self.errors),
            "exit_code": self.exit_code,
            "log": log,
        }


@dataclass(frozen=True)
class Folder:
    """The folder of a run: wheels, ``logs/``, the record."""

    path: Path
    logs: Path = field(init=False)
    parts: Path = field(init=False)  # where a build's wheels are until it is complete

    def __post_init__(self) -> None:
        object.__setattr__(self, "logs", self.path / "logs")
        object.__setattr__(self, "parts", self.path / ".parts")

    def log(self, build_id: str) -> Path:
        """The log of one build."""
        return self.logs / f"{build_id}.log"

    @contextlib.contextmanager
    def ours(self) -> Iterator[None]:
        """Hold the folder alone; `StoreError` while another run has it."""
        with disk_errors(self.path, "give --out"):
            for folder in (self.path, self.logs, self.parts):
                folder.mkdir(parents=True, exist_ok=True)
            with (self.parts / "lock").open("a") as handle:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise StoreError(
                        "another matrix run writes into this folder",
                        where=str(self.path),
                        hint="wait for its end, or give another folder with --out",
                        slug="busy",
                    ) from None
                yield

    def save(self, builds: Sequence[Build], about: Mapping[str, object]) -> None:
        """Write the record."""
        told = [item.as_json(os.path.relpath(self.log(item.id), self.path)) for item in builds]
        text = json.dumps({"schema": SCHEMA, **about, "builds": told}, indent=1)
        with disk_errors(self.path, "give --out"):
            write_atomic(self.path / FILE, f"{text}\n".encode())

    def load(self) -> Mapping[str, object]:
        """The record; `SettingsError` when there is none that can be gone on with."""
        path = self.path / FILE
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA or not isinstance(found["builds"], list):
                raise ValueError
        except FileNotFoundError:
            raise SettingsError("there is no run to go on with", where=str(path),
                                hint="begin one: --run without --resume",
                                slug="nothing-to-resume") from None  # fmt: skip
        except (ValueError, KeyError, TypeError):
            raise SettingsError("this is not the record of a matrix run", where=str(path),
                                hint="begin anew: --run without --resume",
                                slug="bad-record") from None  # fmt: skip
        return dict(found)


def resumed(folder: Folder, rows: Sequence[Row], record: Mapping[str, object]) -> list[Build]:
    """The builds of the record: done ones as they are while plan and wheels still agree, the others
    to be built."""
    known = {row.id: row for row in rows}
    builds = []
    entries = record["builds"]
    assert isinstance(entries, list)
    for entry in entries:
        row = known.get(str(entry.get("id")))
        if row is None:  # no such build any more: the manifests have changed
            continue
        build = Build(row)
        wheels = tuple(Made(str(w["name"]), int(w["size"]), str(w["sha256"]))
                       for w in entry.get("wheels", ()))  # fmt: skip
        same = entry.get("state") == "done" and entry.get("digest") == row.digest
        if same and wheels and all(_is_there(folder.path / wheel.name, wheel) for wheel in wheels):
            build.state, build.wheels, build.kept = "done", wheels, True
            build.seconds, build.reused = float(entry["seconds"]), bool(entry["reused"])
        builds.append(build)
    return builds


def _is_there(path: Path, wheel: Made) -> bool:
    try:
        return path.stat().st_size == wheel.size and file_sha256(path) == wheel.sha256
    except OSError:
        return False
