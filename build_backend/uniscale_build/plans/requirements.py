"""Requirement rules: what upstream asks for, changed for a device, each change with its reason.

A wheel's requirements must be known before anything is built, so an adaptation lists them; the
build compares that list with what upstream's metadata and the rules give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError, UniscaleError, raise_all
from uniscale_build.manifests.model import RequirementRule

if TYPE_CHECKING:
    from packaging.requirements import Requirement


@dataclass(frozen=True)
class Applied:
    """Upstream's requirements after the rules; ``optional`` are those of extras, left alone.

    ``replaced`` maps upstream's words to ours. All are in upstream's order.
    """

    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    replaced: Mapping[str, str] = field(default_factory=dict)
    provided: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def metadata(self) -> tuple[str, ...]:
        """What the payload's own METADATA says: what is needed and what extras need."""
        return (*self.kept, *self.optional)


def apply_rules(given: Sequence[str], rules: Sequence[RequirementRule]) -> Applied:
    """``given`` (``Requires-Dist`` of upstream) after ``rules``.

    A rule is for every requirement of its name that belongs to no extra: ``drop`` takes it out,
    ``provided`` too (the device's image has it), ``pin`` gives it one version and keeps extras and
    marker, ``replace`` puts another requirement in its place. `ManifestError` (all at once) for a
    rule that fits no requirement, for two of one name, and for what is no requirement.
    """
    by_name, errors = _by_name(rules)
    kept: dict[str, None] = {}
    dropped, provided, optional = [], [], []
    replaced: dict[str, str] = {}
    used = set()
    for text in given:
        requirement = _parse(text, "upstream's metadata")
        if requirement.marker is not None and "extra" in str(requirement.marker):
            optional.append(text)
            continue
        name = _canonical_name(requirement.name)
        rule = by_name.get(name)
        used.add(name)
        if rule is None:
            kept[str(requirement)] = None
        elif rule.kind == "drop":
            dropped.append(str(requirement))
        elif rule.kind == "provided":
            provided.append(str(requirement))
        else:
            ours = _new(requirement, rule)
            replaced[str(requirement)] = ours
            kept[ours] = None
    for name, rule in by_name.items():
        if name not in used:
            errors.append(
                ManifestError(
                    f"the rule for {rule.name} fits nothing that upstream requires",
                    where=rule.where,
                    hint="upstream no longer asks for it: take the rule out",
                    slug="rule-unused",
                )
            )
    raise_all(errors)
    return Applied(tuple(kept), tuple(dropped), replaced, tuple(provided), tuple(optional))


def check_declared(declared: Sequence[str], applied: Applied, where: str) -> None:
    """`ManifestError` with the list to write when ``declared`` is not what ``applied`` keeps."""
    stated = {_key(_parse(text, where)): text for text in declared}
    found = {_key(_parse(text, where)): text for text in applied.kept}
    missing = [text for key, text in found.items() if key not in stated]
    extra = [text for key, text in stated.items() if key not in found]
    if not missing and not extra:
        return
    told = [f"{len(missing)} missing ({', '.join(missing[:3])})"] if missing else []
    told += (
        [f"{len(extra)} that upstream does not ask for ({', '.join(extra[:3])})"] if extra else []
    )
    lines = [f"  - {_yaml(text)}" for text in applied.kept]
    raise ManifestError(
        f"the requirements are not those of the built backend: {'; '.join(told)}",
        where=where,
        hint="\n".join(["write this list there:", "requirements:", *lines]),
        slug="requirements-differ",
    )


def _by_name(
    rules: Sequence[RequirementRule],
) -> tuple[dict[str, RequirementRule], list[UniscaleError]]:
    found: dict[str, RequirementRule] = {}
    errors: list[UniscaleError] = []
    for rule in rules:
        if found.setdefault(_canonical_name(rule.name), rule) is not rule:
            errors.append(
                ManifestError(f"{rule.name} has two rules", where=rule.where, slug="rule-twice")
            )
    return found, errors


def _new(requirement: Requirement, rule: RequirementRule) -> str:
    """The requirement that takes the place of ``requirement``."""
    if rule.kind == "replace":
        return str(_parse(rule.to, rule.where))
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    marker = f"; {requirement.marker}" if requirement.marker else ""
    return str(_parse(f"{requirement.name}{extras}=={rule.to}{marker}", rule.where))


def _parse(text: str, where: str) -> Requirement:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement as error:
        raise ManifestError(
            f"{text!r} is no requirement: {str(error).splitlines()[0]}",
            where=where,
            hint="see PEP 508",
            slug="bad-requirement",
        ) from error


def _canonical_name(name: str) -> str:
    from packaging.utils import canonicalize_name

    return canonicalize_name(name)


def _key(requirement: Requirement) -> tuple[str, ...]:
    """Equal for requirements that mean the same, however they are written."""
    return (
        _canonical_name(requirement.name),
        ",".join(sorted(requirement.extras)),
        ",".join(sorted(str(one) for one in requirement.specifier)),
        requirement.url or "",
        str(requirement.marker or ""),
    )


def _yaml(text: str) -> str:
    """``text`` as YAML takes it for one scalar."""
    return text if text[0].isalnum() and ": " not in text and " #" not in text else repr(text)
