"""Makes small real upstreams and projects around them, for tests of the patch engine."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniscale_build.__main__ import run as run_command
from uniscale_build.git.db import GitDb
from uniscale_build.project import Project
from uniscale_build.store import Store

# A file is its bytes; `Link` and `Program` are the other two things that a tree can hold.
Content = "bytes | Link | Program"


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True)
class Program:
    """A file with its execute bit set."""

    data: bytes


Files = Mapping[str, "bytes | Link | Program"]

LINES = b"".join(b"line %d of this file\n" % n for n in range(1, 41))
UPSTREAM: dict[str, bytes | Link | Program] = {
    "README.md": b"# demo\n\nAn upstream.\n",
    "setup.py": b"from setuptools import setup\n\nsetup()\n",
    "pkg/__init__.py": b"",
    "pkg/core.py": b'"""Core."""\n\nimport os\n\n\n' + LINES.replace(b"line", b"# line"),
    "pkg/util.py": LINES,
    "pkg/deep/er/leaf.txt": b"leaf\n" * 30,
    "data/logo.bin": bytes(range(256)) * 8,
    "bin/tool.sh": Program(b"#!/bin/sh\necho tool\n"),
    "latest": Link("pkg/core.py"),
    "notes.txt": b"one\ntwo\nthree",
}


def write_files(root: Path, files: Files) -> Path:
    """Write ``files`` below ``root``."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            path.symlink_to(content.target)
        elif isinstance(content, Program):
            path.write_bytes(content.data)
            path.chmod(0o755)
        else:
            path.write_bytes(content)
    return root


def git(*args: str, cwd: Path, stdin: bytes | None = None) -> bytes:
    """Plain git as a user runs it, with somebody to commit as."""
    env = {
        **os.environ,
        "GIT_AUTHOR_NAME": "Dev",
        "GIT_AUTHOR_EMAIL": "dev@example.org",
        "GIT_COMMITTER_NAME": "Dev",
        "GIT_COMMITTER_EMAIL": "dev@example.org",
    }
    done = subprocess.run(["git", *args], cwd=cwd, input=stdin, capture_output=True, env=env)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done.stdout


def git_upstream(root: Path, files: Files) -> str:
    """A git repository at ``root`` with one commit of ``files``; gives the commit."""
    write_files(root, files)
    git("init", "-q", "-b", "main", ".", cwd=root)
    git("add", "-A", "-f", ".", cwd=root)
    git("commit", "-q", "-m", "upstream", cwd=root)
    return git("rev-parse", "HEAD", cwd=root).decode().strip()


def snapshot(root: Path, *, skip: Iterable[str] = (".git",)) -> dict[str, tuple[object, ...]]:
    """Everything below ``root`` as values that compare: kind, execute bit, content."""
    found: dict[str, tuple[object, ...]] = {}
    for base, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in set(skip)]
        for name in (*names, *folders):
            path = Path(base, name)
            key = os.fsencode(path.relative_to(root)).decode("utf-8", "surrogateescape")
            if path.is_symlink():
                found[key] = ("link", os.readlink(path))
            elif path.is_file():
                found[key] = ("file", bool(path.stat().st_mode & 0o100), path.read_bytes())
    return found


@dataclass(frozen=True)
class Ran:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)


@dataclass
class Lab:
    """A project of its own with one backend (``demo``), one device (``acme``), and a cache."""

    root: Path
    store: Store
    upstream: Path

    @property
    def project(self) -> Project:
        """The project, read anew."""
        return Project(self.root, True)

    @property
    def db(self) -> GitDb:
        """The store's git."""
        return GitDb(self.store).open()

    def place(self, device: str | None = None) -> Path:
        """The in-place tree."""
        return self.root / ("third_party/demo" if device is None else f"build/{device}/demo")

    def layer(self, name: str) -> Path:
        """A layer's folder."""
        return self.root / "patches" / "demo" / name

    def run(self, *argv: str) -> Ran:
        """Run ``uniscale-build`` in this process; never lets a traceback through."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(list(argv))
        return Ran(code, out.getvalue(), err.getvalue())

    def ok(self, *argv: str) -> Ran:
        """Run a command that must succeed."""
        ran = self.run(*argv)
        assert ran.code == 0, (argv, ran)
        return ran

    def unpatch(self, *more: str, device: str | None = None) -> Ran:
        """``unpatch`` of the demo backend, which must succeed."""
        chosen = ("--device", device) if device is not None else ()
        return self.ok("unpatch", "--backend", "demo", *chosen, *more)

    def patch(self, *more: str, device: str | None = None) -> Ran:
        """``patch`` of the demo backend, which must succeed."""
        chosen = ("--device", device) if device is not None else ()
        return self.ok("patch", "--backend", "demo", *chosen, *more)

    def new_layer(self, name: str, device: str | None = None) -> Ran:
        """Capture what is in place into a new layer."""
        words = {"--title": f"The layer {name}", "--why": "A test.",
                 "--owner": "Dev", "--contact": "dev@example.org"}  # fmt: skip
        options = [part for pair in words.items() for part in pair]
        return self.patch("--new-layer", name, *options, device=device)

    def result(self, name: str) -> str:
        """The result tree that a layer records."""
        for line in (self.layer(name) / "layer.yaml").read_text().splitlines():
            if line.startswith("result: "):
                return line.split()[1].strip("'\"")
        raise AssertionError(f"{name} records no result")

    def work_tree(self, device: str | None = None) -> str:
        """The tree id of what is on the disk in place, by a walk that knows no git settings."""
        return self.db.import_folder(self.place(device))

    def remove_place(self, device: str | None = None) -> None:
        """Delete the in-place tree, as an engineer may."""
        shutil.rmtree(self.place(device))


_BACKEND = """\
backend: demo
title: A demo upstream
aliases: [demonstration]
label: demo
distribution: uniscale-demo
homepage: https://example.org/demo
license: MIT
purl: pkg:generic/demo
tasks: [serve]

pins:
  # The version that everybody uses.
  - version: "1.0"
    commit: {commit}
    tree: {tree}
    layers: []  # common to all devices
    origins:
      - {kind}: {url}

recipe:
  kind: cmake
"""
_DEVICE = """\
device: {name}
title: {name} accelerator
vendor: {name}
aliases: []
label: {name}
"""
_ADAPTATION = """\
# How demo runs there.
backend: demo
device: {name}
pin: "1.0"   # as everywhere
tasks: [serve]
contact: dev@example.org
"""


def make_lab(
    base: Path, files: Files, *, kind: str = "folder", devices: Iterable[str] = ("acme",)
) -> Lab:
    """A project below ``base`` whose pin is exactly ``files``; ``kind`` is its origin."""
    upstream = base / "upstream"
    lab = Lab(base / "project", Store(base / "cache"), upstream)
    commit = "1" * 40
    if kind == "git":
        commit = git_upstream(upstream, files)
        tree = git("rev-parse", "HEAD^{tree}", cwd=upstream).decode().strip()
    else:
        upstream.mkdir(parents=True)
        write_files(upstream, files)
        tree = lab.db.import_folder(upstream)
    url = upstream.as_uri() if kind == "git" else str(upstream)
    texts = {"backends/demo": _BACKEND.format(commit=commit, tree=tree, kind=kind, url=url)}
    for name in devices:
        texts[f"devices/{name}"] = _DEVICE.format(name=name)
        texts[f"adaptations/{name}/demo"] = _ADAPTATION.format(name=name)
    for name, text in texts.items():
        path = lab.root / "manifests" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (lab.root / "patches").mkdir()
    return lab


def copy_lab(lab: Lab, base: Path) -> Lab:
    """The same project, cache and upstream below ``base``."""
    base.mkdir(exist_ok=True)
    for path in (lab.root, lab.store.root, lab.upstream):
        if path.exists():
            shutil.copytree(path, base / path.name, symlinks=True)
    copy = Lab(base / lab.root.name, Store(base / lab.store.root.name), base / lab.upstream.name)
    for manifest in (copy.root / "manifests/backends").glob("*.yaml"):
        text = manifest.read_text()
        manifest.write_text(text.replace(str(lab.upstream), str(copy.upstream)))
    return copy
