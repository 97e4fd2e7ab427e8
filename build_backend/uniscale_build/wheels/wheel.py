"""Wheels, written by us: the same bytes for the same content, on every core, whole or not at all.

Members are sorted, times and modes are fixed, RECORD is complete. Nothing in a wheel depends on
the folder, the umask, the clock, the number of threads, or on what was written before.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from uniscale_build import recordfile
from uniscale_build.build.distinfo import expanded_tags, file_stem, generator, wheel_file
from uniscale_build.errors import SettingsError, UniscaleError, WheelError, raise_all
from uniscale_build.members import MODES, Member, check_names
from uniscale_build.processors import cores
from uniscale_build.progress import Reporter, Silent
from uniscale_build.recordfile import Row
from uniscale_build.store import disk_errors
from uniscale_build.wheels.deflate import Codec, codec
from uniscale_build.wheels.output import Output, replacing
from uniscale_build.wheels.pack import pack
from uniscale_build.wheels.previous import Previous
from uniscale_build.wheels.same import same_rows
from uniscale_build.wheels.wheelread import Wheel, read_wheel
from uniscale_build.wheels.zipfmt import FIRST_EPOCH, Archive, dos_time

__all__ = ["Member", "Wheel", "WheelFile", "read_wheel", "source_date_epoch", "write_wheel"]

_OURS = ("METADATA", "WHEEL", "RECORD", "RECORD.jws", "RECORD.p7s", "entry_points.txt")


@dataclass(frozen=True)
class WheelFile:
    """A wheel as it was written: where, its SHA-256 in hex, its size in bytes, its RECORD rows."""

    path: Path
    sha256: str
    size: int
    record: tuple[Row, ...]


def source_date_epoch(environ: Mapping[str, str]) -> int:
    """``SOURCE_DATE_EPOCH`` (seconds since 1970), else the first moment that ZIP can tell.

    `SettingsError` for a value that is no number or is past what ZIP can tell.
    """
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return FIRST_EPOCH
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise SettingsError(
            f"SOURCE_DATE_EPOCH is {text!r}",
            hint="it is a number of seconds since 1970, like 1700000000",
            slug="bad-epoch",
        )
    dos_time(int(text))
    return int(text)


def write_wheel(
    out_dir: Path,
    *,
    name: str,
    version: str,
    tag: str,
    members: Iterable[Member],
    metadata: str,
    entry_points: str = "",
    dist_info_extra: Iterable[Member] = (),
    compression: str = "default",
    previous: Path | None = None,
    previous_sha256: str | None = None,
    previous_stamp: Sequence[int] | None = None,
    epoch: int = FIRST_EPOCH,
    threads: int | None = None,
    reporter: Reporter | None = None,
) -> WheelFile:
    """Write the wheel ``name-version-tag.whl`` into ``out_dir`` and say what was written.

    ``metadata`` is the text of METADATA and must be valid and of that name and version.
    ``dist_info_extra`` are further files of the dist-info, named relative to it
    (``sboms/uniscale.cdx.json``). ``compression`` is ``store``, ``fast``, ``default`` or ``best``.
    ``previous`` is a wheel to copy unchanged members from, the one that is replaced included, and
    ``previous_sha256`` its digest when we wrote it: without that, nothing is copied. With
    ``previous_stamp``, its `previous.stamp` then, it is not read again to compare its digest.
    ``epoch`` dates the members. ``threads`` defaults to the cores of this process.

    `WheelError` (all at once) for names that no wheel may hold, members that are no regular
    files, and metadata that does not fit; `StoreError` when the disk is full or read-only. A
    wheel of that name that was there before stays as it was until the new one is complete, and for
    good when it is the previous wheel and nothing changed.
    """
    reporter = reporter if reporter is not None else Silent()
    chosen = codec(compression)
    stem = file_stem(name, version)
    info = f"{stem}.dist-info"
    expanded_tags(tag)
    dos_time(epoch)
    payload = sorted(members, key=lambda member: member.name)
    extra = sorted(dist_info_extra, key=lambda member: member.name)
    _check(payload, extra, info, stem, metadata, entry_points)
    wheel = wheel_file(tag, generator(chosen.identity))
    files = [*payload, *_own(info, metadata, wheel, entry_points, extra)]
    target = out_dir / f"{stem}-{tag}.whl"
    count = max(1, threads if threads is not None else cores())
    same = _Same(target, files, f"{info}/RECORD", epoch, count, reporter, previous_stamp)
    if again := same(previous, previous_sha256):
        return again
    with (
        _previous(previous, chosen, previous_sha256, previous_stamp, reporter) as before,
        disk_errors(out_dir, "point the output folder"),
        replacing(target, before.handle if before is not None else None, reporter) as output,
    ):
        fill = _Fill(output, files, f"{info}/RECORD", chosen, epoch, count, reporter)
        written = fill(before)
        # What was copied is as good as where it came from; the same bytes again settle it at once.
        if before is not None and written.sha256 != previous_sha256 and not before.is_intact():
            reporter.note("nothing is copied from the previous wheel: it has changed since")
            output.restart()
            written = fill(None)
    return WheelFile(target, written.sha256, written.size, written.rows)


@dataclass(frozen=True)
class _Same:
    """Keeps, or copies, the previous wheel when it is what would be written."""

    target: Path
    members: Sequence[Member]
    record: str
    epoch: int
    threads: int
    reporter: Reporter
    stamped: Sequence[int] | None

    def __call__(self, previous: Path | None, sha256: str | None) -> WheelFile | None:
        """The wheel at the target, when it needs no writing; else None."""
        if previous is None or sha256 is None:
            return None
        try:
            stream = previous.open("rb")
        except OSError:
            return None  # the ordinary way tells why
        with stream:
            handle = stream.fileno()
            rows = same_rows(handle, sha256, self.members, self.record, stamped=self.stamped,
                             epoch=self.epoch, threads=self.threads,
                             reporter=self.reporter)  # fmt: skip
            if rows is None:
                return None
            folder = self.target.parent
            with (
                disk_errors(folder, "point the output folder"),
                replacing(self.target, handle, self.reporter) as output,
            ):
                output.repeat()
                size = os.fstat(handle).st_size
        return WheelFile(self.target, sha256, size, rows)


def _own(
    info: str, metadata: str, wheel: str, entry_points: str, extra: Sequence[Member]
) -> list[Member]:
    """The files of the wheel's dist-info but RECORD, sorted."""
    found = [
        Member(f"{info}/METADATA", _text(metadata)),
        Member(f"{info}/WHEEL", _text(wheel)),
        *(Member(f"{info}/{member.name}", member.source, member.mode) for member in extra),
    ]
    if entry_points:
        found.append(Member(f"{info}/entry_points.txt", _text(entry_points)))
    return sorted(found, key=lambda member: member.name)


@dataclass(frozen=True)
class _Written:
    sha256: str
    size: int
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class _Fill:
    """Writes the whole archive; the output is empty whenever it is called."""

    output: Output
    members: Sequence[Member]
    record: str
    codec: Codec
    epoch: int
    threads: int
    reporter: Reporter

    def __call__(self, previous: Previous | None) -> _Written:
        archive = Archive(self.output, self.epoch)
        rows = pack(archive, self.members, self.codec, threads=self.threads, previous=previous,
                    reporter=self.reporter)  # fmt: skip
        text = Member(self.record, _text(recordfile.render(rows, self.record)))
        pack(archive, [text], self.codec, threads=1, previous=None, reporter=Silent())
        size = archive.close()
        self.output.complete()
        sha256 = archive.sha256 or self.output.sha256()
        return _Written(sha256, size, (*rows, Row(self.record, None, None)))


def _text(text: str) -> bytes:
    return text.encode("utf-8")


def _check(
    payload: Sequence[Member],
    extra: Sequence[Member],
    info: str,
    stem: str,
    metadata: str,
    entry_points: str,
) -> None:
    """Everything that can be wrong before a byte is written, at once."""
    inside = [f"{info}/{member.name}" for member in extra]
    names = [*(member.name for member in payload), *inside]
    errors = check_names([*names, f"{info}/METADATA"], what="wheel")
    for member in (*payload, *extra):
        if member.mode not in MODES:
            errors.append(
                WheelError(
                    f"{member.name!r} has mode {member.mode:04o}",
                    hint="files of a wheel are 0644 or 0755, whoever's machine it is",
                    slug="bad-mode",
                )
            )
    reserved = {f"{info}/{own}" for own in _OURS}
    errors.extend(
        WheelError(
            f"{name!r} is written by us and cannot be given",
            hint=f"give METADATA and entry points as such; other files of {info} as "
            "dist_info_extra",
            slug="reserved-name",
        )
        for name in names
        if name in reserved or (name.startswith(f"{info}/") and name not in inside)
    )
    errors.extend(_metadata_errors(metadata, stem))
    errors.extend(_entry_point_errors(entry_points))
    raise_all(errors)


def _metadata_errors(metadata: str, stem: str) -> list[UniscaleError]:
    from packaging.metadata import ExceptionGroup, Metadata

    where = f"{stem}.dist-info/METADATA"
    try:
        parsed = Metadata.from_email(metadata, validate=True)
    except ExceptionGroup as group:
        hint = "see the core metadata specification"
        return [
            WheelError(f"the metadata is not valid: {error}", where=where, hint=hint,
                       slug="bad-metadata")
            for error in group.exceptions
        ]  # fmt: skip
    found = file_stem(parsed.name, str(parsed.version))
    if found != stem:
        return [
            WheelError(
                f"the metadata is of {found}, the wheel of {stem}",
                where=where,
                hint="installers discard a wheel whose file name and metadata disagree",
                slug="bad-metadata",
            )
        ]
    return []


def _entry_point_errors(text: str) -> list[UniscaleError]:
    import configparser

    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None, strict=True)
    # Entry points are case-sensitive; the parser's default is not.
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    problems = []
    try:
        parser.read_string(text)
        for section in parser.sections():
            for key, value in parser.items(section):
                if not re.fullmatch(r"[\w.]+(\s*:\s*[\w.]+)?(\s*\[.*\])?", value):
                    problems.append(f"{section}: {key} = {value}")
    except configparser.Error as error:
        problems.append(" ".join(str(error).split()))
    return [
        WheelError(f"not an entry point: {problem}", hint="name = module:attribute under [group]",
                   slug="bad-entry-points")
        for problem in problems
    ]  # fmt: skip


@contextlib.contextmanager
def _previous(
    path: Path | None,
    chosen: Codec,
    sha256: str | None,
    stamped: Sequence[int] | None,
    reporter: Reporter,
) -> Iterator[Previous | None]:
    """The previous wheel, when there is one of use; why not is told."""
    if path is None or not path.exists():
        yield None
        return
    if sha256 is None:
        reporter.note(f"nothing is copied from {path.name}: its digest is not known")
        yield None
        return
    with Previous(path, chosen, sha256, stamped) as found:
        if found.reason is not None:
            reporter.note(f"nothing is copied from {path.name}: {found.reason}")
        yield None if found.reason is not None else found
