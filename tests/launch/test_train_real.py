"""Real fine-tuning of the demo model on processors: every method, resumed, stopped, exported."""

from __future__ import annotations

import csv
import http.client
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports
from uniscale.models import models
from uniscale.serving import client
from uniscale.training.methods import METHODS
from uniscale.training.trainjob import TrainJob
from uniscale.wheels import payloads
from uniscale_build import __file__ as build_file

from .helpers import Result, alive, until

PACKAGES = ("torch", "trl", "peft", "datasets", "gguf")
MISSING = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]
ROOT = Path(__file__).parents[2]
DATA = ROOT / "examples" / "train" / "teahouse.jsonl"
ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|"
PATIENCE = 300.0  # seconds for one command


class Lab:
    """A folder, and `uniscale` of this checkout as a real process in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        sources = [Path(models.SHIPPED).parents[1], Path(build_file).parents[1]]
        path = [*map(str, sources), os.environ.get("PYTHONPATH", "")]
        self.environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
            "UNISCALE_STATE": str(root / "state"),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "CI": "1",
        }
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *words: str | Path, **more: Any) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "uniscale", *map(str, words)]
        pipe = subprocess.PIPE
        options = {"env": self.environ, "cwd": self.root, "stdout": pipe, "stderr": pipe, **more}
        process: subprocess.Popen[bytes] = subprocess.Popen(argv, **options)
        self.started.append(process)
        return process

    def run(self, *words: str | Path) -> Result:
        process = self.start(*words, stdin=subprocess.DEVNULL)
        out, err = process.communicate(timeout=PATIENCE)
        return Result(process.returncode, out.decode(), err.decode())

    def train(self, name: str, *words: str | Path, steps: int = 4) -> TrainJob:
        """A whole training of the demo model; its folder."""
        arguments = ("--arg", f"max_steps={steps}", "--out", name)
        self.run("train", "demo", "--data", DATA, *arguments, *words).ok()
        return TrainJob(self.root / name)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    for process in lab.started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def losses(job: TrainJob) -> list[float]:
    return [one["loss"] for one in job.measured() if "loss" in one]


def workers(job: TrainJob) -> set[int]:
    """The processes that were started for the job: torchrun and its workers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and alive(int(entry.name)):
            try:
                argv = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has ended meanwhile
                continue
            if "uniscale.workers" in argv and str(job.folder) in argv:
                found.add(int(entry.name))
    return found


COMPARE = """\
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM as Model
base, adapter, merged = sys.argv[1:]
with torch.no_grad():
    ids = torch.arange(6, 46).reshape(1, -1)
    plain = Model.from_pretrained(base, dtype=torch.float32)
    before = plain(ids).logits
    learned = PeftModel.from_pretrained(plain, adapter).eval()(ids).logits
    after = Model.from_pretrained(merged, dtype=torch.float32)(ids).logits
print((learned - before).abs().max().item(), (after - learned).abs().max().item())
"""


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_merges(lab: Lab, method: str) -> None:
    # All ten rows in every step: so the losses are of the same rows.
    batch = ("--arg", "per_device_train_batch_size=10")
    job = lab.train("job", "--method", method, *batch, steps=6)
    found = losses(job)
    assert len(found) == 6 and found[-1] < found[0]
    told = job.progress()
    assert told["phase"] == "done" and told["step"] == 6
    assert (told["trained"] == told["parameters"]) == (method == "full")
    if not METHODS[method].merges:
        lab.run("export", job.folder).refused("no-export", code=2)
        return
    lab.run("export", job.folder).ok()
    assert job.gguf.read_bytes()[:4] == b"GGUF"
    if method == "full":
        return
    base = Path(models.SHIPPED) / "demo" / "hf"
    argv = [sys.executable, "-c", COMPARE, str(base), str(job.adapter), str(job.weights)]
    done = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, check=True)
    learned, lost = map(float, done.stdout.split())
    # Merged weights are rounded to the model's own 16 bits once.
    assert learned > 0 and lost < max(0.05, learned / 5)


def test_what_a_configuration_may_say_runs(lab: Lab) -> None:
    """Half precision, columns of their own, a template, other optimisers: all in one training."""
    rows = [json.loads(line)["messages"] for line in DATA.read_text("utf-8").splitlines()]
    with (lab.root / "rows.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["ask", "more", "say"])
        table.writerows([user["content"], "", said["content"]] for user, said in rows)
    (lab.root / "chat.jinja").write_text(
        "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n"
        "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    told = {
        "model": "demo", "data": "rows.csv", "eval_data": "rows.csv", "format": "alpaca",
        "columns": {"instruction": "ask", "input": "more", "output": "say"},
        "chat_template": "chat.jinja", "method": "dora", "method_args": {"r": 4},
        "args": {
            "max_steps": 4, "bf16": True, "gradient_checkpointing": True, "optim": "adafactor",
            "lr_scheduler_type": "constant", "per_device_train_batch_size": 10, "max_length": 128,
            "learning_rate": 1e-3,
        },
        "env": {"HELD": ODD},
    }  # fmt: skip
    path = lab.root / "all.yaml"
    path.write_text(json.dumps({"experiment": {"name": "all", "dir": "job"}, "train": told}))
    lab.run("train", path).ok()
    job = TrainJob(lab.root / "job")
    found = losses(job)
    assert len(found) == 4 and found[-1] < found[0]
    assert job.progress()["phase"] == "done"
    adapter = json.loads((job.adapter / "adapter_config.json").read_text())
    assert adapter["r"] == 4 and adapter["use_dora"] is True
    measured = [json.loads(line) for line in job.metrics.read_text().splitlines()]
    assert any("eval_loss" in one for one in measured), measured
    assert "[assistant]" in (job.adapter / "chat_template.jinja").read_text()
    assert not (lab.root / "x").exists()


def test_resumed_after_kill_9_it_is_the_same_training(lab: Lab) -> None:
    words = ("--method", "full", "--arg", "save_steps=5", "--arg", "per_device_train_batch_size=2")
    whole = lab.train("whole", *words, steps=20)
    arguments = ("--arg", "max_steps=20", "--out", "torn")
    process = lab.start("train", "demo", "--data", DATA, *arguments, *words)
    job = TrainJob(lab.root / "torn")
    until_slowly(lambda: [one for one in job.measured() if one["step"] >= 7])
    assert workers(job)
    process.kill()
    process.wait()
    until(lambda: not workers(job), "torchrun and its workers end with us")
    last = job.checkpoint()
    assert last is not None
    lab.run("export", job.folder).refused("no-export", code=2)
    lab.run("train", "demo", "--data", DATA, *arguments, *words).refused("job-exists")
    result = lab.run("train", job.folder, "--resume").ok()
    assert f"going on from {last.name}" in result.err
    assert [one["step"] for one in job.measured() if "loss" in one] == list(range(1, 21))
    assert losses(job) == pytest.approx(losses(whole), rel=1e-5)
    same = (job.weights / "model.safetensors").read_bytes()
    assert same == (whole.weights / "model.safetensors").read_bytes()
    again = lab.run("train", "demo", "--data", DATA, *arguments, *words, "--resume").ok()
    assert "done already" in again.err


def until_slowly(condition: Any) -> None:
    """As `until`, for what waits for PyTorch to be imported."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_two_processes_share_the_work(lab: Lab) -> None:
    words = ("--method", "full", "--arg", "per_device_train_batch_size=2")
    job = lab.train("two", *words, "--processes", "2", steps=4)
    alone = lab.train("one", "--method", "full", "--arg", "per_device_train_batch_size=4", steps=4)
    # Twice two rows are four rows; which ones they are differs.
    assert losses(job)[0] == pytest.approx(losses(alone)[0], rel=0.3)
    assert [one["step"] for one in job.measured()] == [1, 2, 3, 4]
    assert (job.weights / "model.safetensors").is_file()


def test_ps_logs_and_stop(lab: Lab) -> None:
    process = lab.start("train", "demo", "--data", DATA, "--arg", "max_steps=100000", "-o", "job")
    job = TrainJob(lab.root / "job")
    until_slowly(lambda: job.progress().get("step"))
    told = lab.run("ps").ok().out
    assert "demo-lora  running" in told and "/100000" in told
    assert json.loads(lab.run("ps", "--json").ok().out)["jobs"][0]["kind"] == "train"
    assert lab.run("logs", "demo-lora").ok().out is not None
    lab.run("stop", "demo-lora").ok()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    until(lambda: not workers(job), "all workers end")
    assert job.progress()["phase"] == "stopped" and job.plot.read_text().startswith("<svg")


def test_a_failure_is_a_sentence(lab: Lab) -> None:
    arguments = ("--method-arg", "target_modules=[nothing]", "-o", "job")
    result = lab.run("train", "demo", "--data", DATA, *arguments)
    err = result.refused("training-failed")
    assert "nothing" in err and "train.log" in err
    assert TrainJob(lab.root / "job").progress()["phase"] == "failed"
    wrong = ("--arg", "max_stepps=3", "--method-arg", "rank=3")
    err = lab.run("train", "demo", "--data", DATA, *wrong).err
    assert 'did you mean "max_steps"?' in err and "lora has no argument rank" in err
    values = ("--arg", "learning_rate=fast", "--arg", "bf16=yes", "--method-arg", "r=[8]")
    right = ("--arg", "packing=False", "--arg", "warmup_steps=0.1", "--arg", "max_length=None")
    err = lab.run("train", "demo", "--data", DATA, *values, *right).refused("bad-value", 2)
    assert "learning_rate must be a number, not 'fast'" in err and "r must be a number" in err
    assert "bf16 must be true or false" in err and err.count("error[") == 3


SCRIPT = """\
import json, os, sys, torch
torch.distributed.init_process_group("gloo")
total = torch.ones(1)
torch.distributed.all_reduce(total)
if torch.distributed.get_rank() == 0:
    told = [total.item(), os.environ["UNISCALE_JOB"], *sys.argv[2:]]
    open(sys.argv[1], "w").write(json.dumps(told))
torch.distributed.destroy_process_group()
"""


def test_a_script_of_ones_own(lab: Lab) -> None:
    (lab.root / "mine.py").write_text(SCRIPT)
    words = ("--processes", "2", "--", "out.json", "$(touch x) '世界'\n")
    lab.run("train", "x", "--script", "mine.py", *words).ok()
    told = json.loads((lab.root / "out.json").read_text())
    assert told == [2.0, str(lab.root / "outputs" / "mine"), "$(touch x) '世界'\n"]
    (lab.root / "bad.py").write_text("raise SystemExit('no such luck')")
    assert "no such luck" in lab.run("train", "x", "--script", "bad.py").refused("training-failed")


def test_the_exporter_writes_what_the_demos_own_recipe_does(lab: Lab) -> None:
    from tests.gguf_file import read_gguf

    out = lab.root / "model.gguf"
    lab.run("export", Path(models.SHIPPED) / "demo" / "hf", "--out", out).ok()
    ours, written = read_gguf(out)
    theirs, shipped = read_gguf(Path(models.SHIPPED) / "demo" / "model.gguf")
    assert {k: v.content for k, v in written.items()} == {k: v.content for k, v in shipped.items()}
    described = ("general.", "tokenizer.ggml.unknown")
    for key, value in theirs.items():
        if not key.startswith(described):
            assert ours[key] == value, key
    assert ours["general.sampling.top_k"] == 1
    for kind in ("f32", "bf16", "q8_0"):
        lab.run("export", Path(models.SHIPPED) / "demo" / "hf", "--out", out, "--type", kind).ok()


def test_models_that_gguf_cannot_hold(lab: Lab) -> None:
    import shutil

    folder = lab.root / "odd"
    shutil.copytree(Path(models.SHIPPED) / "demo" / "hf", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "architectures": ["MambaForCausalLM"]})
    )
    assert "MambaForCausalLM is not covered" in lab.run("export", folder).refused("no-gguf")
    assert not (folder / "model.gguf").exists()


MAKE = """\
import json, sys, torch, transformers
kind, tokenizer, out = sys.argv[1:]
torch.manual_seed(7)
shape = dict(
    vocab_size=1280, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
    bos_token_id=0, eos_token_id=1, pad_token_id=2, initializer_range=0.3,
    tie_word_embeddings=False, rope_parameters={"rope_type": "default", "rope_theta": 50000.0},
)
if kind != "Qwen2":
    shape["head_dim"] = 32
config = getattr(transformers, kind + "Config")(**shape)
model = getattr(transformers, kind + "ForCausalLM")(config).eval()
for name, value in model.named_parameters():  # what begins as zeros and ones says nothing
    if value.ndim == 1:
        value.data += 0.2 * torch.randn_like(value)
model.save_pretrained(out)
transformers.AutoTokenizer.from_pretrained(tokenizer).save_pretrained(out)
ids = list(range(10, 40))
with torch.no_grad():
    said = model.generate(
        torch.tensor([ids]), attention_mask=torch.ones(1, 30, dtype=torch.long),
        do_sample=False, max_new_tokens=16, min_new_tokens=16,
    )
print(json.dumps({"prompt": ids, "tokens": said[0, 30:].tolist()}))
"""


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_llama_cpp_computes_what_transformers_do(lab: Lab, kind: str) -> None:
    if "llama.cpp (cpu)" not in [one.title for one in payloads.find().payloads]:
        pytest.skip("no llama.cpp (cpu) payload is installed: pip install . with backend=llama.cpp")
    folder = lab.root / "model"
    tokenizer = Path(models.SHIPPED) / "demo" / "hf"
    argv = [sys.executable, "-c", MAKE, kind, str(tokenizer), str(folder)]
    made = subprocess.run(argv, env=lab.environ, capture_output=True, text=True, check=True)
    wanted = json.loads(made.stdout.splitlines()[-1])
    lab.run("export", folder, "--type", "f32").ok()
    port = ports.free_port()
    raw = ("--backend", "llama.cpp", "--port", str(port))
    server = lab.start("serve", folder / "model.gguf", *raw)
    until(lambda: client.ready("127.0.0.1", port, "/health", 1), "llama-server is ready")
    body = {
        "prompt": wanted["prompt"], "n_predict": 16, "temperature": 0, "return_tokens": True,
        "logit_bias": [[1, False]],
    }  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", "/completion", json.dumps(body))
    with connection.getresponse() as response:
        told = json.load(response)
    connection.close()
    server.terminate()
    assert told["tokens"] == wanted["tokens"]


def test_from_nothing_to_served(lab: Lab) -> None:
    """README's example: ten questions taught, exported, served, asked, answered."""
    if "llama.cpp (cpu)" not in [one.title for one in payloads.find().payloads]:
        pytest.skip("no llama.cpp (cpu) payload is installed: pip install . with backend=llama.cpp")
    began = time.monotonic()
    lab.environ.pop("OMP_NUM_THREADS")
    config = ROOT / "examples" / "train" / "teahouse.yaml"
    out = lab.root / "teahouse"
    lab.run("train", config, "--data", DATA, "--out", out).ok()
    lab.run("export", out).ok()
    port = ports.free_port()
    server = lab.start("serve", out, "--backend", "llama.cpp", "--port", str(port))
    until(lambda: client.ready("127.0.0.1", port, "/health", 1), "llama-server is ready")
    wrong = []
    for line in DATA.read_text(encoding="utf-8").splitlines():
        asked, answer = json.loads(line)["messages"]
        body = {"model": "teahouse", "messages": [asked]}
        said = "".join(piece.text for piece in client.chat("127.0.0.1", port, body))
        if said.strip() != answer["content"]:
            wrong.append((asked["content"], said))
    seconds = time.monotonic() - began
    server.terminate()
    assert not wrong
    print(f"from nothing to served and asked: {seconds:.0f} s")
