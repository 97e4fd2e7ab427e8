"""The files of a batch: rows in, rows with answers out, and the journal that makes it resumable."""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import LaunchError, SettingsError, UniscaleError, raise_all

from uniscale import tables

if TYPE_CHECKING:
    from uniscale.inference.infer import InferRequest

_SUFFIXES = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_PARTS = ("text", "finish", "tokens", "error")  # of an answer


@dataclass(frozen=True)
class Batch:
    """One input, one output, and what identifies the work between them."""

    input: Path
    output: Path
    column: str  # that the answer goes to; _finish, _tokens and _error stand beside it
    settings: Mapping[str, object]

    @classmethod
    def of(cls, request: InferRequest) -> Batch:
        """The batch that a command asks for; `SettingsError` for an output of no known kind."""
        output = Path(str(request.output)).expanduser()
        if output.suffix.lower() not in _SUFFIXES:
            raise SettingsError(
                f"{output.name} is in no format that is written", where="--output",
                hint=f"known: {', '.join(_SUFFIXES)}", slug="bad-output",
            )  # fmt: skip
        settings = {
            "model": request.model, "system": request.system, "max_tokens": request.max_tokens,
            "temperature": request.temperature, "column": request.answer_column,
        }  # fmt: skip
        return cls(Path(str(request.input)).expanduser(), output, request.answer_column, settings)

    @property
    def _journal_path(self) -> Path:
        return self.output.with_name(f".{self.output.name}.journal")

    def read(self) -> list[dict[str, Any]]:
        """All rows; every line that cannot be read at once, with its place."""
        if not self.input.is_file():
            what = "is no file" if self.input.exists() else "is not there"
            raise SettingsError(f"the input {what}", where=str(self.input), slug="bad-data")
        if self.output.exists() and not self._journal_path.exists():
            raise SettingsError(
                "the output is there already", where=str(self.output),
                hint="name another file, or remove it", slug="output-exists",
            )  # fmt: skip
        errors: list[UniscaleError] = []
        rows = [row.data for row in tables.rows(self.input, errors)]
        if not rows and not errors:
            errors.append(SettingsError("there is no row", where=str(self.input), slug="bad-data"))
        ours = {self._named(part) for part in _PARTS}
        taken = sorted(ours & {key for row in rows for key in row})
        if taken:
            errors.append(
                SettingsError(
                    f"the input has the column {', '.join(taken)} already", where=str(self.input),
                    hint="name another for the answers: --answer-column NAME", slug="bad-data",
                )
            )  # fmt: skip
        raise_all(errors)
        return rows

    def _named(self, part: str) -> str:
        return self.column if part == "text" else f"{self.column}_{part}"

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        """The journal of this very work, held against a second process."""
        digest = hashlib.sha256(self.input.read_bytes()).hexdigest()
        wanted = json.dumps({"input": digest, **self.settings}, sort_keys=True).encode()
        path = self._journal_path
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LaunchError(
                f"the output cannot be written: {error.strerror}", where=str(self.output),
                slug="no-place",
            ) from error  # fmt: skip
        with os.fdopen(number, "r+b") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LaunchError(
                    "another process writes this output", where=str(self.output), slug="job-runs"
                ) from error
            yield Journal(path, stream, wanted)

    def write(self, rows: Sequence[Mapping[str, Any]], answers: Mapping[int, Any]) -> None:
        """The output, whole or not at all: each row with its answer's columns."""
        filled = [
            {**row, **{self._named(part): answers[place][part] for part in _PARTS}}
            for place, row in enumerate(rows)
        ]
        part = self.output.with_name(f".{self.output.name}.part")
        suffix = self.output.suffix.lower()
        if suffix == ".parquet":
            _write_parquet(part, filled)
        elif suffix in (".csv", ".tsv"):
            _write_separated(part, filled, "," if suffix == ".csv" else "\t")
        else:
            with part.open("w", encoding="utf-8", errors="replace") as stream:
                for row in filled:
                    stream.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
        part.replace(self.output)


def _write_separated(path: Path, rows: Sequence[Mapping[str, Any]], delimiter: str) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", encoding="utf-8", errors="replace", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerow(names)
        for row in rows:
            writer.writerow([_cell(row.get(name)) for name in names])


def _cell(value: object) -> object:
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else value


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    try:
        from pyarrow import ArrowException, Table, parquet
    except ImportError as error:
        raise SettingsError(
            "writing Parquet needs pyarrow", where="--output",
            hint="pip install pyarrow, or write .jsonl", slug="no-package",
        ) from error  # fmt: skip
    try:
        parquet.write_table(Table.from_pylist([dict(row) for row in rows]), path)
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise SettingsError(
            f"these rows do not fit into Parquet: {reason}", where="--output",
            hint="write .jsonl", slug="bad-output",
        ) from error  # fmt: skip


class Journal:
    """Answers as they come, one line each, behind a line that says what they answer."""

    def __init__(self, path: Path, stream: BufferedRandom, wanted: bytes) -> None:
        self._path, self._stream = path, stream
        first, newline, rest = stream.read().partition(b"\n")
        if not newline:
            first = b""  # a kill came before anything was noted
        if first and first != wanted:
            raise SettingsError(
                "this output was begun from another input, model or setting", where=str(path),
                hint=f"name another output, or begin anew: rm {path}", slug="other-job",
            )  # fmt: skip
        self._lines = rest
        # What a kill cut off goes: the next answer begins a line of its own.
        whole = len(first) + 1 + rest.rfind(b"\n") + 1 if first else 0
        stream.seek(whole)
        stream.truncate()
        if not first:
            self._append(wanted)

    def _append(self, line: bytes) -> None:
        self._stream.write(line + b"\n")
        self._stream.flush()

    def answers(self, rows: int) -> dict[int, dict[str, Any]]:
        """The answers so far, by the place of their rows; failed rows are asked again."""
        found: dict[int, dict[str, Any]] = {}
        for line in self._lines.splitlines():
            try:
                one = json.loads(line)
                place, answer = one["row"], {part: one[part] for part in _PARTS}
            except (ValueError, KeyError, TypeError):
                continue  # cut by a kill
            if answer["error"] is None and 0 <= place < rows:
                found[place] = answer
        return found

    def add(self, place: int, answer: Mapping[str, object]) -> None:
        """Note the answer of the row at ``place``."""
        self._append(json.dumps({"row": place, **answer}).encode())

    def remove(self) -> None:
        """Nothing is left to do: the output says it all."""
        self._path.unlink(missing_ok=True)
