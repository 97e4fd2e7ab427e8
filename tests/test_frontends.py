"""Every front end that people have builds, installs and removes the same wheel."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

import pytest

from .native import Native, make_native

pytestmark = [pytest.mark.compile, pytest.mark.sources]
SETTINGS = {"backend": "mini", "device": "cpu"}


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("native"), packages=True)


def run(*command: str | Path, native: Native, ok: bool = True) -> str:
    env = {k: v for k, v in native.env.items() if k not in ("PYTHONPATH", "CI")}
    ran = subprocess.run(
        [str(word) for word in command], cwd=native.root, env=env, text=True,
        capture_output=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (ran.returncode == 0) is ok, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def environment(folder: Path, native: Native, *packages: str) -> Path:
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "-q", *packages, native=native)
    return folder / "bin" / "python"


def site_packages(python: Path) -> Path:
    return next(python.parent.parent.glob("lib/python*/site-packages"))


def check_and_remove(python: Path, native: Native, uninstall: list[str]) -> None:
    """The payload is there and the environment is sound; afterwards nothing of ours is left."""
    listed = run(python.parent / "uniscale", "list", native=native)
    assert "mini" in listed and "polite" in listed
    run(*uninstall, native=native)
    left = [path.name for path in site_packages(python).iterdir() if "uniscale" in path.name]
    assert left == []


@pytest.mark.parametrize("version", ["22.3.1", "23.0.1", "24.0", "25.3", "26.3"])
def test_pip(version: str, native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, f"pip=={version}")
    settings = [f"--config-settings={key}={value}" for key, value in SETTINGS.items()]
    run(python, "-m", "pip", "install", ".", *settings, native=native)
    run(python, "-m", "pip", "check", native=native)
    check_and_remove(python, native, [str(python), "-m", "pip", "uninstall", "-qy", "uniscale"])


def test_build(native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, "build==1.6.1")
    settings = [f"-C{key}={value}" for key, value in SETTINGS.items()]
    out = tmp_path / "out"
    run(python, "-m", "build", "--wheel", "-o", out, *settings, native=native)
    (wheel,) = out.glob("*.whl")
    run(python, "-m", "pip", "install", "-q", wheel, native=native)
    check_and_remove(python, native, [str(python), "-m", "pip", "uninstall", "-qy", "uniscale"])


def test_uv(native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, "uv==0.13.8")
    uv = [str(python), "-m", "uv"]
    settings = [
        word
        for key, value in SETTINGS.items()
        for word in ("--config-settings-package", f"uniscale:{key}={value}")
    ]
    run(*uv, "pip", "install", "--python", python, ".", *settings, native=native)
    check_and_remove(python, native, [*uv, "pip", "uninstall", "--python", str(python), "uniscale"])


def test_an_editable_install_runs_from_the_checkout(native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, "pip==26.3")
    run(python, "-m", "pip", "install", "-e", ".", "--config-settings=backend=mini", native=native)
    where = run(python, "-c", "import uniscale; print(uniscale.__file__)", native=native)
    assert Path(where.strip()).is_relative_to(native.root)
    check_and_remove(python, native, [str(python), "-m", "pip", "uninstall", "-qy", "uniscale"])


def test_bad_settings_reach_the_user_as_a_sentence(native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, "pip==26.3")
    said = run(python, "-m", "pip", "install", ".", "--config-settings=devcie=cpu", native=native,
               ok=False)  # fmt: skip
    assert 'did you mean "device"?' in said and "Traceback" not in said


def test_a_dry_run_builds_nothing(native: Native, tmp_path: Path) -> None:
    python = environment(tmp_path / "env", native, "pip==26.3")
    cache = tmp_path / "fresh cache"
    env_cache = {**native.env, "UNISCALE_CACHE": str(cache)}
    dry = Native(native.root, native.upstream, cache, env_cache)
    run(python, "-m", "pip", "install", "--dry-run", ".", "--config-settings=backend=mini",
        native=dry)  # fmt: skip
    assert not cache.exists()
