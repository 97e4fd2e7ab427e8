"""Starts smg with its keys from a file: ``python -m uniscale.serving.smg_start FILE smg-flags…``.

A key on a command line could be read by every user of the machine; here it goes from the file to
smg within one process. FILE is empty where there are no keys.
"""

from __future__ import annotations

import importlib
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path


def arguments(words: Sequence[str]) -> list[str]:
    """smg's arguments: ``words`` behind the file, and the keys of the file.

    Without keys the API is open, but who may add engines to the gateway is nobody but us.
    """
    from uniscale.serving.gateway import keys

    name, *flags = words
    found = keys(Path(name)) if name else []
    for number, (tenant, key) in enumerate(found, 1):
        if not tenant and not any(flag.startswith("--api-key=") for flag in flags):
            flags.append(f"--api-key={key}")
        else:  # smg takes one key without a name
            flags.append(f"--tenant-api-key={tenant or f'key-{number}'}:{key}")
    control = f"uniscale:supervisor:admin:{secrets.token_urlsafe(32)}"
    return [*flags, f"--control-plane-api-keys={control}"]


def main() -> None:
    """Become smg."""
    from uniscale_build.errors import UniscaleError

    try:
        words = arguments(sys.argv[1:])
    except UniscaleError as error:
        sys.exit(error.render())
    sys.argv = ["smg", "launch", *words]
    importlib.import_module("smg.cli").main()


if __name__ == "__main__":
    main()
