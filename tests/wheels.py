"""Small wheels for tests: one way to write them, and ways to spoil them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from uniscale_build.wheels.deflate import BLOCK
from uniscale_build.wheels.wheel import Member, WheelFile, write_wheel

METADATA = "Metadata-Version: 2.1\nName: probe\nVersion: 1.0\n"
INFO = "probe-1.0.dist-info"
FILE = "probe-1.0-py3-none-any.whl"


class Listener:
    """A reporter that keeps the notes and calls ``each`` whenever work advances."""

    def __init__(self, each: Callable[[], None] | None = None) -> None:
        self.notes: list[str] = []
        self._each = each

    def stage(self, name: str, detail: str = "") -> None:
        """Nothing to keep."""

    def advance(self, done: int, total: int | None, unit: str) -> None:
        """Call what was given."""
        if self._each is not None:
            self._each()

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


def write(out: Path, members: Iterable[Member], **options: object) -> WheelFile:
    """The wheel ``probe`` 1.0 with ``members``, by `write_wheel`."""
    chosen: dict[str, object] = {
        "name": "probe", "version": "1.0", "tag": "py3-none-any", "metadata": METADATA, **options
    }  # fmt: skip
    return write_wheel(out, members=members, **chosen)  # type: ignore[arg-type]


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that deflate can shrink a little: half text, half noise, always the same."""
    source = random.Random(seed)
    words = [source.randbytes(source.randrange(2, 12)).hex().encode() for _ in range(300)]
    out = bytearray()
    while len(out) < size:
        out += b" ".join(source.choices(words, k=400)) + source.randbytes(2000)
    return bytes(out[:size])


CONTENTS = {
    "pkg/__init__.py": b"x = 1\n" * 50,
    "pkg/empty": b"",
    "pkg/bin/tool": noise(30_000),
    "pkg/数据, \"quoted\" name.txt": b"text\n",
    "pkg/large.bin": noise(BLOCK * 2 + 12345, 1),
    "pkg/inner-1.dist-info/RECORD": b"inner.py,,\n" * 9,
    "pkg/inner-1.dist-info/WHEEL": b"Generator: uniscale 0 (other)\n",
    "pkg/random.bin": random.Random(2).randbytes(5000),
}  # fmt: skip


def tree(root: Path, contents: dict[str, bytes]) -> list[Member]:
    """``contents`` as files below ``root``, as members; names with ``bin/`` are executable."""
    members = []
    for name, data in contents.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        members.append(Member(name, path, 0o755 if "bin/" in name else 0o644))
    return members


def rewrite(
    source: Path, target: Path, change: Callable[[dict[str, bytes]], object] = lambda files: None
) -> Path:
    """A copy of a wheel, by zipfile, whose files ``change`` has changed."""
    with ZipFile(source) as archive:
        files = {info.filename: archive.read(info) for info in archive.infolist()}
    change(files)
    target.parent.mkdir(parents=True, exist_ok=True)
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data, ZIP_DEFLATED)
    return target
