from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale_build.errors import SettingsError, UniscaleError
from uniscale_build.manifests.load import load_manifests
from uniscale_build.plans.pairs import STATES, all_pairs
from uniscale_build.plans.plan import make_plan
from uniscale_build.project import Project, find_project
from uniscale_build.settings import Settings

from .native import ROOT

BACKEND = """\
backend: mini
title: A small engine
label: mini
distribution: uniscale-mini
homepage: https://example.invalid/mini
license: MIT
purl: pkg:generic/mini
tasks: [serve]
pins:
  - version: 1.0
    commit: {commit}
    tree: {tree}
    origins:
      - git: https://example.invalid/mini.git
recipe:
  kind: cmake
"""
DEVICE = "device: {name}\ntitle: A chip\nvendor: Acme\nlabel: {label}\naliases: [{aliases}]\n"
ADAPTATION = "backend: mini\ndevice: Acme_X1\npin: 1.0\ncontact: nobody\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The manifests of a sound project; tests break one thing each."""
    manifests = tmp_path / "manifests"
    put(manifests, "backends/mini", BACKEND.format(commit="1" * 40, tree="2" * 40))
    put(manifests, "devices/cpu", DEVICE.format(name="cpu", label="cpu", aliases="host"))
    put(manifests, "devices/Acme_X1", DEVICE.format(name="Acme_X1", label="acme", aliases="x1"))
    put(manifests, "adaptations/Acme_X1/mini", ADAPTATION)
    (tmp_path / "patches").mkdir()
    return manifests


def put(root: Path, name: str, text: str) -> None:
    path = root / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def edit(root: Path, name: str, old: str, new: str) -> None:
    text = (root / f"{name}.yaml").read_text(encoding="utf-8")
    assert old in text
    put(root, name, text.replace(old, new))


def faults(*roots: Path) -> list[UniscaleError]:
    with pytest.raises(UniscaleError) as caught:
        load_manifests(roots)
    return list(caught.value.findings())


def test_a_sound_project(root: Path) -> None:
    found = load_manifests([root])
    assert found.backend("MINI").pin("1.0") is found.backends["mini"].pins[0]
    assert found.device("acme-x1") is found.device("X1") is found.devices["Acme_X1"]
    assert found.adaptation(found.backend("mini"), found.device("x1")).ready


BACKENDS, DEVICES, PAIRS = "backends/mini", "devices/Acme_X1", "adaptations/Acme_X1/mini"


@pytest.mark.parametrize(
    ("name", "old", "new", "slug", "where"),
    [
        (BACKENDS, "license: MIT\n", "licence: MIT\n", "missing-key", "backends/mini.yaml:1"),
        (BACKENDS, "tasks: [serve]", "tasks: [sreve]", "unknown-task", "backends/mini.yaml:8"),
        (BACKENDS, "1" * 40, "1" * 39, "bad-pin", "backends/mini.yaml:11"),
        (BACKENDS, "2" * 40, "main", "bad-pin", "backends/mini.yaml:12"),
        (BACKENDS, f"    commit: {'1' * 40}\n", "", "bad-pin", "backends/mini.yaml:10"),
        (BACKENDS, "git: https:", "git: ext::sh", "bad-pin", "backends/mini.yaml:14"),
        (BACKENDS, "git: https", "git: http", "bad-pin", "backends/mini.yaml:14"),
        (BACKENDS, "mini.git\n", "mini.git\n        path: ../x\n", "path-escape",
         "backends/mini.yaml:14"),
        (BACKENDS, "mini.git\n", "mini.git\n        sdist: x-1.0.tar.gz\n", "bad-pin",
         "backends/mini.yaml:14"),
        (BACKENDS, "git: https://example.invalid/mini.git",
         f"sdist: other-1.0.tar.gz\n        project: mini\n        sha256: {'3' * 64}", "bad-pin",
         "backends/mini.yaml:10"),
        (BACKENDS, "git: https://example.invalid/mini.git",
         f"sdist: mini-1.1.tar.gz\n        project: mini\n        sha256: {'3' * 64}", "bad-pin",
         "backends/mini.yaml:10"),
        (BACKENDS, "    origins:", "    layers: [gone]\n    origins:", "no-layer",
         "backends/mini.yaml:10"),
        (BACKENDS, "    origins:", "    layers: [../../etc]\n    origins:", "path-escape",
         "backends/mini.yaml:10"),
        (BACKENDS, "kind: cmake", "kind: cmkae", "field", "backends/mini.yaml:16"),
        (BACKENDS, "backend: mini", "backend: mini2", "file-name", "backends/mini.yaml:1"),
        (DEVICES, "[x1]", "[host]", "alias-twice", "devices/cpu.yaml:5"),
        (DEVICES, "[x1]", "[CPU]", "alias-twice", "devices/cpu.yaml:5"),
        (DEVICES, "label: acme", "label: cpu", "label-twice", "devices/cpu.yaml:4"),
        (DEVICES, "label: acme", "label: Acme_X1", "field", "devices/Acme_X1.yaml:4"),
        (DEVICES, "aliases", "parts: [Acme_X1]\naliases", "cyclic", "devices/Acme_X1.yaml:5"),
        (DEVICES, "aliases", "parts: [cpuu]\naliases", "unknown-device", "devices/Acme_X1.yaml:5"),
        (DEVICES, "aliases", "facts:\n  - of: [visible]\n    level: verified\naliases",
         "no-source", "devices/Acme_X1.yaml:6"),
        (DEVICES, "aliases", "facts:\n  - of: [colour]\n    level: unknown\naliases",
         "field", "devices/Acme_X1.yaml:6"),
        (DEVICES, "aliases", "sdk:\n  name: X\n  compiler:\n    program: x\n    version: '(a'\n"
         "aliases", "field", "devices/Acme_X1.yaml:8"),
        (PAIRS, "pin: 1.0", "pin: 1.00", "unknown-pin", "adaptations/Acme_X1/mini.yaml:3"),
        (PAIRS, "device: Acme_X1", "device: Acme_X2", "file-name",
         "adaptations/Acme_X1/mini.yaml:2"),
        (PAIRS, "pin: 1.0", "pin: 1.0\nlayers: [gone]", "no-layer",
         "adaptations/Acme_X1/mini.yaml:4"),
        (PAIRS, "pin: 1.0", "pin: 1.0\nstatus: needs-layers", "field",
         "adaptations/Acme_X1/mini.yaml:1"),
        (PAIRS, "pin: 1.0", "pin: 1.0\nmissing: something", "field",
         "adaptations/Acme_X1/mini.yaml:4"),
    ],
)  # fmt: skip
def test_every_fault_has_its_line(
    root: Path, name: str, old: str, new: str, slug: str, where: str
) -> None:
    edit(root, name, old, new)
    found = faults(root)
    assert (slug, f"manifests/{where}") in [(error.slug, error.where) for error in found]


def test_faults_of_all_files_come_at_once(root: Path) -> None:
    edit(root, BACKENDS, "kind: cmake", "kind: x")
    edit(root, DEVICES, "vendor: Acme\n", "")
    edit(root, PAIRS, "contact: nobody\n", "contact: nobody\ncontract: x\n")
    put(root, "devices/broken", "a: [")
    assert {error.slug for error in faults(root)} == {"field", "missing-key", "unknown-key", "yaml"}


def test_a_key_given_twice_hides_no_other_fault_of_its_file(root: Path) -> None:
    edit(root, DEVICES, "vendor: Acme\n", "title: again\nvender: Acme\n")
    assert {error.slug for error in faults(root)} == {"duplicate-key", "missing-key", "unknown-key"}


def test_a_backend_that_cannot_be_read_is_not_reported_as_unknown_too(root: Path) -> None:
    put(root, BACKENDS, "a: [")
    assert [error.slug for error in faults(root)] == ["yaml"]


def test_files_that_nobody_would_read(root: Path) -> None:
    put(root, "devcies/Other", "device: Other\n")
    (root / "devices" / "Late.yml").write_text("device: Late\n", encoding="utf-8")
    found = faults(root)
    assert [error.slug for error in found] == ["file-name", "file-name"]
    assert {error.hint for error in found} >= {"rename it Late.yaml"}


def test_a_site_adds_devices_and_replaces_none(root: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    put(site, "devices/Acme_Z9", DEVICE.format(name="Acme_Z9", label="z9", aliases="z9"))
    put(site, "adaptations/Acme_Z9/mini", ADAPTATION.replace("X1", "Z9"))
    assert "Acme_Z9" in load_manifests([root, site]).devices
    put(site, "devices/cpu", DEVICE.format(name="cpu", label="cpu", aliases="mine"))
    (error,) = faults(root, site)
    assert error.slug == "name-twice" and "manifests/devices/cpu.yaml" in (error.hint or "")


def test_a_pair_that_waits_for_layers_says_for_whose(root: Path) -> None:
    waiting = "status: needs-layers\nmissing: Acme's patches\ncommit: 12345678\n"
    edit(root, PAIRS, "pin: 1.0\n", f"pin: 0.7\n{waiting}")
    found = load_manifests([root])  # its pin need not be one of ours
    with pytest.raises(SettingsError) as caught:
        found.adaptation(found.backend("mini"), found.device("x1"))
    assert caught.value.slug == "needs-layers"
    assert caught.value.where == "manifests/adaptations/Acme_X1/mini.yaml:4"
    assert "nobody" in (caught.value.hint or "")


def test_a_pin_without_a_tree_is_refused_with_its_note(root: Path) -> None:
    edit(root, BACKENDS, f"    tree: {'2' * 40}\n", "    note: git could not be asked\n")
    with pytest.raises(UniscaleError) as caught:
        make_plan(Project(root.parent, True), Settings(backends=("mini",), device="x1"))
    assert caught.value.slug == "no-tree" and "git could not be asked" in caught.value.what
    assert caught.value.where == "manifests/backends/mini.yaml:10"


def test_several_devices_are_not_guessed_between(root: Path, tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.touch()
    for name in ("X1", "Y1"):
        text = DEVICE.format(name=f"Acme_{name}", label=name.lower(), aliases=name.lower())
        put(root, f"devices/Acme_{name}", f"{text}detect:\n  nodes: [{node}]\n")
        put(root, f"adaptations/Acme_{name}/mini", ADAPTATION.replace("X1", name))
    project = Project(root.parent, True)
    with pytest.raises(SettingsError) as caught:
        make_plan(project, Settings(backends=("mini",)))
    assert caught.value.slug == "several-devices" and "Acme_X1, Acme_Y1" in caught.value.what
    (root / "adaptations/Acme_Y1/mini.yaml").unlink()
    plan = make_plan(Project(root.parent, True), Settings(backends=("mini",)))
    assert plan.device is not None and plan.device.name == "Acme_X1"


def test_every_kind_of_bad_manifest_is_told_at_once_with_its_line(root: Path) -> None:
    upstream = (root / "backends/mini.yaml").read_text(encoding="utf-8")
    edit(root, BACKENDS, "tasks: [serve]\n", "tasks: [serve]\ntasks: [serve]\n")
    sdist = f"sdist: other-1.1.tar.gz\n        project: other\n        sha256: {'3' * 64}"
    upstream = upstream.replace("backend: mini", "backend: other").replace("mini", "other")
    upstream = upstream.replace("git: https://example.invalid/other.git", sdist)
    upstream = upstream.replace("    origins:", "    layers: [gone, ../../etc]\n    origins:")
    put(root, "backends/other", upstream)
    chip = (root / "devices/Acme_X1.yaml").read_text(encoding="utf-8")
    chip = chip.replace("Acme_X1", "Acme_X2").replace("acme", "acme2").replace("[x1]", "[x2, X1]")
    put(root, "devices/Acme_X2", chip + "parts: [Acme_X3, nowhere]\n")
    put(root, "devices/Acme_X3", chip.replace("X2", "X3").replace("acme2", "acme3")
        .replace("[x2, X1]", "[x3]") + "parts: [Acme_X2]\n")  # fmt: skip
    edit(root, PAIRS, "contact: nobody\n", "contact: nobody\ncontract: x\n")
    told = {(error.slug, error.where) for error in faults(root)}
    assert {slug for slug, _ in told} == {
        "duplicate-key", "bad-pin", "no-layer", "path-escape", "alias-twice", "cyclic",
        "unknown-device", "unknown-key",
    }  # fmt: skip
    assert all(re.fullmatch(r"manifests/.+\.yaml:\d+", where or "") for _, where in told)


def test_what_other_readers_of_yaml_turn_into_numbers_and_booleans_stays_text(root: Path) -> None:
    edit(root, BACKENDS, "version: 1.0", "version: 0.10")
    edit(root, PAIRS, "pin: 1.0", "pin: 0.10\nenvironment:\n  FAST: no\n  SIZE: 1e3\n  AT: 12:30")
    found = load_manifests([root])
    pair = found.adaptation(found.backend("mini"), found.device("x1"))
    assert pair.pin == found.backend("mini").pins[0].version == "0.10"
    assert dict(pair.environment) == {"FAST": "no", "SIZE": "1e3", "AT": "12:30"}
    edit(root, PAIRS, "pin: 0.10", "pin: 0.1")
    assert [error.slug for error in faults(root)] == ["unknown-pin"]


def test_every_pair_of_the_project_has_a_state_and_a_way_forward() -> None:
    project = find_project(ROOT)
    pairs = all_pairs(project)
    manifests = project.manifests
    assert len(pairs) == len(manifests.backends) * len(manifests.devices)
    assert [pair for pair in pairs if pair.state == "broken"] == []
    for pair in pairs:
        assert pair.state in STATES and pair.what and pair.who and pair.where
    ready = {(p.backend, p.device) for p in pairs if p.state in ("buildable", "needs-sdk")}
    planned = {key for key, item in manifests.adaptations.items() if item.ready}
    assert ready == planned


def test_the_matrix_tells_what_an_sdk_changes(tmp_path: Path) -> None:
    def state(environ: dict[str, str]) -> str:
        pairs = all_pairs(find_project(ROOT), {"PATH": "", **environ})
        found = [p for p in pairs if (p.backend, p.device) == ("llama.cpp", "MUSA_S5000")]
        return found[0].state

    assert state({"MUSA_HOME": str(tmp_path / "none")}) == "needs-sdk"
    for name in ("include/musa_runtime.h", "bin/mcc"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch(0o755)
    assert state({"MUSA_HOME": str(tmp_path)}) == "buildable"


def test_matrix_and_devices_on_the_command_line() -> None:
    def run(*args: str) -> str:
        command = [sys.executable, "-m", "uniscale_build", *args]
        env = {"PYTHONPATH": f"{ROOT / 'build_backend'}:{ROOT / 'launchers'}", "PATH": "/usr/bin"}
        ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        return ran.stdout

    pairs = json.loads(run("matrix", "--json", "--device", "ascend"))
    assert {pair["device"] for pair in pairs} == {"Huawei_Atlas800TA3"}
    assert "waits for layers" in run("matrix")
    listed = {item["name"]: item for item in json.loads(run("devices", "list", "--json"))}
    assert listed["MUSA_S5000"]["names"] == ["摩尔线程"]


def test_the_whole_project_is_copied_and_one_letter_is_wrong(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    shutil.copytree(ROOT / "patches", tmp_path / "patches")
    edit(tmp_path / "manifests", "devices/MUSA_S5000", "visible: MUSA", "visibel: MUSA")
    (error,) = faults(tmp_path / "manifests")
    assert error.hint == 'did you mean "visible"?'
    assert (error.where or "").startswith("manifests/devices/MUSA_S5000.yaml:")
