"""The whole way from settings to an installed wheel, with a small real upstream."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from .native import Native, make_native, set_layer

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")


@pytest.fixture
def native(tmp_path: Path) -> Native:
    return make_native(tmp_path)


def wheel(native: Native, *args: str, **kwargs: object) -> dict[str, object]:
    ran = native.run("wheel", "-b", "mini", "--json", *args, **kwargs)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, object] = json.loads(ran.stdout)
    return found


# Folders and umasks that must not matter.
PLACES = (("one", 0o022), ("a longer place 中文", 0o077))


def snapshot(root: Path) -> dict[str, str]:
    """Every file below ``root`` with its hash, bytecode caches left out."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def run_server(made: Path, tmp_path: Path) -> str:
    prefix = tmp_path / "unpacked"
    shutil.rmtree(prefix, ignore_errors=True)
    with zipfile.ZipFile(made) as bundle:
        bundle.extractall(prefix)
    program = prefix / "uniscale_payloads" / "mini-cpu" / "bin" / "mini-server"
    program.chmod(0o755)
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout


def test_the_wheel_holds_the_patched_engine_and_says_what_it_is(
    native: Native, tmp_path: Path
) -> None:
    before = snapshot(native.root), snapshot(native.upstream)
    made = wheel(native)
    path = native.root / str(made["wheel"])
    assert hashlib.sha256(path.read_bytes()).hexdigest() == made["sha256"]
    said = run_server(path, tmp_path)
    # The layer's word, and no path of this machine.
    assert said.startswith("please, hello from mini/greet.c")
    names = zipfile.ZipFile(path).namelist()
    assert "uniscale_payloads/mini-cpu/lib/libgreet.so.1" in names
    assert not [name for name in names if "unused" in name or name.endswith("libgreet.so")]
    info = json.loads(zipfile.ZipFile(path).read("uniscale_payloads/mini-cpu/payload.json"))
    assert info["backend"] == "mini" and info["layers"][0]["name"] == "polite"
    assert [name for name in names if name.endswith(".dist-info/sboms/uniscale.cdx.json")]
    assert [name for name in names if name.endswith(".dist-info/provenance.intoto.json")]
    shutil.rmtree(native.root / "dist")
    assert (snapshot(native.root), snapshot(native.upstream)) == before


def test_a_vendors_library_is_found_in_the_package_that_brings_it(
    native: Native, tmp_path: Path
) -> None:
    chip = tmp_path / "sdk" / "libchip.so.1"
    chip.parent.mkdir()
    (tmp_path / "chip.c").write_text("int chip(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", "-Wl,-soname,libchip.so.1", "-o", chip,
                    tmp_path / "chip.c"], check=True)  # fmt: skip
    with (native.root / "manifests/adaptations/cpu/mini.yaml").open("a") as adaptation:
        adaptation.write(
            f"""\
requirements: [vendor-runtime>=1]
recipe:
  allowed_external: [libchip.so.1]
  defines:
    CMAKE_C_STANDARD_LIBRARIES: -Wl,--no-as-needed {chip}
    UNISCALE_RPATH: $ORIGIN/../../../vendor/lib
"""
        )
    made = native.root / str(wheel(native)["wheel"])
    about = next(name for name in zipfile.ZipFile(made).namelist() if name.endswith("METADATA"))
    assert b"Requires-Dist: vendor-runtime>=1" in zipfile.ZipFile(made).read(about)
    with pytest.raises(subprocess.CalledProcessError) as refused:
        run_server(made, tmp_path)
    assert "libchip.so.1: cannot open shared object" in refused.value.stderr
    # Beside the payloads, as in the site-packages of whoever installs both.
    shutil.copytree(chip.parent, tmp_path / "vendor" / "lib")
    program = tmp_path / "unpacked" / "uniscale_payloads" / "mini-cpu" / "bin" / "mini-server"
    (tmp_path / "vendor").rename(tmp_path / "unpacked" / "vendor")
    said = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    assert said.startswith("please, hello")


def test_again_is_a_no_op_and_a_changed_layer_is_not(native: Native, tmp_path: Path) -> None:
    first = wheel(native)
    again = wheel(native)
    assert again["reused"] and again["sha256"] == first["sha256"]
    set_layer(native, "thank you and hello")
    explained = native.run("explain", "-b", "mini")
    assert "layers: polite@" in explained.stdout
    changed = wheel(native)
    assert not changed["reused"] and changed["sha256"] != first["sha256"]
    assert run_server(native.root / str(changed["wheel"]), tmp_path).startswith("thank you")
    # Only what the layer touched was compiled again.
    log = (native.cache / "work" / "mini-cpu" / "build.log").read_text(encoding="utf-8")
    assert "greet.c.o" in log and "main.c.o" not in log


def test_two_builds_in_different_places_give_the_same_bytes(tmp_path: Path) -> None:
    for jobs, (name, umask) in enumerate(PLACES, 1):
        old = os.umask(umask)
        try:
            (tmp_path / name).mkdir(mode=0o755)
            native = make_native(tmp_path / name)
            wheel(native, "-C", f"jobs={jobs}")
        finally:
            os.umask(old)
    # The manifests (one names the upstream's folder) travel in the wheel: the payloads must agree.
    payloads = [
        sorted(
            (n, hashlib.sha256(z.read(n)).hexdigest())
            for n in z.namelist()
            if n.startswith("uniscale_payloads/mini-cpu/") and "payload.json" not in n
            and not n.endswith("RECORD")
        )
        for name, _ in PLACES
        for z in [zipfile.ZipFile(next((tmp_path / name / "project" / "dist").glob("*.whl")))]
    ]  # fmt: skip
    assert payloads[0] == payloads[1]


def test_a_build_killed_at_any_moment_goes_on(native: Native) -> None:
    command = [sys.executable, "-m", "uniscale_build", "wheel", "-b", "mini"]
    for delay in (0.15, 0.3, 0.45, 0.6, 0.8, 1.0, 1.3, 1.7):
        process = subprocess.Popen(
            command, cwd=native.root, env=native.env,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
    made = wheel(native)
    clean = make_native(native.root.parent / "clean")
    assert wheel(clean)["size"] and made["size"]
    assert not list((native.root / "dist").glob(".uniscale-*"))


# Ctrl-C; what `timeout`, a service or a pipeline sends; a terminal that is closed.
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_build_that_is_told_to_end_stops_the_compiler_too(
    native: Native, told: signal.Signals
) -> None:
    (native.upstream / "main.c").write_text("int main(void) { return 0; }\n", encoding="utf-8")
    slow = native.root.parent / "slow"
    slow.mkdir()
    compiler = slow / "cc"
    compiler.write_text(
        '#!/bin/sh\ncase "$*" in *greet.c*) sleep 60;; esac\nexec /usr/bin/cc "$@"\n'
    )
    compiler.chmod(0o755)
    native = make_native(native.root.parent / "again")
    env = {**native.env, "CC": str(compiler)}
    process = subprocess.Popen(
        [sys.executable, "-m", "uniscale_build", "wheel", "-b", "mini"],
        cwd=native.root, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    log = native.cache / "work" / "mini-cpu" / "build.log"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if log.exists() and "uniscale-step: build" in log.read_text(encoding="utf-8"):
            break
        time.sleep(0.1)
    time.sleep(0.5)
    process.send_signal(told)
    assert process.wait(30) == 130
    assert process.stderr is not None
    with process.stderr as stream:
        said = stream.read()
    assert "interrupted; run the same command again" in said and "Traceback" not in said
    left = subprocess.run(["pgrep", "-f", str(slow)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
    assert wheel(native)["size"]


def test_what_is_given_no_longer_is_forgotten(native: Native, tmp_path: Path) -> None:
    text = (native.upstream / "CMakeLists.txt").read_text(encoding="utf-8")
    text += "if(LOUD)\n  target_compile_definitions(greet PRIVATE greet=greet)\n"
    text += "  target_link_options(mini-server PRIVATE -Wl,-soname,loud)\nendif()\n"
    (native.upstream / "CMakeLists.txt").write_text(text, encoding="utf-8")
    changed = make_native_from(native)
    plain = wheel(changed)
    loud = wheel(changed, "-C", "cmake.define.LOUD=ON")
    assert loud["sha256"] != plain["sha256"]
    shutil.rmtree(changed.cache / "payloads")
    shutil.rmtree(changed.cache / "wheels")
    assert wheel(changed)["sha256"] == plain["sha256"]


def test_two_builds_at_once_wait_for_each_other(native: Native) -> None:
    command = [sys.executable, "-m", "uniscale_build", "wheel", "-b", "mini", "--json"]
    both = [
        subprocess.Popen(command, cwd=native.root, env=native.env, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    results = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], results
    made = [json.loads(out) for out, _ in results]
    assert made[0]["sha256"] == made[1]["sha256"]
    assert sorted(item["payloads"][0]["reused"] for item in made) == [False, True]


def test_a_compile_error_is_the_first_one_and_the_log(native: Native) -> None:
    (native.upstream / "greet.c").write_text("void greet(void) { oops }\n", encoding="utf-8")
    broken = make_native_from(native)
    ran = broken.run("wheel", "-b", "mini")
    assert ran.returncode == 7
    assert "error[compile]" in ran.stderr and "oops" in ran.stderr and "build.log" in ran.stderr
    assert len(ran.stderr.splitlines()) < 30


def make_native_from(native: Native) -> Native:
    """The same project after its upstream changed: pin and layer follow."""
    from uniscale_build.git.db import GitDb
    from uniscale_build.store import Store

    manifest = native.root / "manifests/backends/mini.yaml"
    text = manifest.read_text(encoding="utf-8")
    old = next(line for line in text.splitlines() if "tree: " in line)
    tree = GitDb(Store(native.cache)).open().import_folder(native.upstream)
    text = text.replace(old, f"    tree: {tree}").replace("    layers: [polite]\n", "")
    manifest.write_text(text, encoding="utf-8")
    return native


def test_no_compiler_is_a_sentence(native: Native, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("git", "ninja", "cmake"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    ran = native.run("wheel", "-b", "mini", env={**native.env, "PATH": str(tools)})
    assert ran.returncode == 6
    assert "no C compiler" in ran.stderr and "apt-get install gcc" in ran.stderr


def test_source_that_is_not_the_pinned_one_is_refused(native: Native) -> None:
    (native.upstream / "main.c").write_text("int main(void) { return 3; }\n", encoding="utf-8")
    ran = native.run("wheel", "-b", "mini")
    assert ran.returncode == 4
    assert "error[no-source]" in ran.stderr and "not the pinned one" in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a small file system")
def test_a_full_disk_is_a_sentence_and_nothing_is_lost(native: Native, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)],
                             capture_output=True, check=False)  # fmt: skip
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        ran = native.run("wheel", "-b", "mini", env={**native.env, "UNISCALE_CACHE": str(small)})
        assert ran.returncode in (7, 9), ran.stderr
        assert "Traceback" not in ran.stderr and "error[" in ran.stderr
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert wheel(native)["size"]


def test_a_cache_that_cannot_be_written_is_a_sentence(native: Native, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    ran = native.run("wheel", "-b", "mini", env={**native.env, "UNISCALE_CACHE": str(file)})
    assert ran.returncode == 9, ran.stderr
    assert "Traceback" not in ran.stderr and "UNISCALE_CACHE" in ran.stderr


def test_without_home_it_still_works(native: Native, tmp_path: Path) -> None:
    env = {k: v for k, v in native.env.items() if k not in ("HOME", "UNISCALE_CACHE")}
    ran = native.run("plan", "-b", "mini", env=env)
    assert ran.returncode == 0, ran.stderr
