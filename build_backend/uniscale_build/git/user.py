"""What the user's own git configuration says, where uniscale must agree with the user's git.

uniscale runs git without that configuration; only who the user is and which files the user's git
ignores are asked for here.
"""

from __future__ import annotations

import os
from pathlib import Path

from uniscale_build.git.db import run_git


def _config_folder() -> Path:
    home = Path(os.environ.get("HOME") or "/")
    return Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "git"


def _settings_files() -> list[Path]:
    given = os.environ.get("GIT_CONFIG_GLOBAL")
    if given:
        return [Path(given)]
    return [Path(os.environ.get("HOME") or "/") / ".gitconfig", _config_folder() / "config"]


def user_setting(key: str) -> str | None:
    """The value of ``key`` in the user's own git configuration, or None."""
    for file in _settings_files():
        if file.is_file():
            ran = run_git(
                ["config", "--file", str(file), "--includes", "--get", key],
                cwd=file.parent,
                check=False,
            )
            if ran.code == 0 and ran.text:
                return ran.text
    return None


def excludes_file() -> str:
    """The ignore file that the user's git uses: what ``git status`` hides is not captured."""
    given = user_setting("core.excludesFile")
    return os.path.expanduser(given) if given else str(_config_folder() / "ignore")
