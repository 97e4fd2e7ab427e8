"""One job on several machines: the command of each; pure functions.

Training runs on torchrun, serving on the engine's own multi-node mode or on Ray. What only the
machine itself can know (its address, its network interface) is named here and filled in there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from uniscale_build.errors import LaunchError

from uniscale.engines import flags
from uniscale.engines.enginefile import Spread
from uniscale.nodes.hostfile import Host

MASTER_PORT = 29500  # of torchrun's rendezvous, as torchrun itself has it
RAY_PORT = 6379
RECORD = "nodes.json"  # in a job's folder, for as long as something of it may run somewhere
INTERFACE, ADDRESS = "interface", "address"
_SHOWN = {INTERFACE: "its interface towards", ADDRESS: "its address towards"}


@dataclass(frozen=True)
class Node:
    """What one machine runs."""

    host: Host
    rank: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]  # what we add to or change in the environment there
    local: Mapping[str, str] = field(default_factory=dict)  # variable -> interface or address
    head: str = ""  # the machine towards which that interface and address are meant

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``."""
        told: dict[str, object] = {
            "host": self.host.name,
            "rank": self.rank,
            "argv": list(self.argv),
            "environment": dict(self.environment),
        }
        return {**told, "local": dict(self.local)} if self.local else told


def training(
    script: Sequence[str],
    hosts: Sequence[Host],
    *,
    python: str,
    processes: int | str | None = None,
    port: int = MASTER_PORT,
    environment: Mapping[str, str] | None = None,
    special: Mapping[str, Mapping[str, str]] | None = None,
    options: Sequence[str] = (),
) -> tuple[Node, ...]:
    """torchrun on each of ``hosts`` for ``script`` (a file, or ``-m module``) and its words.

    ``processes`` on each machine (or torchrun's ``gpu``), else its slots, else one. ``special``
    holds variables for one host's name or one type of host; they win. ``options`` are torchrun's
    own. One machine needs no rendezvous and gets none.
    """
    head = hosts[0].name
    found = []
    for rank, host in enumerate(hosts):
        count = processes or host.slots or 1
        words = [host.python or python, "-m", "torch.distributed.run"]
        if len(hosts) == 1:
            words += ["--standalone", f"--nproc-per-node={count}"]
        else:
            words += [f"--nnodes={len(hosts)}", f"--node-rank={rank}"]
            words += [f"--nproc-per-node={count}"]
            words += [f"--master-addr={head}", f"--master-port={port}"]
        # gloo binds to what the machine's own name resolves to, which is often 127.0.1.1.
        local = {"GLOO_SOCKET_IFNAME": INTERFACE} if len(hosts) > 1 else {}
        argv = (*words, *options, *script)
        found.append(_node(host, rank, argv, environment or {}, special or {}, local, head))
    return tuple(found)


def serving(
    argv: Sequence[str],
    spread: Spread,
    hosts: Sequence[Host],
    *,
    engine: str,
    python: str = "",
    known: Sequence[str] = (),
    port: int = MASTER_PORT,
    environment: Mapping[str, str] | None = None,
    special: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Node, ...]:
    """One engine over all ``hosts``: ``argv`` with the flags of its multi-node mode.

    A build whose recorded flags (``known``) lack these runs on Ray where the engine can.
    ``engine`` names it in the `LaunchError` for one that stays on one machine. Where ``argv``
    begins with the interpreter ``python``, a host's own takes its place.
    """
    found = _serving(argv, spread, hosts, engine, known, port, environment or {}, special or {})
    return tuple(_own_python(node, python) for node in found)


def _own_python(node: Node, python: str) -> Node:
    own = node.host.python
    if own is None or not python:
        return node
    return replace(node, argv=tuple(own if word == python else word for word in node.argv))


def _serving(
    argv: Sequence[str],
    spread: Spread,
    hosts: Sequence[Host],
    engine: str,
    known: Sequence[str],
    port: int,
    environment: Mapping[str, str],
    special: Mapping[str, Mapping[str, str]],
) -> tuple[Node, ...]:
    if len(hosts) == 1:
        return (_node(hosts[0], 0, tuple(argv), environment, special, {}, hosts[0].name),)
    wanted = [found for word in (*spread.every, *spread.others) if (found := flags.name(word))]
    listed = {flags.name(flag) for flag in known}
    missing = [flag for flag in wanted if listed and flag not in listed]
    if spread.every and not missing:
        return _by_flags(argv, spread, hosts, port, environment, special)
    if spread.ray:
        return _by_ray(argv, spread, hosts, environment, special)
    hint = "serve it with --replicas on each machine, or take another engine"
    if missing:
        hint = f"this build has no {' and no '.join(missing)}; take a newer one"
    raise LaunchError(
        f"{engine} runs on one machine only, not on {len(hosts)}", hint=hint, slug="no-nodes"
    )


def _by_flags(
    argv: Sequence[str],
    spread: Spread,
    hosts: Sequence[Host],
    port: int,
    environment: Mapping[str, str],
    special: Mapping[str, Mapping[str, str]],
) -> tuple[Node, ...]:
    head = hosts[0].name
    found = []
    for rank, host in enumerate(hosts):
        known = {"nodes": len(hosts), "rank": rank, "head": head, "port": port}
        known["head_port"] = hosts[0].at(port)
        words = [*spread.every, *(spread.others if rank else ())]
        # What the user gave by hand stays.
        told = flags.without([_filled(word, known) for word in words], argv)
        local = spread.local
        whole = (*argv, *told)
        found.append(_node(host, rank, whole, environment, special, local, head))
    return tuple(found)


def _by_ray(
    argv: Sequence[str],
    spread: Spread,
    hosts: Sequence[Host],
    environment: Mapping[str, str],
    special: Mapping[str, Mapping[str, str]],
) -> tuple[Node, ...]:
    """The same words everywhere: Ray runs the engine on the machine of the address alone."""
    head = hosts[0]
    words = ["ray", "symmetric-run", "--address", head.at(RAY_PORT), "--min-nodes"]
    whole = (*words, str(len(hosts)), "--", *argv, *flags.without(spread.ray, argv))
    return tuple(
        _node(host, rank, whole, environment, special, spread.local, head.name)
        for rank, host in enumerate(hosts)
    )


def _filled(word: str, known: Mapping[str, object]) -> str:
    for key, value in known.items():
        word = word.replace(f"{{{key}}}", str(value))
    return word


def _node(
    host: Host,
    rank: int,
    argv: tuple[str, ...],
    environment: Mapping[str, str],
    special: Mapping[str, Mapping[str, str]],
    local: Mapping[str, str],
    head: str,
) -> Node:
    own = {**environment, **special.get(host.type or "", {}), **special.get(host.name, {})}
    filled = {name: what for name, what in local.items() if name not in own}
    return Node(host, rank, argv, own, filled, head)


def shell(node: Node) -> str:
    """The command of one machine for a POSIX shell there, with its rank above."""
    lines = [f"# rank {node.rank}, on {node.host.name}"]
    lines += [f"# {key}: {_SHOWN[what]} {node.head}" for key, what in node.local.items()]
    words = [f"{key}={shlex.quote(text)}" for key, text in node.environment.items()]
    words += [f"{key}=…" for key in node.local]
    return "\n".join([*lines, " \\\n".join([*words, shlex.join(node.argv)])])
