"""Exporting and applying are inverse for any two trees, and exporting is a fixed point."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from uniscale_build.errors import UniscaleError
from uniscale_build.git.db import Entry, GitDb, changed_tree
from uniscale_build.layers.layer import apply_layer, read_layer
from uniscale_build.layers.layerfile import (
    About,
    changes,
    export,
    new_yaml,
    updated_yaml,
    write_folder,
)
from uniscale_build.store import Store

from tests.upstreams import LINES

ABOUT = About("Title: with colon", "Why: because\n\n  indented 'quotes' \"both\"\n", "Ö", "o@x.org")
Tree = dict[str, tuple[str, bytes]]

PARTS = ("a", "b", "a.patch", "x y", "é", ".gitignore", "b.txt", "-d", "[1]")
CONTENTS = (
    b"", b"\n", b"one\ntwo\nthree", LINES, LINES.replace(b"line 7 ", b"LINE 7 "), LINES[200:],
    LINES + b"more\n", LINES.replace(b"\n", b"\r\n"), bytes(range(256)) * 3, b"\0" * 700, b"\xff\n",
)  # fmt: skip
PATHS = st.lists(st.sampled_from(PARTS), min_size=1, max_size=3).map("/".join)
FILES = st.tuples(st.sampled_from(["100644", "100644", "100755"]), st.sampled_from(CONTENTS))
LINKS = st.tuples(st.just("120000"), st.sampled_from([b"a", b"b.txt", b"x y/a"]))


def consistent(tree: Tree) -> Tree:
    """Without files that lie below other files."""
    return {path: entry for path, entry in tree.items()
            if not any(path.startswith(other + "/") for other in tree)}  # fmt: skip


TREES = st.dictionaries(PATHS, st.one_of(FILES, FILES, LINKS), max_size=10).map(consistent)


@st.composite
def edited(draw: st.DrawFn) -> tuple[Tree, Tree]:
    """A tree and what edits made of it: moves, swaps, changes, additions, deletions."""
    base = draw(TREES)
    result = dict(base)
    for path in sorted(base):
        match draw(st.sampled_from(["keep", "keep", "drop", "move", "swap", "write", "mode"])):
            case "drop":
                result.pop(path)
            case "move":
                result[draw(PATHS)] = result.pop(path)
            case "swap":
                other = draw(st.sampled_from(sorted(base)))
                if path in result and other in result:
                    result[path], result[other] = result[other], result[path]
            case "write":
                result[path] = draw(st.one_of(FILES, LINKS))
            case "mode" if path in result and result[path][0] != "120000":
                result[path] = ("100755", result[path][1])
            case _:
                pass
    result |= draw(st.dictionaries(PATHS, FILES, max_size=3))
    return base, consistent(result)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> GitDb:
    """One store for all examples."""
    return GitDb(Store(tmp_path_factory.mktemp("store"))).open()


def stored(db: GitDb, tree: Tree) -> str:
    """The tree in the store."""
    return db.import_files(
        (path.encode(), mode, data) for path, (mode, data) in sorted(tree.items())
    )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(trees=edited())
@example(trees=({"a": ("100644", LINES), "b": ("100644", LINES[200:])},
                {"b": ("100644", LINES), "a": ("100644", LINES[200:])}))  # fmt: skip
@example(trees=({"a": ("100644", LINES)}, {"a/b": ("100644", LINES)}))
@example(trees=({"a/b": ("100644", LINES)}, {"a": ("100644", LINES)}))
@example(trees=({"b": ("120000", b"a")}, {"b/a": ("120000", b"a")}))
@example(trees=({"b/a": ("120000", b"a")}, {"b": ("120000", b"a")}))
@example(trees=({"a/b": ("100644", LINES)}, {"a": ("120000", b"b"), "b": ("100644", LINES)}))
@example(trees=({"a": ("100644", LINES), "b": ("120000", b"a")},
                {"b": ("100644", LINES), "a": ("120000", b"b")}))  # fmt: skip
def test_export_and_apply_are_inverse(db: GitDb, tmp_path: Path, trees: tuple[Tree, Tree]) -> None:
    base, result = (stored(db, tree) for tree in trees)
    folder = tmp_path / "layer"
    shutil.rmtree(folder, ignore_errors=True)
    members = export(db, base, result)
    write_folder(folder, members, new_yaml(ABOUT, base, result))
    layer = read_layer(folder, "demo")
    assert apply_layer(db, base, layer) == result
    assert export(db, base, apply_layer(db, base, layer)) == members
    on_disk = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert on_disk == {"layer.yaml", *(path.decode() for path in members)}


def test_yaml_of_a_layer(db: GitDb, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    write_folder(folder, {}, new_yaml(ABOUT, "1" * 40, "2" * 40))
    layer = read_layer(folder, "demo")
    assert (layer.title, layer.owner, layer.base) == (ABOUT.title, "Ö", "1" * 40)
    assert layer.why == ABOUT.why.strip()
    later = updated_yaml((folder / "layer.yaml").read_bytes(), "3" * 40, "0" * 40, "x")
    (folder / "layer.yaml").write_bytes(later)
    assert (read_layer(folder, "demo").base, read_layer(folder, "demo").result) == (
        "3" * 40, "0" * 40,
    )  # fmt: skip


@pytest.mark.parametrize(
    "word", ["no", "0.10", "012", "~", "a: b", "# x", "- x", "'", "é", "x" * 300]
)
def test_yaml_keeps_text(word: str, tmp_path: Path) -> None:
    about = About(word, f"{word}\n{word}", word, word)
    write_folder(tmp_path / "x", {}, new_yaml(about, "1" * 40, "2" * 40))
    layer = read_layer(tmp_path / "x", "demo")
    assert (layer.title, layer.owner, layer.contact) == (word, word, word)
    assert layer.why.replace("\n", "").replace(" ", "") == (word * 2).replace(" ", "")


def test_what_an_old_folder_has_is_linked(db: GitDb, tmp_path: Path) -> None:
    base = stored(db, {"a": ("100644", LINES), "b": ("100644", LINES)})
    one = stored(db, {"a": ("100644", b"1\n"), "b": ("100644", b"1\n"), "n": ("100755", b"x\n")})
    two = stored(db, {"a": ("100644", b"1\n"), "c": ("100644", b"1\n"), "n": ("100644", b"x\n")})
    old, new = tmp_path / "old", tmp_path / "new"
    write_folder(old, export(db, base, one), new_yaml(ABOUT, base, one))
    (old / "README.md").write_text("About.\n")
    written = write_folder(new, export(db, base, two), new_yaml(ABOUT, base, two), like=old)
    assert (written.added, written.removed) == (("overlay/c",), ())
    assert written.changed == ("diff/b.patch", "layer.yaml", "overlay/n")
    assert written.kept == 2
    for name in ("diff/a.patch", "README.md"):
        assert (new / name).stat().st_ino == (old / name).stat().st_ino
    assert (old / "overlay/n").stat().st_mode & 0o100
    assert not (new / "overlay/n").stat().st_mode & 0o100


def test_gitlinks_are_refused(db: GitDb) -> None:
    base = stored(db, {"a": ("100644", b"x\n")})
    result = changed_tree(db, db.listing(base), {b"sub": Entry("160000", "1" * 40)})
    with pytest.raises(UniscaleError, match="gitlink"):
        export(db, base, result)


def test_changes_are_told_with_both_names(db: GitDb) -> None:
    base = stored(db, {"a": ("100644", LINES), "l": ("120000", b"a")})
    result = stored(db, {"b": ("100755", LINES), "l": ("100644", b"a")})
    assert [(c.status, c.old_path, c.path, c.overlay) for c in changes(db, base, result)] == [
        ("R", b"a", b"b", False), ("T", b"l", b"l", False),
    ]  # fmt: skip


def test_more_paths_than_a_command_line_holds(db: GitDb, tmp_path: Path) -> None:
    links = {f"links/{'l' * 180}{n}".encode(): ("120000", b"../x") for n in range(12_000)}
    base = db.import_files([(b"x", "100644", b"1\n")])
    result = db.import_files(
        [(b"x", "100644", b"1\n"), *((path, mode, data) for path, (mode, data) in links.items())]
    )
    members = export(db, base, result)
    assert len(members) == len(links)
    assert {m.data.count(b"diff --git ") for m in members.values()} == {1}
    assert export(db, result, base).keys() == members.keys()
