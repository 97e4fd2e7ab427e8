"""Small real ELF files, made with the machine's compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CC = shutil.which("cc")
CXX = shutil.which("c++")
needs_cc = pytest.mark.skipif(CC is None, reason="no C compiler on this machine")
needs_cxx = pytest.mark.skipif(CXX is None, reason="no C++ compiler on this machine")


def build(target: Path, source: str, *flags: str, language: str = "c") -> Path:
    """Compile ``source`` to ``target`` with ``flags``; the folder is made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    compiler = CC if language == "c" else CXX
    assert compiler is not None
    subprocess.run(
        [compiler, "-x", "c" if language == "c" else "c++", "-", "-x", "none", "-o", str(target),
         *flags],
        input=source, text=True, check=True, capture_output=True,
    )  # fmt: skip
    return target


def library(target: Path, soname: str | None, *flags: str, source: str = "int f(void){return 1;}"
            ) -> Path:  # fmt: skip
    """A shared library with that SONAME."""
    named = [f"-Wl,-soname,{soname}"] if soname else []
    return build(target, source, "-shared", "-fPIC", *named, *flags)


def tree(root: Path, *, rpath: str = "$ORIGIN/../lib") -> Path:
    """An install tree as CMake makes it: a program, a versioned library, links, headers."""
    real = library(root / "lib" / "libgreet.so.1.2.3", "libgreet.so.1",
                   source="int greet(void){return 42;}")  # fmt: skip
    (root / "lib" / "libgreet.so.1").symlink_to(real.name)
    (root / "lib" / "libgreet.so").symlink_to("libgreet.so.1")
    build(
        root / "bin" / "hello",
        "int greet(void); int main(void){return greet() == 42 ? 0 : 1;}",
        str(real), f"-Wl,--enable-new-dtags,-rpath,{rpath}",
    )  # fmt: skip
    for name in ("include/greet.h", "lib/cmake/greet/greet.cmake", "lib/pkgconfig/greet.pc",
                 "lib/libgreet.a", "share/man/man1/hello.1"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")
    return root
