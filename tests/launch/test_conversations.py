"""Every format of training data becomes prompts and completions; what is none is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from uniscale.training.conversations import MOST_ERRORS, Source, read
from uniscale_build.errors import Problems, SettingsError, UniscaleError

USER = {"role": "user", "content": "Who?"}
BOT = {"role": "assistant", "content": "I."}
SYSTEM = {"role": "system", "content": "Be brief."}
ONE = [{"prompt": [USER], "completion": [BOT]}]


def samples(tmp_path: Path, *rows: Any, **more: Any) -> list[dict[str, Any]]:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = more.pop("text", False)
    return read(Source(str(path), **more), text=text)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, BOT]},
        {"messages": json.dumps([USER, BOT])},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Who?"}]}, BOT]},
        {"conversations": [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]},
        {"conversations": [USER, BOT]},
        {"instruction": "Who?", "input": "", "output": "I."},
        {"prompt": "Who?", "completion": "I."},
        {"question": "Who?", "answer": "I.", "id": 3},
        {"prompt": "Who?", "response": "I.", "messages": None},
        {"prompt": [USER], "completion": [BOT]},
    ],
)
def test_all_formats_say_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    assert samples(tmp_path, row) == ONE


def test_a_system_message(tmp_path: Path) -> None:
    wanted = [{"prompt": [SYSTEM, USER], "completion": [BOT]}]
    turns = [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "I."}]
    assert samples(tmp_path, {"messages": [SYSTEM, USER, BOT]}) == wanted
    assert samples(tmp_path, {"system": "Be brief.", "conversations": turns}) == wanted
    alpaca = {"system": "Be brief.", "instruction": "Who?", "output": "I."}
    assert samples(tmp_path, alpaca) == wanted


def test_alpaca_with_input_and_history(tmp_path: Path) -> None:
    row = {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Who?", "I."]]}
    (sample,) = samples(tmp_path, row)
    assert sample["prompt"] == [USER, BOT, {"role": "user", "content": "Add.\n\n1 2"}]
    assert sample["completion"] == [{"role": "assistant", "content": "3"}]


def test_every_answer_is_learned_with_all_before_it(tmp_path: Path) -> None:
    more = [{"role": "user", "content": "Sure?"}, {"role": "assistant", "content": "Yes."}]
    found = samples(tmp_path, {"messages": [SYSTEM, USER, BOT, *more]})
    assert found == [
        {"prompt": [SYSTEM, USER], "completion": [BOT]},
        {"prompt": [SYSTEM, USER, BOT, more[0]], "completion": [more[1]]},
    ]


def test_tools(tmp_path: Path) -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    (sample,) = samples(tmp_path, {"messages": [USER, call], "tools": [{"name": "f"}]})
    assert sample == {"prompt": [USER], "completion": [call], "tools": '[{"name": "f"}]'}


def test_text_alone(tmp_path: Path) -> None:
    assert samples(tmp_path, {"text": "abc"}) == [{"text": "abc"}]
    both = {"text": "abc", "prompt": "Who?", "completion": "I."}
    assert samples(tmp_path, both) == ONE
    assert samples(tmp_path, both, text=True) == samples(tmp_path, both, format="text")


def test_columns_of_other_names(tmp_path: Path) -> None:
    row = {"q": "Who?", "a": "I."}
    assert samples(tmp_path, row, columns={"prompt": "q", "completion": "a"}) == ONE
    with pytest.raises(SettingsError, match="no column b"):
        samples(tmp_path, row, columns={"prompt": "b"})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": []}, "must be a list of messages"),
        ({"messages": [3, BOT]}, "message 1 is not an object"),
        ({"messages": [{"role": "usr", "content": "x"}, BOT]}, 'did you mean "user"'),
        ({"messages": [{"role": "user"}, BOT]}, "message 1 is missing"),
        ({"messages": [{"role": "user", "content": " "}, BOT]}, "message 1 is empty"),
        ({"messages": [{"role": "user", "content": 3}, BOT]}, "message 1 is not text"),
        ({"messages": [USER]}, "nothing to learn"),
        ({"messages": [BOT, USER, BOT]}, "before anybody asked"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}, BOT]},
            "holds image_url",
        ),
        ({"conversations": [{"from": "humen", "value": "x"}]}, 'did you mean "human"'),
        ({"instruction": "x", "output": ""}, '"output" is empty'),
        ({"instruction": "x", "output": "y", "history": [["z"]]}, '"history" must be'),
        ({"prompt": None, "question": "x", "answer": "y"}, "the prompt is missing"),
        ({"text": 3}, '"text" is not text'),
        ({"other": "x"}, "in no known format"),
    ],
)
def test_rows_that_are_none(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    with pytest.raises(UniscaleError, match=r"data\.jsonl:1") as caught:
        samples(tmp_path, row)
    assert said in caught.value.render()


def test_all_bad_rows_at_once_but_not_without_end(tmp_path: Path) -> None:
    good, bad = {"messages": [USER, BOT]}, {"messages": [USER]}
    with pytest.raises(Problems) as caught:
        samples(tmp_path, good, bad, good, bad)
    places = [one.where for one in caught.value.findings()]
    assert [str(place).rpartition(":")[2] for place in places] == ["2", "4"]
    with pytest.raises(Problems) as caught:
        samples(tmp_path, good, *[bad] * 500)
    assert len(caught.value.findings()) == MOST_ERRORS + 1
    assert "and 480 more rows" in caught.value.render()


def test_a_row_of_another_format_is_named(tmp_path: Path) -> None:
    with pytest.raises(UniscaleError, match=r"format: openai"):
        samples(tmp_path, {"messages": [USER, BOT]}, {"prompt": "a", "completion": "b"})


def test_no_data(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no row"):
        samples(tmp_path)
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(SettingsError, match=r"there is no trian\.jsonl") as caught:
        read(Source(str(tmp_path / "trian.jsonl")))
    assert caught.value.hint == 'did you mean "train.jsonl"?'
    with pytest.raises(SettingsError, match="no data format alpacca") as caught:
        samples(tmp_path, {"prompt": "a"}, format="alpacca")
    assert caught.value.hint == 'did you mean "alpaca"?'
