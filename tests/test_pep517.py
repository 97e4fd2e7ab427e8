"""Python payloads: upstream's own build, precompiled members, requirement rules."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uniscale_build.build.precompiled import for_machine, take
from uniscale_build.build.recipes import pep517
from uniscale_build.errors import (
    CompileError,
    ManifestError,
    Problems,
    SourceError,
    ToolchainError,
    WheelError,
)
from uniscale_build.manifests.model import PinnedWheel, Precompiled, RequirementRule
from uniscale_build.plans.requirements import apply_rules, check_declared
from uniscale_build.wheels.wheelread import read_wheel

from .pyengine import KERNELS, REQUIREMENTS, REQUIRES, PyEngine, make_engine


@pytest.fixture
def engine(tmp_path: Path) -> PyEngine:
    return make_engine(tmp_path)


def rule(kind: str, name: str, to: str = "") -> RequirementRule:
    return RequirementRule(kind, name, to, "because", "here.yaml:1")


def test_a_python_upstream_becomes_a_payload(engine: PyEngine) -> None:
    engine.adapt(recipe=engine.pin_wheel("pyengine/_kernels.bin", "pyengine/other.txt"))
    ran = engine.wheel()
    assert ran.returncode == 0, ran.stderr
    prefix = engine.payload
    assert (prefix / "pyengine" / "_kernels.bin").read_bytes() == KERNELS
    assert not (prefix / "pyengine" / "other.txt").exists()
    info = json.loads((prefix / "payload.json").read_text())
    assert info["requirements"] == {
        "kept": list(REQUIREMENTS),
        "dropped": ["triton @ https://example.invalid/t.whl"],
        "replaced": {"torch==2.13.0+cpu": "torch==2.13.0"},
        "provided": ['vendor-runtime>=3; python_version > "3.8"'],
    }
    assert info["upstream"]["commit"] == ""
    (wheel,) = (engine.root / "out").glob("*.whl")
    read = read_wheel(wheel)  # every file is what RECORD says
    needs = [line for line in read.text("METADATA").splitlines() if line.startswith("Requires")]
    assert [f"Requires-Dist: {text}" in needs for text in REQUIREMENTS] == [True, True]


def test_the_payload_is_a_distribution_like_any_other(engine: PyEngine) -> None:
    assert engine.wheel().returncode == 0
    code = (
        "import importlib.metadata as m, pyengine; d = m.distribution('pyengine');"
        "print(d.version, d.requires, d.read_text('INSTALLER').strip(),"
        " [str(f) for f in d.files if not f.locate().exists()],"
        " [e.value for e in d.entry_points])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(engine.payload)}, cwd=engine.root,
    )  # fmt: skip
    kept = [*REQUIREMENTS, REQUIRES[-1]]
    assert ran.stdout == f"1.2.3 {kept} uniscale [] ['pyengine:main']\n"
    script = (engine.payload / "bin" / "pyengine").read_text().splitlines()[0]
    assert script == "#!/usr/bin/env python3"


def test_equal_plans_give_equal_wheels_and_the_second_time_nothing_is_done(
    engine: PyEngine, tmp_path: Path
) -> None:
    first = json.loads(engine.wheel("--json").stdout)
    again = json.loads(engine.wheel("--json").stdout)
    other = json.loads(make_engine(tmp_path, "elsewhere").wheel("--json").stdout)
    assert first["sha256"] == again["sha256"] == other["sha256"]
    log = engine.cache / "work" / "pyengine-cpu" / "build.log"
    assert log.read_text().count("uniscale-step: build") == 1
    assert not (engine.upstream / "build").exists()


def test_a_list_of_requirements_that_is_not_upstreams_is_told_with_the_right_one(
    engine: PyEngine,
) -> None:
    engine.adapt(requirements=("numpy>=1.20", "left-over"))
    ran = engine.wheel()
    assert ran.returncode == 3
    assert "error[requirements-differ]" in ran.stderr
    assert "manifests/adaptations/cpu/pyengine.yaml" in ran.stderr
    assert "  requirements:\n          - numpy>=1.20\n          - torch==2.13.0\n" in ran.stderr
    assert not list((engine.cache / "payloads").glob("*/pyengine-cpu"))
    engine.adapt()
    assert engine.wheel().returncode == 0


def test_another_version_than_the_pins_is_refused(engine: PyEngine) -> None:
    engine.adapt(recipe="recipe:\n  environment:\n    PYENGINE_VERSION: 1.2.4\n")
    ran = engine.wheel()
    assert ran.returncode == 8
    assert "error[other-version]" in ran.stderr
    engine.adapt(recipe='recipe:\n  environment:\n    PYENGINE_VERSION: "{version}+cpu"\n')
    assert engine.wheel().returncode == 0
    assert (engine.payload / "pyengine-1.2.3+cpu.dist-info" / "RECORD").is_file()


def test_upstreams_own_words_tell_why_its_build_failed(engine: PyEngine) -> None:
    ran = engine.wheel(PYENGINE_FAIL="1")
    assert ran.returncode == 7
    assert "the build step failed" in ran.stderr
    log = engine.cache / "work" / "pyengine-cpu" / "build.log"
    assert str(log) in ran.stderr
    assert "the engine does not like it here" in log.read_text()
    assert engine.wheel().returncode == 0


def test_a_build_that_gives_metadata_alone_is_refused(engine: PyEngine) -> None:
    ran = engine.wheel(PYENGINE_EMPTY="1")
    assert ran.returncode == 8
    assert "error[empty-payload]" in ran.stderr and "no file but its metadata" in ran.stderr
    assert not list((engine.cache / "payloads").glob("*/pyengine-cpu"))


NATIVE = """\
recipe:
  allowed_external: [libhost.so]
  native:
    source: operators
    targets: [twice]
    languages: [C]
"""


def test_a_native_part_comes_into_the_payload(engine: PyEngine) -> None:
    engine.adapt(recipe=NATIVE)
    ran = engine.wheel()
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in (engine.payload / "lib").iterdir()] == ["libtwice.so"]
    assert (engine.payload / "pyengine" / "__init__.py").is_file()
    info = json.loads((engine.payload / "payload.json").read_text())
    assert any(name.startswith("compiler.C") for name in info["toolchain"])
    (wheel,) = (engine.root / "out").glob("*.whl")
    assert "-none-linux_" in wheel.name or "-none-manylinux" in wheel.name


def test_a_native_part_that_does_not_compile_is_a_sentence(engine: PyEngine) -> None:
    engine.adapt(recipe=NATIVE.replace("[twice]", "[thrice]"))
    ran = engine.wheel()
    assert ran.returncode == 7 and "thrice" in ran.stderr
    assert "native.log" in ran.stderr


def test_kernels_from_source_take_nothing_from_the_pinned_wheel(engine: PyEngine) -> None:
    engine.adapt(recipe=engine.pin_wheel("pyengine/_kernels.bin"))
    ran = engine.wheel(UNISCALE_KERNELS="source")
    assert ran.returncode == 0, ran.stderr
    assert not (engine.payload / "pyengine" / "_kernels.bin").exists()


def test_a_pinned_wheel_that_is_not_there_is_an_error_without_a_network(engine: PyEngine) -> None:
    recipe = engine.pin_wheel("pyengine/_kernels.bin")
    for path in (engine.cache / "downloads").glob("*/*.whl"):
        path.unlink()
    engine.adapt(recipe=recipe)
    ran = engine.wheel(UNISCALE_OFFLINE="true")
    assert ran.returncode == 4
    assert "pyengine_cpu-1.2.3-py3-none-any.whl is not in the cache" in ran.stderr
    assert "kernels=source" in ran.stderr


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("requirement_rules:\n  - drop: torch\n", "missing-key"),
        ("requirement_rules:\n  - drop: torch\n    pin: torch\n    why: x\n", "field"),
        ("requirement_rules:\n  - forget: torch\n    why: x\n", "field"),
        ("requirement_rules:\n  - replace: torch\n    why: x\n", "field"),
    ],
)
def test_bad_rules_are_manifest_errors(engine: PyEngine, text: str, slug: str) -> None:
    engine.adapt(rules=text)
    ran = engine.run("plan", "-b", "pyengine", "-d", "cpu")
    assert ran.returncode == 3
    assert f"error[{slug}]" in ran.stderr


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sha256: ", "sha256: 12"),
        ("file: pyengine", "file: ../pyengine"),
        ("-any.whl", "-any.zip"),
        ("    members: ['pyengine/*.bin']\n", ""),
    ],
)
def test_bad_pins_of_wheels_are_manifest_errors(engine: PyEngine, old: str, new: str) -> None:
    recipe = engine.pin_wheel("pyengine/_kernels.bin")
    assert old in recipe
    engine.adapt(recipe=recipe.replace(old, new))
    assert engine.run("plan", "-b", "pyengine", "-d", "cpu").returncode == 3


def test_rules_change_what_is_required_and_say_so() -> None:
    given = ["A_b[x,y]>=1; python_version > '3.8'", "torch", "gone", "image", "z; extra == 'q'"]
    rules = [rule("pin", "a-B", "2.0"), rule("replace", "torch", "torch==1"),
             rule("drop", "gone"), rule("provided", "IMAGE")]  # fmt: skip
    found = apply_rules(given, rules)
    assert found.kept == ('A_b[x,y]==2.0; python_version > "3.8"', "torch==1")
    assert (found.dropped, found.provided) == (("gone",), ("image",))
    assert found.optional == ("z; extra == 'q'",)
    assert found.replaced["torch"] == "torch==1"


@pytest.mark.parametrize(
    ("rules", "slug"),
    [
        ([rule("drop", "nothing")], "rule-unused"),
        ([rule("drop", "torch"), rule("drop", "Torch")], "rule-twice"),
        ([rule("replace", "torch", "torch ==")], "bad-requirement"),
        ([rule("pin", "torch", "one")], "bad-requirement"),
    ],
)
def test_rules_that_do_not_fit_are_refused(rules: list[RequirementRule], slug: str) -> None:
    with pytest.raises(ManifestError) as caught:
        apply_rules(["torch"], rules)
    assert caught.value.slug == slug


def test_all_unused_rules_are_named_at_once() -> None:
    with pytest.raises(Problems) as caught:
        apply_rules([], [rule("drop", "one"), rule("drop", "two")])
    assert len(caught.value.findings()) == 2


def test_declared_requirements_may_be_written_in_other_ways() -> None:
    applied = apply_rules(["A.b>=1,<2", 'c[y,x]; python_version>"3"'], [])
    check_declared(["c[x,y] ; python_version > '3'", "a-b <2, >=1"], applied, "here")
    with pytest.raises(ManifestError, match="1 that upstream does not ask for"):
        check_declared(["a-b<2,>=1", "d", 'c[y,x]; python_version>"3"'], applied, "here")


def test_only_fields_of_metadata_are_changed() -> None:
    text = "Name: a\nRequires-Dist: x\nSummary: s\nRequires-Dist: y\n\nRequires-Dist: prose\n"
    found = pep517.with_requirements(text, ["z"])
    assert found == "Name: a\nRequires-Dist: z\nSummary: s\n\nRequires-Dist: prose\n"
    assert pep517.with_requirements("Name: a\n", ["z"]) == "Name: a\nRequires-Dist: z\n"


def pinned(*members: str) -> Precompiled:
    return Precompiled("p", members, (PinnedWheel("riscv64", "p-1-py3-none-any.whl", "0" * 64),),
                       {}, (), "here.yaml:3")  # fmt: skip


def make_wheel(path: Path, *names: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return path


@pytest.mark.parametrize(
    ("names", "patterns", "slug"),
    [
        (["a.so"], ["*.so", "b/*.so"], "no-member"),
        (["a.so", "there.so"], ["*.so"], "member-twice"),
    ],
)
def test_members_that_cannot_be_taken_leave_the_tree_as_it_was(
    tmp_path: Path, names: list[str], patterns: list[str], slug: str
) -> None:
    install = tmp_path / "install"
    install.mkdir()
    (install / "there.so").write_bytes(b"built")
    with pytest.raises(WheelError) as caught:
        take(make_wheel(tmp_path / "w.whl", *names), pinned(*patterns), install)
    assert caught.value.slug == slug
    assert [path.name for path in install.iterdir()] == ["there.so"]
    assert (install / "there.so").read_bytes() == b"built"


def test_members_never_leave_the_install_tree(tmp_path: Path) -> None:
    install = tmp_path / "install"
    install.mkdir()
    with pytest.raises((WheelError, Problems)):
        take(make_wheel(tmp_path / "w.whl", "../out.so"), pinned("*.so"), install)
    assert not (tmp_path / "out.so").exists()


def test_a_wheel_that_is_none_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "w.whl").write_bytes(b"<!doctype html>")
    with pytest.raises(WheelError, match="not a wheel"):
        take(tmp_path / "w.whl", pinned("*"), tmp_path)


def test_a_machine_without_precompiled_members_is_told_what_to_do() -> None:
    with pytest.raises(SourceError) as caught:
        for_machine(pinned("*"), "x86_64")
    assert "riscv64" in str(caught.value.hint)
    assert "kernels=source" in str(caught.value.hint)


def test_what_upstream_needs_to_build_is_read_from_its_pyproject(tmp_path: Path) -> None:
    assert pep517.upstream_requires(tmp_path) == ("setuptools>=40.8", "wheel")
    (tmp_path / "pyproject.toml").write_text('[build-system]\nrequires = ["flit_core"]\n')
    assert pep517.upstream_requires(tmp_path) == ("flit_core",)
    (tmp_path / "pyproject.toml").write_text("[build-system\n")
    with pytest.raises(CompileError, match="cannot be read"):
        pep517.upstream_requires(tmp_path)


def test_without_pip_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ToolchainError) as caught:
        pep517._pip_runner()
    assert "ensurepip" in str(caught.value.hint)
