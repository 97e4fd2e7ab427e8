"""Reads the patch that nearly all are: one file changed or deleted, as ``git diff`` writes it.

One expression and a few counts prove such a patch to be in form. Whatever else a patch may be or
have (a creation, a quoted name, a mail around it, damage) is for `patchtext.read_patch`, which
gives the same `Section` for what is read here.
"""

from __future__ import annotations

import re

from uniscale_build.layers.section import Section

# Names without a character that git would quote or end with a tab.
_HEAD = re.compile(
    rb"(diff --git a/([\w.+=,/-]+) b/\2)\n(?:deleted file mode (100644|100755)\n)?"
    rb"index ([0-9a-f]{7,64})\.\.([0-9a-f]{7,64})(?(3)| (100644|100755))\n"
    rb"--- a/\2\n\+\+\+ (?(3)/dev/null|b/\2)\n@@ "
)
_HUNK = re.compile(rb" -\d{1,9}(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")


def plain_section(data: bytes) -> Section | None:
    """What a plain patch does to its one file; None where the patch is not plain and in form."""
    head = _HEAD.match(data)
    if head is None or not data.endswith(b"\n") or b"\0" in data:
        return None
    # No line of a hunk begins with "@@": its first character is a blank, + or -.
    count, begin, end = 0, head.end() - 1, 0
    while end >= 0:
        sizes = _HUNK.match(data, begin)
        if sizes is None:
            return None
        end = data.find(b"\n@@ ", begin)
        span = (begin, end if end >= 0 else len(data) - 1)
        old, new = sizes.groups()
        added, removed = data.count(b"\n+", *span), data.count(b"\n-", *span)
        kept = data.count(b"\n ", *span)
        if (
            kept + removed != (1 if old is None else int(old))
            or kept + added != (1 if new is None else int(new))
            or kept + added + removed != data.count(b"\n", *span)
        ):
            return None
        count, begin = count + 1, end + 3
    header, name, gone, old_oid, new_oid, mode = head.groups()
    section = Section(1, header, name, old_oid=old_oid.decode(), new_oid=new_oid.decode(),
                      hunks=count, text=data, start=head.end())  # fmt: skip
    if gone is not None:
        section.old_mode = gone.decode()
    else:
        section.new, section.old_mode, section.new_mode = name, mode.decode(), mode.decode()
    return section
