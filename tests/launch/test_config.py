"""Configurations: composed with places, read strictly, FlagScale's layout too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale.config import config, plans, servefile, spec
from uniscale.serving import asked
from uniscale_build.errors import UniscaleError

from .helpers import Bench, lay_payload

ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|\nnext"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def errors(path: Path, *settings: str) -> list[UniscaleError]:
    with pytest.raises(UniscaleError) as caught:
        servefile.read(path, settings)
    return list(caught.value.findings())


EXPERIMENT = """\
defaults:
  - _self_
  - serve: small
experiment:
  name: mine
  env: {MODE: "1", PLACE: "${experiment.name}-${oc.env:UNSET_HERE,none}"}
serve:
  port: 9000
  replicas: 2
"""
TASK = """\
model: demo
replicas: 3
args: {max_model_len: 8K, rope_scaling: {factor: 2, note: "3"}, enforce_eager: false}
engine_args: {llama.cpp: {threads: 2}}
flags: [--verbose]
gateway: {policy: round_robin, cors_allowed_origins: [https://a.example]}
"""


def test_two_levels(tmp_path: Path) -> None:
    write(tmp_path, "serve/small.yaml", TASK)
    path = write(tmp_path, "experiment.yaml", EXPERIMENT)
    plan = servefile.read(path, ["serve.host=::1", "serve.args.seed=7", "serve.engine=[vllm, x]"])
    (model,) = plan.models
    assert (plan.name, plan.host, plan.port, model.replicas) == ("mine", "::1", 9000, 3)
    assert model.environment == {"MODE": "1", "PLACE": "mine-none"}
    assert model.arguments == {
        "max_model_len": "8K",
        "rope_scaling": {"factor": 2, "note": "3"},
        "enforce_eager": False,
        "seed": "7",
    }
    assert model.engine_arguments == {"llama.cpp": {"threads": "2"}}
    assert model.engines == ("vllm", "x") and model.raw == ("--verbose",)
    assert plan.gateway == {
        "policy": "round_robin",
        "cors_allowed_origins": ("https://a.example",),
    }


def test_without_self_the_file_itself_wins(tmp_path: Path) -> None:
    write(tmp_path, "serve/small.yaml", TASK)
    path = write(tmp_path, "experiment.yaml", EXPERIMENT.replace("  - _self_\n", ""))
    assert servefile.read(path).models[0].replicas == 2


def test_every_wrong_key_and_value_at_once_with_its_line(tmp_path: Path) -> None:
    text = """\
experiment: {nmae: x}
serve:
  model: demo
  replicas: none
  prot: 80
  port: 1.5
  args: [a]
  engine_args: {vllm: 1}
  gateway:
    policy: fastest
    tls_key: k.pem
    polcy: x
"""
    found = errors(write(tmp_path, "c.yaml", text))
    places = {(one.where or "").rpartition(":")[2]: one for one in found}
    assert set(places) == {"1", "4", "5", "6", "7", "8", "10", "12"}
    assert 'did you mean "port"?' in (places["5"].hint or "")
    assert 'unknown key "polcy"' in "".join(one.what for one in found)
    assert any('needs "tls_certificate"' in one.what for one in found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("serve: {model: a, model: b}", "given twice"),
        ("serve: &x {model: a}", "anchor"),
        ("experiment: {name: x}", "serves nothing"),
        ("serve: {}", '"model" is missing'),
        ("serve: {replicas: 2}", '"model" is missing'),
        ("serve: {model: a, models: [{model: b}]}", 'stands beside "models"'),
        ("serve: {model: a, replicas: 0}", "1 or more"),
        ("serve: {model: a, env: {A: {b: c}}}", "must be text"),
        ("serve: {model: '${nowhere.at.all}'}", "leads nowhere"),
        ("a: ${b}\nb: ${a}\nserve: {model: x}", "refers to itself"),
        ("serve: {model: '${oc.env:UNSET_HERE}'}", "is not set"),
        ("serve: {model: '${now:%Y}'}", "not understood"),
        ("defaults: [serve: gone]\nserve: {model: x}", "there is no"),
        ("defaults: [../../etc/passwd]\nserve: {model: x}", "a default is"),
        ("defaults: {serve: x}", "must be a list"),
        ("- a", "must be a mapping"),
        ("a", "must be a mapping"),
        ("", "is empty"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, told: str) -> None:
    found = errors(write(tmp_path, "c.yaml", text))
    assert any(told in one.what for one in found), [one.render() for one in found]


def test_defaults_that_never_end(tmp_path: Path) -> None:
    path = write(tmp_path, "loop.yaml", "defaults: [loop]\nserve: {model: x}")
    assert any("nested more than" in one.what for one in errors(path))


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("x", "sets nothing"),
        ("=1", "sets nothing"),
        ("serve..a=1", "sets nothing"),
        ("serve.model.x=1", "cannot be set in a value"),
        ("serve.list.5=1", "no entry"),
        ("serve.model=[", "not valid YAML"),
        ("serve.modell=1", 'unknown key "modell"'),
    ],
)
def test_bad_overrides(tmp_path: Path, word: str, told: str) -> None:
    path = write(tmp_path, "c.yaml", "serve: {model: demo, flags: [a]}")
    found = errors(path, word.replace("list", "flags"))
    assert any(told in one.what for one in found), [one.render() for one in found]
    assert "--set" in found[0].render()


FLAGSCALE = """\
defaults:
- _self_
- serve: two

experiment:
  exp_name: a_test
  exp_dir: out/${experiment.exp_name}
  task: {type: serve}
  runner:
    hostfile: null
    nnodes: 1
    deploy: {use_fs_serve: false, port: 6702}
  envs:
    CUDA_VISIBLE_DEVICES: 0
  cmds: {before_start: "touch $(whoami)"}

action: run

hydra:
  run:
    dir: ${experiment.exp_dir}/${now:%Y}/hydra
"""
FLAGSCALE_TASK = """\
- serve_id: vllm_model
  engine: llama_cpp
  engine_args:
    model: MODEL
    host: 0.0.0.0
    max_model_len: 4096
    max_num_seqs: 4
    gpu_memory_utilization: 0.5
    uvicorn_log_level: warning
  engine_args_specific:
    vllm: {enable_chunked_prefill: true}
    llama_cpp: {n_gpu_layers: 8}
  profile: {prefix_len: 0, input_len: 1024}
"""


def test_flagscale_serves_unchanged(bench: Bench, model: Path) -> None:
    write(bench.root, "conf/serve/two.yaml", FLAGSCALE_TASK.replace("MODEL", str(model)))
    path = write(bench.root, "conf/serve.yaml", FLAGSCALE)
    plan = servefile.read(path)
    (one,) = plan.models
    assert (plan.host, plan.port, plan.name) == ("0.0.0.0", 6702, "a_test")
    assert one.engines == ("llama_cpp",) and one.model == str(model)
    assert one.environment == {"CUDA_VISIBLE_DEVICES": "0"}
    assert "before_start is not run" in plan.warnings[0]
    lay_payload(bench.payloads)
    result = bench.run("serve", path, "--dry-run", "--json").ok()
    argv = json.loads(result.out)["argv"]
    assert argv[argv.index("--n-gpu-layers") + 1] == "8"
    assert argv[argv.index("--ctx-size") + 1] == "4096" and "--kv-unified" in argv
    assert "--enable-chunked-prefill" not in argv
    assert "gpu_memory_utilization has no effect" in result.err


def test_a_flagscale_task_file_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "two.yaml", FLAGSCALE_TASK)
    plan = servefile.read(path, ["serve.0.engine_args.port=1"])
    assert plan.models[0].model == "MODEL" and plan.port == 1


def test_a_flagscale_model_of_another_machine_can_be_dry_run(bench: Bench) -> None:
    text = FLAGSCALE_TASK.replace("MODEL", "/models/Qwen3-0.6B").replace("llama_cpp", "sglang")
    write(bench.root, "conf/serve/two.yaml", text.replace("uvicorn_log_level", "seed"))
    path = write(bench.root, "conf/serve.yaml", FLAGSCALE)
    out = bench.run("serve", path, "--dry-run").ok().out
    assert "sglang.launch_server --model-path /models/Qwen3-0.6B" in out
    assert out.count("--model-path") == 1
    bench.run("serve", path).refused("no-model")


def test_flagscale_mistakes_are_told(tmp_path: Path) -> None:
    bad = FLAGSCALE_TASK.replace("  profile:", "  profil:").replace("    model: MODEL\n", "")
    write(tmp_path, "serve/two.yaml", bad)
    text = FLAGSCALE.replace("exp_dir:", "exp_dri:").replace("/hydra", "").replace("exp_dir}", "x}")
    told = [one.what for one in errors(write(tmp_path, "serve.yaml", text))]
    assert 'unknown key "profil"' in told and 'unknown key "exp_dri"' in told
    assert '"engine_args.model" is missing' in told


def test_train_and_inference_layouts_compose(tmp_path: Path, bench: Bench) -> None:
    write(tmp_path, "train/small.yaml", "system: {precision: {bf16: true}}\nmodel: {layers: 2}")
    text = "defaults: [_self_, train: small]\nexperiment: {exp_name: t, task: {type: train}}"
    path = write(tmp_path, "train.yaml", text)
    told = json.loads(bench.run("config", path, "--json").ok().out)
    assert told["train.system.precision.bf16"] == {
        "value": "true",
        "from": f"{tmp_path}/train/small.yaml:1",
    }
    bench.run("serve", path).refused("nothing-to-serve", code=2)


def test_config_shows_values_and_where_they_come_from(bench: Bench) -> None:
    write(bench.root, "serve/small.yaml", TASK)
    path = write(bench.root, "experiment.yaml", EXPERIMENT)
    out = bench.run("config", path, "--set", "serve.port=1").ok().out
    lines = dict(line.rsplit("  # ", 1) for line in out.splitlines())
    told = {key.strip(): where for key, where in lines.items()}
    assert told["serve.args.max_model_len = 8K"].endswith("serve/small.yaml:3")
    assert told["experiment.name = mine"].endswith("experiment.yaml:5")
    assert "--set serve.port" in told["serve.port = 1"]
    out = bench.run("config", "demo", "--set", "serve.replicas=2").ok().out
    assert "serve.model = demo" in out and "serve.replicas = 2" in out
    bench.run("config", bench.root / "gone.yaml").refused("no-file", code=3)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "1.5", "x", "８０"])
def test_a_port_is_one_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: str
) -> None:
    texts = {
        "ours.yaml": f"serve: {{model: demo, port: {port}}}",
        "metrics.yaml": f"serve: {{model: demo, gateway: {{metrics_port: {port}}}}}",
        "theirs.yaml": "serve: [{serve_id: vllm_model, engine_args: "
        f"{{model: m, port: {port}}}}}]",
        "ssh.yaml": "experiment: {exp_name: x, runner: {hostfile: hosts, nnodes: 2, "
        f"ssh_port: {port}}}}}\nserve: [{{serve_id: vllm_model, engine_args: {{model: m}}}}]",
        "hosts.yaml": "experiment: {nodes: bad}\nserve: {model: demo}",
    }
    write(tmp_path, "hosts", "10.0.0.1\n10.0.0.2\n")
    write(tmp_path, "bad", f"10.0.0.1 port={port}\n")
    monkeypatch.chdir(tmp_path)
    for name, text in texts.items():
        (error,) = errors(write(tmp_path, name, text))
        assert "port" in error.what, name


def test_a_server_has_no_folder(tmp_path: Path) -> None:
    text = "experiment: {dir: out}\nserve: {model: demo}\n"
    (error,) = errors(write(tmp_path, "a.yaml", text))
    assert error.slug == "no-effect" and '"dir" is where a training writes' in error.what
    servefile.read(write(tmp_path, "b.yaml", f"{text}train: {{model: demo, data: a.jsonl}}"))


def test_odd_texts_arrive_as_they_are(tmp_path: Path) -> None:
    told = {"serve": {"model": ODD, "name": ODD, "flags": [ODD], "env": {"A": ODD}}}
    told["serve"]["args"] = {"a": ODD, "b": {ODD: [ODD]}}
    (model,) = servefile.read(write(tmp_path, "c.yaml", json.dumps(told))).models
    assert {model.model, model.name, *model.raw, model.environment["A"]} == {ODD}
    assert model.arguments == {"a": ODD, "b": {ODD: [ODD]}}


def test_switches_and_nothing_as_yaml_and_as_python_write_them(tmp_path: Path) -> None:
    words = {"a": "True", "b": "False", "c": "None", "d": "true", "e": "false", "f": "null"}
    meant = {"a": True, "b": False, "c": None, "d": True, "e": False, "f": None}
    assert asked.pairs([f"{key}={text}" for key, text in words.items()], "--arg") == meant
    text = ", ".join(f"{key}: {word}" for key, word in words.items())
    path = write(
        tmp_path, "c.yaml", f"serve: {{model: demo, args: {{{text}, g: 'None', h: Nones}}}}"
    )
    (model,) = servefile.read(path).models
    assert model.arguments == {**meant, "g": "None", "h": "Nones"}


def test_the_schema_is_current_and_agrees_with_the_reader(tmp_path: Path) -> None:
    path = Path(spec.__file__).parents[1] / "config.schema.json"
    told = json.loads(path.read_text())
    assert told == json.loads(json.dumps(spec.json_schema())), (
        "write it anew: python -m uniscale.config.spec > launchers/uniscale/config.schema.json"
    )
    jsonschema = pytest.importorskip("jsonschema")
    validate = jsonschema.Draft202012Validator(told)
    good = {"serve": {"model": "demo", "replicas": 2, "gateway": {"policy": "random"}}}
    assert not list(validate.iter_errors(good))
    for bad in ({"serve": {"modl": 1}}, {"serve": {"model": "x", "replicas": 0}}):
        assert list(validate.iter_errors(bad))
        assert errors(write(tmp_path, "c.yaml", json.dumps(bad)))


def test_a_plan_has_defaults() -> None:
    assert plans.ServePlan((plans.ModelPlan("demo"),)).port == 8080
    assert config.is_config("a.yaml") and not config.is_config("a.gguf")
