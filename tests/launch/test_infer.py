"""`uniscale infer`: the answer on standard output, and no engine left, whatever happens."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from uniscale import ports

from .helpers import (
    PATIENCE,
    Bench,
    Result,
    alive,
    flag,
    launch,
    lay_payload,
    record,
    recorded,
    until,
)

ODD = "a 'b' \"c\"\n\t世界 🌍 $(touch x) `touch x`; exit 3 \\ --flag %s {}"


@pytest.fixture
def payload(bench: Bench) -> Path:
    return lay_payload(bench.payloads)


@pytest.mark.usefixtures("payload")
class TestAnswers:
    def test_the_answer_alone_is_on_standard_output(self, bench: Bench, model: Path) -> None:
        result = bench.run("infer", model, "Who are you?").ok()
        assert result.out == "Who are you? \n"
        assert result.err == "thinking\n"
        assert bench.logs == []

    def test_no_prompt_reaches_a_shell(self, bench: Bench, model: Path) -> None:
        assert bench.run("infer", model, ODD).ok().out == ODD + " \n"
        assert not list(bench.root.rglob("x"))

    def test_a_prompt_from_standard_input(self, bench: Bench, model: Path) -> None:
        assert bench.run("infer", model, "-", stdin=(ODD + "\n").encode()).ok().out == ODD + " \n"

    def test_what_is_asked_for(self, bench: Bench, model: Path) -> None:
        def request(*words: str) -> dict[str, object]:
            out = bench.run("infer", model, "hi", *words, "--", "--answer", "request").ok().out
            body: dict[str, object] = json.loads(out)
            return body

        assert request() == {
            "model": "small",
            "messages": [{"role": "user", "content": "hi"}],
            "stream": True,
        }
        numbers = ("--max-tokens", "7", "--temperature", "0.5", "--system", "Be brief.")
        assert request(*numbers) == {
            "model": "small",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "hi"},
            ],
            "max_tokens": 7,
            "temperature": 0.5,
            "stream": True,
        }

    def test_json(self, bench: Bench, model: Path) -> None:
        told = json.loads(bench.run("infer", model, "one two", "--json").ok().out)
        assert told == {
            "text": "one two ",
            "reasoning": "thinking\n",
            "finish_reason": "stop",
            "usage": {"completion_tokens": 2},
            "model": "small",
            "backend": "llama.cpp",
            "device": "cpu",
        }

    def test_a_cut_off_answer_is_told(self, bench: Bench, model: Path) -> None:
        result = bench.run("infer", model, "x", "--", "--finish", "length").ok()
        assert result.out == "x \n" and "--max-tokens" in result.err

    def test_raw_flags_reach_the_engine_and_win(self, bench: Bench, model: Path) -> None:
        facts, port = bench.root / "facts.json", str(ports.free_port())
        raw = ("--port", port, "--alias", "mine", "--host", "0.0.0.0", "--record", facts)
        answer = bench.run("infer", model, "x", "--", *raw, "--answer", "request").ok().out
        assert flag(recorded(facts)["argv"], "--port") == port
        assert json.loads(answer)["model"] == "mine"

    def test_a_terminal_without_the_letters(self, bench: Bench, model: Path) -> None:
        bench.environ["PYTHONIOENCODING"] = "ascii"
        assert bench.run("infer", model, "世界!").ok().out == "??! \n"

    def test_without_home(self, bench: Bench, model: Path) -> None:
        bench.environ.pop("HOME")
        assert bench.run("infer", model, "x").ok().out == "x \n"

    def test_an_engine_that_takes_its_time(self, bench: Bench, model: Path) -> None:
        result = bench.run("infer", model, "x", "--", "--not-ready", "2.5").ok()
        assert result.out == "x \n"
        assert "llama.cpp (cpu) is loading" in result.err


@pytest.mark.usefixtures("payload")
class TestFailures:
    @pytest.mark.parametrize("prompt", [b"", b" \n\t", b"\xff\xfe"])
    def test_prompts_that_are_none(self, bench: Bench, model: Path, prompt: bytes) -> None:
        bench.run("infer", model, os.fsdecode(prompt)).refused("bad-prompt", code=2)
        bench.run("infer", model, "-", stdin=prompt).refused("bad-prompt", code=2)

    @pytest.mark.parametrize("number", ["nan", "inf"])
    @pytest.mark.parametrize("name", ["--temperature", "--start-timeout"])
    def test_numbers_that_are_none(self, bench: Bench, model: Path, name: str, number: str) -> None:
        bench.run("infer", model, "x", name, number).refused("bad-number", code=2)

    def test_engines_that_cannot_be_reached(self, bench: Bench, model: Path) -> None:
        bench.run("infer", model, "x", "--", "--host", "/tmp/x.sock").refused("bad-host")
        bench.run("infer", model, "x", "--", "--port", "0").refused("bad-host")
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = str(server.getsockname()[1])
            bench.run("infer", model, "x", "--", "--port", port).refused("port-taken")

    def test_an_engine_that_dies_at_start(self, bench: Bench, model: Path) -> None:
        result = bench.run("infer", model, "x", "--", "--die-at-start", "no memory left")
        err = result.refused("engine-died")
        assert "llama.cpp (cpu) died while starting (exit code 1)" in err
        assert f"engine: loading {model}" in err and "no memory left" in err
        assert "\x1b" not in err, "the log's colours reached the terminal"
        (log,) = bench.logs
        assert str(log) in err and "no memory left" in log.read_text()
        assert not result.out

    def test_an_engine_that_is_never_ready(self, bench: Bench, model: Path) -> None:
        facts = bench.root / "facts.json"
        raw = ("--not-ready", "600", "--record", facts)
        result = bench.run("infer", model, "x", "--start-timeout", "1.5", "--", *raw)
        err = result.refused("not-ready")
        assert "was not ready after 1.5 s" in err and "--start-timeout" in err
        assert '"GET /health' in err, "the log's last lines are missing"
        assert not alive(recorded(facts)["pid"])

    def test_an_engine_that_refuses(self, bench: Bench, model: Path) -> None:
        err = bench.run("infer", model, "x", "--", "--refuse", "400").refused("engine-refused")
        assert "(400): no such luck" in err
        assert bench.logs == []

    def test_an_engine_that_dies_answering(self, bench: Bench, model: Path) -> None:
        err = bench.run("infer", model, "x y", "--", "--die-answering").refused("engine-died")
        assert "died while it answered (exit code 9)" in err

    @pytest.mark.parametrize(
        ("number", "told"),
        [
            (signal.SIGKILL, "(killed by SIGKILL)"),
            (signal.SIGKILL, "when memory is short"),
            (signal.SIGILL, "this CPU lacks an instruction"),
            (signal.SIGRTMIN + 1, f"(killed by signal {signal.SIGRTMIN + 1})"),
        ],
    )
    def test_an_engine_that_is_killed(
        self, bench: Bench, model: Path, number: int, told: str
    ) -> None:
        facts = bench.root / "facts.json"
        raw = ("--answer", "endless", "--record", facts)
        process = bench.start("infer", model, "x", "--", *raw)
        assert process.stdout is not None and process.stdout.read(6) == b"and on"
        os.kill(recorded(facts)["pid"], number)
        err = process.communicate(timeout=PATIENCE)[1].decode()
        assert "llama.cpp (cpu) died while it answered" in err and told in err
        assert process.returncode == 13

    def test_an_answer_that_breaks_off(self, bench: Bench, model: Path) -> None:
        result = bench.run("infer", model, "x y", "--", "--break-off")
        result.refused("broken-off")
        assert result.out == "x "

    def test_an_answer_that_is_none(self, bench: Bench, model: Path) -> None:
        assert "<html>" in bench.run("infer", model, "x", "--", "--garbage").refused("broken-off")

    def test_a_program_that_does_not_start(self, bench: Bench, model: Path, payload: Path) -> None:
        (payload / "bin" / "engine").write_bytes(b"\x7fELF but no more")
        bench.run("infer", model, "x").refused("not-startable")
        assert bench.logs == []

    def test_no_place_for_the_log(self, bench: Bench, model: Path) -> None:
        # All places where Python looks for one: no file may be larger than nothing there.
        shell = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", *bench.words("infer", model, "x")]
        done = subprocess.run(shell, env=bench.environ, cwd=bench.root, capture_output=True)
        result = Result(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "temporary directory" in result.refused("no-log")


@pytest.mark.usefixtures("payload")
class TestEndings:
    """However `infer` ends, its engine and the engine's workers end too."""

    def begin(self, bench: Bench, model: Path, *raw: str | Path) -> subprocess.Popen[bytes]:
        """A command in the middle of an endless answer."""
        raw = ("--answer", "endless", "--record", bench.root / "facts.json", *raw)
        process = bench.start("infer", model, "x", "--", *raw)
        assert process.stdout is not None and process.stdout.read(6) == b"and on"
        return process

    def gone(self, bench: Bench, name: str = "facts.json") -> None:
        pid = recorded(bench.root / name)
        until(lambda: not alive(pid["pid"]), "the engine ends")

    def test_the_engine_is_in_a_group_of_its_own(self, bench: Bench, model: Path) -> None:
        process = self.begin(bench, model)
        told = recorded(bench.root / "facts.json")
        assert told["pid"] == told["group"] != process.pid
        process.kill()

    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
    )
    def test_signals(self, bench: Bench, model: Path, number: signal.Signals, code: int) -> None:
        worker = bench.root / "worker"
        process = self.begin(bench, model, "--worker", worker)
        process.send_signal(number)
        err = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == code
        assert b"Traceback" not in err
        assert not alive(recorded(bench.root / "facts.json")["pid"])
        assert not alive(int(worker.read_text()))
        assert bench.logs == []

    def test_ctrl_c_while_the_engine_loads(self, bench: Bench, model: Path) -> None:
        facts = bench.root / "facts.json"
        raw = ("--not-ready", "600", "--record", facts)
        process = bench.start("infer", model, "x", "--", *raw)
        recorded(facts)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE)[1] == b"interrupted\n"
        assert process.returncode == 130
        assert not alive(recorded(facts)["pid"])

    def test_a_second_ctrl_c_kills_what_does_not_stop(self, bench: Bench, model: Path) -> None:
        process = self.begin(bench, model, "--ignore-term")
        process.send_signal(signal.SIGINT)
        (log,) = bench.logs
        until(lambda: "the client has gone" in log.read_text(), "the first Ctrl-C is heeded")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert not alive(recorded(bench.root / "facts.json")["pid"])

    def test_kill_9_leaves_no_engine(self, bench: Bench, model: Path) -> None:
        process = self.begin(bench, model, "--ignore-term")
        process.kill()
        process.wait()
        self.gone(bench)

    def test_a_reader_that_has_gone(self, bench: Bench, model: Path) -> None:
        process = self.begin(bench, model)
        assert process.stdout is not None
        process.stdout.close()
        process.stdout = None
        err = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 0
        assert err == b"thinking\n"
        assert not alive(recorded(bench.root / "facts.json")["pid"])
        assert bench.logs == []

    def test_nohup_is_heeded(self, bench: Bench, model: Path) -> None:
        command = bench.words("infer", model, "x", "--", "--not-ready", "1", "--record", "f")
        shell = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *command]
        with subprocess.Popen(
            shell, env=bench.environ, cwd=bench.root, stdout=subprocess.PIPE
        ) as process:
            recorded(bench.root / "f")
            process.send_signal(signal.SIGHUP)
            assert process.communicate(timeout=PATIENCE)[0] == b"x \n"
        assert process.returncode == 0


def test_an_engine_that_only_serves_is_not_asked(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads, record(tasks=["serve"]))
    bench.run("infer", model, "x").refused("no-task")


def test_engines_as_python_modules(bench: Bench, model: Path) -> None:
    head = launch(argv=["python", "-m", "engine_module"])
    lay_payload(bench.payloads, record("vllm", launch={"serve": head}))
    assert bench.run("infer", model, "x").ok().out == "x \n"


def test_the_chips_that_the_engine_may_see(bench: Bench, model: Path) -> None:
    device = {"visible": "CHIPS", "set": {}}
    lay_payload(bench.payloads, record(device="Metax_C550", device_environment=device))
    facts = bench.root / "facts.json"
    bench.run("infer", model, "hello", "--devices", "0,2", "--", "--record", facts).ok()
    assert recorded(facts)["environ"]["CHIPS"] == "0,2"
    bench.run("infer", model, "hello", "--devices", "0;2").refused("bad-devices", 2)


def test_common_arguments_reach_the_engine(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads)
    facts = bench.root / "facts.json"
    words = ("infer", model, "hello", "--arg", "max_model_len=2k", "--", "--record", facts)
    result = bench.run(*words)
    assert "--ctx-size" in result.err, "the test engine has no such flag and says so"
    bench.run("infer", model, "hello", "--arg", "max_modell_len=1").refused("unknown-argument")
