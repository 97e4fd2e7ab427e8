"""Starts what the wheel holds: the ``uniscale`` command and the modules behind it.

Nothing here imports an engine: an engine is a process that `engines` describes and `jobs` starts.
"""

from __future__ import annotations

from uniscale_build import __version__ as __version__
