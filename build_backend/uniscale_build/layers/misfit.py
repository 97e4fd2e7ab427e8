"""Says which hunks of a patch do not fit a file, all of them, and where they differ from it.

git stops at a file's first hunk; who has to mend a patch wants to know about every one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uniscale_build.layers.layerfile import shown

if TYPE_CHECKING:
    from unidiff.patch import Hunk

_LONG = 60  # characters of a line that are told


@dataclass(frozen=True)
class Misfit:
    """One hunk that does not fit: the line in the patch (``place``) and the line in the file."""

    place: int
    line: int
    heading: str
    wanted: str
    found: str | None  # None: the file ends before

    def sentence(self) -> str:
        """What differs, in a few words."""
        where = f"line {self.line}" + (f" ({self.heading})" if self.heading else "")
        if self.found is None:
            return f'{where}: the file ends before "{self.wanted}"'
        return f'{where}: the patch has "{self.wanted}", the file "{self.found}"'


def misfits(patch: bytes, content: bytes) -> tuple[list[Misfit], int]:
    """The hunks of a patch of one file that ``content`` has nowhere, and the number of all hunks.

    Bytes are read as Latin-1, one character each: what they mean is of no interest here.
    """
    from unidiff.errors import UnidiffParseError
    from unidiff.patch import PatchSet

    try:
        files = PatchSet.from_string(patch.decode("latin-1"))
    except UnidiffParseError:
        return [], 0
    lines = content.decode("latin-1").removesuffix("\n").split("\n") if content else []
    hunks = [hunk for file in files for hunk in file]
    found = [_misfit(hunk, lines) for hunk in hunks]
    return [item for item in found if item is not None], len(hunks)


def _misfit(hunk: Hunk, lines: list[str]) -> Misfit | None:
    wanted = [line for line in hunk if line.is_context or line.is_removed]
    texts = [str(line.value).removesuffix("\n") for line in wanted]
    last = len(lines) - len(texts)
    if not texts or any(
        lines[at] == texts[0] and lines[at : at + len(texts)] == texts for at in range(last + 1)
    ):
        return None
    first = hunk.source_start - 1
    for at, (line, text) in enumerate(zip(wanted, texts, strict=True)):
        have = lines[first + at] if first + at < len(lines) else None
        if have != text:
            place, number = int(line.diff_line_no or 0), first + at + 1
            heading = str(hunk.section_header or "").strip()
            return Misfit(place, number, _short(heading), _short(text), have and _short(have))
    return None


def _short(text: str) -> str:
    plain = shown(text.encode("latin-1"))
    return plain if len(plain) <= _LONG else plain[: _LONG - 1] + "…"
