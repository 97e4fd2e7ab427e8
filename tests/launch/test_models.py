"""`uniscale.models.models`: MODEL resolved, or refused with what it is instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from uniscale.models import models
from uniscale_build.errors import LaunchError

from .helpers import Bench, launch, lay_gguf, lay_payload, record


def refused(word: str | Path) -> LaunchError:
    with pytest.raises(LaunchError) as caught:
        models.resolve(str(word))
    return caught.value


@pytest.mark.parametrize("name", ["small.gguf", "no suffix", "模型 $(touch x).gguf", "a'b\"c.gguf"])
def test_a_gguf_file(tmp_path: Path, name: str) -> None:
    path = lay_gguf(tmp_path / name)
    model = models.resolve(str(path))
    assert model.formats == {"gguf": str(path)}
    assert model.name == name.removesuffix(".gguf")
    assert model.generation == models.Generation()


def test_relative_and_home_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lay_gguf(tmp_path / "m.gguf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert models.resolve("m.gguf") == models.resolve("./m.gguf") == models.resolve("~/m.gguf")
    assert models.resolve("m.gguf").formats["gguf"] == str(path)


def test_a_name_is_never_a_flag(tmp_path: Path) -> None:
    assert models.resolve(str(lay_gguf(tmp_path / "--port.gguf"))).name == "port"
    assert models.resolve(str(lay_gguf(tmp_path / "--.gguf"))).name == "model"


def test_folders(tmp_path: Path) -> None:
    both = tmp_path / "both"
    gguf = lay_gguf(both / "m.gguf")
    lay_gguf(both / "mmproj-m.gguf")
    (both / "config.json").write_text("{}")
    assert models.resolve(str(both)).formats == {"gguf": str(gguf), "hf": str(both)}
    assert models.resolve(f"{both}/").name == "both"


def test_a_split_model_is_given_by_its_first_part_or_folder(tmp_path: Path) -> None:
    parts = [lay_gguf(tmp_path / "s" / f"big-0000{n}-of-00003.gguf") for n in (1, 2, 3)]
    assert models.resolve(str(tmp_path / "s")).formats == {"gguf": str(parts[0])}
    assert models.resolve(str(parts[0])).name == "big"
    assert refused(parts[1]).slug == "not-first-part"
    parts[2].unlink()
    assert "these are missing: big-00003-of-00003.gguf" in refused(parts[0]).what
    assert "these are missing" in refused(tmp_path / "s").what


def test_several_models_in_a_folder(tmp_path: Path) -> None:
    lay_gguf(tmp_path / "a.gguf")
    lay_gguf(tmp_path / "b.gguf")
    error = refused(tmp_path)
    assert error.slug == "several-models"
    assert str(tmp_path / "a.gguf") in str(error.hint)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "it is empty"),
        (b"GGUF\x03", "it is cut short"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>404", "an HTML page"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "weights in another format"),
        (b"PK\x03\x04", "weights in another format"),
        (b"hello world", "begins with b'hell'"),
    ],
)
def test_not_a_gguf(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(content)
    error = refused(path)
    assert error.slug == "not-gguf" and told in error.what and error.where == str(path)


def test_no_such_model(tmp_path: Path) -> None:
    assert refused(tmp_path / "x").slug == "no-model"
    assert refused("x" * 5000).slug == "no-model"
    assert "holds no model" in refused(tmp_path).what
    (tmp_path / "dangling").symlink_to("nowhere")
    assert refused(tmp_path / "dangling").slug == "no-model"


def test_what_is_neither_file_nor_folder_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    assert "neither a file nor a folder" in refused(tmp_path / "pipe").what


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(tmp_path: Path) -> None:
    path = lay_gguf(tmp_path / "m.gguf")
    path.chmod(0)
    assert "Permission denied" in refused(path).what


def test_shipped_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = tmp_path / "models" / "demo"
    gguf = lay_gguf(demo / "model.gguf")
    (demo / "hf").mkdir()
    (demo / "hf" / "config.json").write_text("{}")
    (tmp_path / "models" / "__pycache__").mkdir()
    monkeypatch.setattr(models, "SHIPPED", str(tmp_path / "models"))
    assert refused("__pycache__").slug == "no-model"
    model = models.resolve("demo")
    assert model.formats == {"gguf": str(gguf), "hf": str(demo / "hf")}
    assert model.name == "demo"
    assert model.generation.temperature == 0
    assert 'did you mean "demo"?' in str(refused("dmeo").hint)
    monkeypatch.chdir(tmp_path)
    lay_gguf(tmp_path / "demo")
    assert models.resolve("demo").formats["gguf"] == str(gguf)
    assert models.resolve("./demo").formats["gguf"] == str(tmp_path / "demo")


def test_nothing_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "SHIPPED", str(tmp_path / "models"))
    assert refused("demo").slug == "no-model"


def test_the_image_part_goes_with_its_model(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    lay_gguf(folder / "small.gguf")
    part = lay_gguf(folder / "mmproj-small.gguf")
    assert models.resolve(str(folder)).vision == str(part)
    told = launch(flags=["--model", "--host", "--port", "--alias", "--mmproj", "--no-mmproj"])
    lay_payload(bench.payloads, record(launch={"serve": told}))
    out = bench.run("serve", folder, "--dry-run").ok().out
    assert f"--mmproj {part}" in out
    mine = bench.run("serve", folder, "--dry-run", "--", "--mmproj", "mine.gguf").ok().out
    assert "--mmproj mine.gguf" in mine and str(part) not in mine
    assert str(part) not in bench.run("serve", folder, "--dry-run", "--", "--no-mmproj").ok().out
    lay_gguf(folder / "mmproj-other.gguf")
    assert models.resolve(str(folder)).vision is None, "nobody knows which one is meant"
