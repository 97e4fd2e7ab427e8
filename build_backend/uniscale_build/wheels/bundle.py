"""The last stage: packages and payloads into one wheel, from the store when nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypedDict

from uniscale_build.build.pipeline import Context, Payload, build_payload, recall, remember
from uniscale_build.errors import SettingsError
from uniscale_build.members import PROVENANCE, SBOM, Member
from uniscale_build.plans.plan import Plan
from uniscale_build.plans.together import check_together
from uniscale_build.records import record
from uniscale_build.sources.download import hash_file
from uniscale_build.store import digest, disk_errors, write_atomic
from uniscale_build.wheels import distribution

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


@dataclass(frozen=True)
class Contents:
    """What one wheel is made of. ``plan`` is of its payloads alone; ``record`` names it in the
    store's records; ``folders`` says, by payload, where below ``uniscale_payloads`` it lies."""

    name: str
    version: str
    metadata: str
    entry_points: str
    files: tuple[Member, ...]
    plan: Plan
    payloads: tuple[Payload, ...]
    folders: Mapping[str, str]
    record: str
    editable: bool = False


def build_wheel(context: Context, plan: Plan, out: Path, *, editable: bool = False) -> Wheel:
    """Build what is missing and write the wheel into ``out``; equal plans give equal bytes."""
    if plan.backends and plan.settings.revision is not None:
        raise SettingsError(
            "a bundle has no revision: its version is uniscale's own",
            hint="revisions are for wheels of one backend each: uniscale-build wheel --split",
            slug="bad-value",
        )
    check_together(context.project, plan)
    payloads = tuple(build_payload(context, plan, item) for item in plan.backends)
    return deliver(keep(context, contents(context, plan, payloads, editable=editable)), out)


def contents(
    context: Context, plan: Plan, payloads: tuple[Payload, ...] = (), *, editable: bool = False
) -> Contents:
    """What the wheel with the launchers and the ``payloads`` of ``plan`` is made of."""
    return Contents(
        name=NAME,
        version=plan.version,
        metadata=distribution.metadata(context.project, plan),
        entry_points=distribution.entry_points(context.project),
        files=tuple(_editable_members(context) if editable else _members(context)),
        plan=plan,
        payloads=payloads,
        folders={item.name: item.name for item in payloads},
        record="wheel-" + (plan.version.partition("+")[2] or "plain"),
        editable=editable,
    )


def keep(context: Context, contents: Contents) -> Wheel:
    """The wheel of ``contents`` in the store, which has it already when nothing changed."""
    started = time.monotonic()
    inputs = {
        "version": contents.version,
        "metadata": digest(contents.metadata, contents.entry_points),
        "files": digest([(m.name, m.mode, _content_hash(m.source)) for m in contents.files]),
        "compression": contents.plan.settings.compression,
        "date": str(epoch()),
        "editable": str(contents.editable),
    } | {f"payload {contents.folders[item.name]}": item.key for item in contents.payloads}
    folder = context.store.wheels / digest(inputs)
    reused = (folder / "wheel.json").is_file()
    context.reporter.stage("wheel", f"{contents.name} {contents.version}")
    if not reused:
        _write(context, contents, folder)
    remember(context, contents.record, "wheel", {**inputs, "folder": folder.name})
    about = json.loads((folder / "wheel.json").read_text(encoding="utf-8"))
    return Wheel(folder / about["name"], about["sha256"], about["size"], contents.payloads, reused,
                 time.monotonic() - started)  # fmt: skip


def deliver(kept: Wheel, out: Path) -> Wheel:
    """A copy of a stored wheel in ``out``, whole or not at all."""
    started = time.monotonic()
    path = _deliver(kept.path, out)
    return replace(kept, path=path, seconds=kept.seconds + time.monotonic() - started)


def tag(contents: Contents) -> str:
    """The tag of the wheel of ``contents``: what its compiled members need."""
    ours = payload_members(contents.payloads, contents.folders)
    return _tag(contents.plan, ours)


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


def payload_members(payloads: Iterable[Payload], folders: Mapping[str, str]) -> list[Member]:
    """The files of payloads under ``uniscale_payloads/``, each in the folder that it is given."""
    found = []
    for item in payloads:
        folder = folders[item.name]
        for name, path in distribution.walk(item.prefix):
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            found.append(Member(f"uniscale_payloads/{folder}/{name}", path, mode))
        # A file of its own in the shared folder: pip then removes the folder with its last payload.
        note = f"{item.name}: see {folder}/payload.json\n".encode()
        found.append(Member(f"uniscale_payloads/{folder}.txt", note))
    return found


def _write(context: Context, contents: Contents, folder: Path) -> None:
    from uniscale_build.wheels.previous import stamp
    from uniscale_build.wheels.wheel import write_wheel

    plan = contents.plan
    ours = payload_members(contents.payloads, contents.folders)
    with context.store.scratch() as scratch:
        made = write_wheel(
            scratch,
            name=contents.name,
            version=contents.version,
            tag=_tag(plan, ours),
            members=[*contents.files, *ours],
            metadata=contents.metadata,
            entry_points=contents.entry_points,
            dist_info_extra=_records(context, contents),
            compression=plan.settings.compression,
            **_previous(context, contents.record),
            epoch=epoch(),
            threads=None,
            reporter=context.reporter,
        )

        def fill(target: Path) -> None:
            kept = made.path.rename(target / made.path.name)
            about = {"name": kept.name, "sha256": made.sha256, "size": made.size,
                     "stamp": stamp(kept)}  # fmt: skip
            write_atomic(target / "wheel.json", json.dumps(about).encode())

        context.store.put_folder(folder, fill)


def _tag(plan: Plan, ours: Sequence[Member]) -> str:
    from uniscale_build.build import elf
    from uniscale_build.build.tags import wheel_tag

    found = (elf.read(m.source) for m in ours if isinstance(m.source, Path))
    return wheel_tag(
        [item for item in found if item is not None],
        files=[member.name for member in ours],
        allowed_external=frozenset(
            lib for item in plan.backends for lib in item.recipe.allowed_external
        ),
    )


def _records(context: Context, contents: Contents) -> list[Member]:
    """SBOM, provenance and licences, by their names in the dist-info folder."""
    payloads = contents.payloads
    infos: list[Mapping[str, object]] = [item.info for item in payloads]
    sbom = record.sbom(infos, name=contents.name, version=contents.version, epoch=epoch())
    found = [Member(SBOM, sbom.encode())]
    if infos:
        statement = record.provenance(
            infos,
            prefixes={item.name: item.prefix for item in payloads},
            folders=contents.folders,
            plan={**contents.plan.as_json(), "version": contents.version},
            epoch=epoch(),
        )
        found.append(Member(PROVENANCE, statement.encode()))
    if (text := distribution.licence(context.project)) is not None:
        found.append(Member("licenses/LICENSE", text))
    return found


class _Previous(TypedDict, total=False):
    previous: Path
    previous_sha256: str
    previous_stamp: list[int] | None


def _previous(context: Context, name: str) -> _Previous:
    """The last wheel of this name, whose unchanged members need no second deflate."""
    last = recall(context, name).get("wheel", {}).get("folder")
    about = context.store.wheels / last / "wheel.json" if last else None
    if about is None or not about.is_file():
        return {}
    facts = json.loads(about.read_text(encoding="utf-8"))
    return {
        "previous": about.parent / facts["name"],
        "previous_sha256": facts["sha256"],
        "previous_stamp": facts.get("stamp"),
    }


def _deliver(kept: Path, out: Path) -> Path:
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
