"""`uniscale serve`: the process becomes the engine, with exactly the command that was printed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports
from uniscale.serving import client

from .helpers import Bench, flag, launch, lay_gguf, lay_payload, record, recorded, until

ODD = "a 'b' \"c\" 模型 $(touch x) `touch x`;&|"


@contextmanager
def serving(bench: Bench, *words: str | Path, port: int | None = None) -> Iterator[dict[str, Any]]:
    """What the engine was given, while it runs and answers."""
    facts = bench.root / "facts.json"
    place = () if port is None else ("--port", str(port))
    raw = () if "--" in words else ("--",)
    process = bench.start("serve", *place, *words, *raw, "--record", facts)
    try:
        told = recorded(facts)
        bound = int(flag(told["argv"], "--port"))
        until(lambda: client.ready("127.0.0.1", bound, "/health", 1), "the engine answers")
        assert told["pid"] == process.pid, "a parent remains"
        yield told
    finally:
        process.terminate()
        assert process.wait() == -signal.SIGTERM, "the signal reached something else"
        facts.unlink()


def test_the_process_becomes_the_engine(bench: Bench, model: Path) -> None:
    prefix = lay_payload(bench.payloads)
    port = ports.free_port()
    with serving(bench, model, port=port) as told:
        assert told["argv"] == [
            *(f"{prefix}/engine_module.py", "--model", str(model), "--host", "127.0.0.1"),
            *("--port", str(port), "--alias", "small", "--no-webui"),
            *("--record", str(bench.root / "facts.json")),
        ]
        environ = told["environ"]
        assert environ["PYTHONPATH"] == f"{prefix}:{bench.environ['PYTHONPATH']}"
        assert environ["PATH"] == f"{prefix}/bin:{bench.environ['PATH']}"
        # Python ignores SIGPIPE; the engine must start as it would from a shell.
        ignored = int(environ["IGNORED"].split()[1], 16)
        assert not ignored & 1 << (signal.SIGPIPE - 1)
        assert told["cwd"] == str(bench.root)


def test_raw_flags_win(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    port = str(ports.free_port())
    with serving(bench, model, "--", "--port", port, "--webui") as told:
        assert flag(told["argv"], "--port") == port
        assert "--no-webui" not in told["argv"]


def test_raw_flags_with_an_equals_sign_win(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    port = ports.free_port()
    out = bench.run("serve", model, "--dry-run", "--", f"--port={port}", "--alias=x").ok().out
    assert "8080" not in out and "small " not in out
    assert out.count("--port") == out.count("--alias") == 1


def test_odd_paths_and_values_reach_no_shell(bench: Bench) -> None:
    path = lay_gguf(bench.root / ODD / f"{ODD}.gguf")
    lay_payload(bench.root / ODD.replace("'", ""))  # the test's own #!/bin/sh line has quotes
    bench.environ["UNISCALE_PAYLOADS"] = str(bench.root / ODD.replace("'", ""))
    with serving(bench, path, "--", "--port", str(ports.free_port()), "--alias", "a\nb") as told:
        assert flag(told["argv"], "--model") == str(path)
        assert flag(told["argv"], "--alias") == "a\nb"
    assert not (bench.root / "x").exists()


def test_python_engines_run_in_this_interpreter(bench: Bench, model: Path) -> None:
    module = launch(argv=["python", "-m", "engine_module"])
    prefix = lay_payload(bench.payloads, record(launch={"serve": module}))
    bench.environ.pop("HOME")
    with serving(bench, model, port=ports.free_port()) as told:
        assert told["python"] == sys.executable
        assert told["argv"][0] == f"{prefix}/engine_module.py"
        assert "HOME" not in told["environ"]


def test_engines_on_path(bench: Bench, model: Path) -> None:
    head = launch(argv=["engine"])
    prefix = lay_payload(bench.payloads, record(launch={"serve": head}))
    with serving(bench, model, port=ports.free_port()) as told:
        assert told["argv"][0] == f"{prefix}/engine_module.py"


def test_the_users_environment_goes_before_the_devices(bench: Bench, model: Path) -> None:
    device = {"visible": "CHIPS", "set": {"CHIP_MODE": "ours", "CHIP_HOME": "/opt/chip"}}
    lay_payload(bench.payloads, record(device_environment=device))
    bench.environ["CHIP_MODE"] = "mine"
    with serving(bench, model, port=ports.free_port()) as told:
        assert told["environ"]["CHIP_MODE"] == "mine"
        assert told["environ"]["CHIP_HOME"] == "/opt/chip"


def test_a_dry_run_prints_what_a_shell_can_run(bench: Bench) -> None:
    path = lay_gguf(bench.root / f"{ODD}.gguf")
    device = {"set": {"CHIP": ODD}}
    lay_payload(bench.payloads, record(device_environment=device))
    facts = bench.root / "facts.json"
    raw = ("--port", str(ports.free_port()), "--record", facts, "--not-ready", "600")
    printed = bench.run("serve", path, "--dry-run", "--", *raw).ok().out
    assert not facts.exists(), "a dry run started something"
    environ = {**bench.environ, "PYTHONPATH": "wrong", "PATH": "wrong"}
    script = f"exec env {printed}"
    process = subprocess.Popen(["/bin/sh", "-c", f"PATH={os.defpath}; {script}"], env=environ)
    try:
        by_shell = recorded(facts)
    finally:
        process.kill()
        process.wait()
    facts.unlink()
    process = bench.start("serve", path, "--", *raw)
    by_us = recorded(facts)
    assert by_shell["argv"] == by_us["argv"]
    for name in ("PYTHONPATH", "PATH", "CHIP"):
        assert by_shell["environ"][name] == by_us["environ"][name]
    assert not (bench.root / "x").exists()


def test_an_engine_finds_the_libraries_of_its_device(bench: Bench, model: Path) -> None:
    """Those that are installed beside it, with what they ask for; of another device, none."""
    prefix = lay_payload(bench.payloads)
    only = {"test": {"argv": ["python", "-c", ""]}}
    chip = {"visible": None, "set": {"GEMS_VENDOR": "here"}}
    told = record("FlagGems", "cpu", launch=only, device_environment=chip)
    library = lay_payload(bench.payloads, told)
    lay_payload(bench.payloads, record("FlagGems", "vulkan", launch=only))
    lay_payload(bench.payloads, record("DeepSpeed", "cpu", launch={"train": {"argv": ["a"]}}))
    words = ("serve", model, "--backend", "llama.cpp", "--dry-run", "--json")
    added = json.loads(bench.run(*words).ok().out)["environment"]
    assert added["PYTHONPATH"].split(":")[:2] == [str(prefix), str(library)]
    assert "DeepSpeed" not in added["PYTHONPATH"] and "vulkan" not in added["PYTHONPATH"]
    assert added["GEMS_VENDOR"] == "here"


def test_a_dry_run_as_json(bench: Bench, model: Path) -> None:
    prefix = lay_payload(bench.payloads)
    words = ("serve", model, "--dry-run", "--json", "--host", "::1", "--port", "9")
    told = json.loads(bench.run(*words).ok().out)
    assert told["argv"][0] == f"{prefix}/bin/engine"
    assert told["environment"]["PYTHONPATH"].startswith(f"{prefix}:")
    assert (told["model"], told["backend"], told["device"]) == ("small", "llama.cpp", "cpu")
    assert told["url"] == "http://[::1]:9/v1"


def test_a_start_is_told_on_standard_error_or_as_json(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    port = str(ports.free_port())
    result = bench.run("serve", model, "--port", port, "--", "--die-at-start", "bye")
    assert f"llama.cpp (cpu) serves small at http://127.0.0.1:{port}/v1" in result.err
    assert result.out == "engine: loading " + str(model) + "\n"
    result = bench.run("serve", model, "--json", "--port", port, "--", "--die-at-start", "bye")
    assert json.loads(result.out.splitlines()[0])["url"].endswith(f":{port}/v1")
    assert result.code == 1, "the exit code is the engine's own"


def test_a_taken_port(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        for words in (("--port", port), ("--", "--port", port), ("--", f"--port={port}")):
            err = bench.run("serve", model, *words).refused("port-taken")
            assert f"port {port} is taken" in err and "--port " in err
        bench.run("serve", model, "--dry-run", "--port", port).ok()


@pytest.mark.parametrize(
    ("words", "slug"),
    [
        (("--host", "no-such-host.invalid"), "bad-host"),
        (("--host", "192.0.2.1"), "bad-host"),
        (("--", "--port", "99999"), "bad-port"),
        (("--", "--port"), "bad-port"),
    ],
)
def test_no_place_to_listen(bench: Bench, model: Path, words: tuple[str, ...], slug: str) -> None:
    lay_payload(bench.payloads)
    bench.run("serve", model, *words).refused(slug)


def test_wrong_arguments_and_flags_are_told_together(bench: Bench, model: Path) -> None:
    known = ["--model", "--host", "--port", "--alias", "--ctx-size"]
    lay_payload(bench.payloads, record(launch={"serve": launch(flags=known)}))
    told = bench.run("serve", model, "--arg", "max_modl_len=8", "--arg", "x_y=1", "--",
                     "--ctx-sizee", "8").refused("unknown-flag")  # fmt: skip
    assert "error[unknown-argument]" in told
    for word in ("--ctx-sizee", '"max_modl_len"', '"x_y"'):
        assert word in told


def test_unknown_flags_are_refused_before_the_start(bench: Bench, model: Path) -> None:
    told = launch(flags=["--model", "--host", "--port", "--alias", "--record", "--webui"])
    lay_payload(bench.payloads, record(launch={"serve": told}))
    facts = bench.root / "facts.json"
    result = bench.run("serve", model, "--", "--recrod", facts, "--wbeui")
    err = result.refused("unknown-flag")
    assert 'did you mean "--record"?' in err and 'did you mean "--webui"?' in err
    assert not facts.exists()


def test_models_and_payloads_that_do_not_fit(bench: Bench, model: Path) -> None:
    bench.run("serve", model).refused("no-payload")
    lay_payload(bench.payloads, "{")
    bench.run("serve", model).refused("broken-payload")
    prefix = lay_payload(bench.payloads)
    bench.run("serve", "missing.gguf").refused("no-model")
    for word in ("", " "):  # not this folder
        bench.run("serve", word, "--dry-run").refused("no-model")
    (bench.root / "text.gguf").write_text("hello")
    bench.run("serve", "text.gguf").refused("not-gguf")
    (bench.root / "hf").mkdir()
    (bench.root / "hf" / "config.json").write_text("{}")
    bench.run("serve", "hf").refused("wrong-format")
    bench.run("serve", model, "--backend", "vlm").refused("unknown-backend", code=2)
    lay_payload(bench.payloads, record("vllm"))
    err = bench.run("serve", model).refused("several-payloads")
    assert "--backend llama.cpp" in err and "--backend vllm" in err
    out = bench.run("serve", model, "--backend", "llama.cpp", "--dry-run").ok().out
    assert str(prefix) in out
    bench.environ["UNISCALE_PAYLOADS"] = "/no/such"
    bench.run("serve", model).refused("no-folder", code=2)


def test_programs_that_do_not_start(bench: Bench, model: Path) -> None:
    program = lay_payload(bench.payloads) / "bin" / "engine"
    place = ("--port", str(ports.free_port()))
    program.chmod(0o644)
    assert "chmod +x" in bench.run("serve", model, *place).refused("no-program")
    program.chmod(0o755)
    program.write_bytes(b"\x7fELF but no more")
    assert "another kind of machine" in bench.run("serve", model, *place).refused("not-startable")
    program.write_text("#!/no/such/interpreter\n")
    assert "interpreter missing" in bench.run("serve", model, *place).refused("not-startable")
    program.unlink()
    err = bench.run("serve", model, *place).refused("no-program")
    assert str(program) in err


def test_all_that_stops_a_start_is_told_at_once(bench: Bench, model: Path) -> None:
    (lay_payload(bench.payloads) / "bin" / "engine").unlink()
    with socket.create_server(("127.0.0.1", 0)) as server:
        result = bench.run("serve", model, "--port", str(server.getsockname()[1]))
    assert "error[no-program]" in result.err and "error[port-taken]" in result.err
    assert result.code == 13


def test_installed_payloads_are_found_on_sys_path(bench: Bench, model: Path) -> None:
    prefix = lay_payload(bench.root / "installed" / "uniscale_payloads")
    shutil.copytree(prefix, bench.root / "elsewhere" / prefix.name)
    del bench.environ["UNISCALE_PAYLOADS"]
    bench.environ["PYTHONPATH"] += f":{bench.root / 'installed'}"
    assert str(prefix) in bench.run("serve", model, "--dry-run").ok().out
    bench.environ["UNISCALE_PAYLOADS"] = str(bench.root / "elsewhere")
    assert str(prefix) not in bench.run("serve", model, "--dry-run").ok().out.split("\n")[-2]


def test_an_engine_whose_chip_is_not_here_starts_with_a_warning(bench: Bench, model: Path) -> None:
    node = bench.root / "chip0"
    facts: dict[str, Any] = {"visible": None, "set": {}, "nodes": [f"{bench.root}/chip[0-9]*"]}
    prefix = lay_payload(bench.payloads, record(device="nvidia", device_environment=facts))
    (prefix / "bin" / "engine").unlink()  # told after the warnings
    said = f"no nvidia chip is in this machine (looked for {bench.root}/chip[0-9]*)"
    assert f"warning: {said}: llama.cpp will not start, or" in bench.run("serve", model).err
    assert said not in bench.run("serve", model, "--dry-run").ok().err
    node.touch()
    result = bench.run("serve", model)
    assert result.code and said not in result.err
