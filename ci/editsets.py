"""Vendor-like edit sets over real upstream trees, made from a seed: inputs for benchmarks.

A set looks like what chip vendors keep on top of vLLM: some hundred small hunks in a hundred and
more upstream files, and many new files (kernels, platforms, tuning tables), with the odd rename,
deletion, binary, mode change, CRLF file and non-ASCII text among them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from uniscale_build.git.db import EMPTY, Entry, GitDb, changed_tree

MODIFIED = 160  # upstream files with hunks
NEW = 100  # new text files, about 300 lines each
_WORDS = (
    *("kernel", "graph", "stream", "cache", "block", "page", "head", "token", "batch", "slot"),
    *("layer", "expert", "rank", "group", "queue", "event", "pool", "table", "scale", "mask"),
    *("rope", "bias", "gate", "norm", "quant", "tile", "warp", "lane", "chunk", "split", "merge"),
)
_CHINESE = ("设备", "算子", "缓存", "编译", "张量", "并行")
_CONFIGS = "vllm/model_executor/layers/fused_moe/configs"


def _begins(line: bytes) -> bool:
    """True for a line before which a statement may be inserted, as far as a line tells."""
    return bool(line.strip()) and line.lstrip()[:1] not in b")]}#'\"" and line[-1:] != b"\\"


@dataclass(frozen=True)
class EditSet:
    """What a set made: the tree that comes out, and what it consists of."""

    tree: str
    modified: int
    hunks: int
    new: int
    other: int


class _Maker:
    def __init__(self, db: GitDb, tree: str, seed: int) -> None:
        self.db = db
        self.rng = random.Random(seed)
        self.files = db.list_tree(tree)
        self.chip = f"chip{seed:02d}"
        self.changed: dict[bytes, tuple[str, bytes]] = {}  # mode and content
        self.removed: list[bytes] = []
        self.hunks = 0

    def word(self) -> str:
        return self.rng.choice(_WORDS)

    def block(self, indent: bytes) -> list[bytes]:
        """A few lines of Python as vendors insert them."""
        name = f"{self.word()}_{self.word()}"
        rng, pad = self.rng, indent + b"    "
        lines = [indent + f"if current_device() == {self.chip!r}:".encode()]
        if rng.random() < 0.3:
            lines.append(pad + f"# {rng.choice(_CHINESE)}: {self.word()} of {self.chip}".encode())
        for at in range(rng.randint(1, 9)):
            value = rng.randint(0, 4096)
            lines.append(pad + f"{name}_{at} = {self.word()}_for({self.chip!r}, {value})".encode())
        return lines

    def modify(self, path: bytes, data: bytes) -> bytes:
        """One to five hunks, apart from each other, at places where a statement begins."""
        lines = data.split(b"\n")
        last_import = max(
            (at for at, line in enumerate(lines) if line.startswith((b"import ", b"from "))),
            default=0,
        )
        starts = [at for at in range(last_import + 1, len(lines) - 1) if _begins(lines[at])]
        wanted = sorted(self.rng.sample(starts, min(len(starts), self.rng.randint(1, 4))))
        chosen = [at for n, at in enumerate(wanted) if n == 0 or at - wanted[n - 1] > 12]
        for at in reversed(chosen):
            if self.rng.random() < 0.25:
                lines[at] += f"  # {self.chip}: {self.word()}".encode()
            else:
                indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
                lines[at:at] = self.block(indent)
            self.hunks += 1
        if (
            self.rng.random() < 0.4
            and lines[last_import].startswith((b"import ", b"from "))
            and (lines[last_import].count(b"(") == lines[last_import].count(b")"))
        ):
            lines.insert(last_import + 1, f"from vllm_{self.chip} import {self.word()}".encode())
            self.hunks += 1
        return b"\n".join(lines)

    def new_text(self, number: int) -> bytes:
        lines = [f'"""{self.word().title()} {self.word()} of {self.chip}, part {number}."""', ""]
        while len(lines) < 240 + self.rng.randint(0, 160):
            name = f"{self.word()}_{self.word()}_{len(lines)}"
            lines += [f"def {name}(x: Tensor, scale: float = 1.0) -> Tensor:"]
            if self.rng.random() < 0.2:
                lines.append(f'    """{self.rng.choice(_CHINESE)}{self.rng.choice(_CHINESE)}."""')
            for at in range(self.rng.randint(2, 14)):
                lines.append(f"    {self.word()}_{at} = x * {self.rng.random():.6f} + scale")
            lines += ["    return x", "", ""]
        return "\n".join(lines).encode()

    def new_file(self, number: int) -> None:
        folder = self.rng.choice(("attention/ops", "platforms", "worker", "distributed", "ops"))
        name = f"vllm_{self.chip}/{folder}/{self.word()}_{number}.py"
        data = self.new_text(number)
        if number % 17 == 3:
            data = data.replace(b"\n", b"\r\n")
        if number % 11 == 5:
            shape = f"E={2 ** (number % 7)},N={number}"
            name = f"{_CONFIGS}/{shape},device_name={self.chip},block_shape=[128, 128].json"
            data = b"{\n" + b",\n".join(
                b'    "%d": {"BLOCK_SIZE_M": %d}' % (n, 16 << n % 5) for n in range(250)
            ) + b"\n}"  # fmt: skip
        mode = "100755" if number % 23 == 7 else "100644"
        self.changed[name.encode()] = (mode, data)

    def others(self, plain: list[bytes]) -> int:
        """Renames, deletions, modes and binaries."""
        moved, gone, modes = plain[:5], plain[5:8], plain[8:11]
        blobs = self.db.read_blobs([self.files[path].oid for path in (*moved, *modes)])
        for path in moved:
            head, _, tail = path.rpartition(b"/")
            new = head + b"/" + self.chip.encode() + b"_" + tail
            self.changed[new] = (self.files[path].mode, blobs[self.files[path].oid] + b"# moved\n")
        for path in modes:
            flipped = "100755" if self.files[path].mode == "100644" else "100644"
            self.changed[path] = (flipped, blobs[self.files[path].oid])
        self.removed += [*moved, *gone]
        for number in range(3):
            data = self.rng.randbytes(20_000)
            self.changed[f"vllm_{self.chip}/bin/{number}.bin".encode()] = ("100644", data)
        self.changed[f"vllm_{self.chip}/说明.md".encode()] = ("100644", "# 说明\n".encode() * 40)
        return len(moved) + len(gone) + len(modes) + 4


def make_set(db: GitDb, tree: str, seed: int) -> EditSet:
    """A set over ``tree``; equal arguments give equal trees."""
    maker = _Maker(db, tree, seed)
    python = sorted(
        path
        for path, entry in maker.files.items()
        if path.endswith(b".py") and path.startswith(b"vllm/") and entry.mode == "100644"
    )
    maker.rng.shuffle(python)
    blobs = db.read_blobs([maker.files[path].oid for path in python])
    usable = [path for path in python if blobs[maker.files[path].oid].count(b"\n") > 60]
    for path in usable[:MODIFIED]:
        maker.changed[path] = ("100644", maker.modify(path, blobs[maker.files[path].oid]))
    for number in range(NEW):
        maker.new_file(number)
    other = maker.others(usable[MODIFIED : MODIFIED + 11])
    return EditSet(_tree(db, maker.files, maker.changed, maker.removed), MODIFIED, maker.hunks, NEW,
                   other)  # fmt: skip


def _tree(
    db: GitDb,
    files: Mapping[bytes, Entry],
    changed: Mapping[bytes, tuple[str, bytes]],
    removed: Iterable[bytes],
) -> str:
    made = db.import_files((path, mode, data) for path, (mode, data) in changed.items())
    entries = {**files, **db.list_tree(made)}
    for path in removed:
        entries.pop(path, None)
    return changed_tree(db, EMPTY, entries)
