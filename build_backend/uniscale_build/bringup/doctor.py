"""What this machine has for building and what it lacks, with the command that brings each thing."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping

from uniscale_build.build.toolchain import find_compiler, has_program
from uniscale_build.errors import UniscaleError
from uniscale_build.findings import Finding, Report
from uniscale_build.manifests.detection import detected
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.sdk import find_sdk, how_to_install
from uniscale_build.project import Project

# program: (least version, what brings it, needed for every build)
TOOLS = {
    "git": ((2, 38), "apt-get install git", True),
    "cmake": ((3, 26), "pip install cmake, or apt-get install cmake", True),
    "ninja": ((1, 10), "pip install ninja, or apt-get install ninja-build", True),
    "ccache": ((3, 0), "apt-get install ccache", False),
}

PACKAGED = ("cmake", "ninja")  # come as Python packages too, which builds prefer


def _of_error(name: str, error: UniscaleError) -> list[Finding]:
    return [
        Finding(name, "missing" if item.slug.startswith("no-") else "wrong", item.what,
                item.where or "", item.hint or "")
        for item in error.findings()
    ]  # fmt: skip


def check_machine(environ: Mapping[str, str] | None = None) -> Report:
    """The tools that every native build needs."""
    env = os.environ if environ is None else environ
    findings = []
    for name, (least, hint, needed) in TOOLS.items():
        path = shutil.which(name, path=env.get("PATH"))
        version = ".".join(map(str, least))
        if name in PACKAGED and importlib.util.find_spec(name) is not None:
            state, what, hint = "ok", "of this Python environment", ""
        elif path is None:
            state, what = ("missing" if needed else "note"), "is not installed"
        elif not has_program(path, least):
            state, what = "wrong", f"{path} is older than {version}, or does not run"
        else:
            state, what, hint = "ok", path, ""
        findings.append(Finding(name, state, what, hint=hint))
    for language in ("C", "CXX"):
        try:
            compiler = find_compiler(language, env)
        except UniscaleError as error:
            findings += _of_error(f"{language} compiler", error)
        else:
            findings.append(Finding(f"{language} compiler", "ok", compiler.version))
    return Report("", "", tuple(findings))


def check_project(project: Project) -> Report:
    """The manifests (an unreadable one raises) and the submodules that must agree with them."""
    from uniscale_build.review.gitlinks import gitlink_findings

    manifests = project.manifests
    count = f"{len(manifests.backends)} backends, {len(manifests.devices)} devices, "
    count += f"{len(manifests.adaptations)} adaptations"
    findings = [Finding("manifests", "ok", count)]
    faults, warnings = gitlink_findings(project)
    for fault in (*faults, *warnings):
        findings += _of_error("third_party", fault)
    return Report("", "", tuple(findings))


def check_device(device: Device, environ: Mapping[str, str] | None = None) -> Report:
    """The device itself, its management command, its SDK: what is here and what is not."""
    env = os.environ if environ is None else environ
    seen = detected(device, env) or ""
    findings = []
    if device.cli:
        path = shutil.which(device.cli[0], path=env.get("PATH"))
        if path:
            findings.append(Finding(device.cli[0], "ok", path))
        else:
            # Chips without it can be used, and it says nothing about building.
            findings.append(
                Finding(device.cli[0], "note", "is not on PATH", device.at("cli"),
                        f"it comes with the driver of {device.title}")
            )  # fmt: skip
    if device.sdk is not None:
        try:
            sdk = find_sdk(device, env)
        except UniscaleError as error:
            findings += _of_error("SDK", error)
        else:
            roots = ", ".join(f"{k}={v}" if k != v else v for k, v in sdk.roots.items())
            words = (sdk.version, sdk.label and f"({sdk.label})", roots)
            findings.append(Finding(sdk.name, "ok", " ".join(word for word in words if word)))
    if device.visible and env.get(device.visible):
        value = f"limits processes to {env[device.visible]}"
        findings.append(Finding(device.visible, "note", value, device.at("visible")))
    for fact in device.facts:
        if fact.level == "unknown":
            what = f"no source was found for this. {fact.note}".strip()
            findings += [Finding(name, "note", what, device.at("facts")) for name in fact.of]
    return Report(device.name, seen, tuple(findings))


def install_line(device: Device) -> str:
    """One line for tables: what brings the device's SDK."""
    return how_to_install(device) or "nothing to install"
