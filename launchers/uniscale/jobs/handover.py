"""Becomes the engine: checks its program, then gives this process over to it (exec)."""

from __future__ import annotations

import os
import sys

from uniscale_build.errors import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from uniscale.engines.engines import Command


def check_program(command: Command) -> None:
    """Raise `LaunchError` unless the command's program is there and may be executed."""
    program = command.argv[0]
    # As exec itself looks: shutil.which would do, but takes longer than all of this.
    folders = [""] if "/" in program else command.environment["PATH"].split(os.pathsep)
    if any(_executable(os.path.join(folder, program)) for folder in folders):
        return
    if os.path.exists(program):
        what, hint = "may not be executed", f"chmod +x {program}"
    elif "/" not in program:
        what = "is not on PATH"
        hint = "install the engine, or give its program's path in serve.argv of an engine file"
    else:
        what, hint = "is missing", "install the payload's wheel again"
    raise LaunchError(
        f"the engine's program {what}: {os.path.basename(program)}",
        where=program,
        hint=hint,
        slug="no-program",
    )


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def become(command: Command) -> NoReturn:
    """Replace this process by the engine: no parent remains, signals and pid are the engine's own.

    Raises `LaunchError` when the system refuses to start it.
    """
    import signal

    sys.stdout.flush()
    # Python ignores these two, and an ignored signal stays ignored across exec.
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(command.argv[0], command.argv, full(command))
    except OSError as error:
        raise refused(command, error) from error


def full(command: Command) -> dict[str, str]:
    """The whole environment of the engine."""
    return {**os.environ, **command.environment}


def refused(command: Command, error: OSError) -> LaunchError:
    """The error for a command that the system does not start."""
    hint = "is it built for another kind of machine, or is its interpreter missing?"
    return LaunchError(
        f"the system does not start the engine: {error.strerror}",
        where=command.argv[0],
        hint=hint if error.errno is not None else None,
        slug="not-startable",
    )
