"""`uniscale.devices.devices`: names, aliases and detection, from the builder's manifests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from uniscale.devices import devices
from uniscale_build.errors import LaunchError, SettingsError, UniscaleError
from uniscale_build.plans.plan import make_plan
from uniscale_build.project import find_project
from uniscale_build.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = """\
device: {name}
title: A chip
vendor: Acme
label: {label}
aliases: [{label}x]
detect:
  nodes: ["{node}"]
"""


def site(folder: Path, *names: str) -> dict[str, str]:
    """An environment with a site's own devices; each is there once its node exists."""
    (folder / "devices").mkdir(parents=True)
    for name in names:
        text = MANIFEST.format(name=name, label=name.lower().replace("_", ""), node=folder / name)
        (folder / "devices" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return {devices.VARIABLE: str(folder), "PATH": os.defpath}


def test_they_are_the_manifests_of_the_build() -> None:
    assert devices.known() == dict(find_project(ROOT).manifests.devices)
    assert devices.named("METAX").visible == "CUDA_VISIBLE_DEVICES"
    assert "torch" in devices.named("metax").image_packages
    with pytest.raises(SettingsError, match="MUSA_S5000") as caught:
        devices.named("MUSA_S500")
    assert caught.value.slug == "unknown-device"


def test_a_machine_without_chips_is_a_cpu(tmp_path: Path) -> None:
    env = site(tmp_path, "Acme_X1")
    found = {name: one for name, one in devices.known(env).items() if name in ("cpu", "Acme_X1")}
    device, seen = devices.here(found, env)
    assert (device.name, seen) == ("cpu", "")
    (tmp_path / "Acme_X1").touch()
    device, seen = devices.here(found, env)
    assert (device.name, seen) == ("Acme_X1", str(tmp_path / "Acme_X1"))


def test_chips_of_two_kinds_are_the_users_choice(tmp_path: Path) -> None:
    env = site(tmp_path, "Acme_X1", "Acme_X2")
    found = {name: one for name, one in devices.known(env).items() if name.startswith("Acme")}
    for name in found:
        (tmp_path / name).touch()
    with pytest.raises(LaunchError, match="--device Acme_X2") as caught:
        devices.here(found, env)
    assert caught.value.slug == "several-devices"


def test_what_is_wrong_with_a_sites_folder_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="not there"):
        devices.known({devices.VARIABLE: str(tmp_path / "none")})
    env = site(tmp_path, "Acme_X1")
    (tmp_path / "devices" / "nvidia.yaml").write_text("device: nvidia\nwhat: x\n")
    (tmp_path / "devices" / "Acme_X2.yaml").write_text("device: Acme_X2\n")
    with pytest.raises(UniscaleError) as caught:
        devices.known(env)
    told = str(caught.value)
    assert '"what"' in told and "Acme_X2.yaml" in told and '"title"' in told


def test_an_installed_wheel_carries_them(tmp_path: Path) -> None:
    from uniscale_build.build.pipeline import Context
    from uniscale_build.store import Store
    from uniscale_build.wheels.bundle import build_wheel

    context = Context(find_project(ROOT), Store(tmp_path / "cache"))
    plan = make_plan(context.project, Settings())
    wheel = build_wheel(context, plan, tmp_path).path
    site_packages = tmp_path / "site"
    subprocess.run([sys.executable, "-m", "zipfile", "-e", wheel, site_packages], check=True)
    code = (
        "from uniscale.devices.devices import folders, named\n"
        "print(*folders(), named('ascend').name)"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("UNISCALE_", "PYTHON"))}
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env | {"PYTHONPATH": str(site_packages)}, cwd=tmp_path,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = site_packages / "uniscale_build" / "data" / "manifests"
    assert ran.stdout.split() == [str(folder), "Huawei_Atlas800TA3"]
