"""``uniscale serve``: become the engine's own server, or supervise several behind a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale import ports
from uniscale.engines import Command
from uniscale.prepare import Prepared, Request, prepare

if TYPE_CHECKING:
    from uniscale.fleet import Worker
    from uniscale.plans import ModelPlan, ServePlan


@dataclass(frozen=True, kw_only=True)
class ServeRequest(Request):
    """What ``uniscale serve MODEL`` is asked for when one engine does it."""

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
    for warning in command.warnings:
        run.note(f"warning: {warning}")
    if request.dry_run:
        print(json.dumps(prepared.as_json(), indent=2) if request.as_json else shell(command))
        return 0
    check(command)
    facts = prepared.as_json()
    _record(prepared)
    if request.as_json:
        print(json.dumps(facts))
    else:
        run.note(f"{prepared.payload.title} serves {command.served_name} at {facts['url']}")
    return run.become(_with_document(command))


def _record(prepared: Prepared) -> None:
    """Note this process, which the engine will be, for `uniscale ps` and `stop`."""
    from uniscale import run, state

    command = prepared.command
    place = ports.url(command.host, command.port) + "/v1"
    try:
        state.create(command.served_name, kind="engine", models=(command.served_name,), url=place)
    except LaunchError as error:
        run.note(f"warning: {error.what}; uniscale ps will not show it")


def check(command: Command) -> None:
    """Raise `LaunchError` for everything that would stop the engine from starting, all at once."""
    from uniscale import run

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


def _with_document(command: Command) -> Command:
    """The command with its document written to a file of this user's, and the file named."""
    if command.variable is None or command.document is None:
        return command
    import hashlib

    from uniscale import state

    name = hashlib.sha256(command.document.encode()).hexdigest()[:16]
    path = state.root().parent / "documents" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    state.write(path, command.document)
    return replace(command, environment={**command.environment, command.variable: str(path)})


def serve_plan(plan: ServePlan, *, dry_run: bool, as_json: bool) -> int:
    """Serve a whole plan: one engine becomes this process, several get a supervisor and a gateway.

    Raises `LaunchError` or `SettingsError` for everything that can be seen before the start, and
    `LaunchError` when an engine never comes up.
    """
    from uniscale import run

    for warning in plan.warnings:
        run.note(f"warning: {warning}")
    requests = _requests(plan, must_exist=not dry_run)
    if plan.nodes:
        from uniscale.serve_nodes import serve_nodes

        return serve_nodes(plan, requests, dry_run=dry_run, as_json=as_json)
    if len(requests) == 1 and plan.gateway is None:
        one = requests[0]
        told = {key: getattr(one, key) for key in one.__dataclass_fields__}
        return serve(
            ServeRequest(**told, host=plan.host, port=plan.port, dry_run=dry_run, as_json=as_json)
        )
    from uniscale import gateway

    prepared = _all(plan, requests)
    if dry_run:
        return _print_plan(plan, prepared, as_json)
    if not plan.no_gateway:
        gateway.check_files(plan.gateway or {})
        gateway.check_installed()
    _check_all(plan, prepared)
    models = tuple(dict.fromkeys(one.command.served_name for one in prepared))
    return _supervise(plan, requests, prepared, models)


def _requests(plan: ServePlan, *, must_exist: bool) -> list[Request]:
    """One request for each engine that will run; of several engines the first that fits."""
    errors: list[UniscaleError] = []
    found: list[Request] = []
    for model in plan.models:
        try:
            one = _fitting(model, must_exist)
            count = model.replicas
            found += [replace(one, share=(number, count)) for number in range(count)]
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


def _all(plan: ServePlan, requests: Sequence[Request]) -> list[Prepared]:
    """Every engine prepared, each at a port of its own; all problems at once."""
    errors: list[UniscaleError] = []
    found: list[Prepared] = []
    numbers = _engine_ports(plan, len(requests))
    host = plan.host if plan.no_gateway else ports.LOOPBACK
    for request, port in zip(requests, numbers, strict=True):
        try:
            found.append(prepare(request, task="serve", host=host, port=port))
        except UniscaleError as error:
            if error.render() not in {one.render() for one in errors}:  # replicas fail alike
                errors.append(error)
    raise_all(errors)
    return found


def _engine_ports(plan: ServePlan, number: int) -> list[int]:
    if plan.no_gateway:
        return [plan.port + place for place in range(number)]
    return ports.free_ports(number)


def _check_all(plan: ServePlan, prepared: Sequence[Prepared]) -> None:
    errors: list[UniscaleError] = []
    for one in prepared:
        try:
            check(one.command)
        except UniscaleError as error:
            errors += error.findings()
    if not plan.no_gateway:
        try:
            ports.check_free(plan.host, str(plan.port))
        except LaunchError as error:
            errors.append(error)
    unique = {error.render(): error for error in errors}
    raise_all(list(unique.values()))


def _titles(prepared: Sequence[Prepared]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for one in prepared:
        name = f"{one.command.served_name}/{one.payload.backend}"
        yield f"{name}/{counts.setdefault(name, 0)}"
        counts[name] += 1


def _print_plan(plan: ServePlan, prepared: Sequence[Prepared], as_json: bool) -> int:
    from uniscale import gateway, run

    manifest = Path("workers.json")
    urls = [ports.url(ports.reachable(one.command.host), one.command.port) for one in prepared]
    front = None
    if not plan.no_gateway:
        front = gateway.command(
            plan.gateway or {}, host=plan.host, port=plan.port, manifest=manifest,
            metrics_port=_metrics_port(plan),
        )  # fmt: skip
    if as_json:
        told: dict[str, object] = {"engines": [one.as_json() for one in prepared]}
        if front is not None:
            argv, url = list(front.argv), ports.url(plan.host, str(plan.port)) + "/v1"
            told["gateway"] = {"argv": argv, "workers": urls, "url": url}
        print(json.dumps(told, indent=2))
        return 0
    for warning in dict.fromkeys(word for one in prepared for word in one.command.warnings):
        run.note(f"warning: {warning}")
    for title, one in zip(_titles(prepared), prepared, strict=True):
        print(f"# {title}\n{shell(one.command)}\n")
    if front is not None:
        print(f"# gateway; workers.json names {', '.join(urls)}\n{shell(front)}")
    return 0


def _metrics_port(plan: ServePlan) -> int:
    told: Mapping[str, object] = plan.gateway or {}
    return int(str(told["metrics_port"])) if "metrics_port" in told else ports.free_port()


def _supervise(
    plan: ServePlan,
    requests: Sequence[Request],
    prepared: Sequence[Prepared],
    models: tuple[str, ...],
) -> int:
    from uniscale import run, state
    from uniscale.fleet import Fleet

    for warning in dict.fromkeys(word for one in prepared for word in one.command.warnings):
        run.note(f"warning: {warning}")
    scheme = "https" if "tls_certificate" in (plan.gateway or {}) else "http"
    place = ports.url(plan.host, str(plan.port)).replace("http", scheme, 1) + "/v1"
    job = state.create(plan.name or models[0], kind="fleet", models=models, url=place)
    workers = list(_workers(plan, requests, prepared, job.folder))
    manifest = job.folder / "workers.json"
    if not plan.no_gateway:
        workers.append(_front(plan, job.folder, manifest))
    count = "1 engine" if len(prepared) == 1 else f"{len(prepared)} engines"
    run.note(f"starting {count}; logs: uniscale logs -f {job.id}")

    def ready() -> None:
        run.note(f"ready: {count} for {', '.join(models)} at {place}")

    return Fleet(job, workers, manifest, ready).serve()


def _workers(
    plan: ServePlan, requests: Sequence[Request], prepared: Sequence[Prepared], folder: Path
) -> Iterator[Worker]:
    from uniscale.fleet import Worker

    host = plan.host if plan.no_gateway else ports.LOOPBACK
    titles = _titles(prepared)
    for number, (request, one) in enumerate(zip(requests, prepared, strict=True)):

        def make(port: int, request: Request = request) -> Command:
            again = prepare(request, task="serve", host=host, port=port)
            return _with_document(again.command)

        yield Worker(
            title=next(titles),
            make=make,
            port=int(one.command.port),
            log=folder / f"engine-{number}.log",
            start_timeout=plan.start_timeout,
            fixed=plan.no_gateway,
        )


def _front(plan: ServePlan, folder: Path, manifest: Path) -> Worker:
    from uniscale import gateway
    from uniscale.fleet import Worker

    settings = plan.gateway or {}

    def make(port: int) -> Command:
        return gateway.command(
            settings, host=plan.host, port=port, manifest=manifest, metrics_port=_metrics_port(plan)
        )

    return Worker(
        title="gateway",
        make=make,
        port=plan.port,
        log=folder / "gateway.log",
        start_timeout=60.0,
        routed=False,
        tls="tls_certificate" in settings,
    )
