"""How a recipe's model is spread over chips, and what hardware and strategy add to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from uniscale_build.errors import did_you_mean
from uniscale_build.yamlfile import Fields

from uniscale.config import recipe_hardware as hardware
from uniscale.config.recipe_choice import Chosen, Made, keyed, whole


@dataclass(frozen=True)
class Spread:
    """One of the recipes' strategies: what it makes of chips and of machines."""

    chips: str  # the argument that gets the chips
    across: bool = False  # those of all machines, not of each
    machines: str | None = None  # the argument that gets the machines
    words: tuple[str, ...] = ()  # what it always passes


_EXPERTS = "--enable-expert-parallel"
_UNFUSED = "-cc.pass_config.fuse_allreduce_rms=False"
_TP, _DP = "tensor_parallel_size", "data_parallel_size"
_SPREAD: Mapping[str, Spread] = {
    "single_node_tp": Spread(_TP),
    "single_node_tep": Spread(_TP, words=(_EXPERTS,)),
    "single_node_dep": Spread(_DP, words=(_EXPERTS,)),
    "multi_node_tp": Spread(_TP, across=True, words=(_UNFUSED,)),
    "multi_node_tep": Spread(_TP, across=True, words=(_EXPERTS, _UNFUSED)),
    "multi_node_tp_pp": Spread(_TP, machines="pipeline_parallel_size"),
    "multi_node_dep": Spread(_DP, across=True, words=(_EXPERTS,)),
}
_BY_NODES = ("multi_node_tp", "multi_node_dep", "multi_node_tep")


def add(fields: Fields, variant: Fields, chosen: Chosen, made: Made) -> str:
    """Add what strategy and hardware ask for, in the recipes' own order; the strategy's name.

    A strategy's block for this kind of hardware stands in place of the recipe's and the variant's;
    one for this very chip comes on top.
    """
    name = _name(fields, chosen)
    block = fields.fields("strategy_overrides").fields(name)
    if name in _SPREAD:
        _parallel(_SPREAD[name], name, variant, block, chosen, made)
        _enough(fields, name, chosen, made)
    for arguments, environment in (("extra_args", "env"), ("vllm_args", "extra_env")):
        made.add(block, arguments, environment)
    own = list(_layers(block, chosen))
    for layer in own or [*_layers(fields, chosen), *_layers(variant, chosen, kinds_only=True)]:
        made.add(layer, "extra_args", "extra_env")
    made_for_chip = exact(block, chosen)
    if made_for_chip is not None:
        made.add(made_for_chip, "extra_args", "extra_env")
    return name


def exact(block: Fields, chosen: Chosen) -> Fields | None:
    """The block of this very chip in ``hardware_overrides``; None where there is none."""
    overrides = block.fields("hardware_overrides")
    name = chosen.hardware[-1] if len(chosen.hardware) > 1 else None
    return overrides.fields(name) if name in overrides.keys else None


def _layers(block: Fields, chosen: Chosen, *, kinds_only: bool = False) -> Iterator[Fields]:
    """The blocks of ``hardware_overrides`` that are for this machine, the particular one last.

    ``kinds_only`` leaves out the one of the very chip, which `exact` gives.
    """
    overrides = block.fields("hardware_overrides")
    mine = chosen.hardware
    if kinds_only and len(mine) > 1:
        mine = mine[:-1]
    names = [name for name in mine if name in overrides.keys]
    if "nvidia" in names and len(names) > 1:
        names.remove("nvidia")  # for the generations that have no block of their own
    yield from (overrides.fields(name) for name in names)


def _name(fields: Fields, chosen: Chosen) -> str:
    offered = _offered(fields)
    here = [one for one in offered if _runs(fields, one, chosen)]
    name = chosen.strategy or _usual(fields, here or offered, chosen.nodes)
    if chosen.strategy is not None and name not in offered:
        place = fields.get("compatible_strategies") or fields.value
        fields.fail(place, f'the recipe has no strategy "{name}"', did_you_mean(name, offered),
                    "unknown-choice")  # fmt: skip
    elif name not in _SPREAD:
        fields.fail(fields.value, f"uniscale does not start the strategy {name}",
                    f"it starts {', '.join(_SPREAD)}", "unknown-choice")  # fmt: skip
    elif chosen.strategy is not None and name not in here:
        others = [one for one in here if one in _SPREAD]
        fields.fail(fields.value, f"the recipe has no {name} for {chosen.kind}",
                    f"--set recipe.strategy={'|'.join(others)}", "unknown-choice")  # fmt: skip
    return name


def _offered(fields: Fields) -> tuple[str, ...]:
    """The strategies that the recipe lists, then those that it has for some hardware alone."""
    hardware_of = fields.fields("strategy_hardware")
    some = (name for name in hardware_of.keys if "supported" in hardware_of.pairs(name).values())
    return tuple(dict.fromkeys((*fields.texts("compatible_strategies"), *some)))


def _runs(fields: Fields, name: str, chosen: Chosen) -> bool:
    """True for a strategy that the recipe has for this hardware: listed for all, or for it."""
    told = keyed(fields.fields("strategy_hardware"), name, chosen.hardware)
    if told is None or told.data is None:
        return name in fields.texts("compatible_strategies")
    return told.data != "unsupported"


def _usual(fields: Fields, offered: Sequence[str], nodes: int) -> str:
    """The strategy where none is named: the recipe's own, else tensor parallel, else its first."""
    own = fields.maybe("default_strategy")
    if own in offered and own is not None:
        sibling = own.replace("single_node_", "multi_node_") if nodes > 1 else own
        if sibling in offered:
            return sibling
    usual = (*(_BY_NODES if nodes > 1 else ()), "single_node_tp")
    return next((name for name in usual if name in offered), offered[0] if offered else usual[0])


def _parallel(
    spread: Spread, name: str, variant: Fields, block: Fields, chosen: Chosen, made: Made
) -> None:
    alone = name == "single_node_tp"
    count = _fitting(variant, block, chosen, made) if alone else _there(chosen, made)
    total = (count or 1) * (chosen.nodes if spread.across else 1)
    made.words += spread.words
    if total > 1:
        made.words += [f"--{spread.chips.replace('_', '-')}", str(total)]
    if spread.machines:
        made.words += [f"--{spread.machines.replace('_', '-')}", str(chosen.nodes)]
    if name == "multi_node_dep" and chosen.nodes > 1:
        made.warnings.append(
            "all requests enter at the first machine, which shares them out; "
            "vLLM's hybrid load balancing, with an address on each, is not started"
        )
    if name.endswith("_dep") and chosen.nodes == 1:
        made.environment["VLLM_ALLREDUCE_USE_FLASHINFER"] = "1"


def _there(chosen: Chosen, made: Made) -> int | None:
    there = chosen.chips or hardware.count(chosen.hardware)
    if there is None and "cpu" not in chosen.hardware:
        made.warnings.append("how many chips there are is unknown: --set recipe.chips=N")
    return there


def _fitting(variant: Fields, block: Fields, chosen: Chosen, made: Made) -> int | None:
    """Chips for tensor parallel in one machine: as the recipe says, one that holds it, or all."""
    told = keyed(variant, "tp", chosen.hardware) or keyed(block, "tp", chosen.hardware)
    most = None if told is None else whole(variant, told, "tp")
    there = chosen.chips or hardware.count(chosen.hardware)
    if most is not None:
        return most if there is None or "cpu" in chosen.hardware else min(most, there)
    memory, needed = hardware.memory(chosen.hardware), keyed(variant, "vram_minimum_gb", ())
    if memory and needed is not None and (size := whole(variant, needed, "vram_minimum_gb")):
        return 1 if size <= memory else _there(chosen, made)
    return _there(chosen, made)


def _enough(fields: Fields, name: str, chosen: Chosen, made: Made) -> None:
    """A warning where the recipe asks for more chips than there are."""
    value = fields.get("strategy_min_gpus")
    there = chosen.chips or hardware.count(chosen.hardware)
    if value is None or there is None:
        return
    asked = [value]
    if isinstance(value.data, dict):
        asked = [value.data[key] for key in (name, *chosen.hardware[-1:]) if key in value.data]
        asked = [
            inner
            for one in asked
            for inner in ([one.data[name]] if isinstance(one.data, dict) and name in one.data
                          else [one] if isinstance(one.data, str) else [])
        ]  # fmt: skip
    least = max((whole(fields, one, "strategy_min_gpus") or 0 for one in asked), default=0)
    if there * chosen.nodes < least:
        made.warnings.append(
            f"the recipe asks for {least} chips for {name}; there are {there * chosen.nodes}"
        )
