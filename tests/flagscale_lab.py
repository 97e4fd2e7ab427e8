"""Makes FlagScale-like checkouts in all layouts that its history has, around a small project."""

from __future__ import annotations

import functools
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.layers.layer import Layer, find_layer, patched_tree
from uniscale_build.project import find_project
from uniscale_build.sources.obtain import obtain

from tests.upstreams import UPSTREAM, Files, Lab, Link, Program, git, snapshot, write_files

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

DEVICE = "Acme_X1"
COMMIT = "1" * 40
TUNED = "cfg/E=257,N=128,block_shape=[128, 128].json"
Tree = dict[str, bytes | Link | Program]
BASE: Tree = {
    **UPSTREAM,
    TUNED: b'{"1": 2}\n' * 20,
    "dos.txt": b"one\r\ntwo\r\nthree\r\n",
    "latin.txt": "caf\xe9\n".encode("latin-1") * 5,
    "old.py": b"# to be deleted\n" * 9,
}


def text(files: Files, name: str) -> bytes:
    """The content of a plain file."""
    data = files[name]
    assert isinstance(data, bytes)
    return data


def vendor_edit(base: Files = BASE) -> Tree:
    """``base`` as a vendor leaves it: every ordinary kind of edit."""
    files = {**base, "pkg/core.py": text(base, "pkg/core.py").replace(b"# line 20", b"# acme 20")}
    files["pkg/moved.txt"] = files.pop("pkg/deep/er/leaf.txt")
    files["data/logo.bin"] = bytes(range(255, -1, -1)) * 8
    files["data/new.bin"] = bytes(range(256)) * 3
    files["setup.py"] = Program(b"from setuptools import setup\n\nsetup()\n")
    files[TUNED] = b'{"1": 2}\n' * 19 + b'{"3": 4}'
    files["dos.txt"] = b"one\r\n2\r\nthree\r\n"
    files["latin.txt"] = "caf\xe9\n".encode("latin-1") * 4 + "\xe0 point\n".encode("latin-1")
    files["notes.txt"] = b"one\ntwo\nthree\nfour"
    files["current"] = Link("pkg/util.py")
    files["empty"] = b""
    files["acme/Binary"] = b"text in spite of its name\n"
    files["acme/t b/\xfc.py"] = b"print('acme')\n"
    files["acme/run.sh"] = Program(b"#!/bin/sh\n")
    del files["old.py"]
    return files


def common_edit() -> Tree:
    """`BASE` with FlagScale's own changes."""
    core = text(BASE, "pkg/core.py").replace(b"# line 5 ", b"# flagscale 5 ")
    return {**BASE, "pkg/core.py": core, "pkg/flag.py": b"FLAG = 1\n" * 50}


def both_edits() -> Tree:
    """What a vendor makes of FlagScale's own tree."""
    return {**vendor_edit(common_edit()), "pkg/flag.py": b"FLAG = 1\n" * 49 + b"FLAG = 2\n"}


_DIFFS: dict[object, bytes] = {}


def diff(scratch: Path, base: Files, changed: Files) -> bytes:
    """What FlagScale's tool stores: ``git diff <base> <changed> --binary``, ids shortened."""
    key = (tuple(base.items()), tuple(changed.items()))
    if key not in _DIFFS:  # git takes its time, and many tests ask for the same
        _DIFFS[key] = _diff(scratch, base, changed)
    return _DIFFS[key]


def _diff(scratch: Path, base: Files, changed: Files) -> bytes:
    if scratch.exists():
        shutil.rmtree(scratch)
    write_files(scratch, base)
    git("init", "-q", "-b", "main", ".", cwd=scratch)
    git("add", "-A", "-f", ".", cwd=scratch)
    git("commit", "-q", "--allow-empty", "-m", "base", cwd=scratch)
    for path in scratch.iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write_files(scratch, changed)
    git("add", "-A", "-f", ".", cwd=scratch)
    git("commit", "-q", "--allow-empty", "-m", "changed", cwd=scratch)
    return git("diff", "HEAD~", "HEAD", "--binary", cwd=scratch)


def per_file(patch: bytes) -> dict[str, bytes]:
    """A patch cut at its files, by the path of each."""
    found = {}
    for part in re.split(rb"^(?=diff --git )", patch, flags=re.MULTILINE):
        lines = part.split(b"\n")
        to = [line for line in lines if line.startswith((b"rename to ", b"+++ ", b"--- "))]
        names = [line.split(b" ", 2 if line[:1] == b"r" else 1)[-1] for line in to]
        names = [name for name in names if name != b"/dev/null"]
        if names:
            name = names[-1].rstrip(b"\t")
        elif part:
            words = lines[0].removeprefix(b"diff --git ")
            name = words[len(words) // 2 + 1 :]
        else:
            continue
        raw = name.strip(b'"').decode("unicode_escape").encode("latin-1")
        found[os.fsdecode(raw).removeprefix("a/").removeprefix("b/")] = part
    return found


@functools.cache
def rsa_key(number: int = 0) -> RSAPrivateKey:
    """An RSA-4096 key; the same for the same ``number`` while the tests run."""
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(65537, 4096)


def encrypt(data: bytes, key: RSAPrivateKey) -> bytes:
    """FlagScale's format, made with the public half of ``key``."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    iv, secret = os.urandom(16), os.urandom(32)
    missing = 16 - len(data) % 16
    encryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).encryptor()
    sha256 = hashes.SHA256()
    wrapped = key.public_key().encrypt(secret, padding.OAEP(padding.MGF1(sha256), sha256, None))
    body = encryptor.update(data + bytes([missing]) * missing) + encryptor.finalize()
    return iv + wrapped + body


META: dict[str, object] = {
    "backends_commit": {"demo": COMMIT},
    "backends_version": {"FlagScale": "0.8.0", "demo": "1.0"},
    "commit": "",
    "contact": "li@acme.example",
    "device_type": DEVICE,
    "models": ["qwen3"],
    "task": ["inference"],
}


@dataclass(repr=False)
class Scale:
    """A FlagScale checkout (``root``) beside a project (``lab``) that imports from it."""

    lab: Lab
    root: Path
    scratch: Path
    commits: dict[str, str] = field(default_factory=dict)

    def bring(self, *more: str, folder: Path | None = None) -> dict[str, Any]:
        """Import; gives the JSON."""
        made = self.lab.ok("import-flagscale", str(folder or self.root), "--json", *more).json
        assert isinstance(made, dict)
        return made

    def refused(self, *more: str, folder: Path | None = None) -> tuple[int, str]:
        """Exit code and message of an import that must fail and write nothing at all."""
        before = snapshot(self.lab.root.parent, skip=(".git", "cache", "scratch"))
        ran = self.lab.run("import-flagscale", str(folder or self.root), *more)
        assert ran.code != 0, ran
        assert snapshot(self.lab.root.parent, skip=(".git", "cache", "scratch")) == before
        return ran.code, ran.err

    def built_tree(self) -> str:
        """The patched tree that a build would make, from what lies in the project now."""
        project = find_project(self.lab.root, {})
        pin, adaptation = project.resolve("demo", DEVICE)
        obtain(self.lab.db, pin)
        return patched_tree(self.lab.db, pin, project.layers(pin, adaptation))

    def layer(self, name: str = "acme-x1") -> Layer:
        """A layer of the project."""
        return find_layer(self.lab.root / "patches", "demo", name)

    def tree(self, files: Files) -> str:
        """The git tree of ``files``."""
        folder = self.scratch / "tree"
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        return self.lab.db.import_folder(write_files(folder, files))

    def diff(self, base: Files, changed: Files) -> bytes:
        """A patch from ``base`` to ``changed``."""
        return diff(self.scratch / "diff", base, changed)

    def put(self, where: str, data: bytes) -> Path:
        """A file of the checkout."""
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def meta(self, where: str, **changes: object) -> None:
        """A ``diff.yaml``; a change to None removes the key."""
        import yaml

        data = {k: v for k, v in {**META, **changes}.items() if v is not None}
        self.put(where, yaml.safe_dump(data, sort_keys=True).encode())

    def store(
        self, patch: bytes, layout: str = "files", *, device: str = DEVICE, backend: str = "demo",
        key: RSAPrivateKey | None = None, **meta: object,
    ) -> Path:  # fmt: skip
        """A vendor's set in one of the layouts ``files``, ``backend`` or ``short``."""
        folder = f"hardware/{device}/{backend}"
        end = ".patch" if key is None else ".patch.encrypted"
        wrap = (lambda data: data) if key is None else (lambda data: encrypt(data, key))
        stem = "30a5e25" if layout == "short" else "diff"
        if layout == "files":
            for name, part in per_file(patch).items():
                self.put(f"{folder}/{name}{end}", wrap(part))
        else:
            self.put(f"{folder}/{stem}{end}", wrap(patch))
        self.meta(f"{folder}/{stem}.yaml", **{"device_type": device, **meta})
        return self.root / folder

    def common(self, changed: Files, backend: str = "demo") -> None:
        """FlagScale's own changes as one patch for each file."""
        for name, part in per_file(self.diff(BASE, changed)).items():
            self.put(f"flagscale/backends/{backend}/{name}.patch", part)

    def commit(self, name: str) -> str:
        """Commit the checkout; gives the id."""
        if not (self.root / ".git").exists():
            git("init", "-q", "-b", "main", ".", cwd=self.root)
        git("add", "-A", "-f", ".", cwd=self.root)
        git("commit", "-q", "--allow-empty", "-m", name, cwd=self.root)
        self.commits[name] = git("rev-parse", "HEAD", cwd=self.root).decode().strip()
        return self.commits[name]

    def history(self, entries: Mapping[str, object]) -> None:
        """``patch_history.yaml``."""
        import yaml

        self.put("hardware/patch_history.yaml", yaml.safe_dump(dict(entries)).encode())


def quirks(made: dict[str, Any]) -> str:
    """All quirks of an import's JSON as one text."""
    return "\n".join(f"{quirk['where']}: {quirk['what']}" for quirk in made["quirks"])


def roles(made: dict[str, Any]) -> list[tuple[str, str]]:
    """Role and name of each layer in an import's JSON."""
    return [(x["role"], x["name"]) for item in made["sets"] for x in item["layers"]]


def make_scale(lab: Lab, base: Path) -> Scale:
    """A FlagScale checkout for ``lab``, which gets the device."""
    add_device(lab, DEVICE, "acme_old")
    root = base / "FlagScale"
    (root / "hardware").mkdir(parents=True)
    return Scale(lab, root, base / "scratch")


def add_device(lab: Lab, name: str, *aliases: str) -> None:
    """Another device manifest."""
    path = lab.root / f"manifests/devices/{name}.yaml"
    label = name.lower().replace("_", ".")
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"device: {name}\ntitle: {name} accelerator\nvendor: {name.split('_')[0]}\n"
        f"aliases: [{', '.join(aliases)}]\nlabel: {label}\n"
    )


def add_pin(lab: Lab, version: str, commit: str, files: Files, layers: str = "[]") -> str:
    """Pin another version of the upstream; gives its tree."""
    folder = lab.root.parent / f"upstream-{version}"
    folder.mkdir()
    tree = lab.db.import_folder(write_files(folder, files))
    path = lab.root / "manifests/backends/demo.yaml"
    pin = (
        f'  - version: "{version}"\n    commit: {commit}\n    tree: {tree}\n'
        f"    layers: {layers}\n    origins:\n      - folder: {folder}\n"
    )
    path.write_text(path.read_text().replace("\nrecipe:", f"{pin}\nrecipe:"))
    return tree
