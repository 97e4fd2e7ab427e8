"""`uniscale install`: real environments, real pip and uv, and indexes that are not as they say."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from uniscale_build.recordfile import file_sha256

from tests import wheels

from .helpers import Result, lay_gguf, recorded, until
from .indexes import PYTHON, Place

DEVICE = """\
device: Acme_X1
title: Acme's chip
vendor: Acme
label: acme
image_packages: [packaging, acme_torch]
sdk:
  name: AcmeKit
  roots:
    - variable: ACME_HOME
      default: {kit}
  compiler:
    program: acc
    paths: [bin]
"""


def test_the_best_wheel_is_chosen_told_and_installed(place: Place) -> None:
    place.index.add_plain()
    best = place.index.add(requires=["uniscale>=0.1"])
    place.index.add(version="0.9")
    place.index.add(version="1.1", tag=f"{PYTHON}-{PYTHON}-manylinux_2_99_x86_64")
    dry = place.install("llama_cpp", "--dry-run").out
    assert best["file"] in dry and best["sha256"] in dry and "nothing was installed" in dry
    assert "0.9 is older than 1.0" in dry and "needs glibc 2.99" in dry
    assert not [name for name in place.packages() if "uniscale" in name]
    done = place.install("llama.cpp")
    assert "installed: llama.cpp (cpu)" in done.out
    listed = json.loads(place.run("list", "--json").ok().out)["payloads"]
    assert [(one["backend"], one["version"]) for one in listed] == [("llama.cpp", "1.0")]
    assert any(name.startswith("uniscale-0.1.0") for name in place.packages())
    again = json.loads(place.install("llama.cpp", "--json").out)
    assert again["already"] and again["wheel"]["file"] == best["file"]
    newer = place.index.add(version="1.0.post1")
    assert newer["file"] in place.install("llama.cpp").out
    assert place.run("list").ok().out.count("llama.cpp") == 1


def test_the_same_version_with_other_bytes_is_installed_again(place: Place) -> None:
    place.index.add(requires_python=">=3.9")
    place.install("llama.cpp")
    place.index.clear()
    place.index.add(requires_python=">=3.10")
    assert "in place of 1.0+cpu" in place.install("llama.cpp").out
    assert "installed already" in place.install("llama.cpp").out


def test_an_environment_of_its_own(place: Place) -> None:
    place.index.add(requires=["uniscale>=0.1"])
    place.install("llama.cpp", "--isolated")
    (made,) = place.environments()
    assert not [name for name in place.packages() if "uniscale" in name]
    model = lay_gguf(place.root / "small.gguf")
    record = place.root / "given.json"
    asked = place.run("infer", model, "hello", "--", "--record", record).ok()
    assert "hello" in asked.out
    assert recorded(record)["python"] == str(made / "bin" / "python")
    assert json.loads(place.install("llama.cpp", "--isolated", "--json").out)["already"]
    # A newer one takes its place; what a killed run has left goes with it.
    (made.parent / "left-over").mkdir()
    place.index.add(version="1.1", requires=["uniscale>=0.1"])
    place.install("llama.cpp", "--isolated")
    (newer,) = place.environments()
    assert newer != made and "1.1" in place.run("list").ok().out


def in_the_background(place: Place) -> subprocess.Popen[bytes]:
    words = place.words("install", "llama.cpp", "--isolated", "--index", str(place.index.root))
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(words, env=place.environ, **quiet)  # type: ignore[call-overload, no-any-return]


def test_killed_while_an_environment_is_made(place: Place) -> None:
    place.index.add(requires=["uniscale>=0.1"])
    folder = place.root / "data" / "environments"
    for depth in ("*", "*/pyvenv.cfg", "*/lib/python*/site-packages/uniscale_payloads"):
        running = in_the_background(place)
        until(functools.partial(lambda depth: list(folder.glob(depth)), depth), f"{depth} is made")
        running.kill()
        running.wait()
        if not list(folder.glob("*/environment.json")):
            assert "no payload" in place.run("list").ok().out
    place.install("llama.cpp", "--isolated")
    assert len(place.environments()) == 1 and "1.0" in place.run("list").ok().out


def test_two_at_once(place: Place) -> None:
    place.index.add()
    both = [in_the_background(place) for _ in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
    assert len(place.environments()) == 1 and "1.0" in place.run("list").ok().out


def test_an_environment_that_cannot_be_finished_leaves_nothing(place: Place) -> None:
    place.index.add(requires=["no-such-package-anywhere>=1"])
    told = place.fails("install-failed", "llama.cpp", "--isolated")
    assert "no-such-package-anywhere" in told


def test_what_is_refused_is_told_and_changes_nothing(place: Place) -> None:
    place.index.add(requires=["no-such-package-anywhere>=1"])
    told = place.fails("install-failed", "llama.cpp")
    assert "no-such-package-anywhere" in told and "nothing was changed" in told


def test_tampered_wheels(place: Place, tmp_path: Path) -> None:
    entry = place.index.add()
    path = place.index.packages / entry["file"]

    def spoil(files: dict[str, bytes]) -> None:
        files["uniscale_payloads/uniscale-llama-cpp-cpu/engine_module.py"] += b"\nevil = 1\n"

    wheels.rewrite(path, tmp_path / entry["file"], spoil)
    shutil.copy(tmp_path / entry["file"], path)
    assert "SHA-256 is another" in place.fails("wrong-hash", "llama.cpp", code=12)
    # Whoever writes the catalog too is caught by the wheel's own RECORD.
    place.index.tamper([{**entry, "sha256": file_sha256(path)}])
    assert "is not what RECORD says" in place.fails("record", "llama.cpp", code=8)


def test_tampered_metadata(place: Place) -> None:
    entry = place.index.add(requires=["uniscale>=0.1"])
    for change in (
        {"requires_dist": ["evil"]}, {"requires_python": None},
        {"payloads": [{**entry["payloads"][0], "tree": "2" * 40}]},
    ):  # fmt: skip
        place.index.tamper([{**entry, **change}])
        place.fails("wrong-catalog", "llama.cpp", "--isolated", code=12)


def test_a_half_written_index(place: Place) -> None:
    entry = place.index.add()
    path = place.index.packages / entry["file"]
    path.write_bytes(path.read_bytes()[:-100])
    place.fails("wrong-hash", "llama.cpp", code=12)
    path.unlink()
    assert "half written" in place.fails("no-file", "llama.cpp", code=12)
    (place.index.root / "catalog.json").write_text('{"schema": 1, "wheels": [')
    place.fails("bad-catalog", "llama.cpp", code=12)
    (place.index.root / "catalog.json").unlink()
    place.fails("no-catalog", "llama.cpp", code=12)


def test_the_launchers_come_from_the_same_index(place: Place) -> None:
    place.index.add(requires=["uniscale>=0.2"])
    assert "uniscale>=0.2" in place.fails("no-launcher", "llama.cpp")
    place.index.add("vllm", name="uniscale", version="0.1.0", label="vllm.cpu", upstream="1.0")
    place.install("vllm")
    place.index.add_plain("0.2.0")
    told = place.fails("payload-there", "llama.cpp")
    assert "replacing uniscale 0.1.0+vllm.cpu would take vllm (cpu) with it" in told


def test_a_device_that_only_the_index_knows(place: Place) -> None:
    place.index.add(device="Acme_X9", info={"device_environment": {"aliases": ["x9"]}})
    told = place.install("llama.cpp", "-d", "X9").out
    assert "llama.cpp 1.0 for Acme_X9" in told and "no Acme_X9 was found" in told
    assert "did you mean" in place.install("llama.cpp", "-d", "acmx9", code=2).err


def test_nothing_that_fits(place: Place) -> None:
    place.index.add(tag="cp39-cp39-manylinux_2_17_x86_64")
    place.index.add(tag=f"{PYTHON}-{PYTHON}-manylinux_2_99_x86_64")
    told = place.fails("no-wheel", "llama.cpp", code=12)
    assert "for cp39, this is Python" in told and "needs glibc 2.99" in told


def test_without_pip_and_uv(bare: Place) -> None:
    bare.index.add()
    assert "ensurepip" in bare.fails("no-installer", "llama.cpp")


def test_an_environment_that_cannot_be_written(place: Place) -> None:
    place.index.add()
    packages = next(place.python.parent.parent.glob("lib/python*/site-packages"))
    packages.chmod(0o555)
    words = place.words("install", "llama.cpp", "--index", place.index.root)
    if os.geteuid() == 0:
        # Root may write anywhere unless that capability is taken away.
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("needs setpriv to be kept from writing as root")
        words = [setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override", *words]
    ran = subprocess.run(words, env=place.environ, capture_output=True, text=True, check=False)
    packages.chmod(0o755)
    told = Result(ran.returncode, ran.stdout, ran.stderr).refused("read-only")
    assert str(packages) in told and "--isolated" in told


@pytest.fixture
def system(place: Place, tmp_path: Path) -> Place:
    """A place whose Python is no environment but the system's own (PEP 668)."""
    base = tmp_path / "usr"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = base / "lib" / version
    (library / "site-packages").mkdir(parents=True)
    for path in Path(sysconfig.get_path("stdlib")).iterdir():
        if path.name not in ("site-packages", "dist-packages", "EXTERNALLY-MANAGED"):
            (library / path.name).symlink_to(path)
    (library / "EXTERNALLY-MANAGED").write_text(
        "[externally-managed]\nError=Ask the administrator of this machine.\n"
    )
    (base / "bin").mkdir()
    # A copy: Python looks for its library beside the file that it is.
    shutil.copy2(os.path.realpath(sys.executable), base / "bin" / version)
    place.python = base / "bin" / version
    told = subprocess.run(
        [place.python, "-c", "import sys; print(sys.prefix == sys.base_prefix, sys.prefix)"],
        capture_output=True, text=True, check=True, env=place.environ,
    )  # fmt: skip
    assert told.stdout.split() == ["True", str(base)]
    return place


def test_a_python_of_the_system(system: Place) -> None:
    system.index.add()
    told = system.fails("externally-managed", "llama.cpp")
    assert "PEP 668" in told and "--isolated" in told and "EXTERNALLY-MANAGED" in told
    assert not (system.root / ".local").exists()
    # pip and uv say the same of it.
    wheel = next(system.index.packages.glob("*.whl"))
    for tool in (["pip", "--python", str(system.python), "install"],
                 ["uv", "pip", "install", "--python", str(system.python)]):  # fmt: skip
        ran = subprocess.run([sys.executable, "-m", *tool, "--no-deps", wheel], text=True,
                             capture_output=True, check=False, env=system.environ)  # fmt: skip
        assert ran.returncode != 0 and "Ask the administrator" in ran.stderr
    system.install("llama.cpp", "--isolated")
    assert len(system.environments()) == 1
    assert "llama.cpp" in system.run("list").out
    system.run("uninstall", "llama.cpp").ok()
    assert not system.environments()


def test_a_python_of_the_system_whose_owner_allows_it(system: Place) -> None:
    system.index.add()
    system.environ["PIP_BREAK_SYSTEM_PACKAGES"] = "0"
    system.fails("externally-managed", "llama.cpp")
    system.environ["PIP_BREAK_SYSTEM_PACKAGES"] = "1"  # and uv is the one that installs here
    system.install("llama.cpp")
    assert any("uniscale_llama_cpp" in name for name in system.packages())
    system.run("uninstall", "llama.cpp").ok()
    assert not any("uniscale_llama_cpp" in name for name in system.packages())


@pytest.fixture
def acme(place: Place, tmp_path: Path) -> Place:
    """A machine with an SDK 2.1 for a site's own device."""
    kit = tmp_path / "kit"
    (kit / "bin").mkdir(parents=True)
    (kit / "bin" / "acc").write_text("#!/bin/sh\necho acc version 2.1.0\n")
    (kit / "bin" / "acc").chmod(0o755)
    (tmp_path / "site" / "devices").mkdir(parents=True)
    manifest = tmp_path / "site" / "devices" / "Acme_X1.yaml"
    manifest.write_text(DEVICE.format(kit=kit), encoding="utf-8")
    place.environ["UNISCALE_MANIFESTS"] = str(tmp_path / "site")
    return place


def sdk(version: str) -> dict[str, str | None]:
    return {"name": "AcmeKit", "version": version, "label": None}


def test_an_sdk_that_is_too_old(acme: Place) -> None:
    acme.index.add(device="Acme_X1", sdk=sdk("3.0"))
    told = acme.fails("no-wheel", "llama.cpp", "-d", "acme-x1", code=12)
    assert "needs AcmeKit 3.0, this machine has 2.1.0" in told
    acme.index.add(device="Acme_X1", sdk=sdk("2.0"), label="acme.2.0")
    acme.index.add(device="Acme_X1", sdk=sdk("2.1"), label="acme.2.1")
    told = acme.install("llama.cpp", "-d", "acme-x1", "--dry-run").out
    assert "built with AcmeKit 2.1; here: 2.1.0" in told
    assert "AcmeKit 2.1 is nearer than 2.0" in told
    assert "note: no Acme's chip was found in this machine" in told


def test_packages_of_the_image_are_kept(acme: Place) -> None:
    from importlib.metadata import version

    packages = next(acme.python.parent.parent.glob("lib/python*/site-packages"))
    for entry in acme.site.glob("packaging*"):
        shutil.copytree(entry, packages / entry.name)
    acme.index.add(device="Acme_X1", requires=["packaging>=1"])
    told = acme.install("llama.cpp", "-d", "Acme_X1").out
    file = next((acme.root / "data" / "constraints").iterdir())
    lines = file.read_text().splitlines()
    assert lines[-2:] == [f"packaging=={version('packaging')}", "acme-torch<0"]
    assert str(file) in told and lines[-2] in told
    acme.index.clear()
    acme.index.add(device="Acme_X1", version="2", requires=["packaging<2"])
    told = acme.fails("image-package", "llama.cpp", "-d", "Acme_X1")
    assert "which is never replaced" in told
    acme.index.clear()
    acme.index.add(device="Acme_X1", version="3", requires=["acme-torch"])
    assert "not in this environment" in acme.fails("image-package", "llama.cpp", "-d", "Acme_X1")


def lay_torch(folder: Path, version: str, *requires: str, name: str = "torch") -> None:
    """A distribution of that name and version, as an installer would have left it."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {one}" for one in requires]
    (info / "METADATA").write_text("\n".join(lines) + "\n")
    (info / "RECORD").write_text(f"{info.name}/METADATA,,\n{info.name}/RECORD,,\n")
    (info / "INSTALLER").write_text("pip\n")


def torch_notes(place: Place, *words: str) -> tuple[str | None, list[str]]:
    told = json.loads(place.install("llama.cpp", *words, "--dry-run", "--json").out)
    return told["constraints"], [one for one in told["remarks"] if "CUDA" in one]


def test_a_torch_whose_build_the_index_decides_is_told(place: Place) -> None:
    place.index.add(requires=["torch>=99", 'torch<1; sys_platform == "win32"'])
    for words in ((), ("--isolated",)):
        constraints, (note,) = torch_notes(place, *words)
        assert note.startswith("torch>=99 comes from") and "UV_TORCH_BACKEND=cpu" in note
        assert constraints is None and ("install torch" in note) == (not words)
    assert "note: torch>=99 comes from" in place.install("llama.cpp", "--dry-run").out
    place.index.add(version="1.1", requires=["torch==99+cpu"])
    assert torch_notes(place) == (None, [])


def test_a_torch_for_processors_stays(place: Place) -> None:
    packages = next(place.python.parent.parent.glob("lib/python*/site-packages"))
    lay_torch(packages, "98.0+cpu")
    # Seen before the torch of the environment that these tests run in.
    place.environ["PYTHONPATH"] = f"{packages}{os.pathsep}{place.environ['PYTHONPATH']}"
    place.index.add(requires=["torch>=97"])
    constraints, notes = torch_notes(place)
    assert constraints is not None and notes == []
    assert "torch==98.0+cpu" in place.install("llama.cpp").out.split()
    assert "torch==98.0+cpu\n" in Path(constraints).read_text()
    # What requires a newer one is told of; an environment of its own does not see this one.
    place.index.add(version="1.1", requires=["torch>=99"])
    constraints, notes = torch_notes(place)
    assert constraints is None and len(notes) == 1
    place.index.add(version="1.2", requires=["torch>=97"])
    assert len(torch_notes(place, "--isolated")[1]) == 1
    # Nor is it replaced for the sake of what the wheel requires.
    lay_torch(packages, "1.0", "torch>=99", name="asks_for_more")
    place.index.add(version="1.3", requires=["torch>=97", "asks_for_more"])
    told = place.fails("install-failed", "llama.cpp", "--offline")
    assert "98.0+cpu" in told and "nothing was changed" in told


def test_payloads_of_two_distributions_are_never_mixed(place: Place) -> None:
    place.index.add(name="uniscale", version="0.1.0", label="llamacpp.cpu")
    place.install("llama.cpp")
    place.index.add(version="0.1.1")
    told = place.fails("payload-there", "llama.cpp")
    assert "from uniscale 0.1.0+llamacpp.cpu" in told and "--isolated" in told
    place.index.clear()
    place.index.add("vllm", name="uniscale", version="0.1.0", label="vllm.cpu")
    assert "holds llama.cpp (cpu) too" in place.fails("payload-there", "vllm")
