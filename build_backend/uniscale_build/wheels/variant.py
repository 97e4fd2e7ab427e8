"""A wheel, written again as a wheel variant (the draft PEP 825): what a file's name says of its
device leaves the version and becomes a label at the name's end.

Only the dist-info folder changes. All else is copied as compressed bytes, so a large wheel takes
as long as reading it twice.
"""

from __future__ import annotations

import calendar
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from uniscale_build import recordfile
from uniscale_build.build.distinfo import file_stem
from uniscale_build.errors import WheelError
from uniscale_build.members import PROVENANCE, SBOM, Member
from uniscale_build.progress import Reporter, Silent
from uniscale_build.recordfile import Row, file_sha256
from uniscale_build.records import sbom
from uniscale_build.wheels.deflate import codec
from uniscale_build.wheels.output import replacing
from uniscale_build.wheels.pack import pack
from uniscale_build.wheels.previous import packed_member
from uniscale_build.wheels.zipfmt import Archive, Entry

DOCUMENT = "variant.json"


@dataclass(frozen=True)
class Variant:
    """What a wheel becomes: its public ``version``, its ``build`` number ("" for none), the
    ``label``, and the content of ``variant.json``."""

    version: str
    build: str
    label: str
    document: str

    def file(self, source: str) -> str:
        """The file name, for a wheel that was called ``source``."""
        name, _, *_, python, abi, platform = source.removesuffix(".whl").split("-")
        stem = file_stem(name, self.version)
        return (
            "-".join(filter(None, (stem, self.build, python, abi, platform, self.label))) + ".whl"
        )


@dataclass(frozen=True)
class WrittenVariant:
    """A variant as it was written, and what is published beside it."""

    path: Path
    sha256: str
    size: int
    metadata: bytes
    provenance: bytes | None  # the wheel's own statement


def write_variant(
    source: Path, out_dir: Path, variant: Variant, *, sha256: str, reporter: Reporter | None = None
) -> WrittenVariant:
    """Write the wheel ``source``, which has ``sha256`` and was verified, into ``out_dir`` as
    ``variant``.

    `WheelError` when it is another file by now; `StoreError` when the disk is full or read-only.
    """
    if file_sha256(source) != sha256:
        raise WheelError(
            "it has changed since it was verified", where=str(source),
            hint="uniscale-build index --verify tells what is wrong", slug="changed-wheel",
        )  # fmt: skip
    target = out_dir / variant.file(source.name)
    with (
        source.open("rb") as stream,
        zipfile.ZipFile(stream) as archive,
        replacing(target, None, reporter or Silent()) as output,
    ):
        infos = {one.filename: one for one in archive.infolist() if not one.is_dir()}
        old = _dist_info(infos)
        documents = {name.removeprefix(f"{old}/"): archive.read(name)
                     for name in infos if name.startswith(f"{old}/")}  # fmt: skip
        rows, _ = recordfile.parse(documents.pop("RECORD").decode("utf-8"))
        ours = _changed(documents, variant, source)
        date = next(iter(infos.values())).date_time
        made = Archive(output, calendar.timegm((*date, 0, 0, 0)))
        kept = [row for row in rows if not row.name.startswith(f"{old}/")]
        for row in sorted(kept):
            _copy(stream.fileno(), infos[row.name], row, made)
        stem = file_stem(source.name.split("-")[0], variant.version)
        _finish(made, kept, ours, f"{stem}.dist-info")
        size = made.close()
        output.complete()
        digest = made.sha256 or output.sha256()
    return WrittenVariant(target, digest, size, ours["METADATA"], ours.get(PROVENANCE))


def _dist_info(infos: Mapping[str, zipfile.ZipInfo]) -> str:
    """The wheel's own dist-info; those of payloads are further down."""
    return next(
        name.split("/")[0] for name in infos if re.fullmatch(r"[^/]+\.dist-info/RECORD", name)
    )


def _copy(handle: int, info: zipfile.ZipInfo, row: Row, made: Archive) -> None:
    packed = packed_member(handle, info, row.sha256 or "")
    if packed is None:
        raise WheelError(f"{row.name!r} is not where the directory says", slug="zip-layout",
                         hint="build or fetch the wheel again")  # fmt: skip
    mode = info.external_attr >> 16 & 0o777
    made.begin(Entry(row.name, mode, packed.method, packed.crc, packed.packed, packed.size),
               packed.size)  # fmt: skip
    for chunk in packed.chunks():
        made.write(chunk)
    made.finish(packed.crc, packed.size)


def _changed(documents: Mapping[str, bytes], variant: Variant, source: Path) -> dict[str, bytes]:
    """The files of the new dist-info but RECORD, by their names in it."""
    found = dict(documents)
    found["METADATA"] = _metadata(found["METADATA"].decode("utf-8"), variant.version).encode()
    if variant.build:
        found["WHEEL"] = found["WHEEL"].rstrip(b"\n") + f"\nBuild: {variant.build}\n".encode()
    found[DOCUMENT] = variant.document.encode()
    if SBOM in found:
        try:
            found[SBOM] = sbom.renamed(found[SBOM].decode("utf-8"), variant.version).encode()
        except (ValueError, KeyError, TypeError) as error:
            raise WheelError(f"its SBOM cannot be read: {error}", where=str(source),
                             hint="build the wheel again", slug="bad-sbom") from error  # fmt: skip
    return found


def _metadata(text: str, version: str) -> str:
    """METADATA of the public version; what is required may differ from variant to variant."""
    head, blank, body = text.partition("\n\n")
    lines = [f"Version: {version}" if line.startswith("Version:") else line
             for line in head.split("\n")]  # fmt: skip
    told = re.search(r"^Metadata-Version:\s*(\d+)\.(\d+)", head, re.MULTILINE)
    # Wheels of one version that require different things say so (core metadata 2.2).
    if told and (int(told[1]), int(told[2])) >= (2, 2) and "Requires-Dist:" in head:
        at = next(n for n, line in enumerate(lines) if line.startswith("Version:"))
        lines.insert(at + 1, "Dynamic: Requires-Dist")
    return "\n".join(lines) + blank + body


def _finish(made: Archive, kept: list[Row], documents: Mapping[str, bytes], folder: str) -> None:
    """The new dist-info and its RECORD, last of all."""
    chosen = codec("default")
    members = [Member(f"{folder}/{name}", data) for name, data in sorted(documents.items())]
    rows = pack(made, members, chosen, threads=1, previous=None, reporter=Silent())
    own = f"{folder}/RECORD"
    record = Member(own, recordfile.render([*kept, *rows], own).encode())
    pack(made, [record], chosen, threads=1, previous=None, reporter=Silent())
