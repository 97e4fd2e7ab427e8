"""Reads vLLM's public recipes (``models/<org>/<repo>.yaml``) and says what they serve, and how.

A recipe has arguments for a model, then more for a variant, a kind of hardware, a strategy and
features; the last one wins. What is chosen stands under ``recipe``, where ``--set`` puts it:
``--set recipe.variant=fp8 --set recipe.hardware=h200 --set recipe.strategy=single_node_tep``.
The schema is somebody else's and grows: a key that we do not know is a warning, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from uniscale_build.errors import UniscaleError, did_you_mean, raise_all
from uniscale_build.yamlfile import Fields, Value

from uniscale import recipe_hardware as hardware
from uniscale.plans import ModelPlan, ServePlan

CHOICES = ("variant", "hardware", "strategy", "features", "without", "modes", "chips", "nodes")
_TOP = (
    *("meta", "model", "dependencies", "features", "opt_in_features", "variants", "recipe"),
    *("compatible_strategies", "hardware_overrides", "strategy_overrides", "guide"),
)
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*")
_SHORT = {
    "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size",
    "q": "quantization", "ep": "enable_expert_parallel",
}  # fmt: skip
_SPREAD: Mapping[str, tuple[str, bool]] = {
    # strategy -> the argument that gets the chips of one machine, and whether experts are spread
    "single_node_tp": ("tensor_parallel_size", False),
    "single_node_tep": ("tensor_parallel_size", True),
    "single_node_dep": ("data_parallel_size", True),
    "multi_node_tp": ("tensor_parallel_size", False),
    "multi_node_tep": ("tensor_parallel_size", True),
    "multi_node_tp_pp": ("tensor_parallel_size", False),
    "multi_node_dep": ("data_parallel_size", True),
}


@dataclass(frozen=True)
class Chosen:
    """What is wanted of a recipe."""

    variant: str = "default"
    hardware: tuple[str, ...] = ()  # names of this machine, from the general to the particular
    strategy: str | None = None
    features: tuple[str, ...] = ()  # on, beside those that are on by themselves
    without: tuple[str, ...] = ()  # off
    modes: Mapping[str, str] = field(default_factory=dict)  # feature -> which way of it
    chips: int | None = None  # of each machine
    nodes: int = 1


@dataclass
class _Made:
    """Arguments and variables, gathered in order; the last one wins."""

    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, block: Fields, arguments: str, environment: str) -> None:
        self.words += block.texts(arguments)
        self.environment |= block.pairs(environment)


def is_recipe(root: Value) -> bool:
    """True for a recipe: a model with its id, in the words of vLLM's recipes."""
    model = root.data.get("model") if isinstance(root.data, dict) else None
    return model is not None and isinstance(model.data, dict) and "model_id" in model.data


def plan(root: Value) -> ServePlan:
    """What the recipe serves here; raises `ManifestError` for a choice that it does not have."""
    errors: list[UniscaleError] = []
    fields = Fields(root, errors, "a recipe")
    chosen = _chosen(fields.fields("recipe"))
    raise_all(errors)
    made = _Made()
    model = fields.fields("model")
    for name in fields.keys:
        if name not in _TOP:
            made.warnings.append(f"{root.file}: {name} is not used")
    _check_tasks(fields)
    made.add(model, "base_args", "base_env")
    variant = _entry(fields, "variants", chosen.variant, "variant")
    made.add(variant, "extra_args", "extra_env")
    _supported(variant, chosen, made)
    for block in (fields, variant):
        overrides = block.fields("hardware_overrides")
        names = [name for name in chosen.hardware if name in overrides.keys]
        if "nvidia" in names and len(names) > 1:
            names.remove("nvidia")  # for the generations that have no block of their own
        for name in names:
            made.add(overrides.fields(name), "extra_args", "extra_env")
    _strategy(fields, variant, chosen, made)
    _features(fields, variant, chosen, made)
    made.warnings += _told(fields, model)
    arguments = arguments_of(made.words)
    raise_all(errors)
    return ServePlan(
        models=(
            ModelPlan(
                model=variant.maybe("model_id") or model.text("model_id"),
                name=None if "served_model_name" in arguments else model.text("model_id"),
                arguments=arguments,
                environment=made.environment,
            ),
        ),
        warnings=tuple(made.warnings),
    )


def _chosen(told: Fields) -> Chosen:
    word = told.maybe("hardware")
    found = Chosen(
        variant=told.text("variant", "default"),
        hardware=hardware.lineage(word) if word else hardware.here(),
        strategy=told.maybe("strategy"),
        features=_several(told, "features"),
        without=_several(told, "without"),
        modes=told.pairs("modes"),
        chips=_number(told, "chips"),
        nodes=_number(told, "nodes") or 1,
    )
    told.finish()
    return found


def _several(told: Fields, key: str) -> tuple[str, ...]:
    value = told.get(key)
    if value is not None and isinstance(value.data, str):
        return tuple(filter(None, (word.strip() for word in value.data.split(","))))
    return told.texts(key)


def _number(told: Fields, key: str) -> int | None:
    text = told.maybe(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        told.fail(told.get(key) or told.value, f'"{key}" must be a whole number from 1')
        return None
    return int(text)


def _entry(fields: Fields, key: str, name: str, what: str) -> Fields:
    block = fields.fields(key)
    if name not in block.keys:
        if name != "default":
            fields.fail(fields.get(key) or fields.value, f'the recipe has no {what} "{name}"',
                        did_you_mean(name, block.keys), "unknown-choice")  # fmt: skip
        return Fields(Value({}, fields.value.file, fields.value.line), fields.errors, what)
    return block.fields(name)


def _check_tasks(fields: Fields) -> None:
    tasks = fields.fields("meta").texts("tasks")
    if tasks and set(tasks) <= {"omni"}:
        fields.fail(fields.value, "the model is not served by vLLM's server but by vLLM-Omni",
                    "see the recipe's guide", "not-served")  # fmt: skip


def _supported(variant: Fields, chosen: Chosen, made: _Made) -> None:
    supported = variant.texts("supported_hardware")
    if supported and not set(supported) & set(chosen.hardware):
        made.warnings.append(
            f"the variant {chosen.variant} is for {', '.join(supported)}; this is "
            + (chosen.hardware[-1] if chosen.hardware else "a machine of several kinds of chips")
        )


def _strategy(fields: Fields, variant: Fields, chosen: Chosen, made: _Made) -> None:
    compatible = fields.texts("compatible_strategies")
    name = chosen.strategy or ("single_node_tp" if chosen.nodes == 1 else "multi_node_tp")
    if chosen.strategy is not None and name not in compatible:
        place = fields.get("compatible_strategies") or fields.value
        fields.fail(place, f'the recipe has no strategy "{name}"', did_you_mean(name, compatible),
                    "unknown-choice")  # fmt: skip
        return
    if name not in _SPREAD:
        fields.fail(fields.value, f"uniscale does not start the strategy {name}",
                    f"it starts {', '.join(_SPREAD)}", "unknown-choice")  # fmt: skip
        return
    block = fields.fields("strategy_overrides").fields(name)
    argument, experts = _SPREAD[name]
    count = _chips(chosen, block, variant, made)
    across = name.startswith("multi_node") and name != "multi_node_tp_pp"
    if count and count * (chosen.nodes if across else 1) > 1:
        total = count * (chosen.nodes if across else 1)
        made.words += [f"--{argument.replace('_', '-')}", str(total)]
    if name == "multi_node_tp_pp":
        made.words += ["--pipeline-parallel-size", str(chosen.nodes)]
    if experts:
        made.words.append("--enable-expert-parallel")
    made.add(block, "vllm_args", "env")
    made.add(block, "extra_args", "extra_env")


def _chips(chosen: Chosen, block: Fields, variant: Fields, made: _Made) -> int | None:
    """Chips of each machine for one engine: as told, as the recipe limits it, as there are."""
    most = _number(block, "tp") or _number(variant, "tp")
    there = chosen.chips or hardware.count(chosen.hardware)
    if there is None:
        if most is None and "cpu" not in chosen.hardware:
            made.warnings.append("how many chips there are is unknown: --set recipe.chips=N")
        return most
    return min(most, there) if most else there


def _features(fields: Fields, variant: Fields, chosen: Chosen, made: _Made) -> None:
    block = fields.fields("features")
    default_modes = variant.pairs("default_modes")
    off = (set(fields.texts("opt_in_features")) - set(default_modes)) | set(chosen.without)
    for name in (*chosen.features, *chosen.without):
        if name not in block.keys:
            fields.fail(fields.get("features") or fields.value,
                        f'the recipe has no feature "{name}"', did_you_mean(name, block.keys),
                        "unknown-choice")  # fmt: skip
    for name in block.keys:
        if name in off and name not in chosen.features:
            continue
        feature = block.fields(name)
        if feature.get("modes") is not None:
            wanted = chosen.modes.get(name) or default_modes.get(name)
            feature = _mode(feature, name, wanted, chosen, made)
        made.add(feature, "args", "env")


def _mode(feature: Fields, name: str, wanted: str | None, chosen: Chosen, made: _Made) -> Fields:
    modes = feature.fields("modes")
    word = wanted or feature.maybe("default_mode") or next(iter(modes.keys), "")
    if word not in modes.keys:
        feature.fail(feature.value, f'{name} has no mode "{word}"', did_you_mean(word, modes.keys),
                     "unknown-choice")  # fmt: skip
        return modes
    mode = modes.fields(word)
    variants = mode.texts("variants")
    if variants and chosen.variant not in variants:
        made.warnings.append(f"{name}: {word} is meant for {', '.join(variants)}")
    own = mode.fields("hardware_overrides")
    for one in reversed(chosen.hardware):
        if one in own.keys and own.fields(one).get("args") is not None:
            return own.fields(one)
    return mode


def _told(fields: Fields, model: Fields) -> Iterator[str]:
    """What the recipe asks of the machine, which nobody but its owner can do."""
    for one in fields.each("dependencies", "a dependency"):
        note, command = one.maybe("note"), one.maybe("command")
        if one.maybe("optional") != "true":
            yield f"the recipe asks for: {note or ''}" + (f" ({command})" if command else "")
    least = model.maybe("min_vllm_version")
    if least:
        for version in _older(least):
            yield f"the recipe asks for vLLM {least}; the payload here is {version}"


def _older(least: str) -> Iterator[str]:
    from packaging.version import InvalidVersion, Version
    from uniscale_build.ids import slug

    from uniscale import payloads

    for payload in payloads.find().payloads:
        try:
            if slug(payload.backend) == "vllm" and Version(payload.version) < Version(least):
                yield payload.version
        except InvalidVersion:
            continue


def arguments_of(words: Sequence[str]) -> dict[str, object]:
    """vLLM's flags as common arguments: ``--max-model-len 8K`` → ``max_model_len: 8K``.

    The last of several equal flags wins; ``--no-x`` is x off; several values are a list.
    """
    found: dict[str, object] = {}
    place = 0
    while place < len(words):
        word, equals, value = words[place].partition("=")
        place += 1
        if not _FLAG.fullmatch(word):
            continue  # a value without a flag: the engine would not take it either
        values = [value] if equals else []
        while not equals and place < len(words) and not _FLAG.fullmatch(words[place].split("=")[0]):
            values.append(words[place])
            place += 1
        name = word.lstrip("-").replace("-", "_")
        name = _SHORT.get(name, name)
        if not values and name.startswith("no_"):
            found[name[3:]] = False
        else:
            found[name] = True if not values else values[0] if len(values) == 1 else values
    return found
