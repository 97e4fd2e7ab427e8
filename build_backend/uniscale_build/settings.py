"""Settings: config-settings, then environment, then pyproject.toml; unknown keys are refused."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError, did_you_mean, raise_all
from uniscale_build.ids import whole_number

COMPRESSIONS = ("default", "store", "fast", "best")
KERNELS = ("precompiled", "source")
CACHES = ("auto", "none", "ccache", "sccache")
AUTO = "auto"
_DEFINE = "cmake.define."


@dataclass(frozen=True)
class Settings:
    """What the caller asked for, names not yet resolved; see ``HELP`` for each key."""

    backends: tuple[str, ...] = ()
    device: str | None = None
    tasks: tuple[str, ...] = ()
    jobs: int | None = None
    build_dir: Path | None = None
    compression: str = "default"
    compiler_cache: str = "auto"
    kernels: str = "precompiled"
    strip: bool = True
    offline: bool = False
    cmake_defines: Mapping[str, str] = field(default_factory=dict)
    cmake_args: tuple[str, ...] = ()
    revision: int | str | None = None  # a number, AUTO, or None: the adaptation's
    index: str | None = None


HELP = {
    "backend": "backends to build, comma-separated or repeated",
    "device": "the device to build for (default: the one that is found, else cpu)",
    "task": "tasks that the wheel is for: train, serve, infer (default: all that the backend has)",
    "jobs": "compile jobs at a time (default: one a core, as far as memory goes)",
    "build-dir": "work folder (default: in the cache)",
    "compression": f"of the wheel: {', '.join(COMPRESSIONS)}",
    "compiler-cache": f"{', '.join(CACHES)} (auto: ccache or sccache when installed)",
    "kernels": "precompiled (from a pinned wheel where there is one) or source (compile them)",
    "strip": "true or false: take symbols out of what is built",
    "offline": "true or false: use only what is in the cache",
    "cmake.args": "more arguments for cmake, separated by spaces",
    "revision": "of split wheels: a number, or auto: counted on from those in the index",
    "index": "the index (folder or address) that revision=auto counts on from",
    f"{_DEFINE}NAME": "a CMake cache entry",
}


def _words(value: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))


def _flag(value: str) -> bool:
    words = {"true": True, "on": True, "1": True, "yes": True,
             "false": False, "off": False, "0": False, "no": False}  # fmt: skip
    if value.lower() not in words:
        raise ValueError("must be true or false")
    return words[value.lower()]


def _jobs(value: str) -> int:
    if not value.isdigit() or int(value) < 1:
        raise ValueError("must be a number, 1 or more")
    return int(value)


def _revision(value: str) -> int | str:
    if value == AUTO:
        return AUTO
    number = whole_number(value)
    if number is None:
        raise ValueError("must be a number (0 or more), or auto")
    return number


def _choice(allowed: Sequence[str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def _device(value: str) -> str | None:
    words = _words(value)
    if len(words) > 1:
        raise ValueError("names several devices; a wheel is for one: build one wheel for each")
    return words[0] if words else None


def _folder(value: str) -> Path:
    if not value.strip():
        raise ValueError("is empty")
    return Path(value).expanduser().absolute()


def _place(value: str) -> str:
    text = value.strip()
    return text if "://" in text else str(_folder(text))


_PARSERS: dict[str, tuple[str, Callable[[str], object]]] = {
    "backend": ("backends", _words),
    "device": ("device", _device),
    "task": ("tasks", _words),
    "jobs": ("jobs", _jobs),
    "build-dir": ("build_dir", _folder),
    "compression": ("compression", _choice(COMPRESSIONS)),
    "compiler-cache": ("compiler_cache", _choice(CACHES)),
    "kernels": ("kernels", _choice(KERNELS)),
    "strip": ("strip", _flag),
    "offline": ("offline", _flag),
    "cmake.args": ("cmake_args", lambda value: tuple(value.split())),
    "revision": ("revision", _revision),
    "index": ("index", _place),
}
_MANY = ("backend", "task")


def read(
    config_settings: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    defaults: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from the three sources; `SettingsError` or `Problems` for every bad key and value.

    ``defaults`` is ``[tool.uniscale.settings]`` of pyproject.toml.
    """
    env = os.environ if environ is None else environ
    errors: list[UniscaleError] = []
    merged: dict[str, str] = {}
    defines: dict[str, str] = {}
    sources: list[tuple[str, Mapping[str, object]]] = [
        ("pyproject.toml [tool.uniscale.settings]", defaults or {}),
        ("the environment", _from_environment(env)),
        ("config-settings", config_settings or {}),
    ]
    for where, given in sources:
        for raw, value in given.items():
            key = raw if raw.startswith(_DEFINE) else raw.replace("_", "-").lower()
            try:
                text = _text(key, value)
            except ValueError as error:
                errors.append(SettingsError(f"{raw} {error}", where=where, slug="bad-value"))
                continue
            if key.startswith(_DEFINE) and len(key) > len(_DEFINE):
                defines[key.removeprefix(_DEFINE)] = text
            elif key in _PARSERS:
                merged[key] = text
            else:
                errors.append(_unknown(raw, where))
    settings = Settings(cmake_defines=defines)
    for key, text in merged.items():
        name, parse = _PARSERS[key]
        try:
            # An empty value means "not set", as with environment variables.
            if text.strip() or key in ("build-dir",):
                settings = replace(settings, **{name: parse(text)})  # type: ignore[arg-type]
        except ValueError as error:
            errors.append(SettingsError(f'{key} "{text}" {error}', slug="bad-value"))
    raise_all(errors)
    return settings


def _text(key: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        words = [str(word) for word in value]
        if key in _MANY:
            return ",".join(words)
        if key == "cmake.args":
            return " ".join(words)
        if len(set(words)) > 1:
            raise ValueError(f"is given {len(words)} times: {', '.join(words)}")
        return words[0] if words else ""
    return str(value)


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key in _PARSERS:
        name = "UNISCALE_" + key.replace("-", "_").replace(".", "_").upper()
        if env.get(name):
            found[key] = env[name]
    return found


def _unknown(key: str, where: str) -> SettingsError:
    return SettingsError(
        f'unknown setting "{key}"',
        where=where,
        hint=did_you_mean(key, [name for name in HELP if not name.startswith(_DEFINE)]),
        slug="unknown-setting",
    )
