"""The ``uniscale-build`` command: runs the command line and tells failures as sentences."""

from __future__ import annotations

import os
import sys

from uniscale_build.errors import ToolchainError, UniscaleError


def main() -> None:
    """Run the command line; the exit code is the error's class (130 after Ctrl-C)."""
    sys.exit(run(sys.argv[1:]))


def run(argv: list[str]) -> int:
    """Run one command line and give its exit code; a traceback only with ``-v``."""
    verbose = "-v" in argv or "--verbose" in argv
    try:
        from uniscale_build.cli.app import app

        code = app(argv, prog_name="uniscale-build", standalone_mode=False)
        return int(code or 0)
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
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read us has gone: what they wanted they have.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if verbose:
            raise
        what = f"{os.strerror(error.errno or 0).lower()}" if error.errno else str(error)
        tell(UniscaleError(what, where=str(error.filename or ""), slug="system"))
        return UniscaleError.exit_code
    except Exception as error:  # noqa: BLE001  (click's usage errors have no common base with Exit)
        return _usage(error)


def _usage(error: Exception) -> int:
    from typer import Abort, Exit

    if isinstance(error, Exit):
        return int(error.exit_code)
    if isinstance(error, Abort):
        return 130
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    return int(getattr(error, "exit_code", 2))


def tell(error: UniscaleError, *, as_json: bool = False) -> None:
    """Print an error: sentences on standard error, or one JSON object on standard output."""
    if as_json:
        import json

        print(json.dumps({"errors": [item.as_json() for item in error.findings()]}, indent=2))
    else:
        print(error.render(), file=sys.stderr)


if __name__ == "__main__":
    main()
