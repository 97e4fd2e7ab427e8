"""Engine files: the shipped ones, a user's own, and bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale.engines import enginefile, engineyaml
from uniscale_build.errors import ManifestError, Problems, SettingsError, UniscaleError

from .helpers import Bench, flag, lay_payload

OWN = """
engine: my-engine
title: Mine
aliases: [mine]
serve:
  argv: [{program}]
  model: --model
  fixed: [--no-webui]
  formats: [gguf]
  probe: /health
arguments:
  host: --host
  port: --port
  served_model_name: --alias
  max_model_len: {{flag: --ctx-size, convert: size}}
"""


def test_all_shipped_files_are_good_and_named_as_they_are() -> None:
    shipped = sorted(Path(enginefile.SHIPPED).glob("*.yaml"))
    assert len(shipped) == 6
    names: list[str] = []
    for path in shipped:
        engine = enginefile.find(path.stem)
        assert engine is not None and engine.name == path.stem and engine.serve is not None
        assert engine == engineyaml.read(str(path)), "what is read quickly is what the file says"
        assert {"host", "port"} <= set(engine.arguments)
        names += [engine.name, *engine.aliases]
    assert len(names) == len(set(names))
    for alias in ("llama_cpp", "TGI", "trtllm"):
        assert enginefile.find(alias) is not None
    assert enginefile.find("no-such") is None


def test_the_shipped_files_together_are_current() -> None:
    assert Path(enginefile.TOGETHER).read_text(encoding="utf-8") == engineyaml.together(), (
        "write it anew: python -m uniscale.engines.engineyaml > "
        "launchers/uniscale/engines/shipped.json"
    )
    assert enginefile.names() == sorted(
        path.stem for path in Path(enginefile.SHIPPED).glob("*.yaml")
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("engine: other", "describes 'other'"),
        ("engine: x\nserve: {argv: []}", "must begin with a program"),
        ("engine: x\nserve: {argv: [a], formats: [onnx]}", "onnx"),
        ("engine: x\nserve: {argv: [a], probe: health}", "must be a path"),
        ("engine: x\nargumentz: {}", 'unknown key "argumentz"'),
        ("engine: x\narguments: {a: {flg: --a}}", 'unknown key "flg"'),
        ("engine: x\narguments: {a: {}}", "says neither"),
        ("engine: x\narguments: {a: {flag: --a, convert: seize}}", "seize"),
        ("engine: x\narguments: {a: --a, a: --b}", "given twice"),
        ("engine: x\narguments: [a]", "must be a mapping"),
        ("engine: x\nlists: tabs", "tabs"),
        ("", "is empty"),
        ("[", "not valid YAML"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    monkeypatch.setenv(enginefile.VARIABLE, str(tmp_path))
    with pytest.raises((ManifestError, Problems)) as caught:
        enginefile.find("x")
    assert isinstance(caught.value, UniscaleError)
    assert any(told in one.what for one in caught.value.findings()), caught.value.render()
    assert all("x.yaml" in (one.where or "") for one in caught.value.findings())


def test_a_file_without_a_name_lacks_that_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text("title: X")
    monkeypatch.setenv(enginefile.VARIABLE, str(tmp_path))
    with pytest.raises(UniscaleError) as caught:
        enginefile.find("x")
    assert [one.what for one in caught.value.findings()] == ['"engine" is missing']


def test_a_folder_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(enginefile.VARIABLE, "/no/such/folder")
    with pytest.raises(SettingsError):
        enginefile.find("vllm")


def test_a_users_engine_by_configuration_only(bench: Bench, model: Path) -> None:
    program = lay_payload(bench.root / "elsewhere") / "bin" / "engine"
    folder = bench.root / ".config" / "uniscale" / "engines"
    folder.mkdir(parents=True)
    (folder / "my-engine.yaml").write_text(OWN.format(program=program))
    words = ("serve", model, "--backend", "mine", "--dry-run", "--json", "--name", "m")
    told = json.loads(bench.run(*words, "--arg", "max_model_len=2K").ok().out)
    assert told["argv"][0] == str(program)
    assert flag(told["argv"], "--ctx-size") == "2048"
    assert flag(told["argv"], "--alias") == "m"
    assert "PYTHONPATH" not in told["environment"], "it runs in an environment of its own"
    # A file of the same name replaces the shipped one.
    (folder / "vllm.yaml").write_text("engine: vllm\n")
    err = bench.run("serve", model, "--backend", "vllm", "--dry-run").refused("no-payload")
    assert str(folder) in err


def test_engines_that_are_resolved_without_being_here(bench: Bench) -> None:
    words = ("serve", "Qwen/Qwen3-8B", "--dry-run", "--json", "--arg", "max_model_len=8K")
    told = json.loads(bench.run(*words, "--backend", "trtllm").ok().out)
    assert told["argv"][:3] == ["trtllm-serve", "serve", "Qwen/Qwen3-8B"]
    assert flag(told["argv"], "--max_seq_len") == "8192"
    told = json.loads(bench.run(*words, "--backend", "mindie", "--name", "模型").ok().out)
    assert told["argv"] == ["mindieservice_daemon"]
    assert told["document"]["variable"] == "MIES_CONFIG_JSON_PATH"
    document = json.loads(told["document"]["text"])
    (config,) = document["BackendConfig"]["ModelDeployConfig"]["ModelConfig"]
    assert (config["modelName"], config["modelWeightPath"]) == ("模型", "Qwen/Qwen3-8B")
    assert document["BackendConfig"]["ModelDeployConfig"]["maxSeqLen"] == 8192
    assert document["ServerConfig"]["port"] == 8080
    assert document["ServerConfig"]["httpsEnabled"] is False
    result = bench.run("serve", "Qwen/Qwen3-8B", "--backend", "trtllm")
    told = result.refused("no-program")
    assert "not on PATH: trtllm-serve" in told and "payload" not in told


def test_a_place_that_a_document_does_not_have(bench: Bench) -> None:
    words = ("serve", "a/b", "--backend", "mindie", "--dry-run")
    bench.run(*words, "--engine-arg", "Version.x=1").refused("unknown-argument")
    result = bench.run(*words, "--engine-arg", "ServerConfig.port=1", "--json").ok()
    assert '\\"port\\": 1' in result.out
