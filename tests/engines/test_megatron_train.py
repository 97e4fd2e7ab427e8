"""`uniscale train` with the Megatron payload: shared in every way, resumed, the same training."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .conftest import ROOT, Install, Installed

pytestmark = [pytest.mark.engine, pytest.mark.compile, pytest.mark.sources]
SHAPE = ("num_layers=2", "hidden_size=64", "seq_length=32", "micro_batch_size=2", "lr=1e-2")


TOKENIZER = ROOT / "launchers" / "uniscale" / "models" / "demo" / "hf"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text of which there is enough, and which a model can learn: sentences that come again."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [{"text": f"{n} and {n} is {2 * n}, as everybody knows. " * 3} for n in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words(corpus: Path, out: Path, *more: str, steps: int = 12) -> list[str]:
    given = [*SHAPE, f"train_iters={steps}", *more]
    arguments = [word for one in given for word in ("--arg", one)]
    return ["train", "bytes", "--backend", "Megatron-LM", "--data", str(corpus), "--out", str(out),
            *arguments]  # fmt: skip


def train(engine: Installed, *argv: str) -> None:
    engine.ok("uniscale", *argv, UNISCALE_STATE=str(engine.venv / "state"), CI="1")


def measured(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def losses(out: Path) -> list[float]:
    return [one["loss"] for one in measured(out)]


def test_every_way_to_share_is_the_same_training(
    install: Install, corpus: Path, tmp_path: Path
) -> None:
    engine = install("Megatron-LM")
    # With swiglu Megatron draws a rank's share of gate and up otherwise than the whole.
    same = ("global_batch_size=4", "swiglu=false")
    train(engine, *words(corpus, tmp_path / "one", *same))
    alone = losses(tmp_path / "one")
    assert len(alone) == 12 and alone[-1] < alone[0] * 0.7
    for name, processes, more in (
        ("data", 2, same),
        ("tensor", 2, (*same, "tensor_model_parallel_size=2")),
        ("pipeline", 2, (*same, "pipeline_model_parallel_size=2")),
    ):
        out = tmp_path / name
        train(engine, *words(corpus, out, *more), "--processes", str(processes))
        if name != "pipeline":  # its second stage draws its first weights otherwise
            assert losses(out) == pytest.approx(alone, rel=1e-3), name
        assert losses(out)[-1] < losses(out)[0] * 0.7
        told = json.loads((out / "megatron" / "model.json").read_text())
        assert told["processes"] == processes
        parts = list((out / "megatron").glob("weights-*.pt"))
        assert len(parts) == (1 if name == "data" else 2)
        assert (out / "loss.svg").read_text().startswith("<svg")


def test_resumed_after_kill_9_it_is_the_same_training(
    install: Install, corpus: Path, tmp_path: Path
) -> None:
    engine = install("Megatron-LM")
    argv = words(corpus, tmp_path / "torn", "save_interval=10", "tensor_model_parallel_size=2",
                 steps=60)  # fmt: skip
    argv += ["--processes", "2"]
    whole = [*argv]
    whole[whole.index(str(tmp_path / "torn"))] = str(tmp_path / "whole")
    train(engine, *whole)
    env = {**engine.env, "UNISCALE_STATE": str(tmp_path / "state"), "CI": "1"}
    process = subprocess.Popen([engine.program("uniscale"), *argv], env=env, cwd=engine.venv)
    metrics = tmp_path / "torn" / "metrics.jsonl"
    deadline = time.monotonic() + 300
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 13:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    train(engine, "train", str(tmp_path / "torn"), "--resume")
    assert [one["step"] for one in measured(tmp_path / "torn")] == list(range(1, 61))
    assert losses(tmp_path / "torn") == pytest.approx(losses(tmp_path / "whole"), rel=1e-5)


DTYPES = """
import sys, torch
for path in sys.argv[1:]:
    print({str(one.dtype) for one in torch.load(path).values()})
"""


def test_in_half_precision(install: Install, corpus: Path, tmp_path: Path) -> None:
    engine = install("Megatron-LM")
    out = tmp_path / "half"
    train(engine, *words(corpus, out, "bf16=true", steps=8))
    assert losses(out)[-1] < losses(out)[0] * 0.8
    (part,) = (out / "megatron").glob("weights-*.pt")
    assert "torch.bfloat16" in engine.ok("python", "-c", DTYPES, str(part))


LOSS = """\
import json, sys, torch
from pathlib import Path
from transformers import AutoModelForCausalLM
from uniscale.workers.corpus import Corpus
folder = Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(folder / "hf", dtype=torch.float32).eval()
told = json.loads((folder / "train.json").read_text())
corpus = Corpus.read(folder / "data.jsonl", told["weights"], 32, 42)
block = corpus.block(0, min(corpus.blocks, 128))
with torch.no_grad():
    logits = model(block[:, :-1]).logits
print(torch.nn.functional.cross_entropy(logits.flatten(0, 1), block[:, 1:].flatten()).item())
"""


@pytest.mark.parametrize("way", ["tensor", "pipeline"])
def test_what_was_pre_trained_is_exported(
    install: Install, corpus: Path, tmp_path: Path, way: str
) -> None:
    engine = install("Megatron-LM")
    engine.ok("pip", "install", "-q", "transformers==5.23.0", "gguf==0.19.0", "safetensors==0.8.0")
    more = (f"{way}_model_parallel_size=2", "num_query_groups=2")
    argv = words(corpus, tmp_path / "gpt", *more, steps=60)
    argv[1] = str(TOKENIZER)
    train(engine, *argv, "--processes", "2")
    engine.ok("uniscale", "export", str(tmp_path / "gpt"))
    assert (tmp_path / "gpt" / "model.gguf").read_bytes()[:4] == b"GGUF"
    said = float(engine.ok("python", "-c", LOSS, str(tmp_path / "gpt")))
    found = losses(tmp_path / "gpt")
    # A matrix in a wrong place would give a loss as at the beginning.
    assert said == pytest.approx(sum(found[-8:]) / 8, rel=0.3) and said < found[0] / 3


def test_bytes_are_not_exported(install: Install, corpus: Path, tmp_path: Path) -> None:
    engine = install("Megatron-LM")
    train(engine, *words(corpus, tmp_path / "gpt", steps=2))
    ran = engine.run("uniscale", "export", str(tmp_path / "gpt"))
    assert ran.returncode == 2 and "no tokenizer" in ran.stderr


def test_flagscales_own_layout(install: Install, corpus: Path, tmp_path: Path) -> None:
    engine = install("Megatron-LM")
    engine.ok("pip", "install", "-q", "tokenizers==0.23.3")
    (tmp_path / "x.yaml").write_text(f"""\
experiment:
  exp_name: tiny
  exp_dir: {tmp_path}/tiny
  task: {{type: train, backend: megatron, entrypoint: flagscale/train/train_gpt.py}}
  runner: {{backend: torchrun, nproc_per_node: 2}}
train:
  system: {{tensor_model_parallel_size: 2, no_shared_fs: true, logging: {{log_interval: 1}}}}
  model:
    num_layers: 2
    hidden_size: 64
    num_attention_heads: 4
    seq_length: 32
    train_iters: 5
    optimizer: {{lr: 1e-2}}
  data: {{data_path: {corpus}, tokenizer: {{tokenizer_path: {TOKENIZER}}}}}
""")
    train(engine, "train", str(tmp_path / "x.yaml"))
    assert len(losses(tmp_path / "tiny")) == 5
