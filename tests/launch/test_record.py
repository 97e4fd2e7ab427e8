"""`uniscale.wheels.record`: payload.json read, and refused with all of its faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from uniscale.wheels import record
from uniscale_build.errors import LaunchError
from uniscale_build.records.record import payload_json

from . import helpers


def test_a_whole_record(tmp_path: Path) -> None:
    told = helpers.record(
        layers=[{"name": "a"}, {"name": "b"}],
        device_environment={
            "visible": "CUDA_VISIBLE_DEVICES",
            "set": {"A": "1"},
            "nodes": ["/dev/x*"],
            "aliases": ["gpu"],
        },
        verified={"built": ["Debian 12"], "ran": [], "not_run": "no chip here"},
    )
    told["launch"]["serve"]["flags"] = ["--port", "-m"]
    payload = record.read(str(helpers.lay_payload(tmp_path, told)))
    assert payload.title == "llama.cpp (cpu)"
    assert payload.layers == ("a", "b")
    assert payload.upstream.commit == helpers.COMMIT
    assert payload.device_environment == {"A": "1"}
    assert (payload.visible, payload.nodes, payload.aliases) == (
        "CUDA_VISIBLE_DEVICES",
        ("/dev/x*",),
        ("gpu",),
    )
    assert payload.verified == record.Verified(built=True, ran=False, note="no chip here")
    serve = payload.launch["serve"]
    assert serve.argv == ("bin/engine",)
    assert serve.formats == ("gguf",)
    assert serve.flags == ("--port", "-m")
    assert serve.metrics == "/metrics"


def test_what_the_build_writes_is_what_we_read(tmp_path: Path) -> None:
    facts = {
        "backend": "llama.cpp",
        "device": "MUSA_S5000",
        "tasks": ["serve", "infer"],
        "pin": {
            "version": "0.5.0.dev1",
            "commit": "c" * 40,
            "tree": "1" * 40,
            "origins": ["https://example.org/up.git", "up-1.tar.gz (vendor/up)"],
        },
        "layers": [{"name": "common", "title": "t", "base": "1" * 40, "result": "2" * 40}],
        "tree": "2" * 40,
        "recipe": {"kind": "cmake"},
        "requirements": ["numpy"],
        "environment": {"MUSA_HOME": "/usr/local/musa"},
    }
    told = payload_json(
        facts,
        distribution="uniscale-llama-cpp",
        plan="a" * 64,
        toolchain={"cc": "gcc 12"},
        launch={"serve": helpers.launch(flags=["--port"])},
        verified={"built": "on Debian 12", "not_run": "no such chip here"},
        external=["libmusa.so.4"],
        visible="MUSA_VISIBLE_DEVICES",
        aliases=["musa"],
        nodes=["/dev/mtgpu.*"],
    )
    payload = record.read(str(helpers.lay_payload(tmp_path, told)))
    assert payload.title == "llama.cpp (MUSA_S5000)"
    assert payload.version == "0.5.0.dev1"
    assert payload.upstream == record.Upstream("0.5.0.dev1", "c" * 40, "https://example.org/up.git")
    assert payload.layers == ("common",)
    assert payload.device_environment == {"MUSA_HOME": "/usr/local/musa"}
    assert (payload.aliases, payload.nodes) == (("musa",), ("/dev/mtgpu.*",))
    assert payload.launch["serve"].flags == ("--port",)
    assert payload.verified == record.Verified(built=True, ran=False, note="no such chip here")


def test_little_is_needed(tmp_path: Path) -> None:
    told = {"schema": 1, "backend": "b", "device": "cpu", "version": "1", "tasks": []}
    payload = record.read(str(helpers.lay_payload(tmp_path, told)))
    assert payload.launch == {} and payload.layers == () and payload.visible is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"[]", "it must hold an object"),
        (b"null", "it must hold an object"),
        (b"\xff\xfe", "it is not UTF-8 text (byte 0)"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b'{"schema": 1, "x": "' + b"x" * 4_000_000 + b'"}', "it is larger than 4 MB"),
        (b'{"schema": 2}', "has schema 2; this uniscale reads 1"),
        (b"{}", "has schema None"),
    ],
)
def test_no_record(tmp_path: Path, content: bytes, told: str) -> None:
    prefix = helpers.lay_payload(tmp_path, content)
    with pytest.raises(LaunchError) as caught:
        record.read(str(prefix))
    assert told in caught.value.what
    assert caught.value.where == str(prefix / "payload.json")


def test_trainers_need_no_formats(tmp_path: Path) -> None:
    told = helpers.record(launch={"train": {"argv": ["python", "-m", "trainer"]}})
    train = record.read(str(helpers.lay_payload(tmp_path, told))).launch["train"]
    assert train.argv == ("python", "-m", "trainer") and train.formats == ()


def change(told: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for key in parents:
        told = told[key]
    told[last] = value


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("backend", None, "backend is missing"),
        ("backend", "../x", "'../x' cannot be the name of a backend"),
        ("device", 5, "device must be plain text, not 5"),
        ("version", "1\n2", "version must be plain text"),
        ("tasks", "serve", "tasks must be a list, not 'serve'"),
        ("tasks", [1], "tasks[] must be plain text, not 1"),
        ("upstream", [], "upstream must be an object"),
        ("layers", {}, "layers must be a list"),
        ("launch", [], "launch must be an object"),
        ("launch.serve", None, "launch.serve.argv is missing"),
        ("launch.serve.argv", [], "launch.serve.argv must begin with a program"),
        ("launch.serve.argv", ["../../bin/sh"], "launch.serve.argv leaves its folder"),
        ("launch.serve.argv", ["/bin/sh"], "launch.serve.argv leaves its folder"),
        ("launch.serve.formats", ["onnx"], "launch.serve.formats has 'onnx'; known: gguf, hf"),
        ("launch.serve.probe", "health", "launch.serve.probe is no path"),
        ("launch.serve.arguments", ["--x"], "launch.serve.arguments must be an object"),
        ("launch.serve.fixed", [None], "launch.serve.fixed[] is missing"),
        ("launch.serve.flags", ["a\x00b"], "launch.serve.flags[] must be plain text"),
        ("device_environment.set", {"A": 1}, "device_environment.set.A must be plain text"),
        ("verified", "yes", "verified must be an object"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, path: str, value: Any, fault: str) -> None:
    told = helpers.record()
    change(told, path, value)
    prefix = tmp_path / "p"
    prefix.mkdir()
    (prefix / "payload.json").write_text(json.dumps(told))
    with pytest.raises(LaunchError) as caught:
        record.read(str(prefix))
    assert fault in caught.value.what


def test_all_faults_at_once(tmp_path: Path) -> None:
    told = helpers.record(version=None, tasks=None)
    told["launch"]["serve"]["formats"] = None
    with pytest.raises(LaunchError) as caught:
        record.read(str(helpers.lay_payload(tmp_path, told)))
    for fault in ("version is missing", "tasks is missing", "launch.serve.formats is missing"):
        assert fault in caught.value.what


def test_a_prefix_that_cannot_stand_on_path(tmp_path: Path) -> None:
    prefix = helpers.lay_payload(tmp_path / "a:b")
    with pytest.raises(LaunchError, match="has a colon"):
        record.read(str(prefix))
