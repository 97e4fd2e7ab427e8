"""RECORD files (PEP 376, PEP 427): the list of a distribution's files with hash and size."""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import WheelError

_URL_SAFE = {ord("-"): "+", ord("_"): "/", ord("+"): None, ord("/"): None}


@dataclass(frozen=True, order=True)
class Row:
    """One file: its name, SHA-256 in hex, and size in bytes; RECORD itself has neither."""

    name: str
    sha256: str | None
    size: int | None


def file_sha256(path: Path) -> str:
    """SHA-256 of the file at ``path``, in hex."""
    value = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(1 << 20):
            value.update(block)
    return value.hexdigest()


def rows_of(prefix: Path, names: Iterable[str]) -> list[Row]:
    """The rows of files below ``prefix``, in the order of their names as given."""
    return [Row(name, file_sha256(prefix / name), (prefix / name).stat().st_size) for name in names]


def payload_records(prefix: Path) -> list[Path]:
    """The RECORDs of the payload in ``prefix``, one per distribution, sorted.

    `WheelError` when there is none.
    """
    found = sorted(prefix.glob("*.dist-info/RECORD"))
    if not found:
        raise WheelError(
            "the payload has no RECORD",
            where=str(prefix),
            hint="write_dist_info or normalise_dist_info makes it, last of all",
            slug="no-record",
        )
    return found


def render(rows: Iterable[Row], own_name: str) -> str:
    """The text of the RECORD ``own_name`` for ``rows``, sorted by name, itself last."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    for row in sorted(rows):
        writer.writerow((row.name, f"sha256={_to_base64(row.sha256 or '')}", row.size))
    writer.writerow((own_name, "", ""))
    return out.getvalue()


def parse(text: str) -> tuple[list[Row], list[str]]:
    """The rows of a RECORD, and what is wrong with it, one sentence per line that is wrong.

    Only SHA-256 is accepted for files that have a hash: PEP 427 allows stronger ones, which no
    tool writes, and forbids weaker ones.
    """
    rows: list[Row] = []
    problems: list[str] = []
    seen: set[str] = set()
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        return [], [f"RECORD is not CSV: {error}"]
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        if len(line) != 3:
            problems.append(f"RECORD line {number} has {len(line)} fields, not 3")
            continue
        name, digest, size = line
        if name in seen:
            problems.append(f"RECORD line {number}: {name!r} is listed twice")
            continue
        seen.add(name)
        if not digest and not size:
            rows.append(Row(name, None, None))
            continue
        sha256 = _to_hex(digest)
        if sha256 is None or not (size.isascii() and size.isdigit()):
            problems.append(f"RECORD line {number}: {name!r} has no SHA-256 and size")
            continue
        rows.append(Row(name, sha256, int(size)))
    return rows, problems


def _to_base64(sha256: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(sha256)).rstrip(b"=").decode("ascii")


def _to_hex(digest: str) -> str | None:
    """The hex form of ``sha256=<unpadded url-safe base64>``; None for anything else."""
    algorithm, _, text = digest.partition("=")
    # The last of 43 digits has two spare bits: set, they would spell the same bytes twice.
    if algorithm != "sha256" or len(text) != 43 or text[-1] not in "AEIMQUYcgkosw048":
        return None
    try:
        return base64.b64decode(text.translate(_URL_SAFE) + "=", validate=True).hex()
    except (binascii.Error, ValueError):
        return None
