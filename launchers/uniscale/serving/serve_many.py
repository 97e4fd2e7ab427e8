"""``uniscale serve`` with several engines: a supervisor of all, and a gateway before them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import Gathering, UniscaleError, raise_all

from uniscale import ports
from uniscale.engines.engines import Command
from uniscale.serving.prepare import Prepared, Request, prepare
from uniscale.serving.serve import check, shell, with_document
from uniscale.talk import note

if TYPE_CHECKING:
    from uniscale.config.plans import ServePlan
    from uniscale.serving.fleet import Worker


def serve_many(
    plan: ServePlan, requests: Sequence[Request], *, dry_run: bool, as_json: bool
) -> int:
    """Start the engines and the gateway of ``plan`` and keep them, or print them.

    Raises what `uniscale.serving.serve.serve_plan` raises.
    """
    from uniscale.serving import gateway

    errors: list[UniscaleError] = []
    prepared: list[Prepared] = []
    with Gathering(errors):
        prepared += _all(plan, requests)
    if dry_run:
        raise_all(errors)
        return _print_plan(plan, prepared, as_json)
    if not plan.no_gateway:
        with Gathering(errors):
            gateway.check_files(plan.gateway or {})
        with Gathering(errors):
            gateway.check_installed()
    with Gathering(errors):
        _check_all(plan, prepared)
    raise_all(errors)
    models = tuple(dict.fromkeys(one.command.served_name for one in prepared))
    return _supervise(plan, requests, prepared, models)


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
        with Gathering(errors):
            check(one.command)
    if not plan.no_gateway:
        with Gathering(errors):
            ports.check_free(plan.host, str(plan.port))
    unique = {error.render(): error for error in errors}
    raise_all(list(unique.values()))


def _titles(prepared: Sequence[Prepared]) -> Iterator[str]:
    counts: dict[str, int] = {}
    for one in prepared:
        name = f"{one.command.served_name}/{one.payload.backend}"
        yield f"{name}/{counts.setdefault(name, 0)}"
        counts[name] += 1


def _print_plan(plan: ServePlan, prepared: Sequence[Prepared], as_json: bool) -> int:
    from uniscale.serving import gateway

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
        note(f"warning: {warning}")
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
    from uniscale.jobs import state
    from uniscale.serving.fleet import Fleet

    for warning in dict.fromkeys(word for one in prepared for word in one.command.warnings):
        note(f"warning: {warning}")
    scheme = "https" if "tls_certificate" in (plan.gateway or {}) else "http"
    place = ports.url(plan.host, str(plan.port)).replace("http", scheme, 1) + "/v1"
    job = state.create(plan.name or models[0], kind="fleet", models=models, url=place)
    workers = list(_workers(plan, requests, prepared, job.folder))
    manifest = job.folder / "workers.json"
    if not plan.no_gateway:
        workers.append(_front(plan, job.folder, manifest))
    count = "1 engine" if len(prepared) == 1 else f"{len(prepared)} engines"
    note(f"starting {count}; logs: uniscale logs -f {job.id}")

    def ready() -> None:
        note(f"ready: {count} for {', '.join(models)} at {place}")

    return Fleet(job, workers, manifest, ready).serve()


def _workers(
    plan: ServePlan, requests: Sequence[Request], prepared: Sequence[Prepared], folder: Path
) -> Iterator[Worker]:
    from uniscale.serving.fleet import Worker

    host = plan.host if plan.no_gateway else ports.LOOPBACK
    titles = _titles(prepared)
    for number, (request, one) in enumerate(zip(requests, prepared, strict=True)):

        def make(port: int, request: Request = request) -> Command:
            again = prepare(request, task="serve", host=host, port=port)
            return with_document(again.command)

        yield Worker(
            title=next(titles),
            make=make,
            port=int(one.command.port),
            log=folder / f"engine-{number}.log",
            start_timeout=plan.start_timeout,
            fixed=plan.no_gateway,
        )


def _front(plan: ServePlan, folder: Path, manifest: Path) -> Worker:
    from uniscale.serving import gateway
    from uniscale.serving.fleet import Worker

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
