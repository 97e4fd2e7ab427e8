"""What is wanted of one of vLLM's recipes, and what is gathered from it: the last one wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from uniscale_build.yamlfile import Fields, Value

from uniscale.config import recipe_hardware as hardware


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

    @property
    def kind(self) -> str:
        """This machine's hardware for a warning."""
        return self.hardware[-1] if self.hardware else "a machine of several kinds of chips"


@dataclass
class Made:
    """Arguments and variables, gathered in order; the last one wins."""

    words: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add(self, block: Fields, arguments: str, environment: str) -> None:
        """Add what two keys of a block hold."""
        self.words += block.texts(arguments)
        self.environment |= block.pairs(environment)


def chosen(told: Fields) -> Chosen:
    """What stands under ``recipe``; what is wrong with it is recorded in ``told``."""
    word = told.maybe("hardware")
    found = Chosen(
        variant=told.text("variant", "default"),
        hardware=hardware.lineage(word) if word else hardware.here(),
        strategy=told.maybe("strategy"),
        features=several(told, "features"),
        without=several(told, "without"),
        modes=told.pairs("modes"),
        chips=_number(told, "chips"),
        nodes=_number(told, "nodes") or 1,
    )
    told.finish()
    return found


def keyed(fields: Fields, key: str, names: Sequence[str]) -> Value | None:
    """The value of ``key``: one for all hardware, or of the most particular of ``names``.

    A mapping's ``default`` is for the hardware that it does not name.
    """
    value = fields.get(key)
    if value is None or not isinstance(value.data, dict):
        return value
    keys = (*reversed(names), "default")
    return next((value.data[one] for one in keys if one in value.data), None)


def unsupported(fields: Fields, key: str, names: Sequence[str]) -> bool:
    """True when the mapping ``key`` calls this hardware ``unsupported``."""
    value = fields.get(key)
    if value is None or not isinstance(value.data, dict):
        return False
    return getattr(keyed(fields, key, names), "data", None) == "unsupported"


def whole(fields: Fields, value: Value, key: str) -> int | None:
    """``value`` as a number from 1, else an error in ``fields``."""
    text = value.data
    if not isinstance(text, str) or not (text.isascii() and text.isdigit() and int(text) > 0):
        fields.fail(value, f'"{key}" must be a whole number from 1')
        return None
    return int(text)


def several(told: Fields, key: str) -> tuple[str, ...]:
    """A list of texts, or one text with commas."""
    value = told.get(key)
    if value is not None and isinstance(value.data, str):
        return tuple(filter(None, (word.strip() for word in value.data.split(","))))
    return told.texts(key)


def _number(told: Fields, key: str) -> int | None:
    value = told.get(key)
    return None if value is None else whole(told, value, key)
