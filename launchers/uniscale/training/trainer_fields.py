"""What the installed trainer can be told: its data classes' fields, read without importing it.

A field whose type is a number or a switch is held to that; what else a value may be, the trainer
itself says.

transformers, TRL and PEFT take seconds to import; their sources say the same in milliseconds.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, did_you_mean

from uniscale.training.methods import METHODS

PACKAGES = ("torch", "transformers", "trl", "peft", "datasets")
_TRAINER = (
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
    ("trl", "trainer/sft_config.py", "SFTConfig"),
)
_OURS = ("output_dir", "overwrite_output_dir", "resume_from_checkpoint", "logging_dir")


def check_installed() -> None:
    """Raise `LaunchError` that names every package of the trainer that is missing."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise LaunchError(
            f"fine-tuning needs {', '.join(missing)}, not installed here",
            hint="pip install 'uniscale[train]' (with Python 3.11 or newer)",
            slug="no-trainer",
        )


def check_arguments(arguments: Mapping[str, object]) -> list[UniscaleError]:
    """An error for each name that the trainer does not know, or that is ours to set.

    And for each value (numbers as numbers) that its field cannot hold.
    """
    known = trainer_fields()
    errors: list[UniscaleError] = []
    for name, value in arguments.items():
        if name in _OURS:
            what, hint = f'"{name}" is set by uniscale', "the job folder is --out; see --resume"
        elif known and name not in known:
            what, hint = f"the trainer has no argument {name}", did_you_mean(name, known)
        else:
            errors += _misfit(name, value, known.get(name, ""), "args")
            continue
        errors.append(SettingsError(what, where="args", hint=hint, slug="unknown-argument"))
    return errors


def check_method(method: str, arguments: Mapping[str, object]) -> list[UniscaleError]:
    """An error for each name that the method's PEFT configuration does not know.

    And for each value that its field cannot hold.
    """
    config = METHODS[method].config
    if config is None:
        if not arguments:
            return []
        what = "all weights are trained: the method takes no arguments"
        return [SettingsError(what, where="method", slug="unknown-argument")]
    known = method_fields(*config)
    errors: list[UniscaleError] = []
    for name, value in arguments.items():
        if known and name not in known:
            what = f"{method} has no argument {name}"
            hint = did_you_mean(name, known)
            errors.append(SettingsError(what, where="method", hint=hint, slug="unknown-argument"))
        else:
            errors += _misfit(name, value, known.get(name, ""), "method")
    return errors


def _misfit(name: str, value: object, kind: str, where: str) -> list[UniscaleError]:
    """The error of a value that a field annotated ``kind`` cannot hold, where that is plain."""
    kinds = {part.strip() for part in kind.split("|")}
    if not kinds <= {"int", "float", "bool", "None"} or kinds <= {"None"}:
        return []
    switch = "bool" in kinds and (isinstance(value, bool) or value in (0, 1))
    number = kinds & {"int", "float"} and type(value) in (int, float)
    if switch or number or (value is None and "None" in kinds):
        return []
    wanted = "a number" if kinds & {"int", "float"} else "true or false"
    return [SettingsError(f"{name} must be {wanted}, not {value!r}", where=where, slug="bad-value")]


@functools.cache
def trainer_fields() -> Mapping[str, str]:
    """Every argument of TRL's SFTConfig with its annotation; none where it is not installed.

    None either where its sources are laid out otherwise.
    """
    found: dict[str, str] = {}
    for one in _TRAINER:
        found |= _fields(*one)
    return found


@functools.cache
def method_fields(folder: str, name: str) -> Mapping[str, str]:
    """Every argument of one PEFT configuration with its annotation; none without PEFT."""
    found: dict[str, str] = {}
    if folder == "adalora":
        found |= _fields("peft", "tuners/lora/config.py", "LoraConfig")
    found |= _fields("peft", f"tuners/{folder}/config.py", name)
    return found and {**_fields("peft", "config.py", "PeftConfig"), **found}


def _fields(package: str, path: str, name: str) -> dict[str, str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return {}
    try:
        tree = ast.parse((Path(spec.origin).parent / path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}  # another layout than that we know: the trainer itself will say
    return {
        item.target.id: re.sub(r"Optional\[(\w+)\]", r"\1 | None", ast.unparse(item.annotation))
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    }  # fmt: skip
