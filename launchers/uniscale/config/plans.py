"""What is to be served, however it was asked for: models, engines, and the gateway before them."""

from __future__ import annotations

from uniscale.frozen import NONE, Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from uniscale.nodes.hostfile import Host

START_TIMEOUT = 1800.0  # seconds; large models load for long


class ModelPlan(Frozen):
    """One kind of engine that is to run."""

    model: str
    name: str | None = None
    engines: tuple[str, ...] = ()  # the first that fits; (): whatever payload does
    device: str | None = None
    devices: str | None = None
    replicas: int = 1
    arguments: Mapping[str, object] = NONE
    engine_arguments: Mapping[str, Mapping[str, object]] = NONE
    environment: Mapping[str, str] = NONE
    raw: tuple[str, ...] = ()


class ServePlan(Frozen):
    """All that one ``uniscale serve`` starts."""

    models: tuple[ModelPlan, ...]
    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    start_timeout: float = START_TIMEOUT  # seconds
    gateway: Mapping[str, object] | None = None  # None: only where there are several engines
    no_gateway: bool = False
    nodes: tuple[Host, ...] = ()  # machines of one engine; (): this one
    master_port: int | None = None  # where these machines meet; None: torchrun's
    special: Mapping[str, Mapping[str, str]] = NONE  # host or type → env
    warnings: tuple[str, ...] = ()
