"""Backends whose requirements contradict each other are refused before anything is built."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from uniscale_build.errors import UniscaleError
from uniscale_build.plans.plan import Plan, make_plan
from uniscale_build.plans.together import _compatible, check_together
from uniscale_build.project import Project, find_project
from uniscale_build.settings import Settings

from .native import ROOT


def planned(*backends: str) -> tuple[Project, Plan]:
    project = find_project(ROOT)
    return project, make_plan(project, Settings(backends=backends, device="cpu"))


def test_vllm_and_sglang_want_different_transformers() -> None:
    with pytest.raises(UniscaleError) as told:
        check_together(*planned("vllm", "llama.cpp", "sglang"))
    found = {error.what: error for error in told.value.findings()}
    (error,) = (error for what, error in found.items() if "transformers" in what)
    assert error.slug == "requirements-contradict" and "wheel for each" in str(error.hint)
    places = re.findall(r"(manifests/\S+\.yaml):(\d+)", str(error.where))
    assert [Path(path).stem for path, _ in places] == ["vllm", "sglang"]
    for path, line in places:
        assert "transformers" in (ROOT / path).read_text().splitlines()[int(line) - 1]


@pytest.mark.parametrize("backends", [("vllm", "llama.cpp"), ("llama.cpp",), ("sglang",)])
def test_what_fits_is_not_refused(backends: tuple[str, ...]) -> None:
    check_together(*planned(*backends))


def test_a_requirement_for_other_machines_does_not_count() -> None:
    project, plan = planned("vllm", "llama.cpp")
    one, other = plan.backends
    for marker, refused in (("sys_platform == 'win32'", False), ("sys_platform == 'linux'", True)):
        changed = dataclasses.replace(other.adaptation, requirements=(f"lark==9; {marker}",))
        changed_plan = dataclasses.replace(
            plan, backends=(one, dataclasses.replace(other, adaptation=changed))
        )
        if refused:
            with pytest.raises(UniscaleError, match="lark"):
                check_together(project, changed_plan)
        else:
            check_together(project, changed_plan)


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        ("==1.2", "==1.3", False),
        ("==1.2", ">=1.0", True),
        (">=5.16.1,<5.20", "==5.3.0", False),
        (">=1,<2", ">=2", False),
        (">=1,<2", ">1.9", True),
        (">1.0,<1.1", ">=1.0", True),
        ("==1.*", "==1.4.2", True),
        ("==1.*", ">=2", False),
        ("~=1.4", "<1.4", False),
        ("~=1.4", ">1.5", True),
        ("!=1.0", "==1.0", False),
        ("", "==7", True),
        ("<2", ">=2.0.dev0", False),  # a release before 2 is no release below it
        (">=2!1", "<3", False),
    ],
)
def test_whether_a_version_can_be_both(one: str, other: str, fits: bool) -> None:
    assert _compatible(Requirement(f"x{one}"), Requirement(f"x{other}")) is fits
    assert _compatible(Requirement(f"x{other}"), Requirement(f"x{one}")) is fits
