"""Reads what manifests say of Python payloads: precompiled members and requirement rules."""

from __future__ import annotations

from uniscale_build.ids import is_sha256
from uniscale_build.manifest import RULES, PinnedWheel, Precompiled, RequirementRule
from uniscale_build.yamlfile import Fields


def precompiled(fields: Fields) -> Precompiled | None:
    """The ``precompiled`` of a recipe; None when it has none."""
    files = []
    for inner in fields.each("files", "a wheel"):
        wheel = PinnedWheel(inner.text("machine"), inner.text("file"), inner.text("sha256"))
        if not is_sha256(wheel.sha256):
            inner.fail(inner.value, '"sha256" must be 64 hexadecimal digits', slug="bad-pin")
        if not wheel.file.endswith(".whl") or "/" in wheel.file:
            inner.fail(inner.value, '"file" must be the name of a wheel', slug="bad-pin")
        inner.finish()
        files.append(wheel)
    found = Precompiled(
        project=fields.text("project", ""),
        members=fields.texts("members"),
        files=tuple(files),
        environment=fields.pairs("environment"),
        build_requires=fields.texts("build_requires"),
        where=fields.value.where,
    )
    fields.finish()
    if not fields.keys:
        return None
    if not (found.project and found.members and found.files):
        what = "precompiled needs project, members and files"
        fields.fail(fields.value, what, slug="missing-key")
    return found


def requirement_rule(fields: Fields) -> RequirementRule:
    """One entry of an adaptation's ``requirement_rules``."""
    targets = {kind: fields.text(kind, "") for kind in RULES}
    takes = {"replace": fields.text("with", ""), "pin": fields.text("version", "")}
    kinds = [kind for kind, target in targets.items() if target]
    kind = kinds[0] if len(kinds) == 1 else RULES[0]
    if len(kinds) != 1:
        fields.fail(fields.value, f"a requirement rule is one of {', '.join(RULES)}")
    for owner, key in (("replace", "with"), ("pin", "version")):
        if (kind == owner) != bool(takes[owner]):
            fields.fail(fields.value, f'"{key}" goes with "{owner}", and that with it')
    rule = RequirementRule(
        kind=kind,
        name=targets[kind],
        to=takes.get(kind, ""),
        why=fields.text("why"),
        where=fields.value.where,
    )
    fields.finish()
    return rule
