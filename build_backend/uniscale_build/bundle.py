"""The last stage: packages and payloads into one wheel, from the store when nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from uniscale_build import distribution, record
from uniscale_build.download import hash_file
from uniscale_build.members import Member
from uniscale_build.pipeline import Context, Payload, build_payload, recall, remember
from uniscale_build.plan import Plan
from uniscale_build.store import digest, disk_errors, write_atomic

NAME = "uniscale"
# Without SOURCE_DATE_EPOCH every wheel has the same date: 1 January 2020, UTC.
DEFAULT_EPOCH = 1577836800


@dataclass(frozen=True)
class Wheel:
    """A finished wheel, and what making it took."""

    path: Path
    sha256: str
    size: int
    payloads: tuple[Payload, ...]
    reused: bool
    seconds: float


def epoch() -> int:
    """``SOURCE_DATE_EPOCH`` in seconds, else our constant."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    return int(text) if text.isdigit() else DEFAULT_EPOCH


def build_wheel(context: Context, plan: Plan, out: Path, *, editable: bool = False) -> Wheel:
    """Build what is missing and write the wheel into ``out``; equal plans give equal bytes."""
    started = time.monotonic()
    payloads = tuple(build_payload(context, plan, item) for item in plan.backends)
    files = _editable_members(context) if editable else _members(context)
    metadata = distribution.metadata(context.project, plan)
    inputs = {
        "version": plan.version,
        "metadata": digest(metadata, distribution.entry_points(context.project)),
        "files": digest([(m.name, m.mode, _content_hash(m.source)) for m in files]),
        "compression": plan.settings.compression,
        "date": str(epoch()),
        "editable": str(editable),
    } | {f"payload {item.name}": item.key for item in payloads}
    folder = context.store.wheels / digest(inputs)
    reused = (folder / "wheel.json").is_file()
    context.reporter.stage("wheel", plan.version)
    if not reused:
        _write(context, plan, payloads, files, metadata, folder)
    remember(context, _record_name(plan), "wheel", {**inputs, "folder": folder.name})
    about = json.loads((folder / "wheel.json").read_text(encoding="utf-8"))
    path = _deliver(folder / about["name"], out)
    return Wheel(path, about["sha256"], about["size"], payloads, reused,
                 time.monotonic() - started)  # fmt: skip


def _record_name(plan: Plan) -> str:
    return "wheel-" + (plan.version.partition("+")[2] or "plain")


def _members(context: Context) -> list[Member]:
    return [
        Member(name, path, 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        for name, path in distribution.packages(context.project)
    ]


def _editable_members(context: Context) -> list[Member]:
    root = context.project.root
    paths = [root / "launchers", root / "build_backend"]
    return [Member("uniscale_editable.pth", "".join(f"{path}\n" for path in paths).encode())]


def _content_hash(source: Path | bytes) -> str:
    return digest(source.decode("utf-8")) if isinstance(source, bytes) else hash_file(source)


def payload_members(payloads: Iterable[Payload]) -> list[Member]:
    """The files of payloads under ``uniscale_payloads/<backend>-<device>/``."""
    found = []
    for item in payloads:
        for name, path in distribution.walk(item.prefix):
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            found.append(Member(f"uniscale_payloads/{item.name}/{name}", path, mode))
        # A file of its own in the shared folder: pip then removes the folder with its last payload.
        note = f"{item.name}: see {item.name}/payload.json\n".encode()
        found.append(Member(f"uniscale_payloads/{item.name}.txt", note))
    return found


def _write(
    context: Context,
    plan: Plan,
    payloads: tuple[Payload, ...],
    files: list[Member],
    metadata: str,
    folder: Path,
) -> None:
    from uniscale_build import elf
    from uniscale_build.tags import wheel_tag
    from uniscale_build.wheel import write_wheel

    ours = payload_members(payloads)
    found = (elf.read(m.source) for m in ours if isinstance(m.source, Path))
    allowed = frozenset(lib for item in plan.backends for lib in item.recipe.allowed_external)
    tag = wheel_tag(
        [item for item in found if item is not None],
        files=[member.name for member in ours],
        allowed_external=allowed,
    )
    with context.store.scratch() as scratch:
        made = write_wheel(
            scratch,
            name=NAME,
            version=plan.version,
            tag=tag,
            members=[*files, *ours],
            metadata=metadata,
            entry_points=distribution.entry_points(context.project),
            dist_info_extra=_records(context, plan, payloads),
            compression=plan.settings.compression,
            **_previous(context, plan),
            epoch=epoch(),
            threads=None,
            reporter=context.reporter,
        )
        about = {"name": made.path.name, "sha256": made.sha256, "size": made.size}
        write_atomic(scratch / "wheel.json", json.dumps(about).encode())

        def fill(target: Path) -> None:
            for path in (made.path, scratch / "wheel.json"):
                path.rename(target / path.name)

        context.store.put_folder(folder, fill)


def _records(context: Context, plan: Plan, payloads: Iterable[Payload]) -> list[Member]:
    """SBOM, provenance and licences, by their names in the dist-info folder."""
    infos: list[Mapping[str, object]] = [item.info for item in payloads]
    sbom = record.sbom(infos, name=NAME, version=plan.version, epoch=epoch())
    found = [Member("sboms/uniscale.cdx.json", sbom.encode())]
    if infos:
        statement = record.provenance(
            infos,
            prefixes={item.name: item.prefix for item in payloads},
            plan=plan.as_json(),
            epoch=epoch(),
        )
        found.append(Member("provenance.intoto.json", statement.encode()))
    licence = context.project.root / "LICENSE"
    if licence.is_file():
        found.append(Member("licenses/LICENSE", licence))
    return found


class _Previous(TypedDict, total=False):
    previous: Path
    previous_sha256: str


def _previous(context: Context, plan: Plan) -> _Previous:
    """The last wheel of this name, whose unchanged members need no second deflate."""
    last = recall(context, _record_name(plan)).get("wheel", {}).get("folder")
    about = context.store.wheels / last / "wheel.json" if last else None
    if about is None or not about.is_file():
        return {}
    facts = json.loads(about.read_text(encoding="utf-8"))
    return {"previous": about.parent / facts["name"], "previous_sha256": facts["sha256"]}


def _deliver(kept: Path, out: Path) -> Path:
    """A copy of the stored wheel in ``out``, whole or not at all."""
    target = out / kept.name
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=out, prefix=".uniscale-")
        os.close(handle)
        try:
            shutil.copyfile(kept, name)
            Path(name).chmod(0o644)
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return target
