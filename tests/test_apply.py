"""Applying a layer: two gits make the same tree as one, and what lint refuses reaches neither."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from uniscale_build.errors import UniscaleError
from uniscale_build.git.db import GitDb, Running
from uniscale_build.layers import together
from uniscale_build.layers.layer import Layer, apply_layer, apply_linted, read_layer
from uniscale_build.layers.layerfile import About, export, new_yaml, write_folder
from uniscale_build.layers.lint import lint_layer, lint_patch
from uniscale_build.store import Store

from tests.hostile.patches import created
from tests.upstreams import LINES

Tree = dict[str, bytes]
BASE: Tree = {f"pkg/{n % 7}/file{n:02}.py": b"# %d\n" % n + LINES for n in range(60)}
RESULT: Tree = {path: data.replace(b"line 20 ", b"LINE 20 ") for path, data in BASE.items()} | {
    "new/one.py": b"print(1)\n" * 30,
    "pkg/0/moved.py": BASE["pkg/0/file00.py"] + b"# moved\n",
}
del RESULT["pkg/0/file00.py"], RESULT["pkg/1/file01.py"]


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> GitDb:
    """One store for all tests."""
    return GitDb(Store(tmp_path_factory.mktemp("store"))).open()


def stored(db: GitDb, tree: Tree) -> str:
    """The tree in the store."""
    return db.import_files((path.encode(), "100644", data) for path, data in tree.items())


@pytest.fixture
def layer(db: GitDb, tmp_path: Path) -> Layer:
    """From `BASE` to `RESULT`."""
    base, result = stored(db, BASE), stored(db, RESULT)
    folder = tmp_path / "patches" / "demo" / "big"
    about = About("Big", "Because.", "a", "b")
    write_folder(folder, export(db, base, result), new_yaml(about, base, result))
    return read_layer(folder, "demo")


@pytest.fixture
def gits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that are given to git, from now on."""
    told: list[tuple[str, ...]] = []
    start = GitDb.start

    def listening(db: GitDb, *args: str, **options: object) -> Running:
        told.append(args)
        return start(db, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(GitDb, "start", listening)
    return told


def applied(gits: list[tuple[str, ...]]) -> int:
    """How many gits took patches."""
    return sum(args[0] == "apply" for args in gits)


@pytest.mark.parametrize(("cores", "count"), [(2, 2), (1, 1)])
def test_two_gits_make_the_tree_of_one(
    db: GitDb, layer: Layer, gits: list[tuple[str, ...]], cores: int, count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(together, "cores", lambda: cores)
    assert apply_layer(db, layer.base, layer) == layer.result
    assert applied(gits) == count
    assert apply_linted(db, layer.base, layer, lint_layer(layer)) == layer.result
    assert applied(gits) == count + 1


def test_shares_are_disjoint_and_whole(layer: Layer) -> None:
    patches = lint_layer(layer).patches
    first, second = together.share_out(patches)
    assert len(second) > 20 and sorted(first + second) == sorted(patches)
    assert all(s.old == s.new for patch in second for s in patch.sections)
    assert together.share_out(patches[:20]) == (patches[:20], [])


def test_nothing_is_shared_where_a_file_takes_a_folders_place(layer: Layer) -> None:
    found = lint_layer(layer)
    found.add(lint_patch(created(b"pkg/6"), where="x"))
    assert not found.errors
    assert together.share_out(found.patches) == (found.patches, [])


@pytest.mark.parametrize("share", [0, 1])
def test_every_patch_that_does_not_fit_is_named(
    db: GitDb, layer: Layer, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever git has it: nothing is applied, and the file is told with its place."""
    monkeypatch.setattr(together, "cores", lambda: 2)
    patches = together.share_out(lint_layer(layer).patches)[share]
    bad = [patches[-1].sections[0].path.decode(), patches[-2].sections[0].path.decode()]
    for name in bad:
        path = layer.folder / "diff" / f"{name}.patch"
        path.write_bytes(path.read_bytes().replace(b" line 19 ", b" line nineteen "))
    with pytest.raises(UniscaleError) as raised:
        apply_layer(db, layer.base, layer)
    errors = raised.value.findings()
    assert [error.slug for error in errors] == ["patch-failed"] * 2
    for name in bad:
        assert any(f"diff/{name}.patch" in (error.where or "") for error in errors)


def test_what_lint_refuses_reaches_no_git(
    db: GitDb, layer: Layer, gits: list[tuple[str, ...]]
) -> None:
    """Neither a patch nor an added file; files in order may be hashed while patches are read."""
    path = layer.folder / "diff" / "pkg/2/file02.py.patch"
    path.write_bytes(path.read_bytes()[:-30])
    for _ in range(2):
        with pytest.raises(UniscaleError) as raised:
            apply_layer(db, layer.base, layer)
        assert {error.slug for error in raised.value.findings()} == {"truncated"}
    assert not applied(gits)

    evil = b"#%d\n" % 7_654_321
    (layer.folder / "overlay" / "new" / "GIT~1").write_bytes(evil)
    gits.clear()
    with pytest.raises(UniscaleError):
        apply_layer(db, layer.base, layer)
    assert gits == []
    assert not db.has(hashlib.sha1(b"blob %d\0" % len(evil) + evil).hexdigest())


def test_added_files_are_seen_before_the_patches(layer: Layer) -> None:
    seen: list[list[bytes]] = []
    found = lint_layer(layer, seen=lambda files: seen.append([file.path for file in files]))
    assert seen == [[b"new/one.py"]] == [[file.path for file in found.overlay]]
    (layer.folder / "overlay" / "link").symlink_to("/etc/passwd")
    assert lint_layer(layer, seen=lambda _: seen.append([])).errors and len(seen) == 1
