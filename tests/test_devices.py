from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from uniscale_build.build.toolchain import probe
from uniscale_build.errors import ToolchainError, UniscaleError
from uniscale_build.manifests.detection import detected, find_devices
from uniscale_build.manifests.devices import FACTS, Detect, Device, Probe, Root, Sdk
from uniscale_build.manifests.sdk import captured, find_sdk, missing_sdk, unfit_sdk
from uniscale_build.project import find_project

from .native import ROOT

ALL = find_project(ROOT).manifests.devices
ISSUE = (
    "cpu", "nvidia", "amd", "intel", "vulkan", "Cambricon_MLU", "Huawei_Atlas800TA3",
    "Hygon_BW1000", "Kunlunxin_R310p", "MUSA_S5000", "Metax_C550", "BI_V150", "Tsing_micro",
    "NVIDIA_CambriconMLU",
)  # fmt: skip


def test_all_promised_devices_are_there() -> None:
    assert set(ISSUE) <= set(ALL)


@pytest.mark.parametrize("name", ISSUE)
def test_every_fact_of_a_manifest_has_one_source_or_is_said_to_be_unknown(name: str) -> None:
    device = ALL[name]
    told = [field for fact in device.facts for field in fact.of]
    asked = [field for field in FACTS
             if field not in ("environment", "cmake") or getattr(device, field)]  # fmt: skip
    assert sorted(told) == sorted(asked)
    assert device.names and device.chips


@pytest.mark.parametrize("name", ISSUE)
def test_ggml_flags_name_the_switch(name: str) -> None:
    device = ALL[name]
    if device.llama_cpp is None:
        assert "ggml" not in device.cmake
    else:
        assert device.cmake["ggml"][device.llama_cpp] == "ON"


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("gpu", "nvidia"), ("CUDA", "nvidia"), ("musa", "MUSA_S5000"), ("metax", "Metax_C550"),
        ("metax_C500", "Metax_C550"), ("mlu", "Cambricon_MLU"), ("cambricon_MLU", "Cambricon_MLU"),
        ("ascend", "Huawei_Atlas800TA3"), ("dcu", "Hygon_BW1000"),
        ("kunlunxin_R300p", "Kunlunxin_R310p"), ("bi_V150", "BI_V150"), ("rocm", "amd"),
    ],
)  # fmt: skip
def test_aliases(word: str, name: str) -> None:
    assert find_project(ROOT).manifests.device(word).name == name


def test_a_word_that_two_vendors_use_is_nobodys_alias() -> None:
    with pytest.raises(UniscaleError) as caught:
        find_project(ROOT).manifests.device("xpu")
    assert caught.value.slug == "unknown-device"


def device(detect: Detect | None = None, sdk: Sdk | None = None) -> Device:
    return Device("Acme_X1", "A chip", "Acme", (), "acme", detect=detect or Detect(), sdk=sdk,
                  where="manifests/devices/Acme_X1.yaml", lines={"sdk": 7})  # fmt: skip


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_detection_wants_one_of_every_kind_and_no_look_alike(tmp_path: Path) -> None:
    smi = program(tmp_path / "bin" / "x-smi", "exit 0")
    env = {"PATH": str(smi.parent)}
    both = Detect(nodes=(f"{tmp_path}/x[0-9]*",), commands=("x-smi",))
    assert detected(device(both), env) is None
    (tmp_path / "x0").touch()
    assert detected(device(both), env) == str(tmp_path / "x0")
    assert detected(device(both), {"PATH": ""}) is None
    alike = Detect(nodes=both.nodes, absent=(f"{tmp_path}/mkx",))
    assert detected(device(alike), env)
    (tmp_path / "mkx").touch()
    assert detected(device(alike), env) is None
    assert detected(device(Detect(environment=("X_HOME",))), {"X_HOME": "/x"}) == "X_HOME"
    assert detected(device(), env) is None
    assert find_devices([device(both)], env) == {"Acme_X1": str(tmp_path / "x0")}


COMPILER = Probe("xcc", paths=("bin",), least="3.1", below="5")


def fault(sdk: Sdk, env: dict[str, str]) -> UniscaleError:
    with pytest.raises(ToolchainError) as caught:
        find_sdk(device(sdk=sdk), env)
    error = caught.value
    assert error.where == "manifests/devices/Acme_X1.yaml:7" and error.hint
    return error


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    """An SDK whose compiler says it is 4.2.0."""
    program(tmp_path / "kit" / "bin" / "xcc", "echo xcc version 4.2.0")
    return tmp_path / "kit"


def sdk(kit: Path, **more: object) -> Sdk:
    roots = (Root("X_HOME", str(kit), ("bin/xcc",)), Root("X_PATH", "{X_HOME}"))
    words = {"name": "X kit", "roots": roots, "compiler": COMPILER, "vendor": "Acme's X kit",
             "tag": "x{0}{1}", **more}  # fmt: skip
    return Sdk(**words)  # type: ignore[arg-type]


def test_an_sdk_that_is_found_names_itself_and_its_variables(kit: Path) -> None:
    found = find_sdk(device(sdk=sdk(kit)), {"PATH": os.defpath})
    assert (found.version, found.label) == ("4.2.0", "x42")
    assert found.environment["X_HOME"] == found.environment["X_PATH"] == str(kit)
    assert found.environment["PATH"].startswith(str(kit / "bin"))
    assert str(kit) not in str(found.fingerprint())


def test_either_of_two_variables_for_one_folder_is_enough(kit: Path, tmp_path: Path) -> None:
    wanted = sdk(tmp_path / "nowhere")
    for name in ("X_HOME", "X_PATH"):
        found = find_sdk(device(sdk=wanted), {"PATH": "", name: str(kit)})
        assert found.environment["X_HOME"] == found.environment["X_PATH"] == str(kit)


def test_every_trouble_with_an_sdk_is_one_error_with_a_hint(kit: Path, tmp_path: Path) -> None:
    env = {"PATH": os.defpath}
    (tmp_path / "empty").mkdir()
    assert fault(sdk(tmp_path / "none"), env).slug == "no-sdk"
    assert fault(sdk(kit), {**env, "X_HOME": str(tmp_path / "none")}).slug == "no-sdk"
    empty = fault(sdk(kit), {**env, "X_HOME": str(tmp_path / "empty")})
    assert empty.slug == "empty-sdk" and "X_HOME=" in empty.what
    (tmp_path / "half" / "bin").mkdir(parents=True)
    assert fault(sdk(kit), {**env, "X_HOME": str(tmp_path / "half")}).slug == "partial-sdk"
    program(kit / "bin" / "xcc", "echo xcc version 3.0.9")
    assert fault(sdk(kit), env).slug == "old-compiler"
    program(kit / "bin" / "xcc", "echo xcc version 5.0")
    assert fault(sdk(kit), env).slug == "new-compiler"
    program(kit / "bin" / "xcc", "echo cannot find libx.so >&2; exit 127")
    broken = fault(sdk(kit), env)
    assert broken.slug == "bad-compiler" and "libx.so" in broken.what
    assert fault(sdk(kit, script="env.sh"), env).slug == "partial-sdk"
    (kit / "bin" / "xcc").unlink()
    (kit / "bin" / "xcc").mkdir()
    assert fault(sdk(kit), env).slug == "no-compiler"


def test_an_sdk_that_is_there_but_too_old_is_no_sdk_to_build_with(kit: Path) -> None:
    env = {"PATH": os.defpath}
    assert unfit_sdk(device(sdk=sdk(kit)), env) == []
    program(kit / "bin" / "xcc", "echo xcc version 3.0.9")
    assert missing_sdk(device(sdk=sdk(kit)), env) == []
    (error,) = unfit_sdk(device(sdk=sdk(kit)), env)
    assert error.slug == "old-compiler" and "3.1 is needed" in error.what
    # Without bounds nothing is run.
    program(kit / "bin" / "xcc", "echo ran > $(dirname $0)/ran")
    assert unfit_sdk(device(sdk=sdk(kit, compiler=Probe("xcc", paths=("bin",)))), env) == []
    assert not (kit / "bin" / "ran").exists()


def test_a_script_is_taken_over_as_a_difference(tmp_path: Path) -> None:
    script = tmp_path / "set env.sh"
    script.write_text(
        "export NEW='two\nlines' PATH=/x/bin:$PATH\nunset GONE\nlocal_only=1\necho hello\n",
        encoding="utf-8",
    )
    env = {"PATH": os.defpath, "SAME": "1", "GONE": "1"}
    found = captured(script, env)
    assert found == {"NEW": "two\nlines", "PATH": f"/x/bin:{os.defpath}", "GONE": ""}


@pytest.mark.parametrize("text", ["return 3", "exit 3", "source /nonexistent/file"])
def test_a_script_that_fails_is_told(tmp_path: Path, text: str) -> None:
    script = tmp_path / "env.sh"
    script.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ToolchainError) as caught:
        captured(script, {"PATH": os.defpath})
    assert caught.value.slug == "sdk-script" and caught.value.where == str(script)


def test_a_compiler_that_the_distribution_has_put_on_path(kit: Path, tmp_path: Path) -> None:
    wanted = sdk(tmp_path / "none", debian=("x-kit",))
    found = find_sdk(device(sdk=wanted), {"PATH": str(kit / "bin")})
    assert found.environment["X_HOME"] == str(kit)
    missing = missing_sdk(device(sdk=wanted), {"PATH": ""})
    assert missing and "apt-get install x-kit" in (missing[0].hint or "")


def test_a_build_for_the_device_uses_its_sdk(kit: Path) -> None:
    env = {"PATH": os.environ["PATH"]}
    made = probe((), env, device=device(sdk=sdk(kit)))
    assert made.environment["X_HOME"] == str(kit)
    assert made.fingerprint()["sdk"] == "X kit 4.2.0"
    assert "sdk" not in probe((), env).fingerprint()


needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc", path=f"{os.environ['PATH']}:/usr/local/cuda/bin") is None,
    reason="nvcc is not installed",
)


@needs_nvcc
def test_nvcc_proves_itself_and_a_host_compiler_that_it_rejects_is_told(tmp_path: Path) -> None:
    found = find_sdk(ALL["nvidia"])
    assert found.label == f"cu{''.join(found.version.split('.')[:2])}"
    host = program(tmp_path / "g++-99", 'exec g++ -U__GNUC__ -D__GNUC__=99 "$@"')
    with pytest.raises(ToolchainError) as caught:
        find_sdk(ALL["nvidia"], {**os.environ, "CUDAHOSTCXX": str(host)})
    assert caught.value.slug == "host-compiler"
    assert "unsupported GNU version" in caught.value.what
    assert "CUDAHOSTCXX" in (caught.value.hint or "")
