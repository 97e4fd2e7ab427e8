"""What to train: from words, from our configuration, and from FlagScale's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from uniscale.training import trainfile
from uniscale.training.methods import METHODS, named
from uniscale.training.trainfile import TrainAsked, planned, read
from uniscale.training.trainplan import TrainPlan
from uniscale_build.errors import Problems, SettingsError, UniscaleError

ROOT = Path(__file__).parents[2]
OURS = """\
experiment: {name: ten, dir: out/ten, env: {A: "1"}}
train:
  model: demo
  data: ten.jsonl
  columns: {prompt: q}
  method: dora
  method_args: {r: 16, target_modules: [q_proj, v_proj]}
  args: {max_steps: 30, learning_rate: 1e-3, bf16: true, optim: adamw_torch, warmup_steps: 0.1}
  processes: 2
  env: {B: x y}
"""


def test_our_configuration(tmp_path: Path) -> None:
    path = tmp_path / "ten.yaml"
    path.write_text(OURS)
    plan = read(path, ["train.args.max_steps=40"]).numbers()
    assert plan.arguments == {
        "max_steps": 40, "learning_rate": 0.001, "bf16": True, "optim": "adamw_torch",
        "warmup_steps": 0.1,
    }  # fmt: skip
    assert plan.method_arguments == {"r": 16, "target_modules": ["q_proj", "v_proj"]}
    assert (plan.title, str(plan.place), plan.method) == ("ten", "out/ten", "dora")
    assert (plan.processes, plan.columns) == ("2", {"prompt": "q"})
    assert plan.environment == {"A": "1", "B": "x y"}
    assert plan.kind == "finetune"


def test_words_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ten.yaml"
    path.write_text(OURS)
    asked = TrainAsked(
        str(path), data="x.csv", method="full", arguments=("max_steps=5",), out="here",
        processes="1", columns=("completion=a",),
    )  # fmt: skip
    plan = planned(asked).numbers()
    assert (plan.data, plan.method, plan.folder, plan.processes) == ("x.csv", "full", "here", "1")
    assert plan.arguments["max_steps"] == 5 and plan.arguments["bf16"] is True
    assert plan.columns == {"prompt": "q", "completion": "a"}


def test_a_model_alone() -> None:
    plan = planned(TrainAsked("some/model", data="x.csv", settings=("train.method=ia3",)))
    assert (plan.model, plan.method, plan.title) == ("some/model", "ia3", "model-ia3")
    assert str(plan.place) == "outputs/model-ia3"


def test_raw_words_are_a_scripts() -> None:
    with pytest.raises(SettingsError, match="for a script"):
        planned(TrainAsked("demo", raw=("--x",)))
    plan = planned(TrainAsked("demo", script="mine.py", raw=("--x", "$(touch y)")))
    assert (plan.kind, plan.flags, plan.title) == ("script", ("--x", "$(touch y)"), "mine")


def test_every_wrong_key_at_once(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("train:\n  modle: demo\n  format: alpacca\n  args: 3\nserv: {}\n")
    with pytest.raises(Problems) as caught:
        read(path)
    told = caught.value.render()
    for said in (
        '"modle"',
        'did you mean "model"',
        "alpacca",
        '"args" must be a mapping',
        '"serv"',
    ):
        assert said in told
    assert f"{path}:2" in told and f"{path}:3" in told
    path.write_text("serve: {model: demo}\n")
    with pytest.raises(SettingsError, match="trains nothing"):
        read(path)


FLAGSCALE = """\
experiment:
  exp_name: aquila
  exp_dir: ./outputs_aquila
  task: {type: train, backend: megatron, entrypoint: ENTRY}
  runner: {backend: torchrun, nnodes: 1, nproc_per_node: 2}
  envs: {OMP_NUM_THREADS: 4}
train:
  system: {tensor_model_parallel_size: 2, precision: {bf16: true, fp16: false}}
  model: {num_layers: 2, optimizer: {lr: 1e-3, lr_scheduler: {lr_warmup_iters: 2}}}
  data: {data_path: corpus.jsonl, split: [1, 0], tokenizer: {tokenizer_path: tok}}
"""


def test_flagscales_layout_with_its_script(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    path = tmp_path / "x.yaml"
    path.write_text(FLAGSCALE.replace("ENTRY", str(script)))
    plan = read(path)
    assert (plan.kind, plan.script, plan.processes) == ("script", str(script), "2")
    assert plan.flags == (
        "--tensor-model-parallel-size", "2", "--bf16", "--num-layers", "2", "--lr", "1e-3",
        "--lr-warmup-iters", "2", "--data-path", "corpus.jsonl", "--split", "1", "0",
        "--tokenizer-path", "tok",
    )  # fmt: skip
    assert (plan.title, plan.folder) == ("aquila", "./outputs_aquila")
    assert plan.environment == {"OMP_NUM_THREADS": "4"}


def test_flagscales_layout_without_it(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(FLAGSCALE.replace("ENTRY", "nowhere/train.py"))
    plan = read(path)
    assert (plan.kind, plan.backend) == ("pretrain", "Megatron-LM")
    assert (plan.model, plan.data) == ("tok", "corpus.jsonl")
    assert plan.arguments["tensor_model_parallel_size"] == "2"
    assert any("nowhere/train.py is not here" in one for one in plan.warnings)


def test_flagscales_machines(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.0.1 slots=8 type=A800\n10.0.0.2 slots=8 type=BI_V150\n10.0.0.3\n")
    path = tmp_path / "x.yaml"
    runner = f"runner: {{hostfile: {hosts}, nnodes: 2, ssh_port: 2222, nproc_per_node: 8}}"
    envs = "envs: {A: 1, device_type_specific: {BI_V150: {B: 2}}}"
    told = FLAGSCALE.replace("runner: {backend: torchrun, nnodes: 1, nproc_per_node: 2}", runner)
    path.write_text(told.replace("envs: {OMP_NUM_THREADS: 4}", envs))
    plan = read(path)
    assert [one.name for one in plan.nodes] == ["10.0.0.1", "10.0.0.2"]
    assert {one.port for one in plan.nodes} == {2222} and plan.processes == "8"
    assert plan.special == {"BI_V150": {"B": "2"}} and plan.environment == {"A": "1"}
    assert plan.master_port is None
    path.write_text(told.replace("nnodes: 2", "nnodes: 2, master_port: 40000"))
    assert read(path).master_port == 40000
    for odd in ("0", "65536", "x", "-1", "1.5"):
        path.write_text(told.replace("nnodes: 2", f"nnodes: 2, master_port: {odd}"))
        with pytest.raises(UniscaleError, match=r'"runner\.master_port" must be'):
            read(path)
    path.write_text(told.replace("nnodes: 2", "nnodes: 0"))
    with pytest.raises(UniscaleError, match=r'"runner\.nnodes" is 0'):
        read(path)


def test_methods() -> None:
    assert len(METHODS) == 12
    assert named("LoRA") == "lora" and named("AdaptionPrompt") == "adaption_prompt"
    with pytest.raises(SettingsError, match="HyenaDNA is a model of DNA"):
        named("hyenadna")
    with pytest.raises(SettingsError) as caught:
        named("lorra")
    assert caught.value.hint == 'did you mean "lora"?'


def test_the_example() -> None:
    plan = read(ROOT / "examples" / "train" / "teahouse.yaml")
    assert (plan.model, plan.method, plan.title) == ("demo", "lora", "teahouse")
    assert plan.data is not None and (ROOT / plan.data).is_file()


def test_texts_that_are_numbers() -> None:
    given = {"a": "3", "b": "-1.5e-3", "c": "none", "d": "3x", "e": True, "f": "007", "g": ".5"}
    plan = TrainPlan(arguments=given).numbers()
    assert plan.arguments == {
        "a": 3, "b": -0.0015, "c": None, "d": "3x", "e": True, "f": 7, "g": 0.5,
    }  # fmt: skip


def test_a_folder_is_gone_on_with_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("{}")
    for asked in (TrainAsked(str(tmp_path)), TrainAsked(str(tmp_path), data="x")):
        with pytest.raises(UniscaleError):
            trainfile.train_asked(
                asked, resume=asked.data is not None, dry_run=False, as_json=False
            )
