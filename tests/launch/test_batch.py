"""`uniscale infer --input`: answers beside rows; killed it goes on; errors stay in their rows."""

from __future__ import annotations

import base64
import csv
import json
import os
import pty
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from uniscale.inference.messages import user
from uniscale_build.errors import SettingsError

from .helpers import PATIENCE, Bench, alive, lay_payload, recorded, until

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(autouse=True)
def payload(bench: Bench) -> Path:
    return lay_payload(bench.payloads)


def put(bench: Bench, *rows: Any, name: str = "in.jsonl") -> Path:
    path = bench.root / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def got(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def words(model: Path, source: Path, out: str | Path = "out.jsonl") -> list[str | Path]:
    return ["infer", model, "--input", source, "--output", out]


class TestRows:
    def test_every_row_has_its_answer_in_its_place(self, bench: Bench, model: Path) -> None:
        rows = [{"id": str(number), "prompt": f"{number} 世界 $(touch x)"} for number in range(40)]
        source = put(bench, *rows)
        result = bench.run(*words(model, source), "--json").ok()
        found = got(bench.root / "out.jsonl")
        assert [one["answer"] for one in found] == [row["prompt"] + " " for row in rows]
        assert [one["id"] for one in found] == [str(number) for number in range(40)]
        assert {one["answer_error"] for one in found} == {None}
        assert found[0]["answer_tokens"] == 4 and found[0]["answer_finish"] == "stop"
        told = json.loads(result.out)
        assert (told["rows"], told["failed"]) == (40, 0)
        assert not list(bench.root.glob(".out*")) and not list(bench.root.rglob("x"))
        assert bench.logs == []

    def test_all_ways_to_ask(self, bench: Bench, model: Path) -> None:
        said = [{"role": "user", "content": "a"}]
        image = bench.root / "a.png"
        image.write_bytes(PNG)
        rows: list[dict[str, Any]] = [
            {"messages": [*said, {"role": "assistant", "content": "known"}]},
            {"messages": json.dumps(said)},
            {"question": "a", "max_tokens": 5, "temperature": 0.5},
            {"instruction": "a", "input": "b"},
            {"body": {"messages": said, "max_tokens": 3, "model": "other"}, "custom_id": "1"},
            {"prompt": "a", "image": str(image)},
            {"prompt": "a", "system": "s"},
        ]
        bench.run(*words(model, put(bench, *rows)), "--", "--answer", "request").ok()
        sent = [json.loads(one["answer"]) for one in got(bench.root / "out.jsonl")]
        assert [one["messages"] for one in sent[:3]] == [said] * 3
        assert (sent[2]["max_tokens"], sent[2]["temperature"]) == (5, 0.5)
        assert sent[3]["messages"][0]["content"] == "a\n\nb"
        assert sent[4]["model"] == "small" and sent[4]["max_tokens"] == 3
        parts = sent[5]["messages"][0]["content"]
        assert parts[0]["image_url"]["url"].startswith("data:image/png;base64,")
        assert sent[6]["messages"][0] == {"role": "system", "content": "s"}

    def test_a_bad_row_fails_alone(self, bench: Bench, model: Path) -> None:
        rows = [{"prompt": "a"}, {"other": 1}, {"prompt": " "}, {"prompt": "b", "image": "no.png"}]
        result = bench.run(*words(model, put(bench, *rows, {"messages": []})))
        assert result.code == 1 and "4 failed" in result.err
        found = got(bench.root / "out.jsonl")
        assert found[0]["answer"] == "a " and found[0]["answer_error"] is None
        errors = [one["answer_error"] for one in found[1:]]
        assert all(error.startswith("bad-") for error in errors) and "no.png" in errors[2]
        assert [one["answer"] for one in found[1:]] == [None] * 4

    def test_a_bad_row_says_why(self, bench: Bench, model: Path) -> None:
        rows = [{"a": 1}, {"prompt": ""}, {"messages": "", "text": None}, {"prompt": " "},
                {"question": 5}, {"messages": "", "prompt": "asked"}]  # fmt: skip
        told = bench.run(*words(model, put(bench, *rows))).err
        assert "e+" not in told and " 1 failed  0 s left" not in told
        found = got(bench.root / "out.jsonl")
        assert found[5]["answer"] == "asked "
        for one, why in zip(
            found,
            ("no column messages, prompt", 'nothing: "prompt" is empty', '"messages", "text" is',
             '"prompt" is blank', '"question" is not text'),
            strict=False,
        ):  # fmt: skip
            assert why in one["answer_error"]

    def test_what_the_engine_refuses_stays_in_its_row_and_is_asked_again(
        self, bench: Bench, model: Path
    ) -> None:
        source = put(bench, {"prompt": "a"}, {"prompt": "b"})
        result = bench.run(*words(model, source), "--", "--refuse", "400")
        assert result.code == 1 and "asks these again" in result.err
        assert "(400): no such luck" in got(bench.root / "out.jsonl")[1]["answer_error"]
        bench.run(*words(model, source)).ok()
        assert [one["answer"] for one in got(bench.root / "out.jsonl")] == ["a ", "b "]

    def test_csv_in_and_out(self, bench: Bench, model: Path) -> None:
        source = bench.root / "in.csv"
        source.write_text('prompt,note\n"a, ""b""\nc",1\n世界,2\n')
        bench.run(*words(model, source, "out.csv")).ok()
        with (bench.root / "out.csv").open(newline="") as stream:
            found = list(csv.DictReader(stream))
        assert [one["answer"] for one in found] == ['a, "b"\nc ', "世界 "]
        assert [one["note"] for one in found] == ["1", "2"]

    def test_parquet_in_and_out(self, bench: Bench, model: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        from pyarrow import Table

        bench.environ["PYTHONPATH"] += f"{os.pathsep}{Path(parquet.__file__).parents[2]}"
        source = bench.root / "in.parquet"
        parquet.write_table(Table.from_pylist([{"prompt": "a"}, {"prompt": "b"}]), source)
        bench.run(*words(model, source, "out.parquet")).ok()
        found = parquet.read_table(bench.root / "out.parquet").to_pylist()
        assert [one["answer"] for one in found] == ["a ", "b "]


class TestGoingOn:
    def test_killed_it_goes_on_where_it_was(self, bench: Bench, model: Path) -> None:
        source = put(bench, *({"prompt": f"{number}"} for number in range(30)))
        facts, count = bench.root / "facts.json", bench.root / "count"
        slow = ("--", "--record", facts, "--delay", "0.05", "--count", count)
        process = bench.start(*words(model, source), "--concurrency", "2", *slow)
        journal = bench.root / ".out.jsonl.journal"
        until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 6, "some answers")
        process.kill()
        process.wait()
        until(lambda: not alive(recorded(facts)["pid"]), "the engine ends")
        noted = journal.read_bytes().count(b"\n") - 1
        with journal.open("ab") as stream:
            stream.write(b'{"row": 29, "text": "tor')
        before = len(count.read_bytes())
        result = bench.run(*words(model, source), *slow).ok()
        assert f"{noted} of 30 rows have their answer" in result.err
        assert len(count.read_bytes()) - before == 30 - noted
        assert [one["answer"] for one in got(bench.root / "out.jsonl")] == [
            f"{number} " for number in range(30)
        ]
        bench.run(*words(model, source)).refused("output-exists", code=2)

    def test_an_engine_that_dies_loses_no_answer(self, bench: Bench, model: Path) -> None:
        source = put(bench, *({"prompt": f"{number}"} for number in range(8)))
        facts = bench.root / "facts.json"
        slow = ("--", "--record", facts, "--delay", "0.2")
        process = bench.start(*words(model, source), "-c", "1", *slow)
        journal = bench.root / ".out.jsonl.journal"
        until(lambda: journal.exists() and journal.read_bytes().count(b"\n") >= 3, "some answers")
        os.kill(recorded(facts)["pid"], signal.SIGKILL)
        err = process.communicate(timeout=PATIENCE)[1].decode()
        assert process.returncode == 13 and "error[engine-died]" in err
        assert not (bench.root / "out.jsonl").exists()
        assert "going on" in bench.run(*words(model, source)).ok().err

    def test_ctrl_c(self, bench: Bench, model: Path) -> None:
        source = put(bench, *({"prompt": f"{number}"} for number in range(8)))
        facts = bench.root / "facts.json"
        raw = ("--", "--record", facts, "--answer", "endless")
        process = bench.start(*words(model, source), *raw)
        recorded(facts)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert b"Traceback" not in process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == 130
        assert not alive(recorded(facts)["pid"])

    def test_another_input_is_refused(self, bench: Bench, model: Path) -> None:
        bench.run(*words(model, put(bench, {"prompt": "a"}, {"x": 1})))
        bench.run(*words(model, put(bench, {"prompt": "b"}))).refused("other-job", code=2)
        source = put(bench, {"prompt": "a"}, {"x": 1})
        bench.run(*words(model, source), "--system", "s").refused("other-job", code=2)


class TestRefusals:
    def test_options_that_contradict(self, bench: Bench, model: Path) -> None:
        source = put(bench, {"prompt": "a"})
        bench.run("infer", model, "hello", "--input", source, "-o", "o.csv").refused("usage", 2)
        bench.run("infer", model, "--input", source).refused("usage", 2)
        bench.run("infer", model, "x", "--output", "o.csv").refused("usage", 2)
        bench.run("infer", model).refused("usage", 2)
        bench.run(*words(model, source, "o.txt")).refused("bad-output", 2)

    def test_inputs_that_are_none(self, bench: Bench, model: Path) -> None:
        bench.run(*words(model, Path("none.jsonl"))).refused("bad-data", 2)
        bench.run(*words(model, put(bench))).refused("bad-data", 2)
        source = bench.root / "in.jsonl"
        source.write_text('{"prompt": "a"}\n{\n[]\n')
        result = bench.run(*words(model, source))
        assert "in.jsonl:2" in result.err and "in.jsonl:3" in result.err and result.code == 2
        named = put(bench, {"prompt": "a", "answer": "b"})
        assert "--answer-column" in bench.run(*words(model, named)).refused("bad-data", 2)
        bench.run(*words(model, named), "--answer-column", "said").ok()
        bench.run(*words(model, named, "/proc/none/o.csv")).refused("bad-data", 2)

    def test_images_that_are_none(self, tmp_path: Path) -> None:
        path = tmp_path / "a.png"
        path.write_text("no")
        for word in (str(path), str(tmp_path / "none.png"), str(tmp_path)):
            with pytest.raises(SettingsError, match="the image"):
                user("x", [word])
        told = user("x", ["https://example.org/a.png"])["content"]
        assert isinstance(told, list) and len(told) == 2


def talk(bench: Bench, model: Path, *lines: str, raw: tuple[str, ...] = ()) -> tuple[int, str]:
    """A conversation on a terminal of its own; the exit code and all that was shown."""
    here, there = pty.openpty()
    process = bench.start("infer", model, *raw, stdin=there, stdout=there, stderr=there)
    os.close(there)
    shown = b""
    for line in (*lines, "\x04"):
        while not shown.endswith(b"> "):
            shown += os.read(here, 4096)
        os.write(here, line.encode() + (b"\n" if line != "\x04" else b""))
        shown += os.read(here, 1)  # the echo begins: what stands before it is no new prompt
    while True:
        try:
            more = os.read(here, 4096)
        except OSError:  # the other side is closed
            break
        if not more:
            break
        shown += more
    os.close(here)
    return process.wait(timeout=PATIENCE), shown.decode()


class TestTalk:
    def test_the_whole_conversation_is_sent(self, bench: Bench, model: Path) -> None:
        raw = ("--system", "Be brief.", "--", "--answer", "request")
        code, shown = talk(bench, model, "one", "/clear", "two", "/what", raw=raw)
        assert code == 0, shown
        bodies = [json.loads(line) for line in shown.splitlines() if line.startswith('{"model"')]
        assert [len(one["messages"]) for one in bodies] == [2, 2]
        assert bodies[1]["messages"][1]["content"] == "two"
        assert "there is no /what" in shown and "Traceback" not in shown
        code, shown = talk(bench, model, "hello", "again")
        assert code == 0 and "hello " in shown and "again " in shown

    def test_a_refusal_is_told_and_the_talk_goes_on(self, bench: Bench, model: Path) -> None:
        code, shown = talk(bench, model, "one", "two", raw=("--", "--refuse", "400"))
        assert code == 0 and shown.count("(400): no such luck") == 2
