"""Reads what manifests say of Python payloads: precompiled members and requirement rules."""

from __future__ import annotations

from uniscale_build.errors import UniscaleError
from uniscale_build.ids import is_sha256
from uniscale_build.manifest import RULES, PinnedWheel, Precompiled, RequirementRule
from uniscale_build.yamlfile import Fields, Value


def precompiled(value: Value | None, errors: list[UniscaleError]) -> Precompiled | None:
    """The ``precompiled`` of a recipe; None when it has none."""
    if value is None:
        return None
    fields = Fields(value, errors, "precompiled")
    files = []
    for item in fields.items("files"):
        inner = Fields(item, errors, "a wheel")
        wheel = PinnedWheel(inner.text("machine"), inner.text("file"), inner.text("sha256"))
        if not is_sha256(wheel.sha256):
            inner.fail(item, '"sha256" must be 64 hexadecimal digits', slug="bad-pin")
        if not wheel.file.endswith(".whl") or "/" in wheel.file:
            inner.fail(item, '"file" must be the name of a wheel', slug="bad-pin")
        inner.finish()
        files.append(wheel)
    found = Precompiled(
        project=fields.text("project"),
        members=fields.texts("members"),
        files=tuple(files),
        environment=fields.pairs("environment"),
        build_requires=fields.texts("build_requires"),
        where=value.where,
    )
    if not found.members or not found.files:
        fields.fail(value, "precompiled needs members and files", slug="missing-key")
    fields.finish()
    return found


def requirement_rule(value: Value, errors: list[UniscaleError]) -> RequirementRule:
    """One entry of an adaptation's ``requirement_rules``."""
    fields = Fields(value, errors, "a requirement rule")
    given = [kind for kind in RULES if fields.get(kind) is not None]
    if len(given) != 1:
        fields.fail(value, f"a requirement rule is one of {', '.join(RULES)}")
    kind = given[0] if given else RULES[0]
    takes = {"replace": "with", "pin": "version"}.get(kind)
    rule = RequirementRule(
        kind=kind,
        name=fields.text(kind),
        to=fields.text(takes) if takes else "",
        why=fields.text("why"),
        where=value.where,
    )
    fields.finish()
    return rule
