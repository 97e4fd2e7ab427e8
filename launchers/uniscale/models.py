"""Resolves MODEL: ``demo`` (shipped in the wheel), or a path to a GGUF file or a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import LaunchError, did_you_mean

SHIPPED = Path(__file__).with_name("models")
_MAGIC = b"GGUF"
_HEADER = 24  # bytes: magic, version, number of tensors, number of metadata entries
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_SPLIT = re.compile(r"-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf$")


@dataclass(frozen=True)
class Generation:
    """How a model answers best where the user says nothing; None leaves it to the engine."""

    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Model:
    """A model that is on this machine: its name in the API, and where each of its formats lies."""

    name: str
    formats: Mapping[str, Path]
    generation: Generation = field(default_factory=Generation)


def resolve(word: str, *, must_exist: bool = True) -> Model:
    """The model that ``word`` means; raises `LaunchError` when there is none or it is damaged.

    A shipped name goes before a path: ``./demo`` is the path. Formats are ``gguf`` (a file) and
    ``hf`` (a folder with config.json). ``owner/name`` that is no path here is a model of the hub,
    which the engine fetches itself. Unless it ``must_exist``, a path of another machine is taken
    as it is.
    """
    shipped = _shipped()
    if word in shipped:
        # Greedy, and short: the demo model is small and knows a few sentences.
        generation = Generation(temperature=0.0, max_tokens=128)
        return Model(word, _of_folder(shipped[word]), generation)
    path = Path(os.path.abspath(os.path.expanduser(word)))
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if _HUB.fullmatch(word) and not word.endswith(".gguf"):
            return Model(_api_name(word.rpartition("/")[2]), {"hf": Path(word)})
        if not must_exist and "/" in word:
            return Model(_api_name(path.name), {"gguf" if path.suffix == ".gguf" else "hf": path})
        raise _missing(word, shipped) from error
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    if stat.S_ISDIR(mode):
        return Model(_api_name(path.name), _of_folder(path))
    if not stat.S_ISREG(mode):
        raise _unusable(path, "it is neither a file nor a folder")
    check_gguf(path)
    return Model(_api_name(path.name), {"gguf": path})


def check_gguf(path: Path) -> None:
    """Raise `LaunchError` unless the file begins as a GGUF does and no part of it is missing.

    The error says what the file is instead.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    if start.startswith(_MAGIC) and len(start) >= _HEADER:
        _check_parts(path)
        return
    raise LaunchError(
        f"{path.name} is not a GGUF file: {_what_it_is(start)}",
        where=str(path),
        hint="a GGUF begins with the bytes GGUF; a Hugging Face model is given as its folder",
        slug="not-gguf",
    )


def _check_parts(path: Path) -> None:
    split = _SPLIT.search(path.name)
    if split is None:
        return
    stem, parts = path.name[: split.start()], int(split["parts"])
    names = [f"{stem}-{part:05}-of-{parts:05}.gguf" for part in range(1, parts + 1)]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise _unusable(path, f"it has {parts} parts and these are missing: {', '.join(missing)}")
    if path.name != names[0]:
        raise LaunchError(
            f"{path.name} is a later part of a split model",
            where=str(path),
            hint=f"give the first part: {path.parent / names[0]}",
            slug="not-first-part",
        )


def _what_it_is(start: bytes) -> str:
    text = start.lstrip().lower()
    if not start:
        return "it is empty"
    if start.startswith(_MAGIC):
        return "it is cut short"
    if text.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer (fetch the content with `git lfs pull`)"
    if text.startswith((b"<!doctype", b"<html")):
        return "it is an HTML page (a failed download?)"
    if start[8:9] == b"{" or start.startswith(b"PK"):
        return "it looks like weights in another format"
    return f"it begins with {start[:4]!r}"


def _shipped() -> dict[str, Path]:
    if not SHIPPED.is_dir():
        return {}
    return {entry.name: entry for entry in sorted(SHIPPED.iterdir()) if entry.is_dir()}


def _of_folder(folder: Path) -> dict[str, Path]:
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise _unusable(folder, str(error.strerror)) from error
    formats: dict[str, Path] = {}
    gguf = _gguf_in(folder, [name for name in names if name.endswith(".gguf")])
    if gguf is not None:
        check_gguf(gguf)
        formats["gguf"] = gguf
    for place in (folder, folder / "hf"):
        if (place / "config.json").is_file():
            formats["hf"] = place
            break
    if not formats:
        raise LaunchError(
            f"{folder.name} holds no model",
            where=str(folder),
            hint="a model folder holds config.json (Hugging Face) or one .gguf file",
            slug="no-model",
        )
    return formats


def _gguf_in(folder: Path, names: list[str]) -> Path | None:
    # mmproj-*.gguf is the image part of the model that lies beside it.
    models = [name for name in names if not name.startswith("mmproj")]
    # Parts of one split model share what stands before -00001-of-00003; the first stands for all.
    first: dict[str, str] = {}
    for name in models:
        first.setdefault(_SPLIT.sub("", name), name)
    if len(first) > 1:
        raise LaunchError(
            f"{folder.name} holds {len(first)} GGUF models",
            where=str(folder),
            hint="\n".join(["give the path of one:", *(str(folder / n) for n in first.values())]),
            slug="several-models",
        )
    return folder / next(iter(first.values())) if first else None


def _api_name(name: str) -> str:
    # A name that begins with a dash would be read as a flag by the engine.
    return _SPLIT.sub("", name).removesuffix(".gguf").lstrip("-") or "model"


def _missing(word: str, shipped: Mapping[str, Path]) -> LaunchError:
    near = did_you_mean(word, shipped) if shipped else ""
    return LaunchError(
        f"there is no model {word}",
        where=word,
        hint="\n".join(filter(None, [near, "MODEL is a shipped model's name or a path"])),
        slug="no-model",
    )


def _unusable(path: Path, why: str) -> LaunchError:
    return LaunchError(
        f"the model {path.name} cannot be read: {why}", where=str(path), slug="no-model"
    )
