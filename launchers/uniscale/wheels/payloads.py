"""Finds the payloads of this environment, and chooses the one that does a task.

A wheel brings ``uniscale_payloads/<backend>-<device>/payload.json`` into site-packages; several
wheels share that namespace folder. ``UNISCALE_PAYLOADS`` (folders, separated as in PATH) adds
folders that hold ``<backend>-<device>/`` themselves; they come first. Last come those that
``uniscale install --isolated`` put into environments of their own.
"""

from __future__ import annotations

import os
import sys

from uniscale_build.errors import LaunchError, SettingsError, did_you_mean
from uniscale_build.ids import slug

from uniscale import folders
from uniscale.frozen import Frozen, changed
from uniscale.wheels.record import FILE_NAME, Payload, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

VARIABLE = "UNISCALE_PAYLOADS"
HOW_TO_GET = (
    "install one from a wheel index: uniscale install llama.cpp --index URL\n"
    "or build and install one, in a clone of uniscale:\n"
    "pip install . --config-settings=backend=llama.cpp --config-settings=device=cpu"
)


class Broken(Frozen):
    """A payload that is installed and cannot be used."""

    root: str
    error: LaunchError

    @property
    def prefix(self) -> Path:
        """The folder that it lives in."""
        from pathlib import Path  # not on the way to exec: it takes 7 ms

        return Path(self.root)


class Hidden(Frozen):
    """A payload that cannot be reached: ``by`` has the same backend and device and comes first."""

    payload: Payload
    by: Payload


class Found(Frozen):
    """All payloads of this environment, in search order."""

    payloads: tuple[Payload, ...]
    broken: tuple[Broken, ...]
    hidden: tuple[Hidden, ...]


def find() -> Found:
    """The payloads on ``UNISCALE_PAYLOADS`` and ``sys.path``; a broken one never hides others.

    Raises `SettingsError` when ``UNISCALE_PAYLOADS`` names something that is not a folder.
    """
    payloads: dict[tuple[str, str], Payload] = {}
    broken: list[Broken] = []
    hidden: list[Hidden] = []
    for prefix, python in _prefixes():
        try:
            payload = changed(read(prefix), python=python)
        except LaunchError as error:
            broken.append(Broken(prefix, error))
            continue
        first = payloads.setdefault((slug(payload.backend), slug(payload.device)), payload)
        if first is not payload:
            hidden.append(Hidden(payload, by=first))
    return Found(tuple(payloads.values()), tuple(broken), tuple(hidden))


def _prefixes() -> Iterator[tuple[str, str | None]]:
    """Each prefix, with the interpreter that its engine needs where that is not ours."""
    seen: set[str] = set()
    for folder, python in _folders():
        try:
            names = sorted(os.listdir(folder))
        except (FileNotFoundError, NotADirectoryError):
            continue  # most entries of sys.path hold no payloads
        for name in names:
            prefix = os.path.join(folder, name)
            # pip leaves empty folders behind: the record makes a payload, not the folder.
            if not os.path.lexists(os.path.join(prefix, FILE_NAME)):
                continue
            real = os.path.realpath(prefix)
            if real not in seen:
                seen.add(real)
                yield prefix, python


def _folders() -> Iterator[tuple[str, str | None]]:
    for entry in folders.named(VARIABLE, "<backend>-<device>/payload.json"):
        yield os.path.abspath(entry), None
    for entry in sys.path:
        yield os.path.join(os.path.abspath(entry), folders.PAYLOADS), None
    if not os.path.isdir(folders.environments()):
        return  # most have none, and reading them takes longer than all of this
    from uniscale.wheels.environments import environments

    for made in environments():
        yield str(made.payloads), made.python


def libraries(found: Found, beside: Payload) -> tuple[Payload, ...]:
    """The libraries that what ``beside`` starts can import: of its device and its interpreter."""
    return tuple(
        one for one in found.payloads
        if one.library and one.root != beside.root
        and (slug(one.device), one.python) == (slug(beside.device), beside.python)
    )  # fmt: skip


def device_environment(payload: Payload, more: Sequence[Payload]) -> dict[str, str]:
    """What the device asks for, of a payload and of the libraries that it can import."""
    return {key: text for one in (*more, payload) for key, text in one.device_environment.items()}


def has_backend(found: Found, word: str) -> bool:
    """True when a payload here, broken ones aside, is of the backend that ``word`` names."""
    return any(slug(word) == slug(one.backend) for one in found.payloads)


def named(word: str, device: str | None = None) -> list[Payload]:
    """The installed payloads of a backend (and device), hidden ones last; `SettingsError` if none.

    A payload that is there twice comes twice.
    """
    found = find()
    every = [*found.payloads, *(one.payload for one in found.hidden)]
    if not every:
        raise _none(found)
    return _by_device(_by_backend(every, word), device)


def choose(
    found: Found,
    *,
    task: str,
    formats: Sequence[str],
    model: str,
    backend: str | None = None,
    device: str | None = None,
) -> Payload:
    """The one payload that does ``task`` with a model in one of ``formats``.

    Of several, the one whose device is in this machine (a chip before ``cpu``); where that leaves
    more than one, `LaunchError` names them and the options that choose. A word that matches no
    payload is a `SettingsError` with the nearest name.
    """
    if not found.payloads:
        raise _none(found)
    named = _by_backend(found.payloads, backend)
    named = _by_device(named, device)
    able = [one for one in named if task in one.tasks and "serve" in one.launch]
    if not able:
        raise LaunchError(
            f"{_names(named)} cannot {task}",
            hint=f"these payloads can: {_names(_doing(found, task)) or 'none here'}",
            slug="no-task",
        )
    fitting = [one for one in able if set(one.launch["serve"].formats) & set(formats)]
    if not fitting:
        raise _wrong_format(able, formats, model)
    best = preferred(fitting)
    if len(best) > 1:
        raise several(best, f"{task} {model}")
    return best[0]


def _doing(found: Found, task: str) -> list[Payload]:
    return [one for one in found.payloads if task in one.tasks and "serve" in one.launch]


def _names(payloads: Sequence[Payload]) -> str:
    return ", ".join(payload.title for payload in payloads)


def _by_backend(payloads: Sequence[Payload], word: str | None) -> list[Payload]:
    chosen = [one for one in payloads if word is None or slug(word) == slug(one.backend)]
    if not chosen:
        raise SettingsError(
            f'no payload here has the backend "{word}"',
            where="--backend",
            hint=did_you_mean(str(word), [one.backend for one in payloads]),
            slug="unknown-backend",
        )
    return chosen


def _by_device(payloads: Sequence[Payload], word: str | None) -> list[Payload]:
    chosen = [
        one
        for one in payloads
        if word is None or slug(word) in {slug(name) for name in (one.device, *one.aliases)}
    ]
    if not chosen:
        known = [name for one in payloads for name in (one.device, *one.aliases)]
        raise SettingsError(
            f'no payload here is for the device "{word}"',
            where="--device",
            hint=did_you_mean(str(word), known),
            slug="unknown-device",
        )
    return chosen


def _present(payload: Payload) -> bool:
    import glob

    return any(glob.glob(pattern) for pattern in payload.nodes)


def without_chip(payload: Payload) -> str:
    """What is to be said where nothing of the payload's device is in this machine; else ``""``.

    Engines differ: some do not start without their chip, llama.cpp falls back to the processor.
    """
    if not payload.nodes or _present(payload):
        return ""
    looked = ", ".join(payload.nodes)
    return (
        f"no {payload.device} chip is in this machine (looked for {looked}): {payload.backend} "
        "will not start, or use the processor; uniscale doctor tells more"
    )


def preferred(payloads: list[Payload]) -> list[Payload]:
    """Those whose device is in this machine; else those for the processor; else all."""
    if len(payloads) == 1:
        return payloads
    return (
        [one for one in payloads if one.device != "cpu" and _present(one)]
        or [one for one in payloads if one.device == "cpu"]
        or payloads
    )


def _none(found: Found) -> LaunchError:
    if not found.broken:
        return LaunchError(
            "no payload is installed in this environment",
            where=sys.prefix,
            hint=HOW_TO_GET,
            slug="no-payload",
        )
    told = "\n".join(f"{one.root}: {one.error.what}" for one in found.broken)
    return LaunchError(
        "every payload in this environment is broken",
        where=sys.prefix,
        hint=f"{told}\ninstall the wheel again: pip install --force-reinstall …",
        slug="broken-payload",
    )


def _wrong_format(payloads: list[Payload], formats: Sequence[str], model: str) -> LaunchError:
    takes = [f"{one.title} takes {' or '.join(one.launch['serve'].formats)}" for one in payloads]
    return LaunchError(
        f"{model} is {' and '.join(formats)}, which no payload here serves",
        where=model,
        hint="\n".join([*takes, "gguf: one file for llama.cpp; hf: a Hugging Face folder"]),
        slug="wrong-format",
    )


def several(payloads: list[Payload], what: str) -> LaunchError:
    """The error for several payloads that can do ``what``, with the options that choose."""
    several_backends = len({one.backend for one in payloads}) > 1
    several_devices = len({one.device for one in payloads}) > 1
    choices = []
    for one in payloads:
        words = [f"--backend {one.backend}"] if several_backends else []
        words += [f"--device {one.device}"] if several_devices else []
        choices.append(f"{one.title}: {' '.join(words)}")
    return LaunchError(
        f"{len(payloads)} payloads can {what}: {_names(payloads)}",
        hint="\n".join(["choose one:", *choices]),
        slug="several-payloads",
    )
