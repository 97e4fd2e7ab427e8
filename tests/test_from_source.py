"""Kernels that are compiled here, with the sources of other projects in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale_build.errors import SourceError
from uniscale_build.manifests.model import Origin
from uniscale_build.sources import debian

from .pyengine import MATH, PyEngine, debian_mirror, make_engine


@pytest.fixture
def engine(tmp_path: Path) -> PyEngine:
    return make_engine(tmp_path)


def test_a_source_from_a_debian_mirror_is_compiled_in_and_recorded(
    engine: PyEngine, tmp_path: Path
) -> None:
    mirror, recipe = debian_mirror(tmp_path)
    engine.adapt(recipe=recipe)
    ran = engine.wheel(UNISCALE_KERNELS="source", UNISCALE_DEBIAN_MIRROR=mirror.as_uri())
    assert ran.returncode == 0, ran.stderr
    assert (engine.payload / "pyengine/_math.bin").read_bytes() == MATH
    record = json.loads((engine.payload / "payload.json").read_text(encoding="utf-8"))
    (source,) = record["settings"]["from_source"]["sources"]
    assert (source["name"], source["version"]) == ("libmath", "2.0")
    assert source["origins"] == ["libmath_2.0+ds.orig.tar.xz"]
    shown = engine.run("wheel", "-b", "pyengine", "-d", "cpu", "-o", "out", "--json",
                       UNISCALE_KERNELS="source", UNISCALE_OFFLINE="true")  # fmt: skip
    assert shown.returncode == 0, shown.stderr  # from the cache, without the mirror


def test_the_bill_of_materials_and_the_provenance_name_what_was_compiled_in(
    engine: PyEngine, tmp_path: Path
) -> None:
    import zipfile

    mirror, recipe = debian_mirror(tmp_path)
    engine.adapt(recipe=recipe)
    ran = engine.wheel(UNISCALE_KERNELS="source", UNISCALE_DEBIAN_MIRROR=mirror.as_uri())
    assert ran.returncode == 0, ran.stderr
    (wheel,) = (engine.root / "out").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        texts = {
            Path(name).name: archive.read(name).decode()
            for name in archive.namelist()
            if name.endswith((".cdx.json", "provenance.json", ".intoto.json", ".intoto.jsonl"))
        }
    assert len(texts) == 2
    assert all("pkg:generic/libmath@2.0" in text for text in texts.values())


def test_with_members_of_a_pinned_wheel_no_source_is_asked_for(
    engine: PyEngine, tmp_path: Path
) -> None:
    _, recipe = debian_mirror(tmp_path)
    ready = engine.pin_wheel("pyengine/_kernels.bin").removeprefix("recipe:\n")
    engine.adapt(recipe=recipe + ready)
    ran = engine.wheel(UNISCALE_DEBIAN_MIRROR="file:///nowhere")
    assert ran.returncode == 0, ran.stderr
    assert not (engine.payload / "pyengine/_math.bin").exists()


def test_other_bytes_than_the_pinned_ones_are_refused(engine: PyEngine, tmp_path: Path) -> None:
    mirror, recipe = debian_mirror(tmp_path)
    (file,) = mirror.rglob("*.tar.xz")
    file.write_bytes(b"another archive")
    engine.adapt(recipe=recipe)
    ran = engine.wheel(UNISCALE_KERNELS="source", UNISCALE_DEBIAN_MIRROR=mirror.as_uri())
    assert ran.returncode == 4
    assert "error[no-source]" in ran.stderr and "the pin says" in ran.stderr


def test_without_a_mirror_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNISCALE_DEBIAN_MIRROR", raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SourceError, match="there is no apt") as caught:
        debian.addresses("onednn", "onednn_1.orig.tar.xz")
    assert "UNISCALE_DEBIAN_MIRROR" in str(caught.value.hint)


def test_packages_lie_where_debian_puts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNISCALE_DEBIAN_MIRROR", "https://one.invalid/debian https://two.invalid")
    assert debian.addresses("libmath", "f") == [
        "https://one.invalid/debian/pool/main/libm/libmath/f",
        "https://two.invalid/pool/main/libm/libmath/f",
    ]
    assert debian.addresses("onednn", "f")[0].endswith("pool/main/o/onednn/f")
    assert Origin("debian", project="onednn", file="f.orig.tar.xz").describe() == "f.orig.tar.xz"


@pytest.mark.parametrize(
    ("old", "new", "slug", "words"),
    [
        ("name: libmath", "name: ../math", "field", "letters, digits"),
        ("'{libmath}'", "'{libmaht}'", "unknown-word", 'did you mean "libmath"'),
        ("        note:", "        layers: [x]\n        note:", "field", "layers are for"),
        ("debian: libmath_2.0+ds.orig.tar.xz", "debian: libmath_2.0.deb", "bad-pin", ".orig.tar"),
        ("debian: libmath", "debian: ../libmath", "path-escape", "stay inside"),
        ("            project: libmath\n", "", "bad-pin", "source package"),
        ("sha256: ", "sha256: z", "bad-pin", "64 hexadecimal"),
    ],
)
def test_bad_sources_are_manifest_errors(
    engine: PyEngine, tmp_path: Path, old: str, new: str, slug: str, words: str
) -> None:
    _, recipe = debian_mirror(tmp_path)
    assert old in recipe
    engine.adapt(recipe=recipe.replace(old, new))
    ran = engine.run("plan", "-b", "pyengine", "-d", "cpu")
    assert ran.returncode == 3
    assert f"error[{slug}]" in ran.stderr and words in ran.stderr
    assert "manifests/adaptations/cpu/pyengine.yaml:" in ran.stderr


def test_a_backend_may_have_a_variable_of_its_own_for_what_it_sees(engine: PyEngine) -> None:
    assert engine.wheel().returncode == 0
    record = json.loads((engine.payload / "payload.json").read_text(encoding="utf-8"))
    assert record["device_environment"]["visible"] is None
    engine.adapt(recipe="visible: PYENGINE_NODES\n")
    ran = engine.wheel()
    assert ran.returncode == 0, ran.stderr
    texts = [path.read_text(encoding="utf-8")
             for path in (engine.cache / "payloads").glob("*/*/payload.json")]  # fmt: skip
    told = {json.loads(text)["device_environment"]["visible"] for text in texts}
    assert told == {None, "PYENGINE_NODES"}
