"""The dist-info of payloads: written for native ones, made true again for Python's own."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale_build import recordfile
from uniscale_build.build.distinfo import (
    expanded_tags,
    file_stem,
    normalise_dist_info,
    wheel_file,
    write_dist_info,
)
from uniscale_build.errors import Problems, WheelError
from uniscale_build.recordfile import Row

ENGINE = {
    "name": "uniscale-mini", "version": "1.2.3", "requires": ["torch ==2.13.0", "rich>=13 ; x"],
    "entry_points": None, "tag": "py3-none-linux_x86_64",
}  # fmt: skip


def lay(prefix: Path, files: dict[str, str]) -> Path:
    """``prefix`` with files."""
    for name, text in files.items():
        (prefix / name).parent.mkdir(parents=True, exist_ok=True)
        (prefix / name).write_text(text)
    return prefix


def write(prefix: Path, **changes: object) -> Path:
    return write_dist_info(prefix, **{**ENGINE, "requires": ["torch ==2.13.0"], **changes})  # type: ignore[arg-type]


def rows(folder: Path) -> dict[str, Row]:
    found, problems = recordfile.parse((folder / "RECORD").read_text())
    assert problems == []
    return {row.name: row for row in found}


def test_a_native_payloads_dist_info_is_what_python_finds(tmp_path: Path) -> None:
    prefix = lay(tmp_path, {"bin/engine": "#!", "lib/libx.so": "x", "payload.json": "{}"})
    folder = write(prefix, entry_points="[console_scripts]\nmini = mini:main\n")
    assert folder.name == "uniscale_mini-1.2.3.dist-info"
    code = (
        "import importlib.metadata as m; d = m.distribution('uniscale-mini')\n"
        "print(d.version, d.requires, d.read_text('INSTALLER').strip(), len(d.files),\n"
        "      [e.value for e in d.entry_points])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         env={**os.environ, "PYTHONPATH": str(prefix)})  # fmt: skip
    assert ran.stdout.strip() == "1.2.3 ['torch==2.13.0'] uniscale 8 ['mini:main']"
    assert "Tag: py3-none-linux_x86_64" in (folder / "WHEEL").read_text()


def test_record_lists_every_file_with_its_hash(tmp_path: Path) -> None:
    lay(tmp_path, {"bin/engine": "abc", "pkg/__pycache__/m.pyc": "made by a trial run"})
    found = rows(write(tmp_path))
    assert found["bin/engine"] == Row("bin/engine", hashlib.sha256(b"abc").hexdigest(), 3)
    assert found["uniscale_mini-1.2.3.dist-info/RECORD"].sha256 is None
    names = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert set(found) == names
    assert not any("__pycache__" in name for name in names)
    again = (tmp_path / "uniscale_mini-1.2.3.dist-info/RECORD").read_text()
    write(tmp_path)
    assert (tmp_path / "uniscale_mini-1.2.3.dist-info/RECORD").read_text() == again


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"name": "../x"}, "bad-name"), ({"name": ""}, "bad-name"), ({"name": "a\nb"}, "bad-name"),
        ({"version": "one"}, "bad-version"), ({"version": "1\nName: x"}, "bad-version"),
        ({"tag": "py3"}, "bad-tag"), ({"tag": "py3-none-any\nTag: x"}, "bad-tag"),
        ({"requires": ["torch == "]}, "bad-requirement"),
        ({"requires": ["a\nName: evil"]}, "bad-requirement"),
    ],
)  # fmt: skip
def test_facts_that_the_standards_do_not_allow(
    tmp_path: Path, changes: dict[str, object], slug: str
) -> None:
    with pytest.raises(WheelError) as caught:
        write(tmp_path, **changes)
    assert caught.value.slug == slug


def test_all_bad_requirements_are_told(tmp_path: Path) -> None:
    with pytest.raises(Problems) as caught:
        write(tmp_path, requires=["a ==", "fine", "b @"])
    assert len(caught.value.findings()) == 2


def python_payload(prefix: Path) -> Path:
    """What installing a PEP 517 wheel into a folder leaves: a package and its dist-info."""
    info = "mini-0.9.dist-info"
    return lay(prefix, {
        "mini/__init__.py": "x = 1\n", f"{info}/METADATA": "Name: mini\nVersion: 0.9\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\n", f"{info}/INSTALLER": "pip\n",
        f"{info}/direct_url.json": '{"url": "file:///tmp/build"}', f"{info}/REQUESTED": "",
        f"{info}/RECORD": "mini/__init__.py,sha256=old,1\n../../bin/mini,,\nmini/gone.py,,\n",
    })  # fmt: skip


def test_a_python_payloads_record_is_made_true(tmp_path: Path) -> None:
    prefix = python_payload(tmp_path)
    (prefix / "payload.json").write_text("{}")
    assert normalise_dist_info(prefix) == ("mini-0.9.dist-info",)
    folder = prefix / "mini-0.9.dist-info"
    assert (folder / "INSTALLER").read_text() == "uniscale\n"
    assert not (folder / "direct_url.json").exists()
    assert not (folder / "REQUESTED").exists()
    found = rows(folder)
    names = {str(p.relative_to(prefix)) for p in prefix.rglob("*") if p.is_file()}
    assert set(found) == names
    assert found["mini/__init__.py"].size == 6
    [distribution] = importlib.metadata.distributions(path=[str(prefix)])
    assert distribution.version == "0.9"


def test_several_distributions_keep_their_own_files(tmp_path: Path) -> None:
    prefix = python_payload(tmp_path)
    (prefix / "other.py").write_text("y = 2\n")
    other = prefix / "other_dep-1.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Name: other.dep\nVersion: 1\n")
    (other / "RECORD").write_text("other.py,,\n")
    (prefix / "payload.json").write_text("{}")
    with pytest.raises(WheelError) as caught:
        normalise_dist_info(prefix)
    assert caught.value.slug == "unowned-files"
    assert "payload.json" in caught.value.what
    assert "mini, other_dep" in (caught.value.hint or "")
    assert len(normalise_dist_info(prefix, main="Mini")) == 2
    assert "payload.json" in rows(prefix / "mini-0.9.dist-info")
    assert set(rows(other)) == {
        "other.py", *(f"other_dep-1.dist-info/{n}" for n in ("METADATA", "INSTALLER", "RECORD"))
    }  # fmt: skip


def test_pth_files_and_a_missing_dist_info_are_refused(tmp_path: Path) -> None:
    (tmp_path / "hook.pth").write_text("import evil\n")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/model.pth").write_text("a checkpoint, deeper down: fine")
    with pytest.raises(Problems) as caught:
        normalise_dist_info(tmp_path)
    assert [error.slug for error in caught.value.findings()] == ["pth-file", "no-dist-info"]


def test_names_versions_and_tags() -> None:
    assert file_stem("Uniscale-llama.CPP", "0.5.0-dev0+cambricon_MLU") == (
        "uniscale_llama_cpp-0.5.0.dev0+cambricon.mlu"
    )
    assert expanded_tags("py2.py3-none-any") == ("py2-none-any", "py3-none-any")
    assert "Root-Is-Purelib: true" in wheel_file("py3-none-any", "x")
    assert "Root-Is-Purelib: false" in wheel_file("py3-none-linux_x86_64", "x")
