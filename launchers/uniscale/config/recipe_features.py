"""What a recipe can do beside answering: its features, and the ways (modes) of one."""

from __future__ import annotations

from uniscale_build.errors import did_you_mean
from uniscale_build.yamlfile import Fields

from uniscale.config.recipe_choice import Chosen, Made, keyed, unsupported


def add(fields: Fields, variant: Fields, strategy: str, chosen: Chosen, made: Made) -> None:
    """Add the arguments of all features that are on; they come last and win."""
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
        allowed = feature.texts("strategies")
        if allowed and strategy not in allowed:
            if name in chosen.features:
                made.warnings.append(f"{name} is not for {strategy}: {', '.join(allowed)}")
            continue
        companion = feature.fields("companion").maybe("command")
        if companion:
            made.warnings.append(f"{name} needs another process beside the server: {companion}")
        if feature.get("modes") is None:
            _add(feature, chosen, made)
            continue
        mode = _mode(feature, name, default_modes.get(name), chosen, made)
        if mode is not None:
            _add(mode, chosen, made)


def _add(block: Fields, chosen: Chosen, made: Made) -> None:
    """A feature's (or mode's) arguments; what it says for this hardware stands in their place."""
    found = keyed(block, "hardware_overrides", chosen.hardware)
    own = None
    if found is not None and isinstance(found.data, dict):
        own = Fields(found, block.errors, '"hardware_overrides"')
    made.words += (own if own is not None and own.get("args") else block).texts("args")
    made.environment |= (own if own is not None and own.get("env") else block).pairs("env")


def _mode(
    feature: Fields, name: str, default: str | None, chosen: Chosen, made: Made
) -> Fields | None:
    modes = feature.fields("modes")
    wanted = chosen.modes.get(name)
    for word in (wanted, default, feature.maybe("default_mode")):
        if word is not None and word not in modes.keys:
            feature.fail(feature.value, f'{name} has no mode "{word}"',
                         did_you_mean(word, modes.keys), "unknown-choice")  # fmt: skip
            return None
    reasons = {word: _why_not(modes.fields(word), chosen) for word in modes.keys}
    if wanted is not None:
        if reasons[wanted]:
            made.warnings.append(f"{name}: {wanted} is {reasons[wanted]}")
        return modes.fields(wanted)
    able = [word for word in modes.keys if not reasons[word]]
    if not able:
        made.warnings.append(f"{name} is left out: the recipe has no way of it for {chosen.kind}")
        return None
    best = next((w for w in (default, feature.maybe("default_mode")) if w in able), able[0])
    return modes.fields(str(best))


def _why_not(mode: Fields, chosen: Chosen) -> str:
    variants = mode.texts("variants")
    if variants and chosen.variant not in variants:
        return f"meant for {', '.join(variants)}"
    if unsupported(mode, "hardware", chosen.hardware):
        return f"not for {chosen.kind}"
    return ""
