"""The plan: everything that a build will do, resolved, frozen, printable, hashable.

Making a plan reads manifests and layers and asks the machine nothing but which device it has: no
network, no compiler, no git.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from uniscale_build import __version__
from uniscale_build.errors import Gathering, ManifestError, SettingsError, UniscaleError, raise_all
from uniscale_build.ids import label
from uniscale_build.layers.layer import Layer, check_chain
from uniscale_build.manifests.detection import find_devices
from uniscale_build.manifests.model import (
    Adaptation,
    Backend,
    Device,
    Manifests,
    Pin,
    Recipe,
    canonical_task,
)
from uniscale_build.plans.facts import pin_facts, python_facts, toolkit_facts
from uniscale_build.project import Project
from uniscale_build.settings import Settings
from uniscale_build.store import digest

SCHEMA = 1


@dataclass(frozen=True)
class BackendPlan:
    """One backend of a plan, down to the tree that will be compiled."""

    backend: Backend
    device: Device
    adaptation: Adaptation
    pin: Pin
    layers: tuple[Layer, ...]
    recipe: Recipe
    tasks: tuple[str, ...]

    @property
    def name(self) -> str:
        """``<backend>-<device>``: the payload's folder, the work folder, the record's name."""
        return f"{self.backend.name}-{self.device.name}"

    @property
    def tree(self) -> str:
        """The patched tree that the layers record."""
        return self.layers[-1].result if self.layers else self.pin.tree

    @property
    def visible(self) -> str | None:
        """The variable that limits which chips the engine sees."""
        return self.adaptation.visible or self.device.visible

    @property
    def sdk_device(self) -> Device | None:
        """The device when its SDK must be there for the build, else None."""
        return self.device if self.adaptation.sdk_use(self.recipe.kind) == "build" else None

    def as_json(self) -> dict[str, object]:
        """The facts that decide the result, for people, scripts and hashing."""
        return {
            "backend": self.backend.name,
            "device": self.device.name,
            "tasks": list(self.tasks),
            "pin": pin_facts(self.pin),
            "layers": [
                {"name": layer.name, "title": layer.title, "base": layer.base,
                 "result": layer.result}
                for layer in self.layers
            ],
            "tree": self.tree,
            "recipe": {
                "kind": self.recipe.kind,
                "targets": list(self.recipe.targets),
                "programs": list(self.recipe.programs),
                "languages": list(self.recipe.languages),
                "defines": dict(sorted(self.recipe.defines.items())),
                "environment": dict(sorted(self.recipe.environment.items())),
                "allowed_external": list(self.recipe.allowed_external),
                **python_facts(self.recipe),
                **toolkit_facts(self.recipe),
            },
            "requirements": list(self.adaptation.requirements),
            "requirement_rules": [
                {rule.kind: rule.name, "to": rule.to, "why": rule.why}
                for rule in self.adaptation.rules
            ],
            "environment": {**self.device.environment, **self.adaptation.environment},
            "launch": dict(self.backend.launch),
        }  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What one wheel will be made from."""

    backends: tuple[BackendPlan, ...]
    device: Device | None
    why: tuple[str, ...]  # how what was not said was decided
    settings: Settings

    @property
    def version(self) -> str:
        """The wheel's version: ours, with a label for what is in it."""
        if self.device is None:
            # Our own version, so that a post-release is ours too; the wheel carries the layers.
            revision = self.settings.revision
            return f"{__version__}.post{revision}" if revision else __version__
        words = [item.backend.label for item in self.backends] + [label(self.device.label)]
        return f"{__version__}+{'.'.join(words)}"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What the payloads need beside the launchers' own dependencies."""
        found = (word for item in self.backends for word in item.adaptation.requirements)
        return tuple(dict.fromkeys(found))

    def as_json(self) -> dict[str, object]:
        """The whole plan; `digest` is taken over it."""
        return {
            "schema": SCHEMA,
            "uniscale": __version__,
            "version": self.version,
            "device": self.device.name if self.device else None,
            "backends": [item.as_json() for item in self.backends],
            "settings": {
                "strip": self.settings.strip,
                "compression": self.settings.compression,
                "cmake_args": list(self.settings.cmake_args),
            },
            # Of wheels only: a payload is the same whatever its revision.
            **({"revisions": self.revisions} if self.revisions else {}),
        }

    @property
    def revisions(self) -> dict[str, int]:
        """Backend → revision of its wheel, of those that have one."""
        return {
            item.backend.name: item.adaptation.revision
            for item in self.backends
            if item.adaptation.revision
        }

    def revised(self, revisions: Mapping[str, int]) -> Plan:
        """The plan with revisions (by backend) in place of those that the adaptations tell."""
        items = (
            replace(item, adaptation=replace(item.adaptation, revision=number))
            for item in self.backends
            for number in [revisions.get(item.backend.name, item.adaptation.revision)]
        )
        return replace(self, backends=tuple(items))

    @property
    def digest(self) -> str:
        """SHA-256 of the plan: the same for everybody who makes the same thing."""
        return digest(self.as_json())


def make_plan(project: Project, settings: Settings) -> Plan:
    """Resolve ``settings`` against the project; every problem at once."""
    if not settings.backends:
        if settings.device is not None:
            # A plain wheel has no device, but a misspelt name is still worth an error.
            project.manifests.device(settings.device)
        return Plan((), None, ("no backend: launchers and build command only",), settings)
    manifests = project.manifests
    errors: list[UniscaleError] = []
    backends: list[Backend] = []
    for word in settings.backends:
        with Gathering(errors):
            backends.append(manifests.backend(word))
    backends = list({backend.name: backend for backend in backends}.values())
    device, why = _choose_device(manifests, backends, settings.device, errors)
    raise_all(errors)
    assert device is not None
    plans = []
    for backend in backends:
        with Gathering(errors):
            plans.append(_plan_backend(project, backend, device, settings))
    raise_all(errors)
    return Plan(tuple(plans), device, why, settings)


def _choose_device(
    manifests: Manifests, backends: list[Backend], word: str | None, errors: list[UniscaleError]
) -> tuple[Device | None, tuple[str, ...]]:
    if word is not None:
        try:
            device = manifests.device(word)
        except UniscaleError as error:
            errors.extend(error.findings())
            return None, ()
        return device, (f"device {device.name}: as asked for",)
    seen = find_devices(manifests.devices.values())
    pairs = manifests.adaptations
    fit = [
        name
        for name in seen
        if all((b.name, name) in pairs and pairs[b.name, name].ready for b in backends)
    ]
    if len(fit) > 1:
        errors.append(
            SettingsError(
                f"several devices are in this machine: {', '.join(fit)}",
                where=", ".join(seen[name] for name in fit),
                hint="name one with device=",
                slug="several-devices",
            )
        )
        return None, ()
    if fit:
        return manifests.devices[fit[0]], (f"device {fit[0]}: found {seen[fit[0]]}",)
    other = (f"{name} is here too ({what}), but not all backends are adapted to it"
             for name, what in seen.items())  # fmt: skip
    return manifests.devices["cpu"], ("device cpu: no other device was found that fits", *other)


def _plan_backend(
    project: Project, backend: Backend, device: Device, settings: Settings
) -> BackendPlan:
    adaptation = project.manifests.adaptation(backend, device)
    pin = backend.pin(adaptation.pin)
    assert pin is not None  # checked when the manifests were read
    if not pin.tree:
        raise ManifestError(
            f"{backend.name} {pin.version} cannot be built: its tree is not known ({pin.note})",
            where=pin.where,
            hint="fetch that source once, put its commit and tree into the pin, and take the note "
            "out",
            slug="no-tree",
        )
    layers = project.layers(pin, adaptation)
    raise_all(check_chain(pin, layers))
    have = adaptation.tasks or backend.tasks
    wanted = tuple(dict.fromkeys(canonical_task(word) for word in settings.tasks))
    missing = [task for task in wanted if task not in have]
    if missing:
        raise SettingsError(
            f"{backend.name} on {device.name} is not for {', '.join(missing)}",
            where=adaptation.at("tasks"),
            hint=f"it is for: {', '.join(have)}",
            slug="no-task",
        )
    plan = BackendPlan(
        backend, device, adaptation, pin, layers,
        recipe=backend.recipe.for_device(device).merged(adaptation.recipe),
        tasks=wanted or have,
    )  # fmt: skip
    return _fill(plan, settings)


def _fill(plan: BackendPlan, settings: Settings) -> BackendPlan:
    """The plan with ``{commit}``-like words of its recipe filled in, and the user's settings."""
    words = {
        "backend": plan.backend.name,
        "device": plan.device.name,
        "version": plan.pin.version,
        "commit": plan.pin.commit,
        "commit8": plan.pin.commit[:8],
        "tree": plan.tree,
        "layers": ",".join(layer.name for layer in plan.layers),
    }

    def fill(text: str) -> str:
        def word(found: re.Match[str]) -> str:
            if found[1] not in words:
                raise ManifestError(
                    f"{{{found[1]}}} is not known here",
                    where=plan.backend.at("recipe"),
                    hint=f"known: {', '.join(sorted(words))}",
                    slug="unknown-word",
                )
            return words[found[1]]

        return re.sub(r"\{(\w+)\}", word, text)

    defines = {name: fill(value) for name, value in plan.recipe.defines.items()}
    defines |= settings.cmake_defines
    environment = {name: fill(value) for name, value in plan.recipe.environment.items()}
    other = "from_source" if settings.kernels == "precompiled" else "precompiled"
    recipe = Recipe(**{**vars(plan.recipe), "defines": defines, "environment": environment,
                       other: None})  # fmt: skip
    return BackendPlan(**{**vars(plan), "recipe": recipe})


def build_record(plan: BackendPlan) -> Mapping[str, object]:
    """What a running engine tells of its build."""
    return {
        "uniscale": __version__,
        "backend": plan.backend.name,
        "device": plan.device.name,
        "upstream": plan.pin.commit,
        "layers": [layer.name for layer in plan.layers],
        "tree": plan.tree,
    }
