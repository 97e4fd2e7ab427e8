"""SGLang on processors, with PyTorch's own operators: answers like transformers do."""

from __future__ import annotations

import json

import pytest

from .conftest import Install, check_flags
from .reference import TOKENS, check_answer

pytestmark = [pytest.mark.engine, pytest.mark.sources]


@pytest.mark.parametrize("prompt", ["Who are you?", "What is uniscale?"])
def test_it_answers_as_transformers_do(install: Install, prompt: str) -> None:
    engine = install("sglang")
    out = engine.ok("uniscale", "infer", "demo", prompt, "--json", "--max-tokens", str(TOKENS),
                    "--start-timeout", "300", "--backend", "sglang",
                    "--", "--max-total-tokens", "4096")  # fmt: skip
    answer = json.loads(out)
    check_answer(engine, prompt, answer)
    assert (answer["backend"], answer["device"]) == ("sglang", "cpu")


def test_what_has_cuda_kernels_only_is_not_required(install: Install) -> None:
    engine = install("sglang")
    code = (
        "import importlib.util as u; print([u.find_spec(n) for n in ('sgl_kernel', 'flashinfer')])"
    )
    assert engine.ok("python", "-c", code).strip() == "[None, None]"
    record = json.loads((engine.prefix / "payload.json").read_text(encoding="utf-8"))
    assert any(text.startswith("sglang-kernel") for text in record["requirements"]["dropped"])


def test_the_recorded_flags_are_its_parsers(install: Install) -> None:
    check_flags(
        install("sglang"),
        "import argparse\n"
        "from sglang.srt.server_args import ServerArgs\n"
        "parser = argparse.ArgumentParser()\n"
        "ServerArgs.add_cli_args(parser)\n",
    )
