"""Where uniscale keeps things of this user's: what it installed, and what it runs."""

from __future__ import annotations

import os

from uniscale_build.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

DATA = "UNISCALE_DATA"
STATE = "UNISCALE_STATE"
CACHE = "UNISCALE_CACHE"
PAYLOADS = "uniscale_payloads"  # the folder of payloads in a folder of packages


def data(environ: Mapping[str, str] | None = None) -> str:
    """``UNISCALE_DATA``, else uniscale below ``XDG_DATA_HOME`` or ~/.local/share."""
    env = os.environ if environ is None else environ
    if told := env.get(DATA):
        return os.path.abspath(os.path.expanduser(told))
    home = env.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return os.path.join(home, "uniscale")


def named(variable: str, holding: str) -> Iterator[str]:
    """The folders in a variable, as in PATH; `SettingsError` for what is none.

    ``holding`` says in an error what each of them holds.
    """
    for entry in filter(None, os.environ.get(variable, "").split(os.pathsep)):
        if not os.path.isdir(entry):
            raise SettingsError(
                f"{variable} names {entry!r}, which is not a folder",
                where=f"environment variable {variable}",
                hint=f"each entry is a folder that holds {holding}",
                slug="no-folder",
            )
        yield entry


def environments() -> str:
    """The folder of the environments that payloads have to themselves (``--isolated``)."""
    return os.path.join(data(), "environments")


def jobs() -> str:
    """The folder of all jobs: ``UNISCALE_STATE``, or uniscale/jobs under ``XDG_STATE_HOME``."""
    if told := os.environ.get(STATE):
        return os.path.abspath(told)
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return os.path.join(home, "uniscale", "jobs")


def cache() -> str:
    """``UNISCALE_CACHE``, else uniscale below ``XDG_CACHE_HOME``: it may be deleted any time."""
    if told := os.environ.get(CACHE):
        return os.path.abspath(os.path.expanduser(told))
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "uniscale")
