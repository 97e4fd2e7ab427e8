"""The ``uniscale`` command: runs the command line and tells failures as sentences."""

from __future__ import annotations

import os
import sys

from uniscale_build.errors import UniscaleError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

INTERRUPTED = 130  # the shell's code for a process that SIGINT ended


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (``sys.argv`` by default) and give its exit code.

    0 for success, the error's class otherwise (`uniscale_build.errors`), 130 after Ctrl-C. A
    traceback is printed only with ``-v``.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # A closed standard stream would make the next file that is opened take its number.
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115  (lives as long as we do)
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        code = _run(words)
    except BrokenPipeError:
        code = 0  # whoever read us has gone: what they wanted they have
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except OSError:
            # Told already, or nobody listens; without this, the flush at exit complains again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return code


def _run(words: list[str]) -> int:
    ours = words[: words.index("--")] if "--" in words else words
    verbose = "-v" in ours or "--verbose" in ours
    try:
        from uniscale import quick

        action = quick.action(words)
        if action is None:
            from uniscale.cli import app

            action = app.parse(words)
        code = action()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        _print("interrupted")
        return INTERRUPTED
    except UniscaleError as error:
        failure = error
    except Exception as error:  # noqa: BLE001  (the last stop: a sentence, -v shows the rest)
        failure = _unexpected(error)
    if verbose:
        raise failure
    _tell(failure, as_json="--json" in ours)
    return failure.exit_code


def _unexpected(error: Exception) -> UniscaleError:
    failure = UniscaleError(
        f"{type(error).__name__}: {error}",
        hint="this is a fault in uniscale: run the same command with -v and report the traceback",
        slug="internal",
    )
    if isinstance(error, OSError) and error.strerror:
        place = str(error.filename) if error.filename is not None else None
        failure = UniscaleError(error.strerror, where=place, slug="system")
    failure.__cause__ = error
    return failure


def _tell(error: UniscaleError, *, as_json: bool) -> None:
    if as_json:
        import json

        told = {"errors": [item.as_json() for item in error.findings()]}
        _print(json.dumps(told, indent=2), sys.stdout)
    else:
        _print(error.render())


def _print(text: str, stream: TextIO | None = None) -> None:
    try:
        print(text, file=stream or sys.stderr)
    except OSError:
        return  # nobody reads it; the exit code says it too


if __name__ == "__main__":
    sys.exit(main())
