"""One wheel for each backend: the bundle's payload, alone or beside the bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from email.parser import HeaderParser
from pathlib import Path

import pytest
from uniscale_build.build.pipeline import Context
from uniscale_build.manifests.load import load_manifests
from uniscale_build.plans.plan import BackendPlan, make_plan
from uniscale_build.project import Project
from uniscale_build.settings import Settings
from uniscale_build.store import Store
from uniscale_build.wheels.split import build_split, split_name, split_version
from uniscale_build.wheels.wheelread import read_wheel

from .native import ROOT, Native, make_native

compiles = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
SPLIT = "uniscale_mini-1.2.3+cpu"
FOLDER = "uniscale_payloads/uniscale-mini-cpu"
INSTALL = ("install", "--no-deps", "--no-index", "--no-compile")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("native"))


@pytest.fixture(scope="module")
def wheels(native: Native) -> dict[str, Path]:
    """The bundle and the two split wheels, by the beginning of their names."""
    for options in ((), ("--split",)):
        ran = native.run("wheel", "-b", "mini", "--json", *options)
        assert ran.returncode == 0, ran.stderr
        told = json.loads(ran.stdout)
    assert [Path(one["wheel"]).name.split("-")[0] for one in told["wheels"]] == [
        "uniscale", "uniscale_mini"
    ]  # fmt: skip
    return {"-".join(path.name.split("-")[:2]): path for path in (native.root / "dist").iterdir()}


@compiles
def test_the_payload_is_the_bundles_and_the_rest_is_the_plain_wheel(
    wheels: dict[str, Path],
) -> None:
    assert set(wheels) == {"uniscale-0.1.0", "uniscale-0.1.0+mini.cpu", SPLIT}
    split, bundle = read_wheel(wheels[SPLIT]), read_wheel(wheels["uniscale-0.1.0+mini.cpu"])
    assert split.tags == bundle.tags and not split.tags[0].endswith("-any")
    assert read_wheel(wheels["uniscale-0.1.0"]).tags == ("py3-none-any",)

    def below(wheel: Path, folder: str) -> dict[str, bytes]:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if name.startswith(folder)]
            return {name.removeprefix(folder): archive.read(name) for name in names}

    ours = below(wheels[SPLIT], f"{FOLDER}/")
    theirs = below(wheels["uniscale-0.1.0+mini.cpu"], "uniscale_payloads/mini-cpu/")
    assert ours == theirs and "payload.json" in ours and "bin/mini-server" in ours
    rest = {row.name.split("/")[0] for row in split.rows}
    assert rest == {"uniscale_payloads", f"{SPLIT}.dist-info"}
    assert f"{FOLDER}.txt" in {row.name for row in split.rows}


@compiles
def test_it_says_what_it_is(wheels: dict[str, Path]) -> None:
    split = read_wheel(wheels[SPLIT])
    about = HeaderParser().parsestr(split.text("METADATA"))
    assert about["Summary"] == "A small native engine for Any processor, built by uniscale"
    assert about["License-Expression"] == "MIT"
    assert about["Requires-Python"] == ">=3.10"
    assert about.get_all("Requires-Dist") == ["uniscale>=0.1.0"]
    sbom = json.loads(split.text("sboms/uniscale.cdx.json"))
    assert sbom["metadata"]["component"]["name"] == "uniscale-mini"
    assert sbom["components"][0]["pedigree"]["patches"][0]["resolves"][0]["description"]
    statement = json.loads(split.text("provenance.intoto.json"))
    assert {one["name"] for one in statement["subject"]} == {
        f"{FOLDER}/uniscale_mini-1.2.3.dist-info/RECORD"
    }
    assert statement["predicate"]["buildDefinition"]["externalParameters"]["version"] == "1.2.3+cpu"
    info = json.loads(split.documents[f"{FOLDER}/payload.json"])
    assert info["device_environment"]["title"] == "Any processor"
    assert info["layers"][0]["why"] == "Manners." and info["upstream"]["license"] == "MIT"
    assert info["sdk"] is None


@compiles
def test_again_gives_the_same_bytes(
    wheels: dict[str, Path], native: Native, tmp_path: Path
) -> None:
    before = wheels[SPLIT].read_bytes()
    shutil.rmtree(native.cache / "wheels")
    ran = native.run("wheel", "-b", "mini", "--split", "-o", str(tmp_path))
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / wheels[SPLIT].name).read_bytes() == before
    assert "next: uniscale-build index" in ran.stdout


@compiles
def test_beside_a_bundle_either_goes_and_the_other_stays_whole(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    """pip cannot refuse the pair; nothing of it is shared, and the one that is hidden is told."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"

    def pip(*words: str | Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, *words, "-q",
             "--disable-pip-version-check"], check=True, capture_output=True,
        )  # fmt: skip

    def found() -> list[str]:
        text = (
            "from uniscale.wheels.payloads import find\n"
            "import subprocess\n"
            "told = find()\n"
            "for one in (*told.payloads, *(item.payload for item in told.hidden)):\n"
            "    subprocess.run([one.prefix / 'bin' / 'mini-server'], check=True)\n"
            "    print(one.prefix.name)\n"
            "assert not told.broken\n"
        )
        ran = subprocess.run([python, "-c", text], capture_output=True, text=True, check=True)
        return [line for line in ran.stdout.splitlines() if "hello" not in line]

    bundle = wheels["uniscale-0.1.0+mini.cpu"]
    both = ["mini-cpu", "uniscale-mini-cpu"]
    pip(*INSTALL, bundle, wheels[SPLIT])
    assert found() == both
    pip("uninstall", "-y", "uniscale-mini")
    assert found() == both[:1]
    pip(*INSTALL, wheels[SPLIT])
    pip("uninstall", "-y", "uniscale")
    pip(*INSTALL, wheels["uniscale-0.1.0"])
    assert found() == both[1:]
    pip("uninstall", "-y", "uniscale", "uniscale-mini")
    site = next((tmp_path / "env").glob("lib/python*/site-packages"))
    assert [path.name for path in site.iterdir() if "uniscale" in path.name] == []


def test_nothing_to_split_off_is_refused(native: Native) -> None:
    ran = native.run("wheel", "--split")
    assert ran.returncode == 2 and "error[no-backend]" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.fixture(scope="module")
def item() -> BackendPlan:
    project = Project(ROOT, True)
    plan = make_plan(project, Settings(backends=("llama.cpp",), device="cpu"))
    return plan.backends[0]


def test_names_are_the_backends(item: BackendPlan) -> None:
    assert split_name(item) == "uniscale-llama-cpp"
    backends = load_manifests((ROOT / "manifests",)).backends.values()
    names = [split_name(replace(item, backend=backend)) for backend in backends]
    assert len(set(names)) == len(names) and "uniscale-megatron-lm" in names


@pytest.mark.parametrize(
    ("version", "device", "sdk", "wanted"),
    [
        ("0.32.0", "cpu", "", "0.32.0+cpu"),
        ("0.32.0", "nvidia", "cu130", "0.32.0+cuda.cu130"),
        ("0.9.2.post1", "MUSA_S5000", "musa43", "0.9.2.post1+musa43"),
        ("0.9.2", "NVIDIA_CambriconMLU", "", "0.9.2+cuda.mlu"),
        ("0.5.0.dev20261001", "amd", "rocm72", "0.5.0.dev20261001+rocm72"),
        ("1.0+Vendor-2", "cpu", "", "1.0+vendor.2.cpu"),
    ],
)
def test_versions_are_upstreams_with_a_label(
    item: BackendPlan, version: str, device: str, sdk: str, wanted: str
) -> None:
    from packaging.version import Version

    chip = load_manifests((ROOT / "manifests",)).devices[device]
    plan = replace(item, device=chip, pin=replace(item.pin, version=version))
    assert split_version(plan, sdk) == wanted == str(Version(wanted))


def test_a_plan_without_backends_is_refused(tmp_path: Path) -> None:
    from uniscale_build.errors import SettingsError

    project = Project(ROOT, True)
    with pytest.raises(SettingsError, match="no backend"):
        build_split(Context(project, Store(tmp_path)), make_plan(project, Settings()), tmp_path)
