"""Whether a wheel, or what was installed from one, is what it says of itself.

A check is passed, failed, or could not be made; none is left out in silence. What is compared:
every file with RECORD, SBOM and provenance with the payloads' records, the records with themselves.
`wheels.rebuild` goes on to the sources.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from uniscale_build import recordfile
from uniscale_build.errors import UniscaleError, some
from uniscale_build.ids import slug
from uniscale_build.members import PROVENANCE, SBOM
from uniscale_build.recordfile import Row
from uniscale_build.records.provenance import PREDICATE, STATEMENT, dependencies
from uniscale_build.records.record import check_payload
from uniscale_build.wheels.wheelread import read_wheel

_PAYLOAD = re.compile(r"uniscale_payloads/([^/]+)/payload\.json")
_OWN_RECORD = re.compile(r"(uniscale_payloads/[^/]+/)[^/]+\.dist-info/RECORD")
# What an installer writes into the dist-info folder itself.
_INSTALLERS = ("INSTALLER", "REQUESTED", "direct_url.json", "RECORD", "uv_cache.json")
_SHOWN = 5  # differing files that a sentence names


@dataclass(frozen=True)
class Check:
    """One question and its answer: ``state`` is passed, failed or unchecked."""

    name: str
    state: str
    what: str
    hint: str = ""


@dataclass(frozen=True)
class Subject:
    """What is verified: a wheel, or the files of an installed one."""

    title: str
    name: str
    version: str
    rows: Mapping[str, Row]  # RECORD's, by name
    infos: Mapping[str, Mapping[str, Any]]  # payload.json by folder below uniscale_payloads
    documents: Mapping[str, bytes]  # of the dist-info folder, by name in it
    own_records: Mapping[str, bytes]  # RECORD of each distribution in a payload, by name
    sha256: str = ""  # of the wheel, "" for an installed one


def of_wheel(path: Path) -> tuple[Subject | None, list[Check]]:
    """The wheel at ``path``; None when it is not even a wheel whose files are RECORD's."""
    try:
        wheel = read_wheel(path)
    except UniscaleError as error:
        return None, [Check("files", "failed", item.what, item.hint or "")
                      for item in error.findings()]  # fmt: skip
    start = f"{wheel.dist_info}/"
    own = {name.removeprefix(start): data for name, data in wheel.documents.items()
           if name.startswith(start)}  # fmt: skip
    payloads = {found[1]: data for name, data in wheel.documents.items()
                if (found := _PAYLOAD.fullmatch(name))}  # fmt: skip
    what = f"{len(wheel.rows)} files are what RECORD says, and there are no others"
    rows = {row.name: row for row in wheel.rows}
    infos, checks = _infos(payloads)
    with zipfile.ZipFile(path) as archive:
        inner = {name: archive.read(name) for name in rows if _OWN_RECORD.fullmatch(name)}
    subject = Subject(
        path.name, wheel.name, wheel.version, rows, infos, own, inner, wheel.sha256
    )  # fmt: skip
    return subject, [Check("files", "passed", what), *checks]


def of_installed(
    folder: Path, dist_info: str, name: str, version: str
) -> tuple[Subject | None, list[Check]]:
    """What was installed into the packages folder ``folder``, whose record is in ``dist_info``."""
    info = folder / dist_info
    try:
        rows, problems = recordfile.parse((info / "RECORD").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        return None, [Check("files", "failed", f"its RECORD cannot be read: {error}")]
    faults = [*problems, *_differing(folder, rows, dist_info)]
    payloads = {}
    for row in rows:
        found = _PAYLOAD.fullmatch(row.name)
        if found is not None and (folder / row.name).is_file():
            payloads[found[1]] = (folder / row.name).read_bytes()
    faults += _added(folder, payloads, {row.name for row in rows})
    if faults:
        checks = [Check("files", "failed", _told(faults), "install the wheel again")]
    else:
        checks = [Check("files", "passed", f"{len(rows)} files are what RECORD says")]
    documents = {one: (info / one).read_bytes() for one in (SBOM, PROVENANCE, "METADATA")
                 if (info / one).is_file()}  # fmt: skip
    infos, wrong = _infos(payloads)
    by_name = {row.name: row for row in rows}
    inner = {one: (folder / one).read_bytes() for one in by_name
             if _OWN_RECORD.fullmatch(one) and (folder / one).is_file()}  # fmt: skip
    title = f"{name} {version}"
    return Subject(title, name, version, by_name, infos, documents, inner), checks + wrong


def _differing(folder: Path, rows: Iterable[Row], dist_info: str) -> Iterable[str]:
    for row in rows:
        path = PurePosixPath(row.name)
        if row.sha256 is None or row.name.endswith(".pyc"):
            continue
        try:
            found = recordfile.file_sha256(folder / path)
        except OSError:
            yield f"{row.name} is missing"
            continue
        if found != row.sha256:
            yield f"{row.name} was changed"


def _added(folder: Path, payloads: Iterable[str], listed: set[str]) -> Iterable[str]:
    """Files in the payloads' folders that nobody installed; Python's caches aside."""
    for payload in payloads:
        for path in sorted((folder / "uniscale_payloads" / payload).rglob("*")):
            name = path.relative_to(folder).as_posix()
            if not path.is_dir() and name not in listed and "__pycache__" not in path.parts:
                yield f"{name} was added"


def _infos(payloads: Mapping[str, bytes]) -> tuple[dict[str, Mapping[str, Any]], list[Check]]:
    found: dict[str, Mapping[str, Any]] = {}
    checks = []
    for folder, raw in payloads.items():
        try:
            info = json.loads(raw)
            problems = check_payload(info)
        except ValueError as error:
            problems = [f"payload.json is no JSON: {error}"]
        if problems:
            checks.append(Check(f"record of {folder}", "failed", "; ".join(problems)))
        else:
            found[folder] = info
            what = f"{info['backend']} {info['version']} for {info['device']}, "
            what += f"{counted(len(info['layers']), 'layer')} from "
            what += f"{_short(info['upstream']['tree'])} to "
            checks.append(
                Check(f"record of {folder}", "passed", what + _short(info["patched_tree"]))
            )
    return found, checks


def counted(count: int, word: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _short(tree: object) -> str:
    return f"tree {str(tree)[:12]}"


def check_payloads(subject: Subject) -> Check:
    """The payloads' own RECORDs, which the provenance speaks of, have the hashes of the files."""
    faults, count = [], 0
    for name, raw in subject.own_records.items():
        found = _OWN_RECORD.fullmatch(name)
        rows, problems = recordfile.parse(raw.decode("utf-8", "replace"))
        faults += [f"{name}: {problem}" for problem in problems]
        for row in rows:
            count += 1
            outer = subject.rows.get(f"{found[1] if found else ''}{row.name}")
            if outer is None:
                faults.append(f"{name} lists {row.name}, which is not here")
            elif row.sha256 is not None and row.sha256 != outer.sha256:
                faults.append(f"{name} has another hash of {row.name}")
    if faults:
        return Check("payload files", "failed", _told(faults))
    what = f"{count} files are what the payloads' own RECORDs say"
    return Check("payload files", "passed", what)


def check_sbom(subject: Subject) -> Check:
    """The bill of materials names the payloads as their records do, and nothing else."""
    from uniscale_build.records.sbom import sbom

    raw = subject.documents.get(SBOM)
    if raw is None:
        return Check("SBOM", "failed", f"there is no {SBOM}")
    made = sbom(list(subject.infos.values()), name=subject.name, version=subject.version, epoch=0)
    wanted = json.loads(made)
    try:
        told = json.loads(raw)
        faults = _payload_faults(told["components"], wanted["components"])
        root = told["metadata"]["component"]
        if (slug(root["name"]), root["version"]) != (slug(subject.name), subject.version):
            faults.append(f"it is of {root['name']} {root['version']}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Check("SBOM", "failed", f"it cannot be read: {_reason(error)}")
    if faults:
        return Check("SBOM", "failed", "; ".join(faults))
    return Check("SBOM", "passed", f"it lists {counted(len(wanted['components']), 'payload')} as "
                 "recorded")  # fmt: skip


def _told(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
    return "; ".join(faults[:_SHOWN]) + more


def _reason(error: Exception) -> str:
    """Why a document is not what it should be."""
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error) if isinstance(error, ValueError) else "its parts are not of the right kinds"


def _payload_faults(told: list[Mapping[str, Any]], wanted: list[Mapping[str, Any]]) -> list[str]:
    by_ref = {one.get("bom-ref"): one for one in told}
    faults = []
    for one in wanted:
        other = by_ref.pop(one["bom-ref"], None)
        if other is None:
            faults.append(f"{one['bom-ref']} is not in it")
            continue
        # A payload's own distributions are in its RECORDs, which are checked with the files.
        keys = sorted(key for key in {*one, *other} - {"components"}
                      if one.get(key) != other.get(key))  # fmt: skip
        faults += [f"{one['bom-ref']} has another {key}" for key in keys]
    return faults + [f"{ref} is in it, and no such payload is" for ref in by_ref]


def check_provenance(subject: Subject) -> Check:
    """The statement speaks of these payloads' files, pins, layers and tools."""
    if not subject.infos:
        return Check("provenance", "passed", "there is no payload that needs one")
    raw = subject.documents.get(PROVENANCE)
    if raw is None:
        return Check("provenance", "failed", f"there is no {PROVENANCE}")
    try:
        told = json.loads(raw)
        faults = list(_statement_faults(told, subject))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return Check("provenance", "failed", f"it cannot be read: {_reason(error)}")
    if faults:
        return Check("provenance", "failed", "; ".join(faults))
    builder = told["predicate"]["runDetails"]["builder"]["id"]
    return Check("provenance", "passed", f"it names these payloads, pins, layers and tools; "
                 f"builder {builder}, unsigned")  # fmt: skip


def check_requirements(subject: Subject) -> Check:
    """A backend's wheel requires our launchers and what its plan says, and nothing else."""
    from email.parser import HeaderParser

    from packaging.requirements import InvalidRequirement, Requirement

    try:
        told = json.loads(subject.documents[PROVENANCE])
        plan = told["predicate"]["buildDefinition"]["internalParameters"]["plan"]
        planned = [str(text) for one in plan["backends"] for text in one["requirements"]]
        wanted = {str(Requirement(text)) for text in planned}
        about = HeaderParser().parsestr(subject.documents["METADATA"].decode("utf-8"))
        found = [Requirement(text) for text in about.get_all("Requires-Dist", [])]
    except KeyError as error:
        return Check("requirements", "unchecked", f"{error} is not in its dist-info or provenance")
    except (ValueError, TypeError, AttributeError, InvalidRequirement) as error:
        return Check("requirements", "failed", f"they cannot be read: {_reason(error)}")
    theirs = {str(one) for one in found if slug(one.name) != "uniscale"}
    faults = [f"{text} is required, and not by the plan" for text in sorted(theirs - wanted)]
    faults += [f"{text} is not required, and the plan says so" for text in sorted(wanted - theirs)]
    if faults:
        return Check("requirements", "failed", _told(faults))
    return Check("requirements", "passed", f"{counted(len(theirs), 'package')} besides uniscale, "
                 "as planned")  # fmt: skip


def _statement_faults(told: Mapping[str, Any], subject: Subject) -> Iterable[str]:
    if (told["_type"], told["predicateType"]) != (STATEMENT, PREDICATE):
        yield "it is another kind of statement"
    named = {one["name"]: one["digest"]["sha256"] for one in told["subject"]}
    for name, sha256 in named.items():
        row = subject.rows.get(name)
        if row is None:
            yield f"it speaks of {name}, which is not here"
        elif row.sha256 != sha256:
            yield f"it speaks of another {name}"
    for folder in subject.infos:
        pattern = re.compile(rf"uniscale_payloads/{re.escape(folder)}/[^/]+\.dist-info/RECORD")
        yield from (f"it does not speak of {name}" for name in subject.rows
                    if pattern.fullmatch(name) and name not in named)  # fmt: skip
    definition = told["predicate"]["buildDefinition"]
    wanted = [item for info in subject.infos.values() for item in dependencies(info)]
    if _sorted(definition["resolvedDependencies"]) != _sorted(wanted):
        yield "its pins, layers or tools are not those of the payloads' records"
    planned = definition["internalParameters"]["plan"]["backends"]
    made = {one["backend"]: one["tree"] for one in planned}
    for info in subject.infos.values():
        if made.get(info["backend"]) != info["patched_tree"]:
            yield f"its plan gives another tree for {info['backend']}"


def _sorted(items: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted(json.dumps(item, sort_keys=True) for item in items)


def compare(subject: Subject, made: Mapping[str, Row], note: Callable[[str], str]) -> Check:
    """The files of a wheel that was built again, against the subject's."""
    installed = not subject.sha256
    ours = {
        name: row.sha256 for name, row in subject.rows.items()
        if not (installed and _by_installer(name))
    }  # fmt: skip
    theirs = {name: row.sha256 for name, row in made.items()
              if not (installed and _by_installer(name))}  # fmt: skip
    differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    if not differing:
        return Check("rebuild", "passed", f"{len(theirs)} files came out with the same bytes")
    what = f"{len(differing)} of {len(theirs)} files differ: {some(differing, _SHOWN)}"
    return Check("rebuild", "failed", what, note("the toolchain"))


def _by_installer(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        ".." in path.parts
        or path.suffix == ".pyc"
        or (path.parent.name.endswith(".dist-info") and len(path.parts) == 2
            and path.name in _INSTALLERS)
    )  # fmt: skip
