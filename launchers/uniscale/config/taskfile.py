"""The two levels of a configuration, read alike for every task: an experiment, and a task in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, cast

from uniscale_build.errors import Gathering, SettingsError, UniscaleError, raise_all
from uniscale_build.yamlfile import Fields, Value

from uniscale.config import flagscale, spec
from uniscale.nodes import hostfile
from uniscale.nodes.hostfile import Host

_TASKS = ("serve", "train", "infer", "inference")
_BESIDE = ("hydra", "action")
_P = TypeVar("_P")


@dataclass(frozen=True)
class Experiment:
    """What an experiment says for all of its tasks; None, {} and () say nothing."""

    name: str | None
    folder: str | None  # where a training writes
    environment: Mapping[str, str]
    nodes: tuple[Host, ...]


@dataclass(frozen=True)
class Task(Generic[_P]):
    """How one task becomes its plan; a reader adds what is wrong to the errors that it is given."""

    name: str  # its key in a configuration
    hint: str  # the least that it needs
    own: Callable[[Experiment, Value, list[UniscaleError]], _P]
    flagscale: Callable[[Fields, Value, list[UniscaleError]], _P]

    def plan(self, root: Value) -> _P:
        """The plan in a composed configuration, ours or FlagScale's.

        Raises `ManifestError` or `SettingsError`, or `Problems` with all of them.
        """
        errors: list[UniscaleError] = []
        fields = Fields(root, errors, "a configuration")
        raise_all(errors)
        block = fields.get(self.name)
        if block is None:
            raise SettingsError(
                f"the configuration {self.name}s nothing",
                where=root.where,
                hint=f"it needs {self.name}: {self.hint}, or a defaults list that brings one",
                slug=f"nothing-to-{self.name}",
            )
        if flagscale.is_flagscale(root):
            made = self.flagscale(fields, block, errors)
        else:
            experiment = _experiment(fields, errors)
            if self.name == "serve" and experiment.folder and fields.get("train") is None:
                _no_folder(fields)
            made = self.own(experiment, block, errors)
            for key in (*_BESIDE, *_TASKS):
                fields.get(key)  # other tasks of the same experiment are no mistake
            fields.finish()
        raise_all(errors)
        return made


def _no_folder(fields: Fields) -> None:
    block = fields.fields("experiment")
    what = '"dir" is where a training writes; a server writes only its logs'
    hint = "uniscale logs shows them; UNISCALE_STATE names the folder that holds them"
    block.fail(block.get("dir") or block.value, what, hint, "no-effect")


def _experiment(fields: Fields, errors: list[UniscaleError]) -> Experiment:
    block = fields.fields("experiment")
    told = spec.read(block, spec.EXPERIMENT)
    block.finish()
    nodes: tuple[Host, ...] = ()
    if "nodes" in told:
        with Gathering(errors):
            nodes = hostfile.read(Path(str(told["nodes"])))
    return Experiment(
        name=cast("str | None", told.get("name")),
        folder=cast("str | None", told.get("dir")),
        environment=cast("Mapping[str, str]", told.get("env", {})),
        nodes=nodes,
    )
