"""Applying a layer: two gits make the same tree as one, and what lint refuses reaches neither."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from uniscale_build.errors import UniscaleError
from uniscale_build.git.db import EMPTY_TREE, GitDb, Running
from uniscale_build.git.entry import blob_id
from uniscale_build.layers import together
from uniscale_build.layers.layer import Layer, apply_layer, apply_linted, read_layer
from uniscale_build.layers.layerfile import About, export, new_yaml, write_folder
from uniscale_build.layers.lint import Added, Patch, lint_layer
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


class Watching:
    """Notes what lint passes on."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.patches: list[Patch] = []

    def added(self, files: Sequence[Added]) -> None:
        self.files += [file.path for file in files]

    def patch(self, patch: Patch, of: int) -> None:
        assert len(self.patches) < of
        self.patches.append(patch)


def test_lint_passes_on_what_is_in_order(layer: Layer) -> None:
    """Added files first, then patches, up to the first one that is not."""
    watching = Watching()
    found = lint_layer(layer, watching)
    assert watching.files == [b"new/one.py"] == [file.path for file in found.overlay]
    assert watching.patches == found.patches

    third = layer.patches[2]
    third.write_bytes(third.read_bytes()[:-30])
    watching = Watching()
    assert lint_layer(layer, watching).errors
    assert watching.patches == found.patches[:2]

    (layer.folder / "overlay" / "link").symlink_to("/etc/passwd")
    watching = Watching()
    assert lint_layer(layer, watching).errors
    assert (watching.files, watching.patches) == ([], [])


def test_nothing_is_shared_where_a_file_takes_a_folders_place(
    db: GitDb, layer: Layer, gits: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """git's own answer counts then, whatever it is: one git is given everything."""
    monkeypatch.setattr(together, "cores", lambda: 2)
    (layer.folder / "diff" / "pkg" / "3.patch").write_bytes(created(b"pkg/3", LINES))
    found = lint_layer(layer)
    assert not found.errors
    with together.Applying(db, layer.base) as work:
        for patch in found.patches:
            work.patch(patch, len(found.patches))
        split = work.apply(found, lambda: None)
    assert split.patches == found.patches and applied(gits) == 2
    with together.Applying(db, layer.base, alone=True) as work:
        alone = work.apply(found, lambda: None)
    assert (alone.ran.code, alone.files) == (split.ran.code, split.files)


@pytest.mark.parametrize("share", [0, 1])
def test_every_patch_that_does_not_fit_is_named(
    db: GitDb, layer: Layer, share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever git has it: nothing is applied, and the file is told with its place."""
    monkeypatch.setattr(together, "cores", lambda: 2)
    names = [path for path in sorted(BASE) if path in RESULT]
    bad = names[3:5] if share else names[-2:]
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
    for name in ("pkg/0/moved.py", "pkg/0/file07.py", "pkg/0/file14.py"):
        path = layer.folder / "diff" / f"{name}.patch"
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


def test_what_the_store_has_is_not_written_again(
    db: GitDb, layer: Layer, gits: list[tuple[str, ...]]
) -> None:
    """Neither files nor trees; what is missing is, whatever it is."""

    def writers() -> list[str]:
        found = [args[0] for args in gits if args[0] in ("hash-object", "mktree")]
        gits.clear()
        return found

    apply_layer(db, layer.base, layer)
    gits.clear()
    assert apply_layer(db, layer.base, layer) == layer.result
    assert writers() == []
    blob = blob_id((layer.folder / "overlay" / "new" / "one.py").read_bytes())
    for oid, writer in ((blob, "hash-object"), (layer.result, "mktree")):
        (db.path / "objects" / oid[:2] / oid[2:]).unlink()
        assert apply_layer(db, layer.base, layer) == layer.result
        assert writers() == [writer] and db.has(oid)


def test_a_file_that_changes_after_it_was_looked_at_is_refused(db: GitDb, layer: Layer) -> None:
    file = layer.folder / "overlay" / "new" / "one.py"
    file.write_bytes(b"what is looked at\n")
    found = lint_layer(layer)
    file.write_bytes(b"something else\n")
    with pytest.raises(UniscaleError) as raised:
        apply_linted(db, layer.base, layer, found)
    assert raised.value.slug == "changed-meanwhile"


def test_an_index_is_written_and_read_as_git_does_it(db: GitDb) -> None:
    """Modes, links, names of every length up to those that an entry has no room to count."""
    names = [b"x" * n for n in range(1, 20)] + ["说明 x".encode(), b"\xff/\n", b"d/" * 2100 + b"e"]
    modes = ("100644", "100755", "120000")
    tree = db.import_files((n, modes[len(n) % 3], b"%d" % len(n)) for n in names)
    listed = db.list_tree(tree)
    with db.index(tree) as index, db.index() as other:
        assert index.entries() == listed
        other.fill(listed)
        assert other.write_tree() == tree
        other.fill({})
        assert other.entries() == {} and other.write_tree() == EMPTY_TREE
