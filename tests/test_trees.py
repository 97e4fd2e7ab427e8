"""Trees made of others with files changed, against what git's own index makes of the same."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniscale_build.errors import UniscaleError
from uniscale_build.git.db import EMPTY, EMPTY_TREE, Entry, GitDb, changed_tree
from uniscale_build.store import Store

# Few names, so that files and folders meet; with names that sort around a folder's slash.
NAMES = st.sampled_from([b"a", b"a.b", b"a-b", b"a0", b"b", b"\xff\n", "名".encode()])
PATHS = st.lists(NAMES, min_size=1, max_size=3).map(b"/".join)
MODES = st.sampled_from(["100644", "100755", "120000"])
FILES = st.dictionaries(PATHS, st.tuples(MODES, st.binary(max_size=3)), max_size=8)


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> GitDb:
    return GitDb(Store(tmp_path_factory.mktemp("cache"))).open()


def fits(files: dict[bytes, tuple[str, bytes]]) -> dict[bytes, tuple[str, bytes]]:
    """The files without those that lie behind another one."""
    return {
        path: file
        for path, file in files.items()
        if not any(path.startswith(other + b"/") for other in files)
    }


def entries(db: GitDb, files: dict[bytes, tuple[str, bytes]]) -> dict[bytes, Entry]:
    oids = db.write_blobs([data for _, data in files.values()])
    return {p: Entry(m, oid) for (p, (m, _)), oid in zip(files.items(), oids, strict=True)}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(FILES.map(fits), FILES, st.sets(PATHS, max_size=4))
def test_a_changed_tree_is_the_one_that_git_makes(
    db: GitDb,
    before: dict[bytes, tuple[str, bytes]],
    after: dict[bytes, tuple[str, bytes]],
    gone: set[bytes],
) -> None:
    """Added, replaced and removed files, folders that come and go: the id, and every entry."""
    base = changed_tree(db, EMPTY, entries(db, before))
    assert db.list_tree(base) == entries(db, before)
    changes: dict[bytes, Entry | None] = {**dict.fromkeys(gone), **entries(db, after)}
    whole = {p: e for p, e in {**entries(db, before), **changes}.items() if e is not None}
    both = any(one.startswith(other + b"/") for one in whole for other in whole)
    if both:
        with pytest.raises(UniscaleError) as raised:
            changed_tree(db, db.listing(base), changes)
        assert raised.value.slug == "file-and-folder"
        return
    made = changed_tree(db, db.listing(base), changes)
    assert db.list_tree(made) == whole
    with db.index() as index:
        index.fill(whole)
        assert index.write_tree() == made


def test_a_tree_with_nothing_left_is_the_empty_one(db: GitDb) -> None:
    tree = changed_tree(db, EMPTY, entries(db, {b"a/b/c": ("100644", b"x")}))
    assert changed_tree(db, db.listing(tree), {b"a/b/c": None}) == EMPTY_TREE
    assert changed_tree(db, db.listing(tree), {b"absent/x": None, b"a/b": None}) == tree


def test_a_listing_tells_files_folders_and_links(db: GitDb) -> None:
    files = {b"a/b": ("100644", b"x"), b"a/c": ("120000", b"b"), b"d": ("100755", b"")}
    tree = changed_tree(db, EMPTY, {**entries(db, files), b"sub": Entry("160000", "1" * 40)})
    listing = db.listing(tree, keep=True)
    kept = db.listing(tree)
    assert (
        listing.as_bytes() == kept.as_bytes() == (db.path / "uniscale-listings" / tree).read_bytes()
    )
    assert set(kept.below(b"")) == set(listing.below(b"")) == {*files, b"sub"}
    assert db.listing(EMPTY_TREE, keep=True).as_bytes() == db.listing(EMPTY_TREE).as_bytes()
    assert listing.file(b"sub") == Entry("160000", "1" * 40)
    assert {p: listing.file(p) for p in files} == entries(db, files)
    assert (listing.file(b"a"), listing.file(b"absent")) == (None, None)
    assert [listing.is_folder(p) for p in (b"a", b"d", b"absent")] == [True, False, False]
    assert dict(listing.links) == {b"a/c": entries(db, files)[b"a/c"].oid}
    assert set(listing.below(b"a")) == {b"a/b", b"a/c"}


def test_a_kept_listing_that_is_damaged_is_not_used(db: GitDb) -> None:
    files = {b"a": ("100644", b"x"), b"b/c": ("100644", b"y")}
    tree = changed_tree(db, EMPTY, entries(db, files))
    whole = db.listing(tree, keep=True).as_bytes()
    kept = db.path / "uniscale-listings" / tree
    for damaged in (b"", whole[:20], whole.replace(b"a", b"z"), b"\0" * 40):
        kept.write_bytes(damaged)
        assert db.listing(tree, keep=True).as_bytes() == whole == kept.read_bytes()
