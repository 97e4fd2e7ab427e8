"""Wheel tags: computed from files and symbol versions, and what auditwheel says too."""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from uniscale_build.build import elf
from uniscale_build.build.elf import Elf
from uniscale_build.build.tags import declared_abi3, manylinux_step, version_step, wheel_tag
from uniscale_build.errors import Problems, WheelError
from uniscale_build.wheels.wheel import Member, write_wheel

from .elfs import build, library, needs_cc, needs_cxx

HERE = platform.machine()
RUNNING = f"cp{sys.version_info[0]}{sys.version_info[1]}"
HAS_AUDITWHEEL = importlib.util.find_spec("auditwheel") is not None
needs_auditwheel = pytest.mark.skipif(not HAS_AUDITWHEEL, reason="auditwheel is not installed")


def fake(
    name: str = "bin/tool",
    *,
    needed: Sequence[str] = ("libc.so.6",),
    machine: str = "x86_64",
    module: bool = False,
    isa: int = 1,
    **versions: tuple[str, ...],
) -> Elf:
    """Facts of an ELF file; ``libc=("GLIBC_2.34",)`` are versions of libc.so.6."""
    return Elf(
        path=Path(name), soname=None, needed=tuple(needed), rpath=(),
        versions={f"{library}.so.6": words for library, words in versions.items()},
        is_executable=True, machine=machine, python_module=module, isa_level=isa,
    )  # fmt: skip


def test_without_code_for_a_host_any_machine_will_do() -> None:
    assert wheel_tag([], files=["a.py"]) == "py3-none-any"
    assert wheel_tag([fake("kernel.cubin", machine="em-cuda")], files=[]) == "py3-none-any"


@pytest.mark.parametrize(
    ("files", "abi3", "expected"),
    [
        (["bin/tool"], None, "py3-none"),
        (["x.cpython-311-x86_64-linux-gnu.so"], None, "cp311-cp311"),
        (["x.cpython-313t-x86_64-linux-gnu.so"], None, "cp313-cp313t"),
        (["x.cpython-39.so"], None, "cp39-cp39"),
        (["x.abi3.so"], "cp39", "cp39-abi3"),
        (["x.abi3.so"], None, f"{RUNNING}-abi3"),
        (["x.abi3.so", "y.cpython-312-x86_64-linux-gnu.so"], "cp38", "cp312-cp312"),
        (["libx.so.3", "libggml-cpu.so", "plugin.avx2.so"], None, "py3-none"),
        (["x.cpython-311-x86_64-linux-gnu.so.debug", "abi3.so.txt"], None, "py3-none"),
    ],
)
def test_the_python_part_is_the_strictest_that_a_module_asks_for(
    files: list[str], abi3: str | None, expected: str
) -> None:
    tag = wheel_tag([fake(libc=("GLIBC_2.17",))], files=files, abi3=abi3)
    assert tag == f"{expected}-manylinux_2_17_x86_64"


def test_a_module_whose_name_has_no_abi_is_the_building_pythons() -> None:
    tag = wheel_tag([fake("helpers.so", module=True)], files=["helpers.so"], python=(3, 12))
    assert tag.startswith("cp312-cp312-")


@pytest.mark.parametrize(
    ("version", "step"),
    [
        ("GLIBC_2.2.5", 5), ("GLIBC_2.5", 5), ("GLIBC_2.6", 12), ("GLIBC_2.17", 17),
        ("GLIBC_2.29", 31), ("GLIBC_2.34", 34), ("GLIBC_2.41", 41), ("GLIBC_2.99", None),
        ("GLIBC_PRIVATE", None), ("GLIBC_ABI_DT_RELR", 36), ("GLIBCXX_3.4.30", 35),
        ("GLIBCXX_3.4.99", None), ("CXXABI_1.3.13", 34), ("CXXABI_FLOAT128", 24),
        ("GCC_3.0", 5), ("GCC_12.0.0", 35), ("ZLIB_1.2.9", 27), ("LIBATOMIC_1.0", 24),
        ("OPENSSL_3.0.0", 0), ("GOMP_4.5", 0),
    ],
)  # fmt: skip
def test_the_policy_of_a_symbol_version(version: str, step: int | None) -> None:
    assert version_step(version) == step


def test_libraries_and_declared_instructions_raise_the_policy() -> None:
    assert manylinux_step([fake()], ["libc.so.6"], "x86_64") == 5
    assert manylinux_step([fake()], ["libc.so.6", "ld-linux-x86-64.so.2"], "aarch64") == 17
    assert manylinux_step([fake()], ["libmvec.so.1"], "x86_64") == 24
    assert manylinux_step([fake(isa=3)], ["libc.so.6"], "x86_64") is None
    assert wheel_tag([fake(isa=3)], files=[]) == "py3-none-linux_x86_64"


def test_the_vendors_runtime_makes_it_plain_linux() -> None:
    cuda = [fake(needed=("libcuda.so.1", "libc.so.6"), libc=("GLIBC_2.17",))]
    tag = wheel_tag(cuda, files=[], allowed_external=frozenset({"libcuda.so.1"}))
    assert tag == "py3-none-linux_x86_64"
    unused = wheel_tag([fake()], files=[], allowed_external=frozenset({"libcuda.so.1"}))
    assert unused == "py3-none-manylinux_2_5_x86_64"


def test_everything_wrong_is_told_at_once() -> None:
    elfs = [
        fake("bin/one", needed=("libnowhere.so.1", "libc.so.6")),
        fake("bin/two", needed=("libnowhere.so.1",), machine="aarch64"),
    ]
    files = ["a.cpython-311-x86_64-linux-gnu.so", "b.cpython-312-x86_64-linux-gnu.so",
             "c.pypy310-pp73-x86_64-linux-gnu.so", "d.abi3.so"]  # fmt: skip
    with pytest.raises(Problems) as caught:
        wheel_tag(elfs, files=files)
    told = {error.slug: error for error in caught.value.findings()}
    assert set(told) == {"unknown-library", "mixed-machines", "mixed-pythons", "unknown-abi"}
    assert "bin/one and 1 more" in (told["unknown-library"].where or "")
    assert "aarch64 (bin/two)" in told["mixed-machines"].what


def test_the_limited_api_that_upstream_declares(tmp_path: Path) -> None:
    assert declared_abi3(tmp_path) is None
    for name, tag in (("a", "cp38-abi3-linux_x86_64"), ("b", "cp310-abi3-any"), ("c", "py3-none")):
        (tmp_path / f"{name}-1.dist-info").mkdir()
        (tmp_path / f"{name}-1.dist-info/WHEEL").write_text(f"Wheel-Version: 1.0\nTag: {tag}\n")
    assert declared_abi3(tmp_path) == "cp310"


def test_a_limited_api_is_written_like_a_tag() -> None:
    with pytest.raises(WheelError, match="no limited API version"):
        wheel_tag([fake()], files=["x.abi3.so"], abi3="3.9")


@needs_auditwheel
@pytest.mark.parametrize("machine", ["x86_64", "i686", "aarch64", "ppc64le", "s390x", "riscv64",
                                     "loongarch64"])  # fmt: skip
def test_no_symbol_version_gets_an_older_policy_than_auditwheel_gives(machine: str) -> None:
    found = importlib.util.find_spec("auditwheel")
    assert found is not None and found.origin is not None
    text = (Path(found.origin).parent / "policy" / "manylinux-policy.json").read_text()
    policies = sorted((p for p in json.loads(text) if machine in p["symbol_versions"]),
                      key=lambda policy: -int(policy["priority"]))  # fmt: skip
    theirs: dict[str, int] = {}
    for policy in policies:
        step = int(policy["name"].rpartition("_")[2])
        for prefix, versions in policy["symbol_versions"][machine].items():
            for version in versions:
                theirs.setdefault(f"{prefix}_{version}", step)
    assert len(theirs) > 30
    first = min(theirs.values())
    for version, step in theirs.items():
        ours = version_step(version, machine)
        if machine == "x86_64":
            assert ours == step, version
        else:
            assert ours is None or max(ours, first) >= step, version


PROGRAMS = {
    "old": ("c", "int main(void){return 0;}", ()),
    "math": ("c", "#include <math.h>\n#include <stdlib.h>\n"
             "int main(int n, char **v){return (int)exp(atof(v[n-1]));}", ("-lm",)),
    "cxx": ("c++", "#include <string>\n#include <iostream>\n#include <filesystem>\n"
            "int main(){std::cout << std::filesystem::current_path().string(); return 0;}", ()),
    "thread": ("c", "#include <pthread.h>\nstatic void *f(void *x){return x;}\n"
               "int main(void){pthread_t t; return pthread_create(&t, 0, f, 0);}", ("-lpthread",)),
    "newer": ("c", "int main(void){return 0;}", ("-Wl,-z,x86-64-v3",)),
}  # fmt: skip


def auditwheel_says(path: Path) -> str:
    ran = subprocess.run([sys.executable, "-m", "auditwheel", "show", "--json", str(path)],
                         capture_output=True, text=True, check=True)  # fmt: skip
    tag: str = json.loads(ran.stdout)["overall_tag"]
    return tag


@needs_auditwheel
@needs_cc
@needs_cxx
@pytest.mark.parametrize("name", PROGRAMS)
def test_auditwheel_agrees(tmp_path: Path, name: str) -> None:
    language, source, flags = PROGRAMS[name]
    if name == "newer" and HERE != "x86_64":
        pytest.skip("the steps are x86-64's")
    program = build(tmp_path / "tree" / "bin" / name, source, *flags, language=language)
    plain = library(tmp_path / "tree" / "lib" / "libplain.so.1", "libplain.so.1")
    found = [facts for facts in map(elf.read, (program, plain)) if facts is not None]
    tag = wheel_tag(found, files=[f"p/bin/{name}", "p/lib/libplain.so.1"])
    made = write_wheel(
        tmp_path, name="probe", version="1", tag=tag, compression="store",
        members=[Member(f"p/bin/{name}", program, 0o755), Member("p/lib/libplain.so.1", plain)],
        metadata="Metadata-Version: 2.1\nName: probe\nVersion: 1\n",
    )  # fmt: skip
    assert tag == f"py3-none-{auditwheel_says(made.path)}"
