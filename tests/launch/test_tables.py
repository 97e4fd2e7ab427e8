"""Rows of every kind of file, and what is said about files and rows that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale import tables
from uniscale_build.errors import SettingsError, UniscaleError

ROWS = [{"prompt": "a", "completion": "b"}, {"prompt": '世界 "c"\n', "completion": "🌍"}]


def read(path: Path, **more: str) -> tuple[list[dict[str, object]], list[str]]:
    errors: list[UniscaleError] = []
    found = [row.data for row in tables.rows(path, errors, **more)]
    return found, [f"{error.where} {error.what}" for error in errors]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", json.dumps(ROWS)),
        ("a.json", json.dumps({"data": ROWS})),
        ("a.json", "\n".join(map(json.dumps, ROWS))),  # lines under the wrong suffix
        ("a.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n\n"),
        ("a.jsonl", "\ufeff" + "\r\n".join(map(json.dumps, ROWS))),
        ("A.NDJSON", "\n".join(map(json.dumps, ROWS))),
        ("a.csv", 'prompt,completion\na,b\n"世界 ""c""\n",🌍\n'),
        ("a.tsv", 'prompt\tcompletion\na\tb\n"世界 ""c""\n"\t🌍\n'),
    ],
)
def test_all_texts_give_the_same_rows(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert read(path) == (ROWS, [])


def test_one_object_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"messages": [{"role": "user", "content": "x"}]}')
    assert read(path)[0] == [{"messages": [{"role": "user", "content": "x"}]}]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{\n[1]\n"x"\n\xff\n{"a": 2}\nnull\n')
    found, errors = read(path)
    assert found == [{"a": 1}, {"a": 2}]
    assert [one.partition(" ")[0] for one in errors] == [f"{path}:{n}" for n in (2, 3, 4, 5, 7)]
    assert "a list, not an object" in errors[1] and "not UTF-8" in errors[3]


def test_lines_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,2\n1\n\n1,2,3\n"x\ny",4\n')
    found, errors = read(path)
    assert found == [{"a": "1", "b": "2"}, {"a": "x\ny", "b": "4"}]
    assert errors == [
        f"{path}:3 has 1 fields where the header names 2",
        f"{path}:5 has 3 fields where the header names 2",
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.txt", b"x", "no format that is read"),
        ("a.json", b"[1,", "is not JSON"),
        ("a.json", b"\xff", "is not UTF-8"),
        ("a.json", b"3", "a number, not a list of objects"),
        ("a.json", b"[" * 100_000, "nested too deep"),
        ("a.csv", b"a,a\n1,2\n", "name every column once"),
        ("a.csv", b"a,b\n1,\xff\n", "not UTF-8"),
        ("a.csv", b'a,b\n1,"2', "no well-formed CSV"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        read(path)


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.symlink_to(path)
    with pytest.raises(SettingsError, match="cannot be read"):
        read(path)


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert read(path) == (ROWS, [])
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(SettingsError, match="no Parquet file"):
        read(path)


def test_folders_as_the_hub_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "README.md").write_text("x")
    for split, row in (("train", ROWS[0]), ("test", ROWS[1])):
        (tmp_path / "data" / f"{split}-00000-of-00001.jsonl").write_text(json.dumps(row))
    assert read(tmp_path) == (ROWS[:1], [])
    assert read(tmp_path, split="test") == (ROWS[1:], [])
    with pytest.raises(SettingsError, match="no data of the split other"):
        read(tmp_path, split="other")


def test_folders_that_datasets_saved(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list(ROWS)
    saved.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": saved, "test": saved}).save_to_disk(str(tmp_path / "two"))
    assert read(tmp_path / "one") == read(tmp_path / "two") == (ROWS, [])
    with pytest.raises(SettingsError, match="no split tets") as caught:
        read(tmp_path / "two", split="tets")
    assert caught.value.hint == 'did you mean "test"?'
