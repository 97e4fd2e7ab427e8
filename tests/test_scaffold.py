from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale_build.bringup.scaffold import (
    BackendAnswers,
    DeviceAnswers,
    scaffold_backend,
    scaffold_device,
)
from uniscale_build.errors import UniscaleError
from uniscale_build.progress import Silent
from uniscale_build.project import Project
from uniscale_build.store import Store

from .native import ROOT, Native, make_native

ANSWERS = DeviceAnswers(
    "Acme_X1", "Acme X1", "Acme", "chips@acme.example", "Acme's guide", aliases=("acme", "no"),
    nodes=("/dev/acme*",), visible="ACME_VISIBLE_DEVICES", sdk="Acme toolkit: 1.0",
    sdk_roots=("ACME_HOME=/opt/acme",), compiler="acc", backends=("mini",),
)  # fmt: skip


@pytest.fixture
def native(tmp_path: Path) -> Native:
    return make_native(tmp_path)


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for folder in ("manifests", "patches", "tests")
        for path in root.glob(f"{folder}/**/*")
        if path.is_file()
    }


def test_a_device_is_written_and_understood(native: Native) -> None:
    project = Project(native.root, True)
    assert scaffold_device(project, ANSWERS) == [
        "manifests/devices/Acme_X1.yaml",
        "manifests/adaptations/Acme_X1/mini.yaml",
        "tests/test_device_acme_x1.py",
    ]
    device = project.manifests.device("NO")  # an alias that YAML would take for False
    assert device.name == "Acme_X1" and device.label == "acme.x1"
    assert device.sdk is not None and device.sdk.name == "Acme toolkit: 1.0"
    assert [(fact.level, fact.source) for fact in device.facts] == [("documented", "Acme's guide")]


def test_what_was_not_said_is_unknown(native: Native) -> None:
    project = Project(native.root, True)
    scaffold_device(project, DeviceAnswers("Acme_X1", "X1", "Acme", "nobody", "the guide"))
    (fact,) = project.manifests.device("acme_x1").facts
    assert fact.level == "unknown" and fact.of == ("visible", "detect", "sdk")


@pytest.mark.parametrize(
    ("change", "slug"),
    [
        ({"name": "../Acme"}, "bad-name"),
        ({"name": "Acme X1"}, "bad-name"),
        ({"aliases": ("host", "cpu")}, "alias-twice"),
        ({"label": "cpu"}, "label-twice"),
        ({"label": "Acme_X1"}, "field"),
        ({"backends": ("minni",)}, "unknown-backend"),
        ({"sdk_roots": ("/opt/acme",)}, "bad-value"),
        ({"title": ""}, "missing-key"),
    ],
)
def test_an_answer_that_makes_no_sense_writes_nothing(
    native: Native, change: dict[str, object], slug: str
) -> None:
    before = files(native.root)
    answers = DeviceAnswers(**{**vars(ANSWERS), **change})
    with pytest.raises(UniscaleError) as caught:
        scaffold_device(Project(native.root, True), answers)
    assert slug in [error.slug for error in caught.value.findings()]
    assert files(native.root) == before


def test_nothing_is_overwritten(native: Native) -> None:
    project = Project(native.root, True)
    scaffold_device(project, ANSWERS)
    before = files(native.root)
    with pytest.raises(UniscaleError) as caught:
        scaffold_device(project, ANSWERS)
    assert caught.value.slug == "file-exists"
    assert files(native.root) == before


def backend(folder: Path | None, **change: object) -> BackendAnswers:
    words = {"name": "Other.Engine", "title": "Another engine", "homepage": "https://x.invalid",
             "license": "MIT", "contact": "nobody", "tasks": ("serve",), "version": "2.0",
             "folder": folder, **change}  # fmt: skip
    return BackendAnswers(**words)  # type: ignore[arg-type]


def test_a_backend_is_written_with_the_tree_of_its_source(native: Native) -> None:
    project = Project(native.root, True)
    store = Store(native.cache)
    scaffold_backend(project, store, backend(native.upstream), Silent())
    found = project.manifests.backend("other-engine")
    assert found.recipe.kind == "cmake" and found.pins[0].version == "2.0"
    planned = native.run("plan", "-b", "other.engine", "-d", "cpu", "--json")
    assert planned.returncode == 0 and found.pins[0].tree in planned.stdout
    run_tests(native, "tests/test_backend_other_engine.py")


def test_a_backend_of_no_known_kind_writes_nothing(native: Native, tmp_path: Path) -> None:
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "Makefile").touch()
    before = files(native.root)
    store, project = Store(native.cache), Project(native.root, True)
    for answers, slug in (
        (backend(tmp_path / "odd"), "no-recipe"),
        (backend(tmp_path / "none"), "no-file"),
        (backend(None), "bad-value"),
        (backend(native.upstream, name="mini2/x"), "bad-name"),
        (backend(native.upstream, tasks=("sreve",)), "unknown-task"),
    ):
        with pytest.raises(UniscaleError) as caught:
            scaffold_backend(project, store, answers, Silent())
        assert slug in [error.slug for error in caught.value.findings()]
    assert files(native.root) == before


def run_tests(native: Native, *paths: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, *paths],
        cwd=native.root, env=native.env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout


def commands() -> list[list[str]]:
    """The commands of docs/new-device.md, in order."""
    page = (ROOT / "docs" / "new-device.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [shlex.split(block.replace("\\\n", " ")) for block in blocks]


def acme_sdk(folder: Path) -> None:
    compiler = folder / "bin" / "acc"
    compiler.parent.mkdir(parents=True)
    compiler.write_text("#!/bin/sh\necho acc 1.2.3\n", encoding="utf-8")
    compiler.chmod(0o755)


def test_the_page_about_a_new_device_does_what_it_says(native: Native, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", native.root], check=True)
    page = commands()
    assert [words[:2] for words in page] == [
        ["uniscale-build", word]
        for word in ("new-device", "doctor", "plan", "unpatch", "patch", "wheel", "new-backend",
                     "plan")
    ]  # fmt: skip
    create, doctor, plan, unpatch, patch, wheel, engine, planned = [words[1:] for words in page]
    made = native.run(*create)
    assert made.returncode == 0, made.stderr
    lacks = native.run(*doctor)
    assert lacks.returncode == 6 and "Acme toolkit" in lacks.stdout
    refused = native.run(*wheel)
    assert refused.returncode == 6 and "no-sdk" in refused.stderr
    acme_sdk(tmp_path / "acme")
    env = {**native.env, "ACME_HOME": str(tmp_path / "acme")}
    found = native.run(*doctor, env=env)
    assert found.returncode == 0 and "1.2.3" in found.stdout
    assert native.run(*plan, env=env).returncode == 0
    assert native.run(*unpatch, env=env).returncode == 0
    source = native.root / "build" / "Acme_X1" / "mini" / "greet.c"
    source.write_text(source.read_text().replace("please", "from the X1, please"))
    (source.parent / "acme.h").write_text("/* new */\n", encoding="utf-8")
    kept = native.run(*patch, env=env)
    assert kept.returncode == 0, kept.stderr
    layer = native.root / "patches" / "mini" / "acme"
    assert (layer / "overlay" / "acme.h").is_file()
    assert (layer / "diff" / "greet.c.patch").is_file()
    built = native.run(*wheel, env=env)
    assert built.returncode == 0, built.stderr
    assert list((native.root / "dist").glob("uniscale-*acme*.whl"))
    run_tests(native, "tests/test_device_acme_x1.py")
    described = native.run(*engine, env=env)
    assert described.returncode == 0, described.stderr
    assert native.run(*planned, env=env).returncode == 0
    run_tests(native, "tests/test_backend_acme_engine.py")


@pytest.mark.sources
def test_a_backend_from_the_package_index(native: Native) -> None:
    project, store = Project(native.root, True), Store(native.cache)
    given = backend(None, name="torchada", version="0.1.103", project="torchada")
    scaffold_backend(project, store, given, Silent())
    found = project.manifests.backend("torchada")
    assert found.recipe.kind == "pep517"
    # Packing's own files are not in it: the tree is that of upstream's files alone.
    assert found.pins[0].tree == "255910b14b423f69ee165ab67003929c6adfb1b2"
    with pytest.raises(UniscaleError) as caught:
        scaffold_backend(project, store, backend(None, version="9.9", project="torchada"), Silent())
    assert caught.value.slug == "no-version"
