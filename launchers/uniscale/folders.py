"""Where uniscale keeps things of this user's: what it installed, and what it runs."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

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
