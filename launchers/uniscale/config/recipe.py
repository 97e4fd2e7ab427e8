"""Reads vLLM's public recipes (``models/<org>/<repo>.yaml``) and says what they serve, and how.

A recipe has arguments for a model, then more for a variant, a kind of hardware, a strategy and
features; the last one wins. What is chosen stands under ``recipe``, where ``--set`` puts it:
``--set recipe.variant=fp8 --set recipe.hardware=h200 --set recipe.strategy=single_node_tep``.
The schema is somebody else's and grows: a key that we do not know is a warning, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from uniscale_build.errors import UniscaleError, did_you_mean, raise_all
from uniscale_build.yamlfile import Fields, Value

from uniscale.config import recipe_features, recipe_strategy
from uniscale.config.plans import ModelPlan, ServePlan
from uniscale.config.recipe_choice import Chosen, Made, chosen, several, unsupported

_TOP = (
    *("meta", "model", "dependencies", "features", "opt_in_features", "variants", "recipe"),
    *("compatible_strategies", "hardware_overrides", "strategy_overrides", "guide"),
    *("default_strategy", "strategy_hardware", "strategy_min_gpus", "omni"),
    # Of the builder's row for a store of keys and values beside the engines, off by itself.
    *("kv_cache_strategy_hardware", "kv_offload_support"),
)
_FLAG = re.compile(r"--?[A-Za-z][A-Za-z0-9_.-]*")
_BLACKWELL = ("nvfp4", "fp4")  # precisions that need it, where a variant says nothing else
_SHORT = {
    "tp": "tensor_parallel_size", "pp": "pipeline_parallel_size", "dp": "data_parallel_size",
    "q": "quantization", "ep": "enable_expert_parallel", "cc": "compilation_config",
}  # fmt: skip


def is_recipe(root: Value) -> bool:
    """True for a recipe: a model with its id, in the words of vLLM's recipes."""
    model = root.data.get("model") if isinstance(root.data, dict) else None
    return model is not None and isinstance(model.data, dict) and "model_id" in model.data


def plan(root: Value) -> ServePlan:
    """What the recipe serves here; raises `ManifestError` for a choice that it does not have."""
    errors: list[UniscaleError] = []
    fields = Fields(root, errors, "a recipe")
    wanted = chosen(fields.fields("recipe"))
    raise_all(errors)
    made = Made()
    model = fields.fields("model")
    for name in fields.keys:
        if name not in _TOP:
            made.warnings.append(f"{root.file}: {name} is not used")
    _check_tasks(fields)
    made.add(model, "base_args", "base_env")
    variant = _entry(fields, "variants", wanted.variant, "variant")
    made.add(variant, "extra_args", "extra_env")
    own = recipe_strategy.exact(variant, wanted)
    if own is not None:
        made.add(own, "extra_args", "extra_env")
    _supported(fields, variant, wanted, made)
    strategy = recipe_strategy.add(fields, variant, wanted, made)
    recipe_features.add(fields, variant, strategy, wanted, made)
    made.warnings += _told(fields, model, variant, wanted)
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


def _supported(fields: Fields, variant: Fields, wanted: Chosen, made: Made) -> None:
    """Warnings where the recipe says that this hardware cannot do it."""
    supported = variant.texts("supported_hardware")
    if supported and not set(supported) & set(wanted.hardware):
        made.warnings.append(
            f"the variant {wanted.variant} is for {', '.join(supported)}; this is {wanted.kind}"
        )
    if unsupported(fields.fields("meta"), "hardware", wanted.hardware):
        made.warnings.append(f"the recipe says that the model does not run on {wanted.kind} yet")
    need = variant.fields("precision_hardware")
    precision = variant.maybe("precision") or ""
    if need.keys:
        asked = [one.lower() for key in ("generation", "brand") for one in several(need, key)]
    else:
        asked = ["blackwell"] if precision in _BLACKWELL else []
    if asked and not set(asked) & set(wanted.hardware):
        made.warnings.append(
            f"{precision} of the variant {wanted.variant} needs {' or '.join(asked)}; "
            f"this is {wanted.kind}"
        )


def _told(fields: Fields, model: Fields, variant: Fields, wanted: Chosen) -> Iterator[str]:
    """What the recipe asks of the machine, which nobody but its owner can do."""
    for one in fields.each("dependencies", "a dependency"):
        note, command = one.maybe("note"), one.maybe("command")
        brands = {brand.lower() for brand in several(one, "brand")}
        modes = several(one, "install_modes") or ("pip",)
        elsewhere = (brands and not brands & set(wanted.hardware)) or "pip" not in modes
        if one.maybe("optional") != "true" and not elsewhere:
            yield f"the recipe asks for: {note or ''}" + (f" ({command})" if command else "")
    least = variant.maybe("min_vllm_version") or model.maybe("min_vllm_version")
    if least:
        for version in _older(least):
            yield f"the recipe asks for vLLM {least}; the payload here is {version}"


def _older(least: str) -> Iterator[str]:
    from packaging.version import InvalidVersion, Version
    from uniscale_build.ids import slug

    from uniscale.wheels import payloads

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
        # What stands behind a dot is the name of a field, which has no dashes.
        first, dot, rest = word.lstrip("-").partition(".")
        name = _SHORT.get(first, first).replace("-", "_") + dot + rest
        if not values and name.startswith("no_"):
            found[name[3:]] = False
        else:
            found[name] = True if not values else values[0] if len(values) == 1 else values
    return found
