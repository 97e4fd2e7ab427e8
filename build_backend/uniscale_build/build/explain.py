"""Why a build will do what it will do: inputs now against those of the last finished build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from uniscale_build.build.pipeline import Context, payload_inputs, recall, setting_inputs
from uniscale_build.build.toolchain import probe
from uniscale_build.plans.plan import BackendPlan, Plan
from uniscale_build.store import digest


@dataclass(frozen=True)
class Change:
    """One input that differs: what it was (None: not there) and what it is."""

    name: str
    before: str | None
    now: str | None


@dataclass(frozen=True)
class Stage:
    """One stage of one backend: whether it is done, and which inputs changed since it last was."""

    backend: str
    stage: str
    state: str  # "cached", "first build", "changed"
    changes: tuple[Change, ...]


def explain(context: Context, plan: Plan) -> list[Stage]:
    """The stages of a plan, in order; asks compilers for their version, builds nothing."""
    found = []
    for item in plan.backends:
        found += _stages(context, plan, item)
    return found


# stage → the inputs (by their first word) that belong to it
_STAGES = {
    "source": ("pin",),
    "patched tree": ("layers", "tree"),
    "toolchain": ("toolchain",),
    "recipe": ("define", "recipe", "superbuild", "setting"),
    "payload": ("schema", "tasks", "launch", "environment", "device", "verified"),
}


def _stages(context: Context, plan: Plan, item: BackendPlan) -> list[Stage]:
    toolchain = probe(item.recipe.compiled, device=item.sdk_device)
    inputs = payload_inputs(context, item, toolchain) | setting_inputs(plan)
    last = recall(context, item.name).get("payload")
    done = (context.store.payloads / digest(inputs)).exists()
    stages = []
    for stage, words in _STAGES.items():
        changes = _changes(last or {}, inputs, words) if last is not None else ()
        state = "changed" if changes else "cached" if done or last is not None else "first build"
        stages.append(Stage(item.name, stage, state, changes))
    return stages


def _changes(
    before: Mapping[str, str], now: Mapping[str, str], words: tuple[str, ...]
) -> tuple[Change, ...]:
    names = [name for name in {**before, **now} if name.split(" ")[0] in words]
    return tuple(
        Change(name, before.get(name), now.get(name))
        for name in sorted(names)
        if before.get(name) != now.get(name)
    )
