"""`uniscale verify`: real wheels, whole and spoilt, their sources, and what was installed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.recordfile import Row, parse, render
from uniscale_build.wheels import trust

from . import wheels
from .native import Native, make_native, set_layer

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """A project whose split wheel and bundle were built."""
    made = make_native(tmp_path_factory.mktemp("native"))
    for more in (["--split"], []):
        ran = made.run("wheel", "-b", "mini", "-d", "cpu", "-o", "dist", *more)
        assert ran.returncode == 0, ran.stderr
    return made


@pytest.fixture(scope="module")
def split(native: Native) -> Path:
    return next((native.root / "dist").glob("uniscale_mini-*.whl"))


@pytest.fixture(scope="module")
def bundle(native: Native) -> Path:
    return next((native.root / "dist").glob("uniscale-*mini*.whl"))


def verify(native: Native, *words: str | Path, code: int = 0) -> dict[str, tuple[str, str]]:
    """Name of each check → its state and what it says."""
    ran = subprocess.run(
        [sys.executable, "-m", "uniscale", "verify", *map(str, words), "--json"], text=True,
        env=native.env, cwd=native.root, capture_output=True, check=False,
    )  # fmt: skip
    assert ran.returncode == code, ran.stdout + ran.stderr
    told = json.loads(ran.stdout)
    assert told["verified"] is (code == 0)
    return {one["name"]: (one["state"], one["what"]) for one in told["checks"]}


def test_a_wheel_is_what_it_says_and_comes_out_again(native: Native, split: Path) -> None:
    checks = verify(native, split, "--rebuild", "--offline")
    assert {state for state, _ in checks.values()} == {"passed"}
    assert list(checks) == [
        "files", "record of uniscale-mini-cpu", "payload files", "SBOM", "provenance",
        "requirements",
        "tree of uniscale-mini-cpu", "rebuild",
    ]  # fmt: skip
    assert "the same wheel came out" in checks["rebuild"][1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_rebuild_that_is_told_to_end_leaves_nothing(
    number: int, native: Native, split: Path, tmp_path: Path
) -> None:
    words = [sys.executable, "-m", "uniscale", "verify", str(split), "--rebuild", "--offline"]
    env = {**native.env, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, env=env, cwd=native.root, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as process:  # fmt: skip
        assert process.stderr is not None
        assert any("configure" in line for line in process.stderr)
        assert list(tmp_path.glob("uniscale-verify-*"))
        process.send_signal(number)
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 130
    assert not list(tmp_path.iterdir())


def test_a_bundle_and_the_plain_wheel(native: Native, bundle: Path) -> None:
    checks = verify(native, bundle)
    assert {state for state, _ in checks.values()} == {"passed"} and len(checks) == 6
    plain = next(path for path in bundle.parent.glob("uniscale-*.whl") if "+" not in path.name)
    assert {state for state, _ in verify(native, plain).values()} == {"passed"}


def test_a_wheel_of_other_layers(native: Native, split: Path) -> None:
    set_layer(native, "kindly, hello")
    try:
        checks = verify(native, split, "--rebuild", "--offline", code=8)
    finally:
        set_layer(native, "please, hello")
    state, what = checks["tree of uniscale-mini-cpu"]
    assert state == "failed" and "layer polite" in what
    assert checks["rebuild"][0] == "failed" and "plans another wheel" in checks["rebuild"][1]
    assert checks["provenance"][0] == "passed"


def test_without_the_project_or_its_sources(native: Native, split: Path, tmp_path: Path) -> None:
    cache = {**native.env, "UNISCALE_CACHE": str(tmp_path / "cache")}
    upstream = native.upstream.rename(native.upstream.with_name("elsewhere"))
    try:
        empty = Native(native.root, native.upstream, tmp_path, cache)
        checks = verify(empty, split)
        assert checks["tree of uniscale-mini-cpu"][0] == "unchecked"
    finally:
        upstream.rename(native.upstream)
    other = Native(tmp_path, native.upstream, tmp_path, cache)
    # Ours, which has no such backend.
    assert verify(other, split, code=8)["tree of uniscale-mini-cpu"][0] == "failed"


def forged(source: Path, target: Path, change: Callable[[dict[str, bytes]], object]) -> Path:
    """A wheel that somebody changed together with its RECORD."""

    def consistent(files: dict[str, bytes]) -> None:
        import hashlib

        change(files)
        (name,) = (one for one in files if one.endswith(".dist-info/RECORD") and
                   one.count("/") == 1)  # fmt: skip
        rows = [Row(one, hashlib.sha256(data).hexdigest(), len(data))
                for one, data in files.items() if one != name]  # fmt: skip
        files[name] = render(rows, name).encode()

    return wheels.rewrite(source, target / source.name, consistent)


def edit(files: dict[str, bytes], end: str, change: Callable[[Any], object]) -> None:
    (name,) = (one for one in files if one.endswith(end))
    told = json.loads(files[name])
    change(told)
    files[name] = json.dumps(told).encode()


def _program(files: dict[str, bytes]) -> None:
    (name,) = (one for one in files if one.endswith("bin/mini-server"))
    files[name] += b"\0"


def _thorough(files: dict[str, bytes]) -> None:
    """The program, the payload's RECORD and the provenance, each made to fit the others."""
    import hashlib

    old = hashlib.sha256(next(v for k, v in files.items() if k.endswith("bin/mini-server")))
    _program(files)
    new = hashlib.sha256(next(v for k, v in files.items() if k.endswith("bin/mini-server")))
    (name,) = (k for k in files if k.endswith("/RECORD") and "uniscale_payloads" in k)
    rows, _ = parse(files[name].decode())
    files[name] = render(
        [Row(r.name, new.hexdigest(), (r.size or 0) + 1) if r.sha256 == old.hexdigest() else r
         for r in rows if r.sha256], name.split("/", 2)[2],
    ).encode()  # fmt: skip
    sha256 = hashlib.sha256(files[name]).hexdigest()
    edit(files, "provenance.intoto.json",
         lambda told: told["subject"][0]["digest"].update(sha256=sha256))  # fmt: skip


def _record(files: dict[str, bytes]) -> None:
    edit(files, "payload.json", lambda told: told["toolchain"].update(evil="1"))


def _sbom(files: dict[str, bytes]) -> None:
    edit(files, "uniscale.cdx.json", lambda told: told["components"].clear())


def _builder(files: dict[str, bytes]) -> None:
    edit(files, "provenance.intoto.json", lambda told: told.pop("predicate"))


def _subject(files: dict[str, bytes]) -> None:
    edit(files, "provenance.intoto.json", lambda told: told["subject"].clear())


def _tree(files: dict[str, bytes]) -> None:
    edit(files, "payload.json", lambda told: told.update(patched_tree="0" * 40))


def _requires(files: dict[str, bytes]) -> None:
    (name,) = (one for one in files if one.endswith("/METADATA") and one.count("/") == 1)
    files[name] = files[name].replace(
        b"Requires-Dist: ", b"Requires-Dist: evil\nRequires-Dist: ", 1
    )


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (_requires, {"requirements"}),
        (_record, {"payload files", "provenance", "SBOM"}),
        (_program, {"payload files"}),
        (_sbom, {"SBOM"}),
        (_builder, {"provenance"}),  # nor can the requirements be compared
        (_subject, {"provenance"}),
        (_tree, {"record of uniscale-mini-cpu", "payload files", "SBOM"}),
        (lambda files: files.pop(next(n for n in files if n.endswith("cdx.json"))), {"SBOM"}),
    ],
)
def test_who_changes_a_wheel_with_its_record_is_found_out(
    change: Callable[[dict[str, bytes]], object], failing: set[str], split: Path, tmp_path: Path
) -> None:
    subject, checks = trust.of_wheel(forged(split, tmp_path, change))
    assert subject is not None
    checks += [trust.check_payloads(subject), trust.check_sbom(subject)]
    checks += [trust.check_provenance(subject), trust.check_requirements(subject)]
    assert {one.name for one in checks if one.state == "failed"} == failing


def test_only_a_rebuild_finds_a_forged_program(native: Native, split: Path, tmp_path: Path) -> None:
    path = forged(split, tmp_path, _thorough)
    assert {state for state, _ in verify(native, path).values()} == {"passed"}
    state, what = verify(native, path, "--rebuild", "--offline", code=8)["rebuild"]
    assert state == "failed" and what.startswith("3 of ") and "bin/mini-server" in what


def test_a_tampered_wheel_and_none_at_all(native: Native, split: Path, tmp_path: Path) -> None:
    path = wheels.rewrite(split, tmp_path / split.name, _program)
    assert "is not what RECORD says" in verify(native, path, code=8)["files"][1]
    (tmp_path / "x.whl").write_bytes(b"<html>")
    assert verify(native, tmp_path / "x.whl", code=8)["files"][0] == "failed"
    ran = subprocess.run([sys.executable, "-m", "uniscale", "verify", "no.whl"], env=native.env,
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert ran.returncode == 2 and "error[no-wheel]" in ran.stderr


def test_what_was_installed(native: Native, split: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(split) as archive:
        archive.extractall(site)
    (info,) = site.glob("*.dist-info")
    (info / "INSTALLER").write_text("pip\n")
    env = {**native.env, "PYTHONPATH": f"{native.env['PYTHONPATH']}:{site}"}
    there = Native(native.root, native.upstream, native.cache, env)
    checks = verify(there, "mini", "--rebuild", "--offline")
    assert {state for state, _ in checks.values()} == {"passed"}
    program = next(site.rglob("bin/mini-server"))
    (program.parent / "extra").touch()
    program.write_bytes(program.read_bytes() + b"\0")
    what = verify(there, "mini", code=8)["files"][1]
    assert "mini-server was changed" in what and "extra was added" in what
    program.unlink()
    assert "mini-server is missing" in verify(there, "mini", code=8)["files"][1]
