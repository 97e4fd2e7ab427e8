"""``variants/``: an index's wheels as wheel variants, by the draft PEP 825, and uv taking one."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Callable
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jsonschema
import pytest
from uniscale_build import recordfile
from uniscale_build.errors import IndexSiteError, WheelError
from uniscale_build.index import Request, publish
from uniscale_build.records.sbom import sbom
from uniscale_build.wheels import trust
from uniscale_build.wheels.deflate import BLOCK
from uniscale_build.wheels.variant import Variant, write_variant
from uniscale_build.wheels.wheel import Member, write_wheel

from .killing import fork_call, moments
from .payload_wheels import DEVICES, payload_record, payload_wheel, plain_wheel
from .sitecheck import anchors
from .wheels import noise

CPU = "uniscale_vllm-0.32.0-py3-none-any-null.whl"
MUSA = "uniscale_vllm-0.32.0-py3-none-any-musa43.whl"
MACA = "uniscale_vllm-0.32.0-py3-none-any-maca.whl"
INFO = "uniscale_vllm-0.32.0.dist-info"
REQUIRES = "Dynamic: Requires-Dist\n"

# The draft's structure (schema 0.1.1), in our own words.
_NAMES = {"type": "string", "pattern": "^[a-z0-9_]+$"}
_VALUES = {"type": "array", "minItems": 1, "uniqueItems": True,
           "items": {"type": "string", "pattern": "^[a-z0-9_.]+$"}}  # fmt: skip


def _table(of: dict[str, Any], pattern: str = "^[a-z0-9_]+$") -> dict[str, Any]:
    return {"type": "object", "propertyNames": {"pattern": pattern}, "additionalProperties": of}


DRAFT = {
    "type": "object",
    "required": ["$schema", "default-priorities", "variants"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"const": "https://variants-schema.wheelnext.dev/peps/825/v0.1.1.json"},
        "default-priorities": {
            "type": "object", "required": ["namespace"], "additionalProperties": False,
            "properties": {"namespace": {"type": "array", "minItems": 1, "uniqueItems": True,
                                         "items": _NAMES}},
        },
        "variants": _table(_table(_table(_VALUES)), "^[0-9a-z_.]+$"),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def content() -> bytes:
    """Of more than one block, as the libraries of a payload are."""
    return noise(BLOCK + 7)


@pytest.fixture
def site(tmp_path: Path, content: bytes) -> Path:
    """Three devices, one of them without an SDK's tag, and the launchers."""
    plain_wheel(tmp_path / "dist")
    for device in DEVICES:
        payload_wheel(tmp_path / "dist", "vllm", "0.32.0", device, content=content)
    publish(tmp_path / "site", Request(add=(tmp_path / "dist",), variants=True))
    return tmp_path / "site"


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def document(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    jsonschema.validate(found, DRAFT)
    return found


def test_names_labels_and_properties(site: Path) -> None:
    folder = site / "variants" / "uniscale-vllm"
    assert {name for name in files(folder) if name.endswith(".whl")} == {CPU, MUSA, MACA}
    told = document(folder / "uniscale_vllm-0.32.0-variants.json")
    assert told["default-priorities"] == {"namespace": ["uniscale"]}
    assert told["variants"] == {
        "maca": {"uniscale": {"device": ["metax_c550"]}},
        "musa43": {"uniscale": {"device": ["musa_s5000"], "sdk": ["musa43"]}},
        "null": {},
    }


@pytest.mark.parametrize("name", [CPU, MUSA, MACA])
def test_a_variant_is_a_whole_wheel(name: str, site: Path, tmp_path: Path) -> None:
    path = site / "variants" / "uniscale-vllm" / name
    label = name.removesuffix(".whl").split("-")[-1]
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        found = {one: archive.read(one) for one in archive.namelist()}
    rows, problems = recordfile.parse(found[f"{INFO}/RECORD"].decode())
    assert not problems and {row.name for row in rows} == set(found)
    for row in rows:
        if row.sha256 is not None:
            data = found[row.name]
            assert (row.sha256, row.size) == (hashlib.sha256(data).hexdigest(), len(data))
    about = HeaderParser().parsestr(found[f"{INFO}/METADATA"].decode())
    assert (about["Name"], about["Version"]) == ("uniscale-vllm", "0.32.0")
    assert about.get_all("Requires-Dist") == ["uniscale>=0.1.0"]
    (tmp_path / "variant.json").write_bytes(found[f"{INFO}/variant.json"])
    whole = document(path.parent / "uniscale_vllm-0.32.0-variants.json")
    assert document(tmp_path / "variant.json")["variants"] == {label: whole["variants"][label]}
    assert path.with_name(f"{name}.metadata").read_bytes() == found[f"{INFO}/METADATA"]
    told = json.loads(path.with_name(f"{name}.provenance.json").read_text())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert told["subject"][0] == {"name": name, "digest": {"sha256": digest}}


def test_payloads_are_copied_as_they_are_packed(site: Path) -> None:
    source = site / "packages" / "uniscale_vllm-0.32.0+musa43-py3-none-any.whl"
    with (
        zipfile.ZipFile(source) as before,
        zipfile.ZipFile(site / "variants" / "uniscale-vllm" / MUSA) as after,
    ):
        inside = [one for one in before.namelist() if one.startswith("uniscale_payloads/")]
        assert inside == [one for one in after.namelist() if one.startswith("uniscale_payloads/")]
        for name in inside:
            old, new = before.getinfo(name), after.getinfo(name)
            assert before.read(name) == after.read(name)
            for fact in ("CRC", "compress_size", "compress_type", "external_attr", "date_time"):
                assert getattr(old, fact) == getattr(new, fact), fact


def test_the_bill_of_materials_is_that_of_the_public_version(site: Path) -> None:
    with zipfile.ZipFile(site / "variants" / "uniscale-vllm" / MUSA) as archive:
        bill = archive.read(f"{INFO}/sboms/uniscale.cdx.json").decode()
    info = payload_record("vllm", "0.32.0", "MUSA_S5000")
    epoch = 1577836800
    assert bill == sbom([info], name="uniscale-vllm", version="0.32.0", epoch=epoch)


def test_pages(site: Path) -> None:
    folder = site / "variants" / "uniscale-vllm"
    links = {str(one["text"]): one for one in anchors(folder / "index.html")}
    assert set(links) == {CPU, MUSA, MACA, "uniscale_vllm-0.32.0-variants.json"}
    told = json.loads((folder / "index.json").read_text())
    assert told["versions"] == ["0.32.0"]
    assert {one["filename"] for one in told["files"]} == set(links)
    (whole,) = [one for one in told["files"] if one["filename"].endswith("-variants.json")]
    assert (whole["hashes"], whole["url"]) == ({}, "uniscale_vllm-0.32.0-variants.json")
    for one in told["files"]:
        if one is whole:
            continue
        data = (folder / one["url"]).read_bytes()
        assert one["hashes"] == {"sha256": hashlib.sha256(data).hexdigest()}
        assert one["size"] == len(data)
    assert "data-core-metadata" not in str(links["uniscale_vllm-0.32.0-variants.json"])
    (plain,) = anchors(site / "variants" / "uniscale" / "index.html")
    assert str(plain["href"]).startswith("../../packages/uniscale-0.1.0-py3-none-any.whl#")
    listed = {str(one["text"]) for one in anchors(site / "variants" / "index.html")}
    assert listed == {"uniscale", "uniscale-vllm"}


def test_an_index_is_the_same_without_them(site: Path, tmp_path: Path) -> None:
    publish(tmp_path / "other", Request(add=(tmp_path / "dist",)))
    assert not (tmp_path / "other" / "variants").exists()
    for page in (tmp_path / "other").rglob("*.html"):
        inside = page.relative_to(tmp_path / "other")
        assert page.read_bytes() == (site / inside).read_bytes()


def test_they_stay_in_step_without_being_asked_for(site: Path, tmp_path: Path) -> None:
    folder = site / "variants" / "uniscale-vllm"
    kept = (folder / CPU).stat()
    gone = "uniscale_vllm-0.32.0+maca-py3-none-any.whl"
    payload_wheel(tmp_path / "more", "vllm", "0.33.0")
    yank = {"uniscale_vllm-0.32.0+musa43-py3-none-any.whl": "wrong answers"}
    publish(site, Request(add=(tmp_path / "more",), remove=(gone,), yank=yank))
    assert (folder / CPU).stat().st_ino == kept.st_ino
    names = files(folder)
    assert not {name for name in names if "maca" in name}
    assert "uniscale_vllm-0.33.0-py3-none-any-null.whl" in names
    assert "maca" not in document(folder / "uniscale_vllm-0.32.0-variants.json")["variants"]
    links = {str(one["text"]): one for one in anchors(folder / "index.html")}
    assert links[MUSA]["data-yanked"] == "wrong answers" and "data-yanked" not in links[CPU]
    (folder / CPU).write_bytes(b"half")
    assert publish(site, Request()).pages > 0
    assert zipfile.ZipFile(folder / CPU).testzip() is None
    assert publish(site, Request()).pages == 0
    everything = tuple(path.name for path in (site / "packages").glob("*vllm*.whl"))
    publish(site, Request(remove=everything))
    assert files(site / "variants") == {"index.html", "index.json", "uniscale"}


def test_a_revision_is_a_build_number(tmp_path: Path) -> None:
    made = payload_wheel(tmp_path / "raw", "vllm", "0.32.0")
    for local in ("cpu", "cpu.1"):
        _relabelled(made.path, tmp_path / "dist", f"0.32.0+{local}")
    publish(tmp_path / "site", Request(add=(tmp_path / "dist",), variants=True))
    folder = tmp_path / "site" / "variants" / "uniscale-vllm"
    second = "uniscale_vllm-0.32.0-1-py3-none-any-null.whl"
    assert {name for name in files(folder) if name.endswith(".whl")} == {CPU, second}
    with zipfile.ZipFile(folder / second) as archive:
        about = HeaderParser().parsestr(archive.read(f"{INFO}/WHEEL").decode())
    assert about["Build"] == "1" and about["Tag"] == "py3-none-any"


def _relabelled(source: Path, out: Path, version: str, tag: str = "py3-none-any") -> None:
    """A wheel with the payloads of another, under another version."""
    with zipfile.ZipFile(source) as archive:
        inside = [Member(one, archive.read(one)) for one in archive.namelist()
                  if one.startswith("uniscale_payloads/")]  # fmt: skip
    head = f"Metadata-Version: 2.4\nName: uniscale-vllm\nVersion: {version}\n"
    write_wheel(out, name="uniscale-vllm", version=version, tag=tag, members=inside,
                metadata=f"{head}Requires-Dist: uniscale\n")  # fmt: skip


def test_what_differs_between_variants_is_dynamic(tmp_path: Path) -> None:
    made = payload_wheel(tmp_path / "raw", "vllm", "0.32.0")
    _relabelled(made.path, tmp_path / "dist", "0.32.0+cpu")
    publish(tmp_path / "site", Request(add=(tmp_path / "dist",), variants=True))
    folder = tmp_path / "site" / "variants" / "uniscale-vllm"
    assert REQUIRES in (folder / f"{CPU}.metadata").read_text()
    # Core metadata 2.1 has no such field.
    publish(tmp_path / "old", Request(add=(made.path,), variants=True))
    old = tmp_path / "old" / "variants" / "uniscale-vllm" / f"{CPU}.metadata"
    assert REQUIRES not in old.read_text()


def test_bundles_are_left_out(tmp_path: Path) -> None:
    from .launch.indexes import make_wheel

    make_wheel(tmp_path / "dist", "vllm", name="uniscale", version="0.1.0", label="vllm.cpu")
    publish(tmp_path / "site", Request(add=(tmp_path / "dist",), variants=True))
    assert files(tmp_path / "site" / "variants") == {"index.html", "index.json"}


def test_a_label_with_two_meanings_is_refused(tmp_path: Path) -> None:
    one = payload_wheel(tmp_path / "dist", "vllm", "1.0", "Acme_X1")
    two = payload_wheel(tmp_path / "raw", "vllm", "1.0", "AcmeX2")
    publish(tmp_path / "site", Request(add=(one.path,), variants=True))
    _relabelled(two.path, tmp_path / "more", "1.0+acme.x1", "py3-none-linux_x86_64")
    _relabelled(two.path, tmp_path / "more", "1.0+acme.x1", "py3-none-linux_aarch64")
    with pytest.raises(IndexSiteError, match=r"label acme\.x1 .* mean two things") as caught:
        publish(tmp_path / "site", Request(add=(tmp_path / "more",)))
    told = str(caught.value)
    assert one.path.name in told and "linux_aarch64" in told


def test_another_file_than_was_verified(tmp_path: Path) -> None:
    made = payload_wheel(tmp_path / "dist", "vllm", "0.32.0")
    variant = Variant("0.32.0", "", "null", "{}")
    with pytest.raises(WheelError, match="has changed since") as caught:
        write_variant(made.path, tmp_path / "out", variant, sha256="0" * 64)
    assert caught.value.slug == "changed-wheel"
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out")


def test_uv_takes_the_variant_for_processors(site: Path, tmp_path: Path) -> None:
    """uv's preview of variants reads the pages and the documents; what it installs verifies."""
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    ran = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--no-cache", "--python", str(python),
         "--preview-features", "wheel-variants", "--index-url", f"{site.as_uri()}/variants/",
         "uniscale-vllm"],
        text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    assert (packages / INFO / "variant.json").is_file()
    assert (packages / "uniscale_payloads" / "uniscale-vllm-cpu" / "payload.json").is_file()
    subject, checks = trust.of_installed(packages, INFO, "uniscale-vllm", "0.32.0")
    assert subject is not None
    found = [*checks, trust.check_sbom(subject)]
    assert {one.state for one in found} == {"passed"}, found


def _content(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes()
            for path in sorted(root.rglob("*")) if path.is_file()}  # fmt: skip


def test_killed_at_any_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pages name is there, whole; the next run completes the rest."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    before = tmp_path / "before"
    for device in ("cpu", "MUSA_S5000"):
        payload_wheel(tmp_path / "first", "vllm", "0.32.0", device)
    plain_wheel(tmp_path / "first")
    publish(before, Request(add=(tmp_path / "first",), variants=True))
    gone = "uniscale_vllm-0.32.0+musa43-py3-none-any.whl"
    payload_wheel(tmp_path / "more", "vllm", "0.32.0", "Metax_C550")
    more = Request(add=(tmp_path / "more",))

    def run(site: Path) -> Callable[[], int]:
        return lambda: publish(site, Request(add=more.add, remove=(gone,))).wheels * 0

    def start(name: str) -> Path:
        shutil.copytree(before, tmp_path / name, symlinks=True)
        return tmp_path / name

    run(start("goal"))()
    wanted = _content(tmp_path / "goal" / "variants")
    _, total = fork_call(run(start("count")), 0)
    for step in moments(total, int(os.environ.get("UNISCALE_TEST_KILLS", "6"))):
        site = start(f"step{step}")
        assert fork_call(run(site), step)[0], f"step {step} of {total} was not reached"
        for page in (site / "variants").glob("*/index.html"):
            for link in anchors(page):
                path, _, digest = unquote(str(link["href"])).partition("#sha256=")
                if "packages/" in path or not digest:
                    continue
                data = (page.parent / path).read_bytes()
                assert hashlib.sha256(data).hexdigest() == digest, f"{path} after step {step}"
        left = tuple(name for name in (gone,) if (site / "packages" / name).exists())
        publish(site, Request(add=more.add, remove=left))
        assert _content(site / "variants") == wanted, f"after step {step}"
        shutil.rmtree(site)
