"""Become a user's own training script, as a process that ends with torchrun."""

from __future__ import annotations

import os
import sys

from uniscale.workers.begin import die_with_parent


def main() -> None:
    """Run ``SCRIPT ARGUMENTS…`` in this process; the parent-death signal stays across exec."""
    die_with_parent()
    os.execv(sys.executable, [sys.executable, "-u", *sys.argv[1:]])


if __name__ == "__main__":
    main()
