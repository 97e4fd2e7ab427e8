"""docs/layers.md, executed command by command."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .native import GREET, ROOT, make_native


def commands() -> list[str]:
    """The lines of the page's shell blocks, in order."""
    page = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    native = make_native(tmp_path)
    # The next upstream: a file more, and a line more above the one that the layer changes.
    following = tmp_path / "upstream-next"
    shutil.copytree(native.upstream, following)
    (following / "greet.c").write_text(f"/* 1.3.0 */\n\n\n\n{GREET}", encoding="utf-8")
    (following / "NEWS").write_text("1.3.0\n", encoding="utf-8")
    ours = f"{shlex.quote(sys.executable)} -m uniscale_build"
    for line in commands():
        ran = subprocess.run(
            re.sub(r"^uniscale-build", lambda _: ours, line), shell=True, cwd=native.root,
            env=native.env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert ran.returncode == 0, f"{line}\n{ran.stdout}\n{ran.stderr}"
    assert "1.3.0" in (native.root / "manifests/backends/mini.yaml").read_text(encoding="utf-8")
    assert (native.root / "patches/mini/twice/overlay/twice.c").is_file()
    assert list((native.root / "dist").glob("*.whl"))
