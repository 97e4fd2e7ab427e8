"""Wheel indexes for tests: real wheels with a payload of the test engine, and their catalog."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from uniscale_build import record as build_record
from uniscale_build.members import Member
from uniscale_build.wheel import write_wheel

from .helpers import ENGINE, Bench, Result, launch

TREE = "1" * 40
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PYTHON = f"cp{sys.version_info.major}{sys.version_info.minor}"


def payload_info(backend: str, device: str, version: str, **changes: Any) -> dict[str, Any]:
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
    info = build_record.payload_json(
        facts, distribution=backend, plan="0" * 64, toolchain={}, external=[],
        launch={"serve": launch(argv=["python", "-m", "engine_module"])},
        verified={"built": "yes", "not_run": ""},
    )  # fmt: skip
    return {**info, **changes}


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
    info: Mapping[str, Any] | None = None,
    **catalog: Any,
) -> dict[str, Any]:
    """A wheel with one payload in ``out``, and its entry of the catalog; ``catalog`` changes it."""
    distribution = name or f"uniscale-{backend.replace('.', '-').lower()}"
    full = f"{version}+{label or device.lower().replace('_', '.')}"
    told = dict(info or payload_info(backend, device, version))
    payload = f"{backend}-{device}"
    root = f"uniscale_payloads/{payload}"
    members = [
        Member(f"{root}/payload.json", json.dumps(told).encode()),
        Member(f"{root}/engine_module.py", ENGINE),
        Member(f"uniscale_payloads/{payload}.txt", b"see payload.json\n"),
    ]
    held = [{
        "payload": payload, "backend": backend, "version": version, "commit": COMMIT,
        "tree": TREE, "tasks": ["serve", "infer"], "layers": [], "verified": told["verified"],
    }]  # fmt: skip
    extra = {"device": device, "payloads": held, **catalog}
    return _write(out, distribution, full, tag, members, requires, requires_python, extra,
                  [told])  # fmt: skip


def plain_wheel(out: Path, version: str = "0.1.0") -> dict[str, Any]:
    """A wheel named uniscale without payloads: what the others require."""
    member = Member("uniscale_stands_here.py", f"version = {version!r}\n".encode())
    return _write(out, "uniscale", version, "py3-none-any", [member], (), "",
                  {"device": None, "payloads": []}, [])  # fmt: skip


def _write(
    out: Path,
    name: str,
    version: str,
    tag: str,
    members: list[Member],
    requires: Sequence[str],
    requires_python: str,
    extra: Mapping[str, Any],
    infos: list[dict[str, Any]],
) -> dict[str, Any]:
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Python: {requires_python}"] if requires_python else []
    lines += [f"Requires-Dist: {one}" for one in requires]
    sbom = build_record.sbom(infos, name=name, version=version, epoch=1577836800)
    out.mkdir(parents=True, exist_ok=True)
    made = write_wheel(
        out, name=name, version=version, tag=tag, members=members,
        metadata="\n".join(lines) + "\n",
        dist_info_extra=[Member("sboms/uniscale.cdx.json", sbom.encode())],
    )  # fmt: skip
    return {
        "file": made.path.name, "url": f"packages/{quote(made.path.name)}", "sha256": made.sha256,
        "size": made.size, "name": name, "version": version,
        "requires_python": requires_python or None, "requires_dist": list(requires),
        "tags": [tag], "glibc": None, "sdk": None, "image_packages": [], "time": 1577836800,
        "sbom": None, "provenance": None, **extra,
    }  # fmt: skip


class Index:
    """An index in a folder, to which wheels are added."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.wheels: list[dict[str, Any]] = []
        (root / "packages").mkdir(parents=True)
        self.save()

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    def add(self, *args: Any, **more: Any) -> dict[str, Any]:
        """A wheel (see `make_wheel`); its entry, which may be changed before `save`."""
        entry = make_wheel(self.packages, *args, **more)
        self.wheels.append(entry)
        self.save()
        return entry

    def add_plain(self, version: str = "0.1.0") -> dict[str, Any]:
        """The plain uniscale."""
        entry = plain_wheel(self.packages, version)
        self.wheels.append(entry)
        self.save()
        return entry

    def copy(self, source: Path, **entry: Any) -> None:
        """A wheel that is there already."""
        shutil.copy(source, self.packages)
        told = {"sha256": hashlib.sha256(source.read_bytes()).hexdigest(), **entry}
        self.wheels.append(told)
        self.save()

    def save(self) -> None:
        """Write the catalog."""
        told = {"schema": 1, "devices": [], "wheels": self.wheels}
        (self.root / "catalog.json").write_text(json.dumps(told), encoding="utf-8")


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
