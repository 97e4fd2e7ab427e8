"""Resolves MODEL: ``demo`` (shipped in the wheel), or a path to a GGUF file or a folder."""

from __future__ import annotations

import os
import re
import stat

from uniscale_build.errors import LaunchError, did_you_mean

from uniscale.frozen import Frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

SHIPPED = os.path.dirname(__file__)
_MAGIC = b"GGUF"
_VISION = "mmproj"  # mmproj-*.gguf is the image part of the model that lies beside it
_HEADER = 24  # bytes: magic, version, number of tensors, number of metadata entries
# Compiled when they are first needed: not on the way to exec.
_HUB = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
_PARTS = r"(?P<stem>.*)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf"


class Generation(Frozen):
    """How a model answers best where the user says nothing; None leaves it to the engine."""

    temperature: float | None = None
    max_tokens: int | None = None


class Model(Frozen):
    """A model that is on this machine: its name in the API, and where each of its formats lies."""

    name: str
    formats: Mapping[str, str]
    generation: Generation = Generation()
    vision: str | None = None  # the part of a GGUF that sees images, a file beside it


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
        return _of_folder(word, shipped[word], generation)
    if not word.strip():  # as a path, this folder
        raise _missing(repr(word), shipped)
    path = os.path.abspath(os.path.expanduser(word))
    name = os.path.basename(path)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        if re.fullmatch(_HUB, word, re.ASCII) and not word.endswith(".gguf"):
            return Model(_api_name(word.rpartition("/")[2]), {"hf": word})
        if not must_exist and "/" in word:
            return Model(_api_name(name), {"gguf" if name.endswith(".gguf") else "hf": path})
        raise _missing(word, shipped) from error
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    if stat.S_ISDIR(mode):
        return _of_folder(_api_name(name), path)
    if not stat.S_ISREG(mode):
        raise _unusable(path, "it is neither a file nor a folder")
    check_gguf(path)
    return Model(_api_name(name), {"gguf": path})


def check_gguf(path: str) -> None:
    """Raise `LaunchError` unless the file begins as a GGUF does and no part of it is missing.

    The error says what the file is instead.
    """
    try:
        with open(path, "rb") as stream:
            start = stream.read(512)
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from error
    if start.startswith(_MAGIC) and len(start) >= _HEADER:
        _check_parts(path)
        return
    raise LaunchError(
        f"{os.path.basename(path)} is not a GGUF file: {_what_it_is(start)}",
        where=path,
        hint="a GGUF begins with the bytes GGUF; a Hugging Face model is given as its folder",
        slug="not-gguf",
    )


def _check_parts(path: str) -> None:
    folder, file = os.path.split(path)
    split = _split(file)
    if split is None:
        return
    parts = int(split["parts"])
    names = [f"{split['stem']}-{part:05}-of-{parts:05}.gguf" for part in range(1, parts + 1)]
    missing = [name for name in names if not os.path.isfile(os.path.join(folder, name))]
    if missing:
        raise _unusable(path, f"it has {parts} parts and these are missing: {', '.join(missing)}")
    if file != names[0]:
        raise LaunchError(
            f"{file} is a later part of a split model",
            where=path,
            hint=f"give the first part: {os.path.join(folder, names[0])}",
            slug="not-first-part",
        )


def _split(name: str) -> re.Match[str] | None:
    """The stem, part and number of parts in the name of a split model's file."""
    return re.fullmatch(_PARTS, name, re.DOTALL) if "-of-" in name else None


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


def _shipped() -> dict[str, str]:
    try:
        with os.scandir(SHIPPED) as entries:
            found = {entry.name: entry.path for entry in entries if entry.is_dir()}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    found.pop("__pycache__", None)  # of the modules beside them
    return found


def _of_folder(name: str, folder: str, generation: Generation | None = None) -> Model:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise _unusable(folder, str(error.strerror)) from error
    formats: dict[str, str] = {}
    gguf = _gguf_in(folder, [name for name in names if name.endswith(".gguf")])
    if gguf is not None:
        check_gguf(gguf)
        formats["gguf"] = gguf
    seeing = [one for one in names if one.startswith(_VISION) and one.endswith(".gguf")]
    for place in (folder, os.path.join(folder, "hf")):
        if os.path.isfile(os.path.join(place, "config.json")):
            formats["hf"] = place
            break
    if not formats:
        raise LaunchError(
            f"{os.path.basename(folder)} holds no model",
            where=folder,
            hint="a model folder holds config.json (Hugging Face) or one .gguf file",
            slug="no-model",
        )
    # Of several, nobody knows which one is meant.
    vision = os.path.join(folder, seeing[0]) if gguf is not None and len(seeing) == 1 else None
    return Model(name, formats, generation or Generation(), vision)


def _gguf_in(folder: str, names: list[str]) -> str | None:
    models = [name for name in names if not name.startswith(_VISION)]
    # Parts of one split model share what stands before -00001-of-00003; the first stands for all.
    first: dict[str, str] = {}
    for name in models:
        split = _split(name)
        first.setdefault(name if split is None else split["stem"], name)
    if len(first) > 1:
        paths = [os.path.join(folder, one) for one in first.values()]
        raise LaunchError(
            f"{os.path.basename(folder)} holds {len(first)} GGUF models",
            where=folder,
            hint="\n".join(["give the path of one:", *paths]),
            slug="several-models",
        )
    return os.path.join(folder, next(iter(first.values()))) if first else None


def _api_name(name: str) -> str:
    # A name that begins with a dash would be read as a flag by the engine.
    split = _split(name)
    stem = name.removesuffix(".gguf") if split is None else split["stem"]
    return stem.lstrip("-") or "model"


def _missing(word: str, shipped: Mapping[str, str]) -> LaunchError:
    near = did_you_mean(word, shipped) if shipped else ""
    return LaunchError(
        f"there is no model {word}",
        where=word,
        hint="\n".join(filter(None, [near, "MODEL is a shipped model's name or a path"])),
        slug="no-model",
    )


def _unusable(path: str, why: str) -> LaunchError:
    name = os.path.basename(path)
    return LaunchError(f"the model {name} cannot be read: {why}", where=path, slug="no-model")
