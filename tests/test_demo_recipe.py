"""The demo model's recipe in examples/demo: its data, its variations, its exporter."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uniscale.models import models

from tests.gguf_file import read_gguf, read_safetensors

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ROOT / "examples" / "demo"
DATA = RECIPE / "data"
DEMO = Path(models.SHIPPED) / "demo"
Json = dict[str, Any]


def document(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Makes the recipe's modules importable, for one test."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(RECIPE)
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(RECIPE)):
            del sys.modules[name]


def test_licence() -> None:
    assert document(DEMO / "model.json")["licence"] == "Apache-2.0"
    assert (RECIPE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_it_was_made_by_this_recipe(recipe: None) -> None:
    from recipe import Recipe, digest

    told = document(DEMO / "model.json")
    assert told["recipe"] == {"folder": "examples/demo", "sha256": digest()}
    assert told["vocabulary"] == Recipe().vocab_size
    assert told["context_length"] == Recipe().max_positions


def test_every_line_of_the_data_is_a_conversation() -> None:
    files = sorted(DATA.glob("*.jsonl"))
    assert len(files) == 5
    for path in files:
        rows = lines(path)
        assert rows
        for number, row in enumerate(rows, start=1):
            where = f"{path.name}:{number}"
            roles = [message["role"] for message in row["messages"]]
            turns = roles[1:] if roles[0] == "system" else roles
            assert turns == ["user", "assistant"] * (len(turns) // 2), where
            assert all(message["content"].strip() for message in row["messages"]), where


def test_each_question_has_one_answer_and_held_out_ones_are_not_taught(recipe: None) -> None:
    from corpus import load, read_pairs

    pairs = list(load().pairs())
    taught = dict(pairs)
    assert len(taught) == len(pairs), "a question stands twice"
    held_out = read_pairs(DATA / "heldout.jsonl")
    assert len(held_out) >= 150
    assert not {question for question, _ in held_out} & set(taught)
    answers = set(taught.values())
    assert {answer for _, answer in held_out} <= answers
    for row in lines(DATA / "asked.jsonl"):
        assert {m["content"] for m in row["messages"] if m["role"] == "assistant"} <= answers


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '{"messages": 1}',
        '{"messages": []}',
        '{"messages": [{"role": "user", "content": "a"}]}',
        '{"messages": [{"role": "user"}, {"role": "assistant", "content": "b"}]}',
        '{"messages": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "a"}]}',
    ],
)
def test_damaged_data_is_refused_with_its_place(recipe: None, tmp_path: Path, line: str) -> None:
    from corpus import read_pairs

    good = (DATA / "english.jsonl").read_text(encoding="utf-8").splitlines()[0]
    path = tmp_path / "x.jsonl"
    path.write_text(f"{good}\n{line}\n{good}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"x\.jsonl:2: "):
        read_pairs(path)


def test_conversations_follow_from_the_seed(recipe: None) -> None:
    from corpus import conversation, load

    corpus = load()
    first, again, other = (random.Random(seed) for seed in (7, 7, 8))
    drawn = [conversation(corpus, first) for _ in range(2000)]
    assert drawn == [conversation(corpus, again) for _ in range(2000)]
    assert drawn != [conversation(corpus, other) for _ in range(2000)]
    answers = {answer for _, answer in corpus.pairs()}
    for messages in drawn:
        assert all(m["content"] in answers for m in messages if m["role"] == "assistant")
        assert all(m["content"].strip() for m in messages)


def test_the_exporter_refuses_other_weights(recipe: None) -> None:
    numpy = pytest.importorskip("numpy")
    from export import Source, tensors

    config = document(DEMO / "hf" / "config.json")
    raw = read_safetensors(DEMO / "hf" / "model.safetensors")
    weights = {k: numpy.frombuffer(v.content, "<f2").reshape(v.shape) for k, v in raw.items()}
    good = Source(config, {}, {}, weights)
    _, written = read_gguf(DEMO / "model.gguf")
    assert {k: v.tobytes() for k, v in tensors(good).items()} == {
        k: v.content for k, v in written.items()
    }
    missing = {k: v for k, v in weights.items() if k != "model.norm.weight"}
    with pytest.raises(ValueError, match=r"missing or left over: model\.norm\.weight"):
        tensors(dataclasses.replace(good, weights=missing))
    wide = weights | {"model.norm.weight": weights["model.norm.weight"].astype("f4")}
    with pytest.raises(ValueError, match=r"model\.norm\.weight is float32, not float16"):
        tensors(dataclasses.replace(good, weights=wide))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{", r"config\.json: not JSON: "),
        ("config.json", b"{}", r"config\.json lacks bos_token_id, eos_token_id, head_dim, "),
        ("model.safetensors", b"x" * 100, r"model\.safetensors: "),
        ("tokenizer.json", b'{"model": {"vocab": {"a": 0}}}', "1 tokens, but vocab_size differs"),
    ],
)
def test_the_exporter_refuses_damaged_folders(
    recipe: None, tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    pytest.importorskip("safetensors.numpy")
    from export import read

    folder = tmp_path / "hf"
    shutil.copytree(DEMO / "hf", folder)
    assert read(folder).tokens[1] == "<|end|>"
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read(folder)


def test_mistakes_are_sentences(tmp_path: Path) -> None:
    for argv in (["export.py", "no folder", "x.gguf"], ["check.py", "no folder"]):
        command = [sys.executable, "-B", str(RECIPE / argv[0]), *argv[1:]]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
