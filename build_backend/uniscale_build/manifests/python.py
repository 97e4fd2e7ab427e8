"""Reads what manifests say of Python payloads: their compiled parts and requirement rules."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from uniscale_build.errors import did_you_mean
from uniscale_build.ids import is_sha256
from uniscale_build.manifests.model import (
    ANY_PYTHON,
    RULES,
    FromSource,
    Kit,
    Native,
    Pin,
    PinnedWheel,
    Precompiled,
    RequirementRule,
)
from uniscale_build.manifests.pins import read_pin
from uniscale_build.yamlfile import Fields


def _wheels(fields: Fields) -> tuple[PinnedWheel, ...]:
    files = []
    for inner in fields.each("files", "a wheel"):
        wheel = PinnedWheel(inner.text("machine"), inner.text("file"), inner.text("sha256"))
        if not is_sha256(wheel.sha256):
            inner.fail(inner.value, '"sha256" must be 64 hexadecimal digits', slug="bad-pin")
        if not wheel.file.endswith(".whl") or "/" in wheel.file:
            inner.fail(inner.value, '"file" must be the name of a wheel', slug="bad-pin")
        inner.finish()
        files.append(wheel)
    return tuple(files)


def precompiled(fields: Fields) -> Precompiled | None:
    """The ``precompiled`` of a recipe; None when it has none."""
    found = Precompiled(
        project=fields.text("project", ""),
        members=fields.texts("members"),
        files=_wheels(fields),
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


def from_source(fields: Fields) -> FromSource | None:
    """The ``from_source`` of a recipe; None when it has none."""
    found = FromSource(
        sources=tuple(_source(item) for item in fields.each("sources", "a source")),
        environment=fields.pairs("environment"),
        build_requires=fields.texts("build_requires"),
        where=fields.value.where,
    )
    fields.finish()
    if not fields.keys:
        return None
    names = {pin.backend for pin in found.sources}
    for word in re.findall(r"\{(\w+)\}", " ".join(found.environment.values())):
        if word not in names:
            value = fields.get("environment") or fields.value
            fields.fail(value, f"{{{word}}} is no source", did_you_mean(word, names),
                        slug="unknown-word")  # fmt: skip
    return found


def _source(fields: Fields) -> Pin:
    """A pin with a ``name``, which is that of its folder too."""
    name = fields.text("name")
    if re.fullmatch(r"\w+", name) is None:
        what = '"name" must be of letters, digits and underscores'
        fields.fail(fields.get("name") or fields.value, what)
    pin = read_pin(fields, name)
    if not pin.tree:
        fields.fail(fields.value, "a source needs its tree", slug="no-tree")
    if pin.layers:
        value = fields.get("layers") or fields.value
        fields.fail(value, "layers are for the backend itself, not for what is compiled in")
    return pin


def kit(fields: Fields) -> Kit:
    """One entry of a recipe's ``toolkit``."""
    found = Kit(
        project=fields.text("project"),
        unless=fields.text("unless"),
        strip=fields.text("strip", ""),
        members=fields.texts("members"),
        files=_wheels(fields),
        defines=fields.pairs("defines"),
        environment=fields.pairs("environment"),
        where=fields.value.where,
    )
    fields.finish()
    if not (found.members and found.files):
        fields.fail(fields.value, "a kit needs members and files", slug="missing-key")
    for key in ("unless", "strip"):
        path = PurePosixPath(getattr(found, key))
        if path.is_absolute() or ".." in path.parts:
            what = f'"{key}" must be a path below the root'
            fields.fail(fields.get(key) or fields.value, what, slug="path-escape")
    return found


def native(fields: Fields) -> Native | None:
    """The ``native`` of a recipe; None when it has none."""
    found = Native(
        source=fields.text("source", ""),
        targets=fields.texts("targets"),
        languages=fields.texts("languages") or ("CXX",),
        defines=fields.pairs("defines"),
    )
    fields.finish()
    if not fields.keys:
        return None
    path = PurePosixPath(found.source)
    if path.is_absolute() or ".." in path.parts:
        what = '"source" must stay inside the patched tree'
        fields.fail(fields.get("source") or fields.value, what, slug="path-escape")
    if not (found.source and found.targets):
        fields.fail(fields.value, "native needs source and targets", slug="missing-key")
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


def pythons(fields: Fields) -> tuple[str, ...]:
    """The ``pythons`` of a recipe: versions like ``3.12``, or ``any`` alone."""
    found = fields.texts("pythons")
    words = [word for word in found if word != ANY_PYTHON]
    bad = [word for word in words if re.fullmatch(r"3\.\d{1,2}", word) is None]
    value = fields.get("pythons") or fields.value
    if bad:
        what = f'"pythons" must be versions like 3.12, or {ANY_PYTHON}, not {", ".join(bad)}'
        fields.fail(value, what, "in YAML, write 3.10 in quotes")
    elif words and len(words) != len(found):
        fields.fail(value, f'"{ANY_PYTHON}" in "pythons" stands alone')
    return found
