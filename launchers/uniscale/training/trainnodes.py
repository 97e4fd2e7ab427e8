"""One training on several machines: torchrun on each, seen and ended together.

The job's folder must be the same folder on all of them: the workers read their task there, and the
first writes progress and checkpoints into it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from uniscale_build.errors import UniscaleError

from uniscale.engines.engines import Command
from uniscale.jobs import state
from uniscale.meter import Meter
from uniscale.nodes import nodes
from uniscale.nodes.cluster import Cluster
from uniscale.nodes.hostfile import Host
from uniscale.nodes.nodes import Node
from uniscale.talk import note
from uniscale.training.trainjob import TrainJob

_COUNT = "--nproc-per-node"


def commands(told: Mapping[str, Any], command: Command) -> tuple[Node, ...]:
    """What each machine runs, for a job's record and the command that one machine would run."""
    place = command.argv.index(_COUNT) + 2
    hosts = [Host(**one) for one in told["nodes"]]
    count = str(told["processes"])
    return nodes.training(
        command.argv[place:],
        hosts,
        python=command.argv[0],
        # One is what nobody asked for: the slots of each machine say it better.
        processes=None if count == "1" else count,
        port=told.get("master_port") or nodes.MASTER_PORT,
        environment={"PATH": os.environ.get("PATH") or os.defpath, **command.environment},
        special=told.get("special") or {},
    )


def supervise(
    job: TrainJob,
    command: Command,
    *,
    show: Callable[[Meter], None],
    write: Callable[[bytes], None],
    draw: Callable[[], None],
) -> int:
    """Run the training to its end; 0 when it is done, 128 + the signal that ended it.

    ``show`` tells progress while it runs, ``write`` a line of a script, ``draw`` writes the plot.
    Raises `LaunchError` for machines that cannot take part, and for one that failed; all have
    ended by then.
    """
    told = job.told()
    name, script = str(told["name"]), told.get("script") is not None
    record = state.create(name, kind="train", models=(name,), url=os.path.abspath(job.folder))
    found = commands(told, command)
    machines = ", ".join(node.host.name for node in found)
    note(f"training {name} on {machines}; logs: uniscale logs -f {record.id}")
    plotted = time.monotonic()
    with Meter() as meter, job.log.open("ab", buffering=0) as log:

        def line(text: bytes) -> None:
            log.write(text + b"\n")
            if script:
                write(text)

        def look() -> None:
            nonlocal plotted
            if not script:
                show(meter)
            if time.monotonic() - plotted > 5:
                draw()
                plotted = time.monotonic()

        here = os.getcwd() if script else os.path.abspath(job.folder)
        cluster = Cluster(record, found, folder=here, on_line=line, on_look=look)
        try:
            code = cluster.run()
        except UniscaleError:
            job.say(phase="failed")
            raise
        finally:
            draw()
    job.say(**({"phase": "stopped"} if code else {"phase": "done", "eta": 0}))
    return code
