"""The configurations in examples/serve, and what docs/serving.md shows, are read as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from uniscale.config import servefile
from uniscale.engines import enginefile

ROOT = Path(__file__).parents[2]


def test_the_experiment() -> None:
    plan = servefile.read(ROOT / "examples" / "serve" / "experiment.yaml")
    (model,) = plan.models
    assert (plan.name, plan.port, model.replicas) == ("demo", 8080, 2)
    assert model.engines == ("vllm", "llama.cpp") and model.environment == {"OMP_NUM_THREADS": "1"}
    assert plan.gateway is not None and plan.gateway["queue_size"] == 100


def test_two_engines_under_one_name() -> None:
    plan = servefile.read(ROOT / "examples" / "serve" / "mixed.yaml")
    assert {one.name for one in plan.models} == {"assistant"}
    assert [one.engines for one in plan.models] == [("llama.cpp",), ("vllm",)]


def test_the_engine_of_the_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(engine: .*?)```", text, re.DOTALL)
    (tmp_path / "my-engine.yaml").write_text(shown)
    monkeypatch.setenv(enginefile.VARIABLE, str(tmp_path))
    engine = enginefile.find("my-engine")
    assert engine is not None and engine.serve is not None
    assert engine.serve.argv == ("/opt/my/server", "--quiet")
    assert engine.arguments["kv_cache_dtype"].values == {"fp8": "e4m3"}
