"""``uniscale serve --nodes``: one engine over several machines, started and ended together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError, SettingsError

from uniscale import ports
from uniscale.engines.enginefile import Spread
from uniscale.nodes import nodes
from uniscale.nodes.nodes import Node

if TYPE_CHECKING:
    from uniscale.config.plans import ServePlan
    from uniscale.serving.prepare import Prepared, Request


def serve_nodes(
    plan: ServePlan, requests: Sequence[Request], *, dry_run: bool, as_json: bool
) -> int:
    """Serve the plan's one model on all its machines; returns when it has ended everywhere.

    Raises `SettingsError` for a plan of several engines, `LaunchError` for an engine that stays
    on one machine, and for machines that cannot be reached, refuse or fail.
    """
    from uniscale.serving.prepare import prepare
    from uniscale.talk import note

    if len(requests) > 1 or plan.gateway is not None:
        raise SettingsError(
            "several machines serve one engine, and this asks for "
            + ("several engines" if len(requests) > 1 else "a gateway"),
            where="--nodes", hint="serve each by itself: one uniscale serve for each",
            slug="usage",
        )  # fmt: skip
    prepared = prepare(requests[0], task="serve", host=plan.host, port=plan.port)
    found = commands(plan, prepared)
    for warning in (*prepared.command.warnings, *_warnings(plan)):
        note(f"warning: {warning}")
    if dry_run:
        if as_json:
            told = {**prepared.as_json(), "nodes": [one.as_json() for one in found]}
            print(json.dumps(told, indent=2))
        else:
            print("\n\n".join(map(nodes.shell, found)))
        return 0
    return _supervise(plan, prepared, found)


def commands(plan: ServePlan, prepared: Prepared) -> tuple[Node, ...]:
    """What each machine of the plan runs."""
    from uniscale.engines import enginefile

    described = enginefile.find(prepared.payload.backend)
    if prepared.command.document is not None:
        described = None  # a file written here is not there
    return nodes.serving(
        prepared.command.argv,
        Spread() if described is None else described.nodes,
        plan.nodes,
        engine=prepared.payload.title,
        python=prepared.payload.place.python,
        known=prepared.payload.launch.flags,
        port=plan.master_port or nodes.MASTER_PORT,
        environment=prepared.command.environment,
        special=plan.special,
    )


def _warnings(plan: ServePlan) -> list[str]:
    from uniscale.nodes import ssh

    head = plan.nodes[0]
    if plan.host == ports.LOOPBACK and not ssh.is_here(head):
        return [f"only {head.name} itself reaches {plan.host}; --host 0.0.0.0 opens it to others"]
    return []


def _supervise(plan: ServePlan, prepared: Prepared, found: Sequence[Node]) -> int:
    from uniscale.jobs import state
    from uniscale.nodes.cluster import Cluster
    from uniscale.talk import note

    command, head = prepared.command, plan.nodes[0]
    if not command.port.isdigit() or "/" in command.host:
        raise LaunchError("several machines need an address and a port", slug="bad-host")
    place = ports.url(head.name if command.host in ports.EVERYWHERE else command.host, command.port)
    names = ", ".join(node.host.name for node in found)
    job = state.create(
        plan.name or command.served_name,
        kind="nodes",
        models=(command.served_name,),
        url=place + "/v1",
    )
    note(f"starting {prepared.payload.title} on {names}; logs: uniscale logs -f {job.id}")

    def ready() -> None:
        note(f"ready: {command.served_name} at {place}/v1")

    probe = ports.url(ports.reachable(command.host), command.port) + command.probe
    code = Cluster(job, found, probe=probe, together=True, on_ready=ready).run()
    # As with a fleet: a service manager that ends it has not seen a failure.
    return 0 if code in (129, 143) else code
