"""``uniscale serve``: become the engine's own server; several are `serve_many`'s."""

from __future__ import annotations

import json
import os

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale import ports
from uniscale.frozen import changed
from uniscale.jobs.handover import become, check_program
from uniscale.serving.prepare import Prepared, Request, prepare
from uniscale.talk import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from uniscale.config.plans import ModelPlan, ServePlan
    from uniscale.engines.engines import Command


def serve_plan(plan: ServePlan, *, dry_run: bool, as_json: bool) -> int:
    """Serve a whole plan: one engine becomes this process, several get a supervisor and a gateway.

    Raises `LaunchError` or `SettingsError` for everything that can be seen before the start, and
    `LaunchError` when an engine never comes up.
    """
    for warning in plan.warnings:
        note(f"warning: {warning}")
    requests = _requests(plan, must_exist=not dry_run)
    if plan.nodes:
        from uniscale.serving.serve_nodes import serve_nodes

        return serve_nodes(plan, requests, dry_run=dry_run, as_json=as_json)
    if len(requests) == 1 and plan.gateway is None:
        return _serve_one(requests[0], plan, dry_run, as_json)
    from uniscale.serving.serve_many import serve_many

    return serve_many(plan, requests, dry_run=dry_run, as_json=as_json)


def _serve_one(request: Request, plan: ServePlan, dry_run: bool, as_json: bool) -> int:
    """Become the engine, or print what would be started; returns only after a dry run."""
    prepared = prepare(request, task="serve", host=plan.host, port=plan.port)
    command = prepared.command
    for warning in command.warnings:
        note(f"warning: {warning}")
    if dry_run:
        print(json.dumps(prepared.as_json(), indent=2) if as_json else shell(command))
        return 0
    check(command)
    facts = prepared.as_json()
    _record(prepared)
    if as_json:
        print(json.dumps(facts))
    else:
        note(f"{prepared.payload.title} serves {command.served_name} at {facts['url']}")
    return become(with_document(command))


def _record(prepared: Prepared) -> None:
    """Note this process, which the engine will be, for `uniscale ps` and `stop`."""
    from uniscale.jobs import state

    command = prepared.command
    place = ports.url(command.host, command.port) + "/v1"
    try:
        state.create(command.served_name, kind="engine", models=(command.served_name,), url=place)
    except LaunchError as error:
        note(f"warning: {error.what}; uniscale ps will not show it")


def check(command: Command) -> None:
    """Raise `LaunchError` for everything that would stop the engine from starting, all at once."""
    problems = []
    try:
        check_program(command)
    except LaunchError as error:
        problems.append(error)
    try:
        ports.check_free(command.host, command.port)
    except LaunchError as error:
        problems.append(error)
    raise_all(problems)


def shell(command: Command) -> str:
    """The exact command for a POSIX shell: the environment that we add, then the program.

    An engine that reads a document gets its text as a comment above.
    """
    import shlex

    environment = dict(command.environment)
    lines = []
    if command.variable is not None and command.document is not None:
        environment[command.variable] = "configuration.json"
        lines = ["# configuration.json:", *(f"# {line}" for line in command.document.splitlines())]
    assignments = [f"{key}={shlex.quote(text)}" for key, text in environment.items()]
    return "\n".join([*lines, " \\\n".join([*assignments, shlex.join(command.argv)])])


def with_document(command: Command) -> Command:
    """The command with its document written to a file of this user's, and the file named."""
    if command.variable is None or command.document is None:
        return command
    import hashlib

    from uniscale import folders
    from uniscale.jobs import state

    name = hashlib.sha256(command.document.encode()).hexdigest()[:16]
    folder = os.path.join(os.path.dirname(folders.jobs()), "documents")
    os.makedirs(folder, exist_ok=True, mode=0o700)
    path = os.path.join(folder, f"{name}.json")
    state.write(path, command.document)
    return changed(command, environment={**command.environment, command.variable: path})


def _requests(plan: ServePlan, *, must_exist: bool) -> list[Request]:
    """One request for each engine that will run; of several engines the first that fits."""
    errors: list[UniscaleError] = []
    found: list[Request] = []
    for model in plan.models:
        try:
            one = _fitting(model, must_exist)
            count = model.replicas
            found += [changed(one, share=(number, count)) for number in range(count)]
        except UniscaleError as error:
            errors.append(error)
    raise_all(errors)
    if not found:
        raise SettingsError("there is nothing to serve", slug="nothing-to-serve")
    return found


def _fitting(model: ModelPlan, must_exist: bool) -> Request:
    errors: list[UniscaleError] = []
    for engine in model.engines or (None,):
        request = _request(model, engine, must_exist)
        if len(model.engines) < 2:
            return request
        try:
            prepare(request, task="serve", host=ports.LOOPBACK, port=1)
        except UniscaleError as error:
            errors.append(error)
            continue
        return request
    raise LaunchError(
        f"none of {', '.join(model.engines)} serves {model.model} here",
        where=model.model,
        hint="\n".join(one.what for error in errors for one in error.findings()),
        slug="no-engine",
    )


def _request(model: ModelPlan, engine: str | None, must_exist: bool) -> Request:
    return Request(
        model=model.model,
        backend=engine,
        device=model.device,
        raw=model.raw,
        name=model.name,
        arguments=model.arguments,
        engine_arguments=model.engine_arguments,
        environment=model.environment,
        devices=model.devices,
        must_exist=must_exist,
    )
