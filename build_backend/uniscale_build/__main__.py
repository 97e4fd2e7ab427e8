"""The ``uniscale-build`` command: runs the command line and tells failures as sentences."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from uniscale_build.errors import ToolchainError, UniscaleError

_INTERRUPTED = 130  # as a shell tells of a program that Ctrl-C ended


def main() -> None:
    """Run the command line; the exit code is the error's class (130 after Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and give its exit code; a traceback only with ``-v``."""
    verbose = "-v" in argv or "--verbose" in argv
    try:
        from uniscale_build.cli.app import application

        app = application(argv[0] if argv else "")
        code = app(argv, prog_name="uniscale-build", standalone_mode=False)
        # Typer makes an exit code of KeyboardInterrupt, and says nothing.
        return _interrupted() if code == _INTERRUPTED else int(code or 0)
    except UniscaleError as error:
        if verbose:
            raise
        tell(error, as_json="--json" in argv)
        return error.exit_code
    except ModuleNotFoundError as error:
        if verbose or (error.name or "").startswith("uniscale"):
            raise
        tell(
            ToolchainError(
                f"the Python package {error.name} is not installed",
                hint="pip install 'uniscale[build]' brings what uniscale-build needs",
                slug="no-package",
            )
        )
        return ToolchainError.exit_code
    except KeyboardInterrupt:
        return _interrupted()
    except BrokenPipeError:
        # Whoever read us has gone: what they wanted they have.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if verbose:
            raise
        told = _of_system(error)
        tell(told, as_json="--json" in argv)
        return told.exit_code
    except Exception as error:  # noqa: BLE001  (click's usage errors have no common base with Exit)
        return _usage(error, argv)


def _of_system(error: OSError) -> UniscaleError:
    """What the system refused, as a disk that is full or read-only where it is one."""
    from uniscale_build.store import disk_errors

    try:
        with disk_errors(Path(error.filename if isinstance(error.filename, str) else ".")):
            raise error
    except UniscaleError as told:
        return told
    except OSError:
        what = os.strerror(error.errno).lower() if error.errno else str(error)
    return UniscaleError(
        what,
        where=str(error.filename or "") or None,
        hint="the same command with -v shows where in uniscale this happened",
        slug="system",
    )


def _interrupted() -> int:
    print("interrupted; run the same command again to go on", file=sys.stderr)
    return _INTERRUPTED


def _usage(error: Exception, argv: list[str]) -> int:
    from typer import Abort, Exit

    if isinstance(error, Exit):
        return int(error.exit_code)
    if isinstance(error, Abort):
        return _interrupted()
    show = getattr(error, "show", None)
    if show is None:
        if "-v" in argv or "--verbose" in argv:
            raise error
        tell(_fault(error), as_json="--json" in argv)
        return UniscaleError.exit_code
    show()
    return int(getattr(error, "exit_code", 2))


def _fault(error: Exception) -> UniscaleError:
    """What nobody foresaw, as a sentence too: where in uniscale it happened, and what to do."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "uniscale_build" in frame.filename] or list(frames)
    return UniscaleError(
        f"{type(error).__name__}: {error}",
        where=f"{own[-1].filename}:{own[-1].lineno}" if own else None,
        hint="this is a fault of uniscale: please report it with what -v shows",
        slug="fault",
    )


def tell(error: UniscaleError, *, as_json: bool = False) -> None:
    """Print an error: sentences on standard error, or one JSON object on standard output."""
    if as_json:
        import json

        print(json.dumps({"errors": [item.as_json() for item in error.findings()]}, indent=2))
    else:
        print(error.render(), file=sys.stderr)


if __name__ == "__main__":
    main()
