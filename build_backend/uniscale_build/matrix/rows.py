"""The list of builds: one row for each backend, device, Python and platform that go together."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from uniscale_build.build.pipeline import plan_inputs, setting_inputs
from uniscale_build.errors import SettingsError, did_you_mean
from uniscale_build.manifests.devices import PLATFORMS
from uniscale_build.manifests.model import ANY_PYTHON, Backend, Device
from uniscale_build.plans.pairs import Pair, all_pairs
from uniscale_build.plans.plan import BackendPlan, Plan, make_plan
from uniscale_build.project import Project
from uniscale_build.settings import Settings
from uniscale_build.store import digest
from uniscale_build.wheels.distribution import read_pyproject, tool_table

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
RUNNERS = {"linux_x86_64": "ubuntu-24.04", "linux_aarch64": "ubuntu-24.04-arm"}


@dataclass(frozen=True)
class MatrixSettings:
    """``[tool.uniscale.matrix]`` of pyproject.toml."""

    pythons: tuple[str, ...] = PYTHONS
    runners: Mapping[str, str] = field(default_factory=lambda: dict(RUNNERS))


@dataclass(frozen=True)
class Row:
    """One build: what for, in which image, and what keeps this machine from it."""

    backend: str
    device: str
    tasks: tuple[str, ...]
    python: str  # "3.12", or ANY_PYTHON
    platform: str
    image: str  # "" when none is given
    pin: str
    sdk: str  # its name when the build needs it, else ""
    runner: tuple[str, ...]  # labels of a machine of CI that can build it
    obstacle: str  # why it cannot be built here; "" when it can
    digest: str  # of all that the project decides of the result
    inputs: Mapping[str, str] = field(compare=False, repr=False)
    names: tuple[str, ...] = field(compare=False, repr=False)  # that select it, the id first

    @property
    def id(self) -> str:
        """``vllm-Cambricon_MLU-cp312-linux_x86_64``; ``py3`` stands for any Python."""
        return self.names[0]

    @property
    def pair(self) -> str:
        """``<backend>-<device>``: the work folder's name."""
        return f"{self.backend}-{self.device}"

    def as_json(self) -> dict[str, object]:
        """The facts for scripts and for CI services."""
        return {
            "id": self.id,
            "backend": self.backend,
            "device": self.device,
            "tasks": list(self.tasks),
            "python": self.python,
            "platform": self.platform,
            "image": self.image,
            "pin": self.pin,
            "sdk": self.sdk,
            "runner": list(self.runner),
            "obstacle": self.obstacle,
            "digest": self.digest,
        }


def read_settings(project: Project) -> MatrixSettings:
    """The project's matrix settings; `SettingsError` for a key or value that cannot be used."""
    table = tool_table(read_pyproject(project)).get("matrix", {})
    where = "pyproject.toml [tool.uniscale.matrix]"
    known = {"pythons", "runners"}
    for key in set(table) - known:
        hint = did_you_mean(key, known)
        raise SettingsError(f'unknown key "{key}"', where=where, hint=hint, slug="unknown-setting")
    pythons = tuple(str(word) for word in table.get("pythons", PYTHONS))
    if not pythons or not all(re.fullmatch(r"3\.\d{1,2}", word) for word in pythons):
        raise SettingsError("pythons must be a list of versions like 3.12", where=where,
                            slug="bad-value")  # fmt: skip
    return MatrixSettings(pythons, {**RUNNERS, **table.get("runners", {})})


def all_rows(project: Project, pairs: Sequence[Pair] | None = None) -> list[Row]:
    """Every build that the manifests give, in the order of names; nothing is fetched or run."""
    settings = read_settings(project)
    return [
        row
        for pair in (all_pairs(project) if pairs is None else pairs)
        if pair.state in ("buildable", "needs-sdk")
        for row in pair_rows(project, pair, settings)
    ]


def pair_rows(project: Project, pair: Pair, settings: MatrixSettings) -> Iterator[Row]:
    """The rows of one pair that can be planned: its Pythons on its platforms."""
    plan = make_plan(project, Settings(backends=(pair.backend,), device=pair.device))
    item = plan.backends[0]
    for system in PLATFORMS:
        if system not in item.device.platforms or not _has_kernels(item, system):
            continue
        for python in _pythons(item, settings):
            yield _row(project, plan, item, pair, python, system, settings)


def _pythons(item: BackendPlan, settings: MatrixSettings) -> tuple[str, ...]:
    if item.recipe.pythons:
        return item.recipe.pythons
    return (ANY_PYTHON,) if item.recipe.kind == "cmake" else settings.pythons


def _has_kernels(item: BackendPlan, system: str) -> bool:
    """False where the compiled members would be taken from a wheel that there is not."""
    ready = item.recipe.precompiled
    machine = system.partition("_")[2]
    return ready is None or any(file.machine == machine for file in ready.files)


def _row(
    project: Project, plan: Plan, item: BackendPlan, pair: Pair, python: str, system: str,
    settings: MatrixSettings,
) -> Row:  # fmt: skip
    inputs = plan_inputs(project, item) | setting_inputs(plan)
    # The Python that happens to run us is not the one of the row.
    if "python" in inputs:
        inputs["python"] = python
    device = item.device
    sdk = device.sdk.name if item.sdk_device is not None and device.sdk is not None else ""
    image = item.adaptation.image or device.container.image
    runner: tuple[str, ...] = (settings.runners[system],)
    if sdk and not image:
        runner = ("self-hosted", device.name, system)
    return Row(
        item.backend.name, device.name, item.tasks, python, system, image, item.pin.version, sdk,
        runner, _obstacle(pair, python, system), digest(inputs, python, system), inputs,
        names=_names(item.backend, device, python, system),
    )  # fmt: skip


def tag(python: str) -> str:
    """``cp312`` for 3.12, ``py3`` for any."""
    return "py3" if python == ANY_PYTHON else f"cp{python.replace('.', '')}"


def _names(backend: Backend, device: Device, python: str, system: str) -> tuple[str, ...]:
    first = [backend.name, *backend.aliases]
    second = [device.name, *device.aliases]
    pairs = [f"{one}-{two}" for one in first for two in second]
    ids = [f"{pair}-{tag(python)}-{system}" for pair in pairs]
    return tuple(dict.fromkeys([ids[0], pairs[0], *ids, *pairs, *first, *second]))


def _obstacle(pair: Pair, python: str, system: str) -> str:
    here = this_platform()
    if system != here:
        return f"is for {system}, and this machine is {here}"
    if pair.state == "needs-sdk":
        return pair.what
    if python not in (ANY_PYTHON, this_python()):
        return f"is for Python {python}, and this one is {this_python()}"
    return ""


def this_platform() -> str:
    """``linux_x86_64``, as the matrix writes it."""
    return f"{platform.system().lower()}_{platform.machine()}"


def this_python() -> str:
    """``3.11``."""
    return ".".join(str(number) for number in sys.version_info[:2])
