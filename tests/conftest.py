"""What several test modules use."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.upstreams import UPSTREAM, Files, Lab, copy_lab, make_lab

# A background job or nohup starts us with these ignored, and what the tests start inherits that: no
# Ctrl-C would ever arrive there.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

MakeProject = Callable[..., Lab]
# Gives a copy of the lab that the function has made once, for all tests that name it so.
Grow = Callable[[str, Callable[[Path], Lab]], Lab]


def enter(patch: pytest.MonkeyPatch, lab: Lab) -> None:
    """Work in that project, with its cache and a home folder of its own."""
    for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "UNISCALE_MANIFESTS"):
        patch.delenv(name, raising=False)
    home = lab.root.with_name("home")
    home.mkdir(exist_ok=True)
    patch.setenv("HOME", str(home))
    patch.setenv("UNISCALE_PROJECT", str(lab.root))
    patch.setenv("UNISCALE_CACHE", str(lab.store.root))
    patch.chdir(lab.root)


@pytest.fixture(scope="session")
def lab_templates(tmp_path_factory: pytest.TempPathFactory) -> Grow:
    """Labs that were made once; nobody changes them."""
    made: dict[str, Lab] = {}

    def template(name: str, build: Callable[[Path], Lab]) -> Lab:
        if name not in made:
            base = tmp_path_factory.mktemp("template")
            with pytest.MonkeyPatch.context() as patch:
                for key, value in (("PROJECT", "project"), ("CACHE", "cache")):
                    patch.setenv(f"UNISCALE_{key}", str(base / value))
                patch.setenv("HOME", str(base))
                made[name] = build(base)
        return made[name]

    return template


@pytest.fixture
def grow(lab_templates: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grow:
    """A lab of one's own, copied from one that was made once."""

    def copied(name: str, build: Callable[[Path], Lab]) -> Lab:
        lab = copy_lab(lab_templates(name, build), tmp_path)
        enter(monkeypatch, lab)
        return lab

    return copied


@pytest.fixture
def make_project(grow: Grow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeProject:
    """Makes a project around a small upstream, alone with its own cache and home folder."""

    def make(files: Files = UPSTREAM, *, unpatched: bool = False, **options: object) -> Lab:
        def build(base: Path) -> Lab:
            lab = make_lab(base, files, **options)  # type: ignore[arg-type]
            if unpatched:
                lab.unpatch()
            return lab

        if options.get("kind", "folder") == "folder":
            return grow(repr((sorted(files.items(), key=str), options, unpatched)), build)
        lab = build(tmp_path)
        enter(monkeypatch, lab)
        return lab

    return make
