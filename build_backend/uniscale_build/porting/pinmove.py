"""Writes a ported pin into the manifests: minimal edits, comments kept, or the lines to write."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError, UniscaleError, raise_all
from uniscale_build.manifests.load import read_adaptation, read_backend
from uniscale_build.manifests.model import Adaptation, Origin, Pin
from uniscale_build.porting.plan import Plan
from uniscale_build.swap import Edit
from uniscale_build.yamledit import Step, scalar, set_text
from uniscale_build.yamlfile import Fields, parse

if TYPE_CHECKING:
    import yaml


def manifest_edits(plan: Plan, names: Mapping[str, str]) -> tuple[list[Edit], list[str]]:
    """The edits that a finished port makes, and what could not be edited safely, to do by hand.

    ``names`` maps each moved layer to the name under which it moves.
    """
    edits: list[Edit] = []
    todo: list[str] = []
    if not plan.existing:
        layers = [names.get(name, name) for name in plan.pin.layers]
        file = manifest_file(plan, plan.backend.where)
        old = file.read_bytes()
        try:
            new = _pin_text(plan, old, layers)
        except ManifestError:
            todo.append(f"{plan.backend.where}: the pin\n" + pin_block(plan.new, layers, 2))
        else:
            _check(new, plan.backend.where, read_backend)
            edits.append(Edit(file, old, new))
    for item in plan.movers:
        file = manifest_file(plan, item.where)
        old = file.read_bytes()
        try:
            new = _adaptation_text(plan, item, old, names)
        except ManifestError as error:
            todo.append(f"{item.where}: {error.hint}")
            continue
        if new != old:
            _check(new, item.where, read_adaptation)
            edits.append(Edit(file, old, new))
    return edits, todo


def _check(raw: bytes, where: str, read: Callable[[Fields, str], object]) -> None:
    """Raise what the manifest reader finds wrong with a new text, before it is written."""
    errors: list[UniscaleError] = []
    read(Fields(parse(raw, where), errors), where)
    raise_all(errors)


def manifest_file(plan: Plan, where: str) -> Path:
    """The file that an error's place names, in the project or a site's own folder."""
    name = where.rpartition(":")[0] if where.rpartition(":")[2].isdigit() else where
    roots = [plan.project.root / "manifests", *plan.project.site]
    for root in reversed(roots):
        if (file := root.parent / name).is_file():
            return file
    raise ManifestError("is gone", where=where, slug="no-file")


def _adaptation_text(plan: Plan, item: Adaptation, raw: bytes, names: Mapping[str, str]) -> bytes:
    if item.pin != plan.new.version and not plan.restack:
        raw = set_text(raw, ["pin"], plan.new.version, item.where)
    for at, name in enumerate(item.layers):
        if names.get(name, name) != name:
            raw = set_text(raw, ["layers", at], names[name], item.where)
    return raw


def _pin_text(plan: Plan, raw: bytes, layers: Sequence[str]) -> bytes:
    at = plan.backend.pins.index(plan.pin)
    name = plan.backend.where
    if plan.keep:
        made = _insert_after(raw, ["pins"], at, plan.new, layers)
        at += 1
    else:
        made = _changed(plan, raw, ["pins", at])
        for index, layer in enumerate(layers):
            if layer != plan.pin.layers[index]:
                made = set_text(made, ["pins", at, "layers", index], layer, name)
    pins = parse(made, name).plain()["pins"]  # type: ignore[index]
    if _essence(pins[at]) != _essence(_as_data(plan.new, layers)):
        raise ManifestError("cannot be edited safely", where=name, slug="edit-by-hand")
    return made


def _changed(plan: Plan, raw: bytes, path: list[Step]) -> bytes:
    """The old pin's text turned into the new one's."""
    name, old, new = plan.backend.where, plan.pin, plan.new
    for key in ("version", "commit", "tree"):
        if getattr(old, key) != getattr(new, key):
            raw = set_text(raw, [*path, key], getattr(new, key), name)
    left = list(new.origins)
    gone = []
    for at, origin in enumerate(old.origins):
        match = next((o for o in left if o.kind == origin.kind), None)
        if match is None:
            gone.append(at)
            continue
        left.remove(match)
        before, after = _origin_data(origin), _origin_data(match)
        for key, value in after.items():
            if before.get(key) != value:
                raw = set_text(raw, [*path, "origins", at, key], str(value), name)
    for at in reversed(gone):
        raw = _without(raw, [*path, "origins", at])
    return raw


def _origin_data(origin: Origin) -> dict[str, object]:
    data: dict[str, object] = {origin.kind: origin.file or origin.url}
    for key in ("project", "sha256", "path"):
        if value := getattr(origin, key):
            data[key] = value
    if origin.drop:
        data["drop"] = list(origin.drop)
    return data


def _as_data(pin: Pin, layers: Sequence[str]) -> dict[str, object]:
    return {
        "version": pin.version, "commit": pin.commit, "tree": pin.tree, "layers": list(layers),
        "origins": [_origin_data(origin) for origin in pin.origins],
    }  # fmt: skip


def _essence(data: Mapping[str, object]) -> dict[str, object]:
    keys = ("version", "commit", "tree", "layers", "origins")
    return {key: data.get(key) or None for key in keys}


def pin_block(pin: Pin, layers: Sequence[str], indent: int) -> str:
    """A pin as the lines of a manifest's list, ``indent`` columns from the left."""
    lines = [f"- version: {scalar(pin.version)}"]
    if pin.commit:
        lines.append(f"  commit: {scalar(pin.commit)}")
    lines.append(f"  tree: {scalar(pin.tree)}")
    if layers:
        lines.append(f"  layers: [{', '.join(map(scalar, layers))}]")
    if pin.note:
        lines.append(f"  note: {scalar(pin.note)}")
    lines.append("  origins:")
    for origin in pin.origins:
        mark = "-"
        for key, value in _origin_data(origin).items():
            shown = (
                f"[{', '.join(map(scalar, value))}]"
                if isinstance(value, list)
                else scalar(str(value))
            )
            lines.append(f"    {mark} {key}: {shown}")
            mark = " "
    return "".join(f"{' ' * indent}{line}\n" for line in lines)


def _node(text: str, path: Sequence[Step]) -> yaml.Node:
    import yaml

    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    for step in path:
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
            node = node.value[step]
        elif isinstance(step, str) and isinstance(node, yaml.MappingNode):
            node = next(value for key, value in node.value if key.value == step)
        else:
            node = None
    if node is None:
        raise ManifestError("cannot be edited safely", slug="edit-by-hand")
    return node


def _last_line(node: yaml.Node) -> int:
    """The last line with content of a node (a block's own end is behind the comments after it)."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        at_start = node.end_mark.column == 0 and node.end_mark.line > node.start_mark.line
        return node.end_mark.line - (1 if at_start else 0)
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        return max(_last_line(value) for _, value in node.value)
    if isinstance(node, yaml.SequenceNode) and not node.flow_style:
        return max(_last_line(value) for value in node.value)
    return int(node.end_mark.line)


def _block_list(text: str, path: Sequence[Step]) -> yaml.SequenceNode:
    import yaml

    node = _node(text, path)
    if not isinstance(node, yaml.SequenceNode) or node.flow_style or "\r" in text:
        raise ManifestError("cannot be edited safely", slug="edit-by-hand")
    return node


def _insert_after(
    raw: bytes, path: Sequence[Step], at: int, pin: Pin, layers: Sequence[str]
) -> bytes:
    text = raw.decode("utf-8")
    node = _block_list(text, path)
    lines = text.splitlines(keepends=True)
    line = _last_line(node.value[at]) + 1
    if not lines[line - 1].endswith("\n"):
        lines[line - 1] += "\n"
    # A blank line where the pins of the file are set apart so.
    gap = "\n" if at and not lines[node.value[at].start_mark.line - 1].strip() else ""
    lines.insert(line, gap + pin_block(pin, layers, node.start_mark.column))
    return "".join(lines).encode("utf-8")


def with_pin(raw: bytes, pin: Pin, name: str) -> bytes:
    """``raw`` (a backend's manifest, ``name`` in errors) with ``pin`` behind its other pins."""
    before = parse(raw, name).plain()
    pins = before.get("pins") if isinstance(before, dict) else None
    made = raw
    try:
        if isinstance(before, dict) and isinstance(pins, list) and pins:
            made = _insert_after(raw, ["pins"], len(pins) - 1, pin, pin.layers)
            after = parse(made, name).plain()
            *others, new = after["pins"]  # type: ignore[index]
            same = after == {**before, "pins": [*pins, new]} and others == pins
            if same and _essence(new) == _essence(_as_data(pin, pin.layers)):
                return made
    except ManifestError:
        pass  # told below, with the lines to write
    raise ManifestError(
        "cannot be edited without risk to what is written there",
        where=name,
        hint="add to its pins:\n" + pin_block(pin, pin.layers, 2).rstrip(),
        slug="edit-by-hand",
    )


def _without(raw: bytes, path: Sequence[Step]) -> bytes:
    text = raw.decode("utf-8")
    node = _block_list(text, path[:-1])
    item = node.value[int(path[-1])]
    lines = text.splitlines(keepends=True)
    del lines[item.start_mark.line : _last_line(item) + 1]
    return "".join(lines).encode("utf-8")
