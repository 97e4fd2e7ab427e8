"""The PEP 517 and PEP 660 hooks, called as front ends call them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from .native import ROOT, Native, make_native

CALL = """
import json, os, sys
sys.path.insert(0, "build_backend")
from uniscale_build import hooks
name, args, config = json.loads(sys.argv[1])
print("RESULT" + json.dumps(getattr(hooks, name)(*args, config)))
heavy = {"typer", "rich", "git", "torch", "scikit_build_core", "unidiff"} & set(sys.modules)
print("HEAVY" + json.dumps(sorted(heavy)))
"""


def call(root: Path, name: str, *args: str, config: object = None, env: object = None):  # type: ignore[no-untyped-def]
    given: dict[str, str] = dict(env or os.environ)  # type: ignore[call-overload]
    return subprocess.run(
        [sys.executable, "-c", CALL, json.dumps([name, args, config])], cwd=root, text=True,
        capture_output=True, check=False,
        env={k: v for k, v in given.items() if k != "PYTHONPATH"},
    )  # fmt: skip


def result(ran: subprocess.CompletedProcess[str]) -> object:
    assert ran.returncode == 0, ran.stderr
    return json.loads(next(line[6:] for line in ran.stdout.splitlines() if "RESULT" in line))


def test_the_plain_wheel_needs_nothing_more_and_imports_nothing_heavy() -> None:
    ran = call(ROOT, "get_requires_for_build_wheel")
    assert result(ran) == []
    assert "HEAVY[]" in ran.stdout


def test_a_backend_asks_for_the_native_tools_in_exact_versions() -> None:
    found = result(call(ROOT, "get_requires_for_build_wheel", config={"backend": "llama.cpp"}))
    assert isinstance(found, list)
    assert any(word.startswith("scikit-build-core==") for word in found)


def test_metadata_is_told_without_building(tmp_path: Path) -> None:
    ran = call(ROOT, "prepare_metadata_for_build_wheel", str(tmp_path / "m"),
               config={"backend": "llama.cpp", "device": "cpu"},
               env={**os.environ, "UNISCALE_CACHE": str(tmp_path / "cache")})  # fmt: skip
    folder = tmp_path / "m" / str(result(ran))
    text = (folder / "METADATA").read_text(encoding="utf-8")
    assert "\nVersion: 0.1.0+llamacpp.cpu\n" in text and "Requires-Dist: typer" in text
    assert "HEAVY[]" in ran.stdout
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("config", "code", "words"),
    [
        ({"devcie": "musa"}, 2, 'did you mean "device"?'),
        ({"backend": "lama.cpp"}, 2, 'did you mean "llama.cpp"?'),
        ({"backend": "llama.cpp", "device": "my_cpu_thing"}, 2, "there is no device"),
        ({"backend": "llama.cpp", "jobs": "x"}, 2, "must be a number"),
    ],
)
def test_bad_settings_are_sentences_and_exit_codes(
    config: dict[str, str], code: int, words: str
) -> None:
    for hook in ("get_requires_for_build_wheel", "prepare_metadata_for_build_wheel"):
        args = ["/tmp"] if hook.startswith("prepare") else []
        ran = call(ROOT, hook, *args, config=config)
        assert ran.returncode == code
        assert words in ran.stderr and "Traceback" not in ran.stderr


@pytest.fixture
def native(tmp_path: Path) -> Native:
    return make_native(tmp_path, packages=True)


def test_prepared_metadata_is_the_wheels_metadata(native: Native, tmp_path: Path) -> None:
    config = {"backend": "mini"}
    env = {**os.environ, **native.env}
    prepared = call(native.root, "prepare_metadata_for_build_wheel", str(tmp_path / "m"),
                    config=config, env=env)  # fmt: skip
    text = (tmp_path / "m" / str(result(prepared)) / "METADATA").read_bytes()
    built = subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.path.insert(0, 'build_backend'); from uniscale_build import hooks;"
         f"print('NAME', hooks.build_wheel({str(tmp_path)!r}, {config!r}))"],
        cwd=native.root, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    name = built.stdout.split("NAME ")[1].strip()
    with zipfile.ZipFile(tmp_path / name) as bundle:
        inner = next(n for n in bundle.namelist() if n.endswith("mini.cpu.dist-info/METADATA"))
        assert bundle.read(inner) == text
        assert "uniscale/__main__.py" in bundle.namelist()
        assert "uniscale_build/data/patches/mini/polite/layer.yaml" in bundle.namelist()


def test_an_editable_wheel_points_at_the_checkout(native: Native, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c",
         "import sys; sys.path.insert(0, 'build_backend'); from uniscale_build import hooks;"
         f"print('NAME', hooks.build_editable({str(tmp_path)!r}))"],
        cwd=native.root, env=native.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    with zipfile.ZipFile(tmp_path / ran.stdout.split("NAME ")[1].strip()) as bundle:
        text = bundle.read("uniscale_editable.pth").decode()
    assert text.splitlines() == [str(native.root / "launchers"), str(native.root / "build_backend")]


def test_the_source_distribution_builds_the_same_wheel(native: Native, tmp_path: Path) -> None:
    import tarfile

    made = result(call(native.root, "build_sdist", str(tmp_path), env={**os.environ, **native.env}))
    with tarfile.open(tmp_path / str(made)) as tar:
        names = tar.getnames()
        tar.extractall(tmp_path / "sdist", filter="data")
    assert any(name.endswith("patches/mini/polite/diff/greet.c.patch") for name in names)
    root = next((tmp_path / "sdist").iterdir())
    hashes = []
    for place in (native.root, root):
        ran = subprocess.run(
            [sys.executable, "-m", "uniscale_build", "wheel", "--json", "-o", str(tmp_path / "o")],
            cwd=place, env=native.env, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        hashes.append(json.loads(ran.stdout)["sha256"])
    assert hashes[0] == hashes[1]
