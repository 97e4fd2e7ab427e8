"""What a doctor finds: one thing that was looked for, and a report of several."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for: ``state`` is ok, missing, wrong or note."""

    name: str
    state: str
    what: str
    where: str = ""
    hint: str = ""

    @property
    def fault(self) -> bool:
        """True when something must be done about it."""
        return self.state in ("missing", "wrong")


@dataclass(frozen=True)
class Report:
    """What was found for one device (or, without a name, for the machine and the project)."""

    device: str
    seen: str  # what shows that the device is here, "" when nothing does
    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """True when nothing is missing."""
        return not any(finding.fault for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """The same facts for ``--json``."""
        return {**asdict(self), "healthy": self.healthy}
