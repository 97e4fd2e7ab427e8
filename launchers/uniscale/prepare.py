"""From what the user typed to a command that can be started: model, payload, flags, checks."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from uniscale_build.errors import LaunchError

from uniscale import engines, flags, models, payloads
from uniscale.engines import Command
from uniscale.models import Model
from uniscale.record import Payload


@dataclass(frozen=True)
class Request:
    """What every launching command is asked for."""

    model: str
    backend: str | None
    device: str | None
    raw: tuple[str, ...]  # the engine's own flags, from behind ``--``


@dataclass(frozen=True)
class Prepared:
    """A resolved model, the payload that serves it, and the command that does."""

    model: Model
    payload: Payload
    command: Command

    def as_json(self) -> dict[str, object]:
        """The facts for ``--json``; ``environment`` holds only what we add or change."""
        from uniscale.ports import url

        return {
            "model": self.command.served_name,
            "backend": self.payload.backend,
            "device": self.payload.device,
            "version": self.payload.version,
            "argv": list(self.command.argv),
            "environment": dict(self.command.environment),
            "url": url(self.command.host, self.command.port) + "/v1",
        }


def prepare(request: Request, *, task: str, host: str, port: int) -> Prepared:
    """Resolve ``request`` for ``task`` at ``host`` and ``port``; starts and listens to nothing.

    Raises `LaunchError` for a model, payload or raw flag that does not fit, `SettingsError` for a
    word that matches nothing.
    """
    model = models.resolve(request.model)
    payload = payloads.choose(
        payloads.find(),
        task=task,
        formats=list(model.formats),
        model=request.model,
        backend=request.backend,
        device=request.device,
    )
    launch = payload.launch["serve"]
    flags.check(request.raw, launch.flags, engine=payload.backend)
    arguments: Mapping[str, object] = {
        "host": host,
        "port": port,
        "served_model_name": model.name,
    }
    command = engines.command(
        launch,
        engines.Place(payload.prefix, _interpreter(), payload.device_environment),
        model=next(model.formats[form] for form in launch.formats if form in model.formats),
        arguments=arguments,
        raw=request.raw,
        environ=os.environ,
    )
    return Prepared(model, payload, command)


def _interpreter() -> str:
    if not sys.executable:
        raise LaunchError("the running Python does not know its own program", slug="no-interpreter")
    return sys.executable
