"""The gateway before several engines: smg (Shepherd Model Gateway), a process like the others.

Everything that it does — keys, limits, queue, retries, circuit breaker, metrics — is smg's own;
here are its flags, the file that names its workers, and the file that holds its keys.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale.config import spec
from uniscale.engines.engines import Command
from uniscale.jobs import state

# Where smg's own defaults would lose requests, or time, when an engine dies or comes back.
_DEFAULTS: Mapping[str, object] = {
    "--policy": "cache_aware",
    "--retry-max-retries": 8,
    "--retry-initial-backoff-ms": 20,
    "--retry-max-backoff-ms": 500,
    "--cb-timeout-duration-secs": 2,
    "--cb-success-threshold": 1,
    "--health-check-interval-secs": 2,
    "--health-check-timeout-secs": 2,
    "--health-success-threshold": 1,
    "--shutdown-grace-period-secs": 5,
    "--discovery-check-interval-secs": 2,
    "--worker-startup-check-interval": 1,
    "--log-level": "warn",
}
_SWITCHES = ("--disable-tokenizer-autoload",)


def check_installed() -> None:
    """Raise `LaunchError` unless smg can be imported by this interpreter."""
    if importlib.util.find_spec("smg") is None:
        raise LaunchError(
            "several engines need a gateway, and smg is not installed",
            where=sys.prefix,
            hint="pip install 'uniscale[gateway]', or 'smg==1.13.*'; or gateway: none",
            slug="no-gateway",
        )


def command(
    settings: Mapping[str, object], *, host: str, port: int, manifest: Path, metrics_port: int
) -> Command:
    """The gateway's command; keys stay in their file and are on no command line."""
    flags: dict[str, object] = {**_DEFAULTS}
    flags["--prometheus-host"] = "127.0.0.1"
    flags["--prometheus-port"] = metrics_port
    for key in spec.GATEWAY:
        if key.flag and key.name in settings:
            flags[key.flag] = settings[key.name]
    words = ["--host", host, "--port", str(port)]
    words += ["--discovery-provider", "file", "--discovery-file", str(manifest), *_SWITCHES]
    if "traces_endpoint" in settings:
        words.append("--enable-trace")
    for flag, value in flags.items():
        # One word: a value that begins with a dash is no flag. A list takes several words.
        if isinstance(value, (list, tuple)):
            words += [flag, *map(str, value)]
        else:
            words.append(f"{flag}={value}")
    raw = settings.get("flags", ())
    keys = str(settings.get("api_keys", ""))
    path = os.path.abspath(keys) if keys else ""
    head = [sys.executable, "-m", "uniscale.serving.smg_start", path]
    return Command(
        argv=(*head, *words, *(map(str, raw) if isinstance(raw, (list, tuple)) else ())),
        environment={"PATH": os.environ.get("PATH") or os.defpath},
        host=host,
        port=str(port),
        served_name="",
        probe="/health",
        metrics="/metrics",
    )


def check_files(settings: Mapping[str, object]) -> None:
    """Raise `LaunchError` for keys and certificates that cannot be read, all at once."""
    problems: list[UniscaleError] = []
    for name in ("tls_certificate", "tls_key"):
        path = settings.get(name)
        if path is not None and not os.access(str(path), os.R_OK):
            what = f"gateway.{name} cannot be read"
            problems.append(LaunchError(what, where=str(path), slug="no-file"))
    if "api_keys" in settings:
        try:
            keys(Path(str(settings["api_keys"])))
        except UniscaleError as error:
            problems.append(error)
    raise_all(problems)


def keys(path: Path) -> list[tuple[str, str]]:
    """The (name, key) pairs in a file of ``KEY`` and ``NAME:KEY`` lines; names may be empty.

    ``#`` begins a comment. Raises `SettingsError` for a file that others may read, that holds no
    key, or whose keys could not be sent in a header.
    """
    try:
        text = path.read_text(encoding="utf-8")
        mode = path.stat().st_mode
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsError(
            f"the keys cannot be read: {told}", where=str(path), slug="bad-keys"
        ) from error
    if mode & 0o077:
        raise SettingsError(
            "the keys may be read by other users",
            where=str(path),
            hint=f"chmod 600 {path}",
            slug="bad-keys",
        )
    found: list[tuple[str, str]] = []
    errors: list[UniscaleError] = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if not word:
            continue
        name, _, key = word.rpartition(":")
        if not key or not all(33 <= ord(char) < 127 for char in word):
            what = "a key is letters, digits and signs without blanks"
            errors.append(SettingsError(what, where=f"{path}:{number}", slug="bad-keys"))
        found.append((name, key))
    if not found:
        errors.append(SettingsError("the file holds no key", where=str(path), slug="bad-keys"))
    raise_all(errors)
    return found


def write_manifest(path: Path, urls: Iterable[str]) -> None:
    """Tell smg its workers; it sees the change at once and never half of it."""
    told = {"version": 1, "workers": [{"url": url} for url in urls]}
    state.write(path, json.dumps(told, indent=2))
