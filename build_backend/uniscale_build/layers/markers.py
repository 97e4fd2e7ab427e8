"""The marks around our changes in upstream files: ``uniscale: begin <layer>`` and ``end``.

They stand in comments of whatever language the file is in; they tell a reader of the patched tree
whose lines those are, and tell ``port`` what belongs together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_MARK = re.compile(rb"uniscale: (begin|end) ([A-Za-z0-9][A-Za-z0-9._+-]*)")


def marker_problems(
    added: Iterable[bytes], removed: Iterable[bytes], layer: str
) -> Iterator[tuple[str, str]]:
    """What is wrong with the marks in a file's added and removed lines, as (slug, sentence).

    Each begin has its end, in order. That an added mark names another layer than ``layer`` is told
    as ``foreign-marker``: lines of that layer may have moved.
    """
    for verb, lines in (("adds", added), ("removes", removed)):
        open_marks: list[str] = []
        for line in lines:
            for word, raw in _MARK.findall(line) if b"uniscale: " in line else ():
                name = raw.decode()
                if verb == "adds" and layer and name != layer:
                    yield "foreign-marker", f'adds a mark of another layer: "{name}"'
                if word == b"begin":
                    open_marks.append(name)
                elif open_marks[-1:] == [name]:
                    open_marks.pop()
                else:
                    yield "marker", f'{verb} "uniscale: end {name}" without its begin'
        for name in open_marks:
            yield "marker", f'{verb} "uniscale: begin {name}" without its end'
