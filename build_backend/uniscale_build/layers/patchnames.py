"""The names in a patch's headers: one file, said the same everywhere, with git's a/ and b/."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator

from uniscale_build.layers.patchtext import NULL, quote, unquote
from uniscale_build.layers.section import Section

_Told = tuple[str, str, str | None]
_P0 = "paths must begin with a/ and b/: git diff writes them (without --no-prefix)"


def settle(section: Section, froms: dict[bytes, bytes]) -> Iterator[_Told]:
    """Set the names of ``section`` from its header lines; gives what does not agree."""
    created = b"new file mode " in froms
    deleted = b"deleted file mode " in froms
    section.renamed = b"rename from " in froms
    section.copied = b"copy from " in froms
    old, new = yield from _names(section, froms)
    if old is None or new is None:
        yield "bad-header", "a header whose names cannot be read", _P0
        return
    section.old, section.new = (None if created else old), (None if deleted else new)
    if not (section.renamed or section.copied) and old != new:
        yield "name-differs", "a header that names two files, and is not a rename", None
    if not _same_header(section.header, old, new):
        yield "name-differs", "the names in the header are not those of the change", _P0
    if section.renamed or section.copied:
        if created or deleted:
            yield "bad-header", "is renamed and created or deleted at once", None
    elif created and deleted:
        yield "bad-header", "is created and deleted at once", None
    yield from _text_names(section, froms, old, new)
    changes = section.hunks or section.binary or section.renamed or section.copied
    if not changes and not (created or deleted) and section.old_mode == section.new_mode:
        yield "truncated", "a header that changes nothing", None


def _names(
    section: Section, froms: dict[bytes, bytes]
) -> Generator[_Told, None, tuple[bytes | None, bytes | None]]:
    for verb in (b"rename ", b"copy "):
        if verb + b"from " in froms or verb + b"to " in froms:
            pair = [froms.get(verb + word) for word in (b"from ", b"to ")]
            names = [None if name is None else unquote(name) for name in pair]
            return names[0], names[1]
    name = _symmetric(section.header[len(b"diff --git ") :])
    if name is not None:
        return name, name
    for key, prefix in ((b"+++ ", b"b/"), (b"--- ", b"a/")):
        text = unquote(froms[key].removesuffix(b"\t")) if key in froms else None
        if text is not None and text != NULL:
            if not text.startswith(prefix):
                yield "no-prefix", "paths without git's a/ and b/ (a -p0 patch)", _P0
            bare = text.removeprefix(prefix)
            return bare, bare
    return None, None


def _symmetric(rest: bytes) -> bytes | None:
    """The name in ``a/NAME b/NAME``, however it is quoted; None when the two differ."""
    rest = rest.removesuffix(b"\r")
    if rest.startswith(b'"'):
        match = re.match(rb'"(?:[^"\\]|\\.)*"', rest)
        first = unquote(match[0]) if match else None
        second = unquote(rest[match.end() + 1 :]) if match else None
    else:
        middle = len(rest) // 2
        first, second = rest[:middle], unquote(rest[middle + 1 :])
    if first is None or second is None or not first.startswith(b"a/"):
        return None
    return first[2:] if second == b"b/" + first[2:] else None


def _same_header(header: bytes, old: bytes, new: bytes) -> bool:
    forms = [
        {b"%s/%s" % (side, name), quote(b"%s/%s" % (side, name)),
         quote(b"%s/%s" % (side, name), high=False)}
        for side, name in ((b"a", old), (b"b", new))
    ]  # fmt: skip
    rest = header[len(b"diff --git ") :].removesuffix(b"\r")
    return any(rest == one + b" " + other for one in forms[0] for other in forms[1])


def _text_names(
    section: Section, froms: dict[bytes, bytes], old: bytes, new: bytes
) -> Iterator[_Told]:
    """The lines ``---`` and ``+++`` must say the same as the rest of the header."""
    for key, name, missing, prefix in (
        (b"--- ", old, section.old is None, b"a/"),
        (b"+++ ", new, section.new is None, b"b/"),
    ):
        if key not in froms:
            continue
        text = unquote(froms[key].removesuffix(b"\r").removesuffix(b"\t"))
        want = NULL if missing else prefix + name
        if text == name and not missing:
            yield "no-prefix", "paths without git's a/ and b/ (a -p0 patch)", _P0
        elif text != want:
            label = key.decode().strip()
            yield "name-differs", f"the line {label} names another file than the header", None
