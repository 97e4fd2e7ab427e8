"""Records the flags that a built engine knows: launchers check theirs against them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniscale_build.build.parserflags import read_flags
from uniscale_build.errors import ManifestError

_FLAG = re.compile(r"(?<![\w-])(--?[A-Za-z][\w.-]*)")
_TIMEOUT = 180.0  # seconds; a Python engine imports for a while before it prints its help


def record_flags(
    prefix: Path, launch: Mapping[str, Any], libraries: Sequence[Path] = ()
) -> tuple[dict[str, Any], str]:
    """``launch`` with ``serve.flags`` added, and a note when the engine could not be asked here.

    ``serve.help`` are the arguments that make the engine print its flags, ``serve.parser`` is the
    function that fills a Python engine's parser, whose source is read instead. ``libraries`` are
    folders where a program finds the vendor's libraries, which this machine need not have
    installed. An engine that needs its chip to start gives no list, nor does one without that
    function; its flags go unchecked.
    """
    serve = dict(launch.get("serve", {}))
    argv = list(serve.get("argv", ()))
    ask = serve.pop("help", None)
    entry = serve.pop("parser", None)
    if argv and entry:
        return _read_flags(prefix, launch, serve, str(entry))
    if not argv or not ask:
        return {**launch, "serve": serve} if serve else dict(launch), ""
    program = prefix / argv[0]
    command = [str(program), *argv[1:]] if program.is_file() else [sys.executable, *argv]
    path = os.pathsep.join([str(prefix), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    found = [*(os.environ.get("LD_LIBRARY_PATH") or "").split(os.pathsep), *map(str, libraries)]
    env = {
        "PYTHONPATH": path,
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, found)),
        "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    try:
        ran = subprocess.run(
            [*command, *ask], capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=_TIMEOUT, cwd=prefix,
            env={**os.environ, **env},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return {**launch, "serve": serve}, f"the engine does not run here, flags unknown: {error}"
    flags = sorted(set(_FLAG.findall(ran.stdout)))
    if ran.returncode != 0 or not flags:
        said = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return {**launch, "serve": serve}, f"the engine gave no list of its flags: {said}"
    return {**launch, "serve": {**serve, "flags": flags}}, ""


def _read_flags(
    prefix: Path, launch: Mapping[str, Any], serve: Mapping[str, Any], entry: str
) -> tuple[dict[str, Any], str]:
    try:
        flags = read_flags(prefix, entry)
    except (ManifestError, SyntaxError) as error:
        said = error.what if isinstance(error, ManifestError) else str(error)
        return {**launch, "serve": dict(serve)}, f"flags unknown: {said}"
    return {**launch, "serve": {**serve, "flags": list(flags)}}, ""
