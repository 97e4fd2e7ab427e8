"""``uniscale verify``: whether a wheel, or an installed payload, is what it says of itself."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import LaunchError, SettingsError, WheelError

from uniscale.wheels import payloads
from uniscale.wheels.record import Payload

if TYPE_CHECKING:
    from uniscale_build.wheels.trust import Check, Subject

_MARKS = {"passed": "ok", "failed": "!!", "unchecked": "??"}


def verify(
    what: str,
    *,
    device: str | None = None,
    rebuild: bool = False,
    offline: bool = False,
    as_json: bool = False,
) -> int:
    """Make every check that can be made here, tell each, and give 8 when one failed.

    ``what`` is a wheel file or an installed backend. A check that could not be made is told with
    the reason; it is no failure.
    """
    title, subject, checks = _subject(what, device)
    if subject is not None:
        checks += _further(subject, rebuild=rebuild, offline=offline)
    failed = [one for one in checks if one.state == "failed"]
    if as_json:
        told = {"subject": title, "sha256": subject.sha256 or None if subject else None,
                "verified": not failed, "checks": [asdict(one) for one in checks]}  # fmt: skip
        print(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        _tell(title, subject, checks)
    return WheelError.exit_code if failed else 0


def _subject(what: str, device: str | None) -> tuple[str, Subject | None, list[Check]]:
    from uniscale_build.wheels import trust

    path = Path(what)
    if what.endswith(".whl") or path.is_file():
        if not path.is_file():
            hint = "a wheel file, or the name of an installed backend"
            raise SettingsError("there is no such file", where=what, hint=hint, slug="no-wheel")
        return (path.name, *trust.of_wheel(path))
    payload = payloads.named(what, device)[0]
    brought = _brought(payload)
    name = str(brought.metadata["Name"])
    folder = payload.prefix.parent.parent
    info = next((one.name for one in folder.glob("*.dist-info")
                 if _same(one, brought)), "")  # fmt: skip
    from uniscale_build.build.distinfo import file_stem

    stem, _, version = file_stem(name, brought.version).partition("-")
    subject, checks = trust.of_installed(folder, info, stem, version)
    return f"{payload.title} in {payload.prefix}", subject, checks


def _same(folder: Path, brought: importlib.metadata.Distribution) -> bool:
    return (importlib.metadata.PathDistribution(folder).metadata["Name"]
            == brought.metadata["Name"])  # fmt: skip


def _brought(payload: Payload) -> importlib.metadata.Distribution:
    from uniscale.wheels.installplan import owner

    found = owner(payload)
    if found is None:
        raise LaunchError(
            f"no wheel brought {payload.title}: there is nothing to compare it with",
            where=str(payload.prefix), slug="no-wheel",
        )  # fmt: skip
    return found


def _further(subject: Subject, *, rebuild: bool, offline: bool) -> Iterable[Check]:
    from uniscale_build.cli.live import reporter
    from uniscale_build.ids import slug
    from uniscale_build.wheels import trust
    from uniscale_build.wheels.rebuild import check_rebuild, check_trees

    if subject.own_records:
        yield trust.check_payloads(subject)
    yield trust.check_sbom(subject)
    yield trust.check_provenance(subject)
    if subject.infos and slug(subject.name) != "uniscale":  # a bundle has the launchers' own too
        yield trust.check_requirements(subject)
    with reporter() as live:
        yield from check_trees(subject, live, offline=offline)
        if rebuild:
            yield check_rebuild(subject, live, offline=offline)


def _tell(title: str, subject: Subject | None, checks: list[Check]) -> None:
    print(title)
    if subject is not None and subject.sha256:
        print(f"  sha256 {subject.sha256}")
    for one in checks:
        print(f"  {_MARKS[one.state]} {one.name}: {one.what}")
        if one.hint and one.state != "passed":
            print("\n".join(f"     {line}" for line in one.hint.splitlines()))
    counts = {state: sum(one.state == state for one in checks) for state in _MARKS}
    print(f"{counts['passed']} passed, {counts['failed']} failed, "
          f"{counts['unchecked']} could not be checked")  # fmt: skip
