"""What several test modules use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.upstreams import UPSTREAM, Files, Lab, make_lab

MakeProject = Callable[..., Lab]


@pytest.fixture
def make_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeProject:
    """Makes a project around a small upstream, alone with its own cache and home folder."""

    def make(files: Files = UPSTREAM, **options: object) -> Lab:
        home = tmp_path / "home"
        home.mkdir()
        for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "UNISCALE_MANIFESTS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(home))
        lab = make_lab(tmp_path, files, **options)  # type: ignore[arg-type]
        monkeypatch.setenv("UNISCALE_PROJECT", str(lab.root))
        monkeypatch.setenv("UNISCALE_CACHE", str(lab.store.root))
        monkeypatch.chdir(lab.root)
        return lab

    return make
