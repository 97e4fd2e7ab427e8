"""``uniscale export``: what was trained as weights that every engine serves, and as GGUF."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniscale_build.errors import LaunchError, SettingsError, did_you_mean

from uniscale.talk import note
from uniscale.training.methods import METHODS
from uniscale.training.pretraining import BYTES
from uniscale.training.traincommand import our_sources
from uniscale.training.trainjob import RECORD, TrainJob

TYPES = ("f32", "f16", "bf16", "q8_0")  # as uniscale.workers.gguf_write has them
_PACKAGES = ("torch", "safetensors", "gguf")


@dataclass(frozen=True)
class Parts:
    """What an export begins with: an adapter on its base, or whole weights in ``hf``."""

    hf: Path
    gguf: Path
    name: str
    adapter: Path | None = None
    base: str | None = None
    shards: Path | None = None  # what Megatron wrote; ``base`` is then the tokenizer's folder


def export(folder: str, *, out: str | None, kind: str, only_hf: bool, as_json: bool) -> int:
    """Merge the adapter in ``folder`` (a job, an adapter, or a model) and write its GGUF.

    Raises `SettingsError` for a folder that holds nothing to export, and `LaunchError` when it
    fails or when GGUF cannot hold the model; what was merged before stays.
    """
    if kind not in TYPES:
        hint = did_you_mean(kind, TYPES)
        raise SettingsError(f"there is no type {kind}", where="--type", hint=hint, slug="usage")
    parts = found(Path(os.path.abspath(os.path.expanduser(folder))), Path(out) if out else None)
    _check_installed(merging=parts.adapter is not None)
    done = _work(parts, kind, only_hf)
    refused = done.get("refused")
    if refused:
        made = (
            f"its merged weights are in {parts.hf}, for vLLM and SGLang" if done.get("hf") else None
        )
        raise LaunchError(
            f"GGUF cannot be written: {refused}", where=str(parts.hf), hint=made, slug="no-gguf"
        )
    serve = f"uniscale serve {done.get('gguf', parts.hf)}"
    if parts.hf.parent == parts.gguf.parent and parts.hf.name == "hf":
        serve = f"uniscale serve {_shown(parts.hf.parent)}"
    if as_json:
        print(json.dumps({**done, "next": serve}, indent=2))
        return 0
    if done.get("hf"):
        verb = "joined" if parts.shards else "merged"
        note(f"{verb}: {_shown(parts.hf)}")
    if done.get("gguf"):
        note(f"written and verified: {_shown(parts.gguf)}, {done['bytes']:,} bytes of {kind}")
    note(f"serve it: {serve}")
    return 0


def _shown(path: Path) -> str:
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def found(folder: Path, out: Path | None) -> Parts:
    """What ``folder`` holds, and where its exports go."""
    gguf = out or folder / "model.gguf"
    if gguf.is_dir():
        gguf = gguf / "model.gguf"
    if (folder / RECORD).is_file():
        return _of_job(TrainJob(folder), gguf)
    if (folder / "adapter_config.json").is_file():
        return Parts(folder / "hf", gguf, folder.name, folder)
    for place in (folder, folder / "hf"):
        if (place / "config.json").is_file():
            return Parts(place, gguf, folder.name)
    what = "is no folder" if not folder.is_dir() else "holds nothing that was trained"
    raise SettingsError(
        f"{folder.name} {what}", where=str(folder),
        hint="give the folder of a training, an adapter, or a Hugging Face model", slug="no-export",
    )  # fmt: skip


def _of_job(job: TrainJob, gguf: Path) -> Parts:
    told = job.told()
    name = str(told["name"])
    shards = job.folder / "megatron"
    if told.get("backend") is not None and (shards / "model.json").is_file():
        if told["weights"] == BYTES:
            raise SettingsError(
                "this model was trained on bytes: it has no tokenizer that an engine could use",
                where=str(job.folder), hint="name a model in place of bytes", slug="no-export",
            )  # fmt: skip
        return Parts(job.weights, gguf, name, None, str(told["weights"]), shards)
    if told.get("script") is not None:
        if (job.weights / "config.json").is_file():
            return Parts(job.weights, gguf, name)
        raise SettingsError(
            "this training wrote no model in Hugging Face's form", where=str(job.folder),
            slug="no-export",
        )  # fmt: skip
    method = METHODS[told["method"] if told.get("backend") is None else "full"]
    if not method.merges:
        raise SettingsError(
            f"{told['method']} ({method.title}) is no change of weights: it cannot be merged",
            where=str(job.adapter), hint="serve it with PEFT, or train with lora", slug="no-export",
        )  # fmt: skip
    if method.config is None and (job.weights / "config.json").is_file():
        return Parts(job.weights, gguf, name)
    if method.config is not None and (job.adapter / "adapter_config.json").is_file():
        return Parts(job.weights, gguf, name, job.adapter, str(told["weights"]))
    phase = job.progress().get("phase", "not begun")
    raise SettingsError(
        f"this training is not done ({phase})", where=str(job.folder),
        hint=f"go on with it: uniscale train {_shown(job.folder)} --resume", slug="no-export",
    )  # fmt: skip


def _check_installed(*, merging: bool) -> None:
    import importlib.util

    wanted = (*_PACKAGES, *(("transformers", "peft") if merging else ()))
    missing = [name for name in wanted if importlib.util.find_spec(name) is None]
    if missing:
        raise LaunchError(
            f"export needs {', '.join(missing)}, not installed here",
            hint="pip install 'uniscale[train]' (with Python 3.11 or newer)", slug="no-trainer",
        )  # fmt: skip


def _work(parts: Parts, kind: str, only_hf: bool) -> dict[str, Any]:
    """Have a process of its own do it: torch takes seconds to import, and memory."""
    import subprocess

    with tempfile.TemporaryDirectory(prefix="uniscale-") as scratch:
        failure = Path(scratch) / "failure.json"
        request = {
            "adapter": str(parts.adapter) if parts.adapter else None, "base": parts.base,
            "shards": str(parts.shards) if parts.shards else None,
            "hf": str(parts.hf), "gguf": None if only_hf else str(parts.gguf), "type": kind,
            "name": parts.name, "failure": str(failure),
        }  # fmt: skip
        path = [*our_sources(), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path)), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        ran = subprocess.run(
            [sys.executable, "-m", "uniscale.workers.export", json.dumps(request)],
            env=environment, capture_output=True, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if ran.returncode == 0:
            told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
            return told
        lines = ran.stderr.decode("utf-8", "replace").strip().splitlines()[-5:]
        what = f"the export ended early (exit code {ran.returncode})"
        if failure.exists():
            told = json.loads(failure.read_text(encoding="utf-8"))
            what = f"the export failed: {told['type']}: {told['message']}"
            lines = []
    raise LaunchError(
        what, where=str(parts.hf), hint="\n".join(lines) or None, slug="export-failed"
    )
