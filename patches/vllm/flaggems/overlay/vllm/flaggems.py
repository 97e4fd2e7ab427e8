# SPDX-License-Identifier: Apache-2.0
"""FlagGems as the operator library of a worker, when ``USE_FLAGGEMS`` asks for it."""

import logging
import os

# A child of vLLM's own logger, and importable without the rest of vLLM.
logger = logging.getLogger(__name__)

_FALSE = ("", "0", "false", "no", "off")


def wanted() -> bool:
    """True when ``USE_FLAGGEMS`` is set to anything but 0, false, no or off."""
    return os.getenv("USE_FLAGGEMS", "").strip().lower() not in _FALSE


def unused() -> list[str]:
    """The operators that stay PyTorch's: ``FLAGGEMS_UNUSED``, separated by commas."""
    words = os.getenv("FLAGGEMS_UNUSED", "").split(",")
    return [word.strip() for word in words if word.strip()]


def enable() -> bool:
    """Make FlagGems' kernels the implementation of PyTorch's operators in this process.

    Call it when the worker's device is chosen and before the model is loaded. Without FlagGems in
    the environment PyTorch's own operators stay, and the log says so. Gives whether it is on.
    """
    if not wanted():
        return False
    try:
        import flag_gems
    except ImportError as error:
        logger.warning(
            "USE_FLAGGEMS is set, but flag_gems cannot be imported (%s): PyTorch's own operators "
            "are used. Install FlagGems for this device, or unset USE_FLAGGEMS.",
            error,
        )
        return False
    left = unused()
    if left:
        flag_gems.enable(unused=left)
    else:
        flag_gems.enable()
    logger.info(
        "FlagGems %s is the operator library of this worker%s",
        getattr(flag_gems, "__version__", "(of unknown version)"),
        f", except for {', '.join(left)}" if left else "",
    )
    return True
