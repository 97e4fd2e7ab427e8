from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale_build.bringup.doctor import check_device, check_machine, check_project
from uniscale_build.findings import Report
from uniscale_build.project import find_project

from .native import ROOT

PROJECT = find_project(ROOT)


def states(report: Report) -> dict[str, str]:
    return {finding.name: finding.state for finding in report.findings}


def program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def test_a_machine_without_tools_is_told_what_brings_each(tmp_path: Path) -> None:
    report = check_machine({"PATH": str(tmp_path)})
    assert states(report)["git"] == "missing"
    assert states(report)["C compiler"] == states(report)["CXX compiler"] == "missing"
    assert states(report)["ccache"] == "note"
    assert not report.healthy
    assert all("apt-get install" in finding.hint for finding in report.findings if finding.fault)


def test_a_tool_that_is_too_old(tmp_path: Path) -> None:
    program(tmp_path / "git", "echo git version 2.30.2")
    assert states(check_machine({"PATH": str(tmp_path)}))["git"] == "wrong"
    program(tmp_path / "git", "echo git version 2.39.5")
    assert states(check_machine({"PATH": str(tmp_path)}))["git"] == "ok"


def test_the_project_is_sound() -> None:
    assert check_project(PROJECT).healthy


def test_a_device_whose_sdk_is_not_here() -> None:
    report = check_device(PROJECT.manifests.devices["MUSA_S5000"], {"PATH": os.defpath})
    (fault,) = [finding for finding in report.findings if finding.fault]
    assert fault.where.startswith("manifests/devices/MUSA_S5000.yaml:")
    assert "set MUSA_HOME" in fault.hint


def test_a_device_that_is_complete(tmp_path: Path) -> None:
    program(tmp_path / "bin" / "mcc", "echo mcc version 4.3.1")
    program(tmp_path / "smi" / "mthreads-gmi", "exit 0")
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "musa_runtime.h").touch()
    env = {
        "PATH": f"{tmp_path / 'smi'}:{os.defpath}", "MUSA_PATH": str(tmp_path),
        "MUSA_VISIBLE_DEVICES": "0",
    }  # fmt: skip
    report = check_device(PROJECT.manifests.devices["MUSA_S5000"], env)
    assert report.healthy
    assert states(report) == {
        "mthreads-gmi": "ok", "MUSA SDK": "ok", "MUSA_VISIBLE_DEVICES": "note",
    }  # fmt: skip
    assert "(musa43)" in report.findings[1].what


def test_what_nobody_knows_is_said() -> None:
    report = check_device(PROJECT.manifests.devices["Tsing_micro"], {"PATH": ""})
    (note,) = [finding for finding in report.findings if finding.name == "visible"]
    assert "no source was found" in note.what


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    paths = f"{ROOT / 'build_backend'}:{ROOT / 'launchers'}"
    return subprocess.run(
        [sys.executable, "-m", "uniscale_build", "doctor", *args],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("metax", 6)])
def test_the_exit_code_is_for_scripts(device: str, code: int) -> None:
    ran = run("--device", device, "--json", MACA_PATH="/nonexistent")
    assert ran.returncode == code, ran.stderr
    reports = json.loads(ran.stdout)
    assert all(report["healthy"] for report in reports) == (code == 0)


def test_what_other_vendors_have_is_no_failure() -> None:
    ran = run()
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "MUSA_S5000" in ran.stdout and "Traceback" not in ran.stderr


def test_an_unknown_device_is_refused_with_the_nearest() -> None:
    ran = run("--device", "mussa")
    assert ran.returncode == 2 and 'did you mean "musa"?' in ran.stderr
