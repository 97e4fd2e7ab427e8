"""Rows of data files with their places: JSON, JSONL, CSV, Parquet, Hugging Face data sets."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniscale_build.errors import SettingsError, UniscaleError, did_you_mean

_LINES = (".jsonl", ".ndjson")
_SEPARATED = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".json", *_LINES, *_SEPARATED, ".parquet")
_LONGEST_FIELD = 1 << 26  # characters of one CSV field


@dataclass(frozen=True)
class Row:
    """One row: its values by column, and its place for errors (``file:line`` or ``file row N``)."""

    place: str
    data: dict[str, Any]


def rows(path: Path, errors: list[UniscaleError], *, split: str = "train") -> Iterator[Row]:
    """The rows of a file, or of one split of a Hugging Face data set's folder, in order.

    A row that cannot be read is added to ``errors`` and left out. Raises `SettingsError` for a file
    that cannot be read at all.
    """
    if path.is_dir():
        for part in _of_folder(path, split):
            yield from _arrow(part) if part.suffix == ".arrow" else rows(part, errors)
        return
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise _bad(f"{path.name} is in no format that is read", path, f"known: {_known()}")
    try:
        if suffix == ".parquet":
            yield from _parquet(path)
        elif suffix in _SEPARATED:
            yield from _separated(path, _SEPARATED[suffix], errors)
        elif suffix in _LINES:
            yield from _lines(path, errors)
        else:
            yield from _json(path, errors)
    except OSError as error:
        raise _bad(f"{path.name} cannot be read: {error.strerror or error}", path) from error


def _known() -> str:
    return ", ".join([*SUFFIXES, "a folder of a Hugging Face data set"])


def _bad(what: str, path: Path | str, hint: str | None = None) -> SettingsError:
    return SettingsError(what, where=str(path), hint=hint, slug="bad-data")


def _lines(path: Path, errors: list[UniscaleError]) -> Iterator[Row]:
    with path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            row = _line(raw, f"{path}:{number}", errors)
            if row is not None:
                yield row


def _line(raw: bytes, place: str, errors: list[UniscaleError]) -> Row | None:
    try:
        text = raw.decode("utf-8-sig" if place.endswith(":1") else "utf-8")
        if not text.strip():
            return None
        return _object(json.loads(text), place, errors)
    except UnicodeDecodeError as error:
        errors.append(_bad(f"is not UTF-8: byte {error.start + 1} of the line", place))
    except (json.JSONDecodeError, RecursionError) as error:
        hint = "it looks like a Git LFS pointer" if raw.startswith(b"version https://git") else None
        errors.append(_bad(f"is not JSON: {_reason(error)}", place, hint))
    return None


def _reason(error: json.JSONDecodeError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    return f"{error.msg} at column {error.colno}"


def _object(value: object, place: str, errors: list[UniscaleError]) -> Row | None:
    if isinstance(value, dict):
        return Row(place, value)
    errors.append(_bad(f"is {_article(value)}, not an object with columns", place))
    return None


def _article(value: object) -> str:
    names = {list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")


def _json(path: Path, errors: list[UniscaleError]) -> Iterator[Row]:
    """A list of objects, an object that holds one, or (common under this suffix) JSON lines."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        value = json.loads(text)
    except UnicodeDecodeError as error:
        raise _bad(f"is not UTF-8: byte {error.start + 1}", path) from error
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from _lines(path, errors)
            return
        raise _bad(f"is not JSON: {_reason(error)}", f"{path}:{error.lineno}") from error
    except RecursionError as error:
        raise _bad("is not JSON: it is nested too deep", path) from error
    if isinstance(value, dict):
        lists = [item for item in value.values() if isinstance(item, list)]
        # {"data": [{…}, …]} and the like; one object alone is one row.
        rows_in = len(value) == 1 and lists and all(isinstance(one, dict) for one in lists[0])
        value = lists[0] if rows_in and not {"messages", "conversations"} & set(value) else [value]
    if not isinstance(value, list):
        raise _bad(f"holds {_article(value)}, not a list of objects", path)
    for number, item in enumerate(value, start=1):
        row = _object(item, f"{path} row {number}", errors)
        if row is not None:
            yield row


def _separated(path: Path, delimiter: str, errors: list[UniscaleError]) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    with path.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        header: list[str] | None = None
        try:
            for cells in reader:
                place = f"{path}:{reader.line_num}"
                if header is None:
                    header = _header(cells, place)
                elif len(cells) == len(header):
                    yield Row(place, dict(zip(header, cells, strict=True)))
                elif cells:
                    what = f"has {len(cells)} fields where the header names {len(header)}"
                    errors.append(_bad(what, place))
        except csv.Error as error:
            raise _bad(f"is no well-formed CSV: {error}", f"{path}:{reader.line_num}") from error
        except UnicodeDecodeError as error:
            raise _bad("is not UTF-8", f"{path}:{reader.line_num + 1}") from error


def _header(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if not all(names) or len(set(names)) < len(names):
        raise _bad("the first line must name every column once", place)
    return names


def _needs(package: str, what: str) -> SettingsError:
    return SettingsError(
        f"reading {what} needs {package}", hint="pip install 'uniscale[train]'", slug="no-package"
    )


def _parquet(path: Path) -> Iterator[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise _needs("pyarrow", "Parquet") from error
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for data in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", data)
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise _bad(f"is no Parquet file that can be read: {reason}", path) from error


def _arrow(path: Path) -> Iterator[Row]:
    """An Arrow stream as `datasets.save_to_disk` writes it."""
    try:
        from pyarrow import ArrowException, ipc
    except ImportError as error:
        raise _needs("pyarrow", "Hugging Face data sets") from error
    number = 0
    try:
        with path.open("rb") as stream:
            for batch in ipc.open_stream(stream):
                for data in batch.to_pylist():
                    number += 1
                    yield Row(f"{path} row {number}", data)
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise _bad(f"is no Arrow file that can be read: {reason}", path) from error


def _of_folder(folder: Path, split: str) -> list[Path]:
    """The files of one split: of `save_to_disk`, or of a folder as the hub keeps them."""
    if (folder / "dataset_dict.json").is_file():
        parts = sorted(one.name for one in folder.iterdir() if (one / "state.json").is_file())
        if split not in parts:
            raise _bad(f"{folder.name} has no split {split}", folder, did_you_mean(split, parts))
        folder = folder / split
    if (folder / "state.json").is_file():
        try:
            told = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            return [folder / one["filename"] for one in told["_data_files"]]
        except (ValueError, KeyError, TypeError) as error:
            raise _bad("is no state of a Hugging Face data set", folder / "state.json") from error
    files = [
        one
        for place in (folder, folder / "data")
        if place.is_dir()
        for one in sorted(place.iterdir())
        if one.is_file() and one.suffix.lower() in (*SUFFIXES, ".arrow")
        and not one.name.startswith((".", "dataset_info", "config"))
    ]  # fmt: skip
    chosen = [one for one in files if one.name.startswith(split)]
    if not chosen:
        named = ("train", "test", "validation", "valid", "dev", "eval")
        chosen = [one for one in files if not one.name.startswith(named)]
    if not chosen:
        hint = (
            f"it holds: {', '.join(one.name for one in files)}" if files else f"known: {_known()}"
        )
        raise _bad(f"{folder.name} holds no data of the split {split}", folder, hint)
    return chosen
