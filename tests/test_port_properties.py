"""Properties of porting: onto the same base it is the identity, and there and back it is too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniscale_build.git.db import GitDb
from uniscale_build.porting.replay import Labels, replay
from uniscale_build.porting.resolutions import Resolutions
from uniscale_build.porting.verdict import CONFLICTS, KINDS, classify
from uniscale_build.store import Store

LABELS = Labels("base", "ours", "theirs")
_NAMES = ("a.py", "b.txt", "pkg/c.py", "pkg/d e.md", "bin/é")
_line = st.sampled_from(["x = 1", "y = 2", "", "import os", "z = [1, 2]", "é", "  - k"])
_text = st.lists(_line, max_size=12).map(lambda lines: "\n".join(lines).encode())
_content = _text | st.binary(max_size=40)
_tree = st.dictionaries(st.sampled_from(_NAMES), st.tuples(st.sampled_from(["100644", "100755"]),
                                                           _content), min_size=1)  # fmt: skip


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GitDb]:
    yield GitDb(Store(tmp_path_factory.mktemp("cache"))).open()


Tree = dict[str, tuple[str, bytes]]


def put(db: GitDb, tree: Tree) -> str:
    return db.import_files((os.fsencode(n), mode, data) for n, (mode, data) in tree.items())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=_tree, theirs=_tree)
def test_onto_the_same_base_is_the_identity(db: GitDb, base: Tree, theirs: Tree) -> None:
    one, other = put(db, base), put(db, theirs)
    done = replay(db, one, one, other, LABELS, None)
    assert (done.tree, done.conflicts) == (other, ())
    assert {v.kind for v in classify(db, one, one, other, done)} <= {"clean"}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(base=_tree, ours=_tree, theirs=_tree)
def test_whatever_meets_is_told_and_nothing_is_lost(
    db: GitDb, base: Tree, ours: Tree, theirs: Tree
) -> None:
    one, two, three = trees = [put(db, tree) for tree in (base, ours, theirs)]
    done = replay(db, one, two, three, LABELS, Resolutions(db))
    verdicts = classify(db, one, two, three, done)
    assert {v.kind for v in verdicts} <= set(KINDS)
    assert bool(done.conflicts) <= any(v.kind in CONFLICTS for v in verdicts)
    if done.conflicts:
        return
    # What one side alone changed is as that side has it.
    made = db.list_tree(done.tree)
    files = [db.list_tree(tree) for tree in trees]
    for path in set.intersection(*(set(listed) for listed in files)):
        was, mine, yours = (listed[path] for listed in files)
        if was in (mine, yours):
            assert made[path] == (yours if mine == was else mine)


@st.composite
def _apart(draw: st.DrawFn) -> tuple[Tree, Tree, Tree]:
    """A base, and two sides that change different lines or files of it."""
    lines = [f"line {n}" for n in range(60)]
    first = sorted(draw(st.sets(st.integers(0, 24), min_size=1, max_size=4)))
    second = sorted(draw(st.sets(st.integers(32, 59), min_size=1, max_size=4)))

    def text(at: list[int], word: str) -> bytes:
        found = [f"{word} {n}" if n in at else line for n, line in enumerate(lines)]
        return ("\n".join(found) + "\n").encode()

    base: Tree = {"a.py": ("100644", text([], "")), "b.txt": ("100644", b"b\n")}
    ours = {**base, "a.py": ("100644", text(first, "ours")), "new-ours": ("100644", b"o\n")}
    theirs = {**base, "a.py": ("100644", text(second, "theirs")), "new-theirs": ("100755", b"t\n")}
    if draw(st.booleans()):
        del theirs["b.txt"]
    return base, ours, theirs


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_apart())
def test_there_and_back_gives_the_same_trees(db: GitDb, sides: tuple[Tree, Tree, Tree]) -> None:
    base, ours, theirs = (put(db, side) for side in sides)
    there = replay(db, base, ours, theirs, LABELS, None)
    assert there.conflicts == ()
    assert not {v.kind for v in classify(db, base, ours, theirs, there)} & CONFLICTS
    back = replay(db, ours, base, there.tree, LABELS, None)
    assert (back.tree, back.conflicts) == (theirs, ())
