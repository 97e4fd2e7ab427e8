"""Small edits of YAML that people wrote: one value set, one name appended, all else untouched.

Comments, order, quotes and line ends stay. Every edit is read back and compared with what it
should mean; when it does not mean that, nothing is changed and the caller is told to do it by hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from uniscale_build.errors import ManifestError
from uniscale_build.yamlfile import parse

if TYPE_CHECKING:
    import yaml

_BOM = "\ufeff"
Step = str | int


def scalar(text: str) -> str:
    """``text`` as one YAML scalar on one line, quoted when another reader would not see text."""
    import yaml

    dumped: str = yaml.safe_dump([text], allow_unicode=True, width=1 << 30)
    if dumped.startswith("- ") and dumped.count("\n") == 1:
        return dumped[2:-1]
    return yaml.safe_dump([text], default_style='"', width=1 << 30)[2:-1]


def set_text(raw: bytes, path: Sequence[Step], text: str, name: str) -> bytes:
    """``raw`` with the scalar at ``path`` (keys and list places) set to ``text``.

    ``name`` is the file's name in errors; `ManifestError` when the place is not a plain scalar.
    """
    import yaml

    source, bom = _decode(raw)
    node = _find(yaml.compose(source, Loader=yaml.SafeLoader), path)
    if not isinstance(node, yaml.ScalarNode) or node.style in ("|", ">"):
        raise _by_hand(name, path, f"set it to {text}")
    edited = source[: node.start_mark.index] + scalar(text) + source[node.end_mark.index :]
    want = parse(raw, name).plain()
    _put(want, path, text)
    return _checked(bom + edited, want, name, path, f"set it to {text}")


def append_text(
    raw: bytes, path: Sequence[Step], text: str, name: str, *, after: str | None = None
) -> bytes:
    """``raw`` with ``text`` appended to the list at ``path``.

    When the list is not there it is made, in the line below the key ``after`` of the same mapping.
    """
    import yaml

    source, bom = _decode(raw)
    root = yaml.compose(source, Loader=yaml.SafeLoader)
    node = _find(root, path)
    todo = f"add {text} to that list"
    if node is None:
        at, insert = _new_list(source, _find(root, path[:-1]), path, scalar(text), after)
    elif isinstance(node, yaml.SequenceNode):
        at, insert = _longer_list(source, node, scalar(text))
    elif isinstance(node, yaml.ScalarNode) and node.value == "":
        at, insert = node.start_mark.index, f" [{scalar(text)}]"
    else:
        raise _by_hand(name, path, todo)
    if at < 0:
        raise _by_hand(name, path, todo)
    want = parse(raw, name).plain()
    _put(want, path, text, append=True)
    return _checked(bom + source[:at] + insert + source[at:], want, name, path, todo)


def _decode(raw: bytes) -> tuple[str, str]:
    text = raw.decode("utf-8")
    return (text[1:], _BOM) if text.startswith(_BOM) else (text, "")


def _find(node: yaml.Node | None, path: Sequence[Step]) -> yaml.Node | None:
    import yaml

    for step in path:
        if isinstance(step, int) and isinstance(node, yaml.SequenceNode):
            node = node.value[step] if step < len(node.value) else None
        elif isinstance(step, str) and isinstance(node, yaml.MappingNode):
            node = next((v for k, v in node.value if k.value == step), None)
        else:
            return None
    return node


def _longer_list(source: str, node: yaml.SequenceNode, item: str) -> tuple[int, str]:
    import yaml

    if node.flow_style:
        if not node.value:
            return node.start_mark.index + 1, item
        return node.value[-1].end_mark.index, f", {item}"
    last = node.value[-1]
    if not isinstance(last, yaml.ScalarNode) or last.style in ("|", ">"):
        return -1, ""
    return _below(source, last.end_mark.index, node.start_mark.column, f"- {item}")


def _new_list(
    source: str, node: yaml.Node | None, path: Sequence[Step], item: str, after: str | None
) -> tuple[int, str]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        return -1, ""
    pair = next(((k, v) for k, v in node.value if k.value == after), None)
    if pair is None or not isinstance(pair[1], yaml.ScalarNode) or pair[1].style in ("|", ">"):
        return -1, ""
    end = pair[1].end_mark.index
    if node.flow_style:
        return end, f", {path[-1]}: [{item}]"
    return _below(source, end, pair[0].start_mark.column, f"{path[-1]}: [{item}]")


def _below(source: str, index: int, column: int, line: str) -> tuple[int, str]:
    """Where and what to insert for a new line below the one that ``index`` is in."""
    newline = "\r\n" if "\r\n" in source else "\n"
    end = source.find("\n", index)
    if end < 0:
        return len(source), f"{newline}{' ' * column}{line}{newline}"
    return end + 1, f"{' ' * column}{line}{newline}"


def _put(plain: object, path: Sequence[Step], text: str, *, append: bool = False) -> None:
    for step in path[:-1]:
        plain = plain[step]  # type: ignore[index]
    last = path[-1]
    if append:
        old = plain.get(last) if isinstance(plain, dict) else plain[last]  # type: ignore[index]
        plain[last] = [*(old or []), text]  # type: ignore[index]
    else:
        plain[last] = text  # type: ignore[index]


def _checked(edited: str, want: object, name: str, path: Sequence[Step], todo: str) -> bytes:
    raw = edited.encode("utf-8")
    try:
        same = parse(raw, name).plain() == want
    except ManifestError:
        same = False
    if not same:
        raise _by_hand(name, path, todo)
    return raw


def _by_hand(name: str, path: Sequence[Step], todo: str) -> ManifestError:
    place = ".".join(str(step) for step in path)
    return ManifestError(
        "cannot be edited without risk to what is written there",
        where=name,
        hint=f"at {place}: {todo}",
        slug="edit-by-hand",
    )
