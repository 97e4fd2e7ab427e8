"""Wheel indexes for tests: real wheels with a payload of the test engine, published by `index`."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniscale_build.index import Request, publish
from uniscale_build.members import Member
from uniscale_build.records import record as build_record
from uniscale_build.wheels.wheel import write_wheel

from .helpers import COMMIT, ENGINE, Bench, Result, launch

TREE = "1" * 40
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"
_Info = dict[str, Any]


def payload_info(
    backend: str, device: str, version: str, sdk: dict[str, str | None] | None = None
) -> _Info:
    """A whole payload.json of the test engine, as a build writes it."""
    facts = {
        "backend": backend,
        "device": device,
        "tasks": ["serve", "infer"],
        "pin": {"version": version, "commit": COMMIT, "tree": TREE,
                "origins": ["https://example.org/up.git"]},
        "layers": [],
        "tree": TREE,
        "recipe": {},
        "requirements": [],
        "environment": {},
    }  # fmt: skip
    return build_record.payload_json(
        facts, distribution=backend, plan="0" * 64, toolchain={}, external=[], sdk=sdk,
        launch={"serve": launch(argv=["python", "-m", "engine_module"])},
        verified={"built": "yes", "not_run": ""},
    )  # fmt: skip


def make_wheel(
    out: Path,
    backend: str = "llama.cpp",
    device: str = "cpu",
    version: str = "1.0",
    *,
    name: str | None = None,
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
    label: str | None = None,
    requires_python: str = ">=3.10",
    sdk: dict[str, str | None] | None = None,
    upstream: str | None = None,
    info: _Info | None = None,
) -> Path:
    """A wheel with one payload in ``out``: a backend's own, or with ``name`` uniscale a bundle."""
    distribution = name or f"uniscale-{backend.replace('.', '-').lower()}"
    full = f"{version}+{label or device.lower().replace('_', '.')}"
    told = {**payload_info(backend, device, upstream or version, sdk), **(info or {})}
    folder = f"{backend if name else distribution}-{device}"
    root = f"uniscale_payloads/{folder}"
    members = [
        Member(f"{root}/payload.json", json.dumps(told).encode()),
        Member(f"{root}/engine_module.py", ENGINE),
        Member(f"{root}.txt", b"see payload.json\n"),
    ]
    return _write(out, distribution, full, tag, members, requires, requires_python, [told])


def plain_wheel(out: Path, version: str = "0.1.0") -> Path:
    """A wheel named uniscale without payloads: what the others require."""
    member = Member("uniscale_stands_here.py", f"version = {version!r}\n".encode())
    return _write(out, "uniscale", version, "py3-none-any", [member], (), "", [])


def _write(
    out: Path,
    name: str,
    version: str,
    tag: str,
    members: list[Member],
    requires: Sequence[str],
    requires_python: str,
    infos: list[_Info],
) -> Path:
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {one}" for one in requires]
    sbom = build_record.sbom(infos, name=name, version=version, epoch=1577836800)
    return write_wheel(
        out, name=name, version=version, tag=tag, members=members,
        metadata="\n".join(lines) + "\n",
        dist_info_extra=[Member("sboms/uniscale.cdx.json", sbom.encode())],
    ).path  # fmt: skip


class Index:
    """An index in a folder, to which wheels are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        publish(root, Request())

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def catalog(self) -> dict[str, Any]:
        """What ``catalog.json`` says."""
        found: dict[str, Any] = json.loads((self.root / "catalog.json").read_text("utf-8"))
        return found

    def add(self, *args: Any, **more: Any) -> dict[str, Any]:
        """Publish a wheel (see `make_wheel`); its entry of the catalog."""
        with tempfile.TemporaryDirectory() as folder:
            return self.publish(make_wheel(Path(folder), *args, **more))

    def add_plain(self, version: str = "0.1.0") -> dict[str, Any]:
        """Publish the plain uniscale."""
        with tempfile.TemporaryDirectory() as folder:
            return self.publish(plain_wheel(Path(folder), version))

    def publish(self, path: Path) -> dict[str, Any]:
        """Publish a file; its entry."""
        publish(self.root, Request(add=(path,)))
        found: dict[str, Any]
        (found,) = (one for one in self.catalog["wheels"] if one["file"] == path.name)
        return found

    def clear(self) -> None:
        """Take every wheel out."""
        publish(self.root, Request(remove=tuple(one["file"] for one in self.catalog["wheels"])))

    def tamper(self, wheels: list[Any]) -> None:
        """Make the catalog list ``wheels``, whatever the index says."""
        told = json.dumps({**self.catalog, "wheels": wheels})
        (self.root / "catalog.json").write_text(told, encoding="utf-8")


class Place(Bench):
    """An index, an environment with our sources on its path, and a data folder."""

    python: Path
    index: Index

    def words(self, *words: str | Path) -> list[str]:
        return [str(self.python), "-m", "uniscale", *map(str, words)]

    def run(self, *words: str | Path, stdin: bytes = b"", **more: Any) -> Result:
        """As `Bench.run`, with the patience that pip needs on a busy machine."""
        ran = subprocess.run(
            self.words(*words), env=self.environ, cwd=self.root, capture_output=True, text=True,
            check=False, timeout=300, input=stdin.decode(), **more,
        )  # fmt: skip
        return Result(ran.returncode, ran.stdout, ran.stderr)

    def install(self, *words: str, code: int = 0) -> Result:
        result = self.run("install", *words, "--index", self.index.root, "--offline")
        assert result.code == code, result
        assert "Traceback" not in result.err + result.out
        return result

    def fails(self, slug: str, *words: str, code: int = 13) -> str:
        """The error's text; nothing is in the environment that was not there before."""
        before = self.packages()
        result = self.install(*words, code=code)
        assert self.packages() == before and not self.environments()
        return result.refused(slug, code)

    def packages(self) -> set[str]:
        folder = next(self.python.parent.parent.glob("lib/python*/site-packages"))
        return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}

    def environments(self) -> list[Path]:
        return [path for path in (self.root / "data").glob("environments/*") if path.is_dir()]
