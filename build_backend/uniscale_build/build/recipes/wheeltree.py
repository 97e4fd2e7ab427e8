"""The recipe for backends whose source is the content of a wheel: nothing is to be built.

Some upstreams publish no other source of a release. Their pin is of that content without its
RECORD; layers change it like any tree, and it becomes a wheel again here.
"""

from __future__ import annotations

import os
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from uniscale_build import recordfile
from uniscale_build.errors import CompileError


def pack(source: Path, wheels: Path) -> None:
    """Write the wheel whose content is ``source``, with a RECORD of what is there now.

    `CompileError` when the tree is not a wheel's content, or one with compiled code.
    """
    info = _dist_info(source)
    names = sorted(
        os.path.relpath(os.path.join(folder, name), source)
        for folder, _, files in os.walk(source) for name in files
    )  # fmt: skip
    record = f"{info.name}/RECORD"
    rows = recordfile.rows_of(source, (name for name in names if name != record))
    wheels.mkdir(parents=True, exist_ok=True)
    made = wheels / f"{info.name.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive:
        for row in rows:
            archive.write(source / row.name, row.name)
        archive.writestr(record, recordfile.render(rows, record))


def _dist_info(source: Path) -> Path:
    folders = [path.parent for path in source.glob("*.dist-info/WHEEL")]
    if len(folders) != 1:
        raise CompileError(
            f"the source has {len(folders)} dist-info folders, and a wheel's content has one",
            where=str(source),
            hint='"kind: wheel" is for sources that come from a wheel; others are pep517 or cmake',
            slug="no-wheel",
        )
    about = HeaderParser().parsestr((folders[0] / "WHEEL").read_text(encoding="utf-8"))
    if any(not tag.endswith("-none-any") for tag in about.get_all("Tag", [])):
        raise CompileError(
            f"the wheel is for {', '.join(about.get_all('Tag', []))}: it holds compiled code",
            where=str(folders[0] / "WHEEL"),
            hint="pin its source, and take compiled members by recipe.precompiled",
            slug="compiled-source",
        )
    return folders[0]
