"""Backends whose only source is a wheel: its content is pinned, patched and made a wheel again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uniscale_build.build.recipes import wheeltree
from uniscale_build.build.unpack import unpack
from uniscale_build.errors import CompileError
from uniscale_build.git.db import GitDb
from uniscale_build.manifests.load import load_manifests
from uniscale_build.sources import archive, pypi
from uniscale_build.sources.pypi import IndexFile
from uniscale_build.store import Store
from uniscale_build.wheels.wheelread import read_wheel

from .native import ROOT
from .pyengine import PyEngine, make_engine

NAME = "pyengine-1.2.3-py3-none-any.whl"
INFO = "pyengine-1.2.3.dist-info"


@pytest.fixture
def engine(tmp_path: Path) -> PyEngine:
    """The small Python engine, pinned by the wheel that its own build gives."""
    engine = make_engine(tmp_path)
    made = tmp_path / "made"
    made.mkdir()
    code = f"import backend; backend.build_wheel({str(made)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=engine.upstream, check=True)
    sha256 = hashlib.sha256((made / NAME).read_bytes()).hexdigest()
    kept = engine.cache / "downloads" / sha256
    kept.mkdir(parents=True)
    shutil.copy(made / NAME, kept)
    db = GitDb(Store(tmp_path / "other")).open()
    tree = db.import_files((m.path, m.mode, m.data) for m in archive.members(made / NAME))
    manifest = engine.root / "manifests" / "backends" / "pyengine.yaml"
    head, _, tail = manifest.read_text().partition("    tree: ")
    _, _, tail = tail.partition("\nrecipe:\n  kind: pep517\n")
    origin = f"      - wheel: {NAME}\n        project: pyengine\n        sha256: {sha256}\n"
    manifest.write_text(
        f"{head}    tree: {tree}\n    note: a wheel, of no commit\n    layers: []\n"
        f"    origins:\n{origin}\nrecipe:\n  kind: wheel\n{tail}"
    )
    return engine


def test_the_content_of_a_wheel_becomes_a_payload(engine: PyEngine) -> None:
    ran = engine.wheel("--verbose")
    assert ran.returncode == 0, ran.stderr
    prefix = engine.payload
    assert (prefix / "pyengine" / "__init__.py").read_bytes() == (
        engine.upstream / "pyengine" / "__init__.py").read_bytes()  # fmt: skip
    started = subprocess.run(
        [sys.executable, prefix / "bin" / "pyengine"], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(prefix)},
    )  # fmt: skip
    assert started.stdout.startswith("engine")
    (wheel,) = (engine.root / "out").glob("*.whl")
    read_wheel(wheel)  # every file is what RECORD says
    fields = (prefix / INFO / "METADATA").read_text().split("\n\n")[0].splitlines()
    assert "Requires-Dist: torch==2.13.0" in fields  # the rules hold for it as for what is built


def test_what_a_layer_changed_is_what_record_says(engine: PyEngine, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (made,) = (engine.cache / "downloads").glob(f"*/{NAME}")
    for member in archive.members(made):
        path = source / os.fsdecode(member.path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(member.data)
    assert not (source / INFO / "RECORD").exists()
    (source / "pyengine" / "__init__.py").write_text("changed = True\n")
    (source / "pyengine" / "added.py").write_text("")
    wheeltree.pack(source, tmp_path / "wheels")
    unpack(tmp_path / "wheels" / NAME, tmp_path / "install")  # checks RECORD both ways
    assert (tmp_path / "install/pyengine/__init__.py").read_text() == "changed = True\n"
    assert (tmp_path / "install/pyengine/added.py").is_file()


@pytest.mark.parametrize(
    ("files", "slug"),
    [
        ({"setup.py": ""}, "no-wheel"),
        ({"a-1.dist-info/WHEEL": "", "b-1.dist-info/WHEEL": ""}, "no-wheel"),
        ({"a-1.dist-info/WHEEL": "Tag: cp311-cp311-linux_x86_64\n"}, "compiled-source"),
    ],
)
def test_what_is_no_pure_wheel_is_refused(tmp_path: Path, files: dict[str, str], slug: str) -> None:
    for name, text in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    with pytest.raises(CompileError) as caught:
        wheeltree.pack(tmp_path / "source", tmp_path / "wheels")
    assert caught.value.slug == slug and not (tmp_path / "wheels").exists()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (NAME, "pyengine-1.2.3-cp311-cp311-linux_x86_64.whl", "without compiled code"),
        (NAME, "pyengine-1.2.4-py3-none-any.whl", "the pin is version 1.2.3"),
        (NAME, "other-1.2.3-py3-none-any.whl", "the pin is of project pyengine"),
        ("        project: pyengine\n", "", '"project" names the project'),
        ("  kind: wheel", "  kind: wheels", 'did you mean "wheel"'),
    ],
)
def test_wrong_pins_are_told(engine: PyEngine, old: str, new: str, said: str) -> None:
    path = engine.root / "manifests" / "backends" / "pyengine.yaml"
    path.write_text(path.read_text().replace(old, new))
    ran = engine.run("plan", "-b", "pyengine", "-d", "cpu")
    assert ran.returncode != 0 and said in ran.stderr and "pyengine.yaml:" in ran.stderr


def test_other_releases_are_wheels_too(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["p-2.0-py3-none-any.whl", "p-1.9-py3-none-any.whl", "p-1.9.tar.gz",
             "p-2.1-cp311-cp311-linux_x86_64.whl", "p.exe"]  # fmt: skip
    files = [IndexFile(name, f"https://example.invalid/{name}", "") for name in names]
    monkeypatch.setattr(pypi, "project_files", lambda project: files)
    assert list(pypi.releases("p")) == ["1.9"]
    assert [one.name for one in pypi.releases("p", "wheel").values()] == names[1::-1]
    with pytest.raises(Exception, match=r"no p-3\.0-py3-none-any\.whl") as caught:
        pypi.find_file("p", "p-3.0-py3-none-any.whl")
    assert "p-2.0-py3-none-any.whl" in str(getattr(caught.value, "hint", ""))


def test_an_archive_is_read_without_what_packing_adds(tmp_path: Path) -> None:
    path = tmp_path / "p-1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as made:
        for name in ("p/a.py", "p-1.dist-info/RECORD", "p-1.dist-info/RECORD.jws", "top.py",
                     "p/x.dist-info/y/RECORD.py"):  # fmt: skip
            made.writestr(name, "")
    assert [one.path for one in archive.members(path)] == [
        b"p/a.py", b"top.py", b"p/x.dist-info/y/RECORD.py"
    ]  # fmt: skip


@pytest.mark.sources
def test_flaggems_is_built_for_the_chips_that_it_knows(tmp_path: Path) -> None:
    """The real library: its wheel is ours again, and each adaptation names a vendor that it has."""
    words = ["wheel", "-b", "FlagGems", "-d", "Cambricon_MLU", "-o", str(tmp_path), "--json"]
    ran = subprocess.run(
        [sys.executable, "-m", "uniscale_build", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    (wheel,) = tmp_path.glob("*+flaggems.mlu-py3-none-any.whl")
    read = read_wheel(wheel)
    prefix = "uniscale_payloads/FlagGems-Cambricon_MLU/"
    assert "Requires-Dist: sqlalchemy==2.0.48" in read.text("METADATA")
    with zipfile.ZipFile(wheel) as made:
        info = json.loads(made.read(f"{prefix}payload.json"))
        names = set(made.namelist())
    assert info["device_environment"]["set"] == {"GEMS_VENDOR": "cambricon"}
    manifests = load_manifests([ROOT / "manifests"])
    pairs = [pair for (name, _), pair in manifests.adaptations.items() if name == "FlagGems"]
    assert len(pairs) >= 10
    for pair in pairs:
        vendor = pair.environment["GEMS_VENDOR"]
        assert f"{prefix}flag_gems/runtime/backend/_{vendor}/__init__.py" in names, pair.where
