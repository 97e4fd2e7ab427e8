"""Layer folders are exchanged all or none, also where the system cannot do it in one step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uniscale_build import swap
from uniscale_build.errors import ManifestError, StoreError


def folder(path: Path, text: str) -> Path:
    """A layer's folder that can be told from others."""
    path.mkdir(parents=True)
    (path / "layer.yaml").write_text(text)
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two layers, a third to come, a manifest."""
    home = tmp_path / "patches/demo"
    for name in ("a", "b"):
        folder(home / name, f"old {name}")
    for name in ("a", "b", "c"):
        folder(swap.staged(home, name), f"new {name}")
    (tmp_path / "m.yaml").write_bytes(b"old")
    return home


def contents(home: Path) -> dict[str, str]:
    """What the layers are."""
    return {path.parent.name: path.read_text() for path in home.glob("[!.]*/layer.yaml")}


NEW = {"a": "new a", "b": "new b", "c": "new c"}


@pytest.mark.parametrize("exchange", [True, False])
def test_commit(home: Path, exchange: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(swap, "_rename_exchange", lambda one, other: False)
    manifest = home.parents[1] / "m.yaml"
    swap.commit(home, ["a", "b", "c"], swap.Edit(manifest, b"old", b"new"))
    assert contents(home) == NEW and manifest.read_bytes() == b"new"
    assert not swap.unfinished(home)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("done", range(8))
def test_finish_after_any_step(
    home: Path, done: int, exchange: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exchange is stopped before its step number ``done``, then finished."""
    if not exchange:
        monkeypatch.setattr(swap, "_rename_exchange", lambda one, other: False)
    left = [done]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("_exchange", "_remove", "_edit"):
            patch.setattr(swap, name, _stopping(getattr(swap, name), left))
        rename = Path.rename
        patch.setattr(Path, "rename", _stopping(rename, left))
        manifest = home.parents[1] / "m.yaml"
        try:
            swap.commit(home, ["a", "b", "c"], swap.Edit(manifest, b"old", b"new"))
        except KeyboardInterrupt:
            assert swap.unfinished(home)
    swap.finish(home)
    assert contents(home) == NEW and manifest.read_bytes() == b"new"
    assert not swap.unfinished(home)


def _stopping(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def stopping(*args: object, **words: object) -> Any:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        return function(*args, **words)

    return stopping


def test_without_a_journal_nothing_happens(home: Path) -> None:
    assert swap.unfinished(home)
    swap.finish(home)
    assert contents(home) == {"a": "old a", "b": "old b"}
    assert not swap.unfinished(home)


def test_manifest_that_somebody_edited_meanwhile(home: Path) -> None:
    manifest = home.parents[1] / "m.yaml"
    manifest.write_bytes(b"their own")
    with pytest.raises(ManifestError) as caught:
        swap.commit(home, ["a"], swap.Edit(manifest, b"old", b"new"))
    assert manifest.read_bytes() == b"their own"
    assert str(home / ".swap.json") in (caught.value.hint or "")
    assert contents(home)["a"] == "new a"


def test_damaged_journal(home: Path) -> None:
    (home / ".swap.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        swap.finish(home)
    assert contents(home) == {"a": "old a", "b": "old b"}
