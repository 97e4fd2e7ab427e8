"""``uniscale-build matrix --run``: one live table on a terminal, plain lines in CI, a summary."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from uniscale_build.ending import interrupted_by_signals

if TYPE_CHECKING:
    from uniscale_build.matrix.rows import Row
    from uniscale_build.matrix.runner import Executor
    from uniscale_build.matrix.state import Build, Folder, Made
    from uniscale_build.project import Project

EXECUTORS = ("local", "ray")


@dataclass(frozen=True)
class Asked:
    """The options of ``--run``."""

    out: Path
    at_once: int | None
    jobs: int | None
    keep_going: bool
    resume: bool
    executor: str
    config: tuple[str, ...]
    named: bool  # builds were named with --only: one that cannot be built here is a failure
    narrowed: bool  # some option narrows the list


def run_matrix(project: Project, rows: list[Row], asked: Asked, *, json: bool) -> None:
    """Build ``rows``, tell how it went; the exit code is that of the first failure."""
    from uniscale_build.cli.matrixview import view
    from uniscale_build.errors import SettingsError, did_you_mean
    from uniscale_build.matrix.runner import Runner
    from uniscale_build.matrix.state import Folder

    if asked.executor not in EXECUTORS:
        hint = did_you_mean(asked.executor, EXECUTORS)
        what = f'there is no executor "{asked.executor}"'
        raise SettingsError(what, hint=hint, slug="bad-value")
    folder = Folder(asked.out.absolute())
    began = time.monotonic()
    with folder.ours(), interrupted_by_signals():
        builds, config, executor_name = _what_to_do(folder, rows, asked)
        if not builds:
            print("[]" if json else "nothing to build")
            return
        about = {"executor": executor_name, "config": config}
        plain = _plain_wheel(project, folder, config)
        executor = _executor(executor_name, project, folder, config, plain, asked)
        try:
            _set_obstacles_aside(builds, executor, named=asked.named)
            with view(builds, quiet=json) as watching:
                runner = Runner(builds, executor, folder, watching, about, asked.keep_going)
                runner.run()
        except KeyboardInterrupt:
            _interrupted(builds, folder)
            raise SystemExit(130) from None  # told above
        finally:
            executor.close()
    _tell(builds, plain, folder, time.monotonic() - began, json=json)
    failed = [build for build in builds if build.state == "failed"]
    if failed:
        raise typer.Exit(failed[0].exit_code)


def _what_to_do(
    folder: Folder, rows: list[Row], asked: Asked
) -> tuple[list[Build], dict[str, str], str]:
    """The builds, the settings and the executor: as asked now, or as the record says."""
    from uniscale_build.errors import SettingsError
    from uniscale_build.matrix.state import Build, resumed

    if asked.resume:
        if asked.narrowed or asked.config:
            raise SettingsError(
                "--resume goes on with the builds and settings that were begun",
                hint="leave --only, --skip and the other selections out, or leave --resume out",
                slug="bad-value",
            )
        record = folder.load()
        config = record.get("config")
        known = dict(config) if isinstance(config, dict) else {}
        name = asked.executor if asked.executor != "local" else str(record.get("executor"))
        builds = resumed(folder, rows, record)
    else:
        known, name = _pairs(asked.config), asked.executor
        builds = [Build(row) for row in rows]
    return builds, known, name


def _pairs(words: Sequence[str]) -> dict[str, str]:
    from uniscale_build import settings
    from uniscale_build.errors import SettingsError

    found = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            raise SettingsError(f"{word!r} is not KEY=VALUE", slug="bad-value")
        if key in ("backend", "device", "task"):
            raise SettingsError(f"{key} is what the matrix varies", hint="select with --only",
                                slug="bad-value")  # fmt: skip
        found[key] = value
    settings.read(found, environ={})  # unknown keys are refused before anything begins
    return found


def _set_obstacles_aside(builds: list[Build], executor: Executor, *, named: bool) -> None:
    """What cannot be built is skipped; when builds were named and it is all of them, that is a
    failure."""
    from uniscale_build.errors import ToolchainError

    obstacles = {build.id: executor.obstacle(build.row) for build in builds}
    state = "failed" if named and all(obstacles.values()) else "skipped"
    for build in builds:
        if obstacles[build.id] and build.state == "waiting":
            error = ToolchainError(
                f"{build.id} {obstacles[build.id]}",
                hint="build it where that is, or on a cluster with --executor ray",
                slug="not-here",
            )
            build.state, build.exit_code = state, error.exit_code
            build.errors = (error.as_json(),)


def _plain_wheel(project: Project, folder: Folder, config: Mapping[str, str]) -> Made:
    """The plain ``uniscale`` wheel, which all others require; made anew by every run.

    It carries the manifests, so it is not what it was when a run goes on after a correction.
    """
    from uniscale_build import settings
    from uniscale_build.build.pipeline import Context
    from uniscale_build.matrix.state import Made
    from uniscale_build.plans.plan import make_plan
    from uniscale_build.settings import Settings
    from uniscale_build.store import Store
    from uniscale_build.wheels import revision
    from uniscale_build.wheels.split import build_plain

    asked = settings.read(config)
    plan = make_plan(project, Settings(revision=asked.revision, index=asked.index))
    counted = revision.read(plan.settings)
    made = build_plain(Context(project, Store()), plan, folder.path, counted)
    return Made(made.path.name, made.size, made.sha256)


def _executor(
    name: str, project: Project, folder: Folder, config: dict[str, str], plain: Made, asked: Asked
) -> Executor:
    if name == "ray":
        from uniscale_build.matrix.cluster import RayExecutor

        path = folder.path / plain.name
        return RayExecutor(project, folder, config, path, plain.sha256, asked.jobs)
    from uniscale_build.matrix.local import LocalExecutor

    return LocalExecutor(project, folder, config, asked.at_once, asked.jobs)


def _interrupted(builds: list[Build], folder: Folder) -> None:
    done = sum(build.state == "done" for build in builds)
    print(f"\ninterrupted: {done} of {len(builds)} builds are done", file=sys.stderr)
    print(f"go on with: {_resume(folder)}", file=sys.stderr)


def _resume(folder: Folder) -> str:
    import shlex

    path = folder.path
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"uniscale-build matrix --resume --out {shlex.quote(str(path))}"


def _tell(builds: list[Build], plain: Made, folder: Folder, seconds: float, *, json: bool) -> None:
    import json as format_json

    if json:
        told = [build.as_json(str(folder.log(build.id))) for build in builds]
        print(format_json.dumps({"plain": vars(plain), "builds": told}, indent=2))
        return
    done = [build for build in builds if build.state == "done"]
    _tell_wheels(done, plain, folder, seconds)
    for state in ("skipped", "failed"):
        for build in builds:
            if build.state == state:
                _tell_trouble(build, folder)
    waiting = sum(build.state == "waiting" for build in builds)
    if waiting:
        print(f"\n{waiting} builds were not begun after a failure (--keep-going begins them)")
    if waiting or any(build.state == "failed" for build in builds):
        print(f"go on with: {_resume(folder)}")
    elif done:
        print(f"next: uniscale-build index {_shown(folder)} --out site")


def _shown(folder: Folder) -> str:
    with contextlib.suppress(ValueError):
        return str(folder.path.relative_to(Path.cwd()))
    return str(folder.path)


def _tell_wheels(done: list[Build], plain: Made, folder: Folder, seconds: float) -> None:
    from uniscale_build.progress import human

    lines = [(plain, "")]
    for build in done:
        how = ", from before" if build.kept else ", from the cache" if build.reused else ""
        lines += [(wheel, f" in {_time(build.seconds)}{how}") for wheel in build.wheels]
    print(f"\n{len(lines)} wheels in {_shown(folder)}, {_time(seconds)}")
    for wheel, text in lines:
        print(f"  {wheel.name}  {human(wheel.size, 'bytes')}{text}")
        print(f"    SHA256 {wheel.sha256}")


def _tell_trouble(build: Build, folder: Folder) -> None:
    from uniscale_build.errors import UniscaleError

    print(f"\n{build.state}: {build.id}")
    for item in build.errors:
        if build.state == "skipped":
            print(f"  {item['what']}")
            continue
        error = UniscaleError(str(item["what"]), slug=str(item["slug"]),
                              where=str(item["where"]) if item["where"] else None,
                              hint=str(item["hint"]) if item["hint"] else None)  # fmt: skip
        print("\n".join(f"  {line}" for line in error.render().splitlines()))
    if build.state == "failed" and folder.log(build.id).is_file():
        print(f"  log: {_shown(folder)}/logs/{build.id}.log")


def _time(seconds: float) -> str:
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)} min {int(rest)} s" if minutes else f"{rest:.1f} s"
