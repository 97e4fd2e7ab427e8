"""What the installed trainer can be told: its data classes' fields, read without importing it.

transformers, TRL and PEFT take seconds to import; their sources say the same in milliseconds.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
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
    """An error for each name that the trainer does not know, or that is ours to set."""
    known = trainer_fields()
    errors: list[UniscaleError] = []
    for name in arguments:
        if name in _OURS:
            what, hint = f'"{name}" is set by uniscale', "the job folder is --out; see --resume"
        elif known and name not in known:
            what, hint = f"the trainer has no argument {name}", did_you_mean(name, known)
        else:
            continue
        errors.append(SettingsError(what, where="args", hint=hint, slug="unknown-argument"))
    return errors


def check_method(method: str, arguments: Mapping[str, object]) -> list[UniscaleError]:
    """An error for each name that the method's PEFT configuration does not know."""
    config = METHODS[method].config
    if config is None:
        if not arguments:
            return []
        what = "all weights are trained: the method takes no arguments"
        return [SettingsError(what, where="method", slug="unknown-argument")]
    known = method_fields(*config)
    return [
        SettingsError(
            f"{method} has no argument {name}", where="method",
            hint=did_you_mean(name, known), slug="unknown-argument",
        )
        for name in arguments
        if known and name not in known
    ]  # fmt: skip


@functools.cache
def trainer_fields() -> frozenset[str]:
    """Every argument of TRL's SFTConfig; empty when it is not installed or written otherwise."""
    return frozenset().union(*(_fields(*one) for one in _TRAINER))


@functools.cache
def method_fields(folder: str, name: str) -> frozenset[str]:
    """Every argument of one PEFT configuration; empty when PEFT is not installed."""
    path = f"tuners/{folder}/config.py"
    found = _fields("peft", path, name)
    if folder == "adalora":
        found |= _fields("peft", "tuners/lora/config.py", "LoraConfig")
    return found and found | _fields("peft", "config.py", "PeftConfig")


def _fields(package: str, path: str, name: str) -> frozenset[str]:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return frozenset()
    try:
        tree = ast.parse((Path(spec.origin).parent / path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return frozenset()  # another layout than that we know: the trainer itself will say
    return frozenset(
        item.target.id
        for node in tree.body
        if isinstance(node, ast.ClassDef) and node.name == name
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        and not item.target.id.startswith("_")
    )  # fmt: skip
