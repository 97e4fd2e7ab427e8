"""``uniscale serve``: become the engine's own OpenAI-compatible server."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

from uniscale_build.errors import LaunchError, raise_all

from uniscale.engines import Command
from uniscale.prepare import Request, prepare


@dataclass(frozen=True)
class ServeRequest(Request):
    """What ``uniscale serve`` is asked for."""

    host: str
    port: int
    dry_run: bool
    as_json: bool


def serve(request: ServeRequest) -> int:
    """Start the engine in this process, or print what would be started (``--dry-run``).

    Returns only after a dry run; raises `LaunchError` before anything is started.
    """
    from uniscale import run

    prepared = prepare(request, task="serve", host=request.host, port=request.port)
    command = prepared.command
    if request.dry_run:
        print(json.dumps(prepared.as_json(), indent=2) if request.as_json else shell(command))
        return 0
    check(command)
    facts = prepared.as_json()
    if request.as_json:
        print(json.dumps(facts))
    else:
        run.note(f"{prepared.payload.title} serves {command.served_name} at {facts['url']}")
    return run.become(command)


def check(command: Command) -> None:
    """Raise `LaunchError` for everything that would stop the engine from starting, all at once."""
    from uniscale import ports, run

    problems = []
    try:
        run.check_program(command)
    except LaunchError as error:
        problems.append(error)
    try:
        ports.check_free(command.host, command.port)
    except LaunchError as error:
        problems.append(error)
    raise_all(problems)


def shell(command: Command) -> str:
    """The exact command for a POSIX shell: the environment that we add, then the program."""
    assignments = [f"{key}={shlex.quote(text)}" for key, text in command.environment.items()]
    return " \\\n".join([*assignments, shlex.join(command.argv)])
