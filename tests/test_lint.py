"""The reader of patches: agrees with git, survives anything, and says where."""

from __future__ import annotations

import dataclasses
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from uniscale_build.layers.binarypatch import block_problem
from uniscale_build.layers.layerfile import patch_label, same_patch, sections, shown
from uniscale_build.layers.lint import lint_patch
from uniscale_build.layers.markers import marker_problems
from uniscale_build.layers.patchtext import quote, read_closely, read_patch, unquote
from uniscale_build.layers.plainpatch import plain_section
from uniscale_build.pathrules import escaping_links, is_dot_git, link_problem, path_problem

from tests.hostile.patches import GOOD, OTHER, binary, changed, created
from tests.upstreams import LINES, git

NAME = st.binary(min_size=1, max_size=12).filter(lambda b: b"\0" not in b and b"/" not in b)


def slugs(data: bytes, **options: object) -> list[str]:
    """The errors in a patch."""
    found = lint_patch(data, where="x.patch", **options)  # type: ignore[arg-type]
    return [error.slug for error in found.errors]


@given(NAME)
@example(b'quo"te\\')
@example("é文".encode())
@example(b"\xff\xfe")
@example(b"tab\there")
def test_names_come_back_from_their_quotes(name: bytes) -> None:
    for high in (True, False):
        assert unquote(quote(name, high=high)) == name


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(NAME, min_size=1, max_size=6, unique=True))
def test_names_are_quoted_as_git_does(names: list[bytes], tmp_path: Path) -> None:
    """git's own header for any name is read as that name."""
    names = [n for n in names if n not in (b".", b"..") and not is_dot_git(n) and not _kept(n)]
    if not names:
        return
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r"))
    subprocess.run(["rm", "-rf", str(folder)], check=True)
    folder.mkdir()
    git("init", "-q", ".", cwd=folder)
    for name in names:
        (folder / os.fsdecode(name)).write_bytes(b"x\n")
    git("add", "-A", "-f", cwd=folder)
    patch = git("diff", "--cached", "--binary", "--full-index", cwd=folder)
    found, problems = read_patch(patch)
    assert not problems
    assert sorted(section.path for section in found) == sorted(names)
    numbers = git("apply", "--numstat", "-z", cwd=folder, stdin=patch).split(b"\0")[:-1]
    assert [section.path for section in found] == [line.split(b"\t", 2)[2] for line in numbers]


def _kept(name: bytes) -> bool:
    return name.startswith(b".git") or path_problem(name) not in (
        None, ("control-character", "has a control character in its name"),
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([GOOD, OTHER, GOOD + OTHER, binary(b"literal", 40, bytes(40)), created(b"a")]),
    st.integers(0, 600), st.integers(0, 40), st.binary(max_size=12),
)  # fmt: skip
def test_damage_is_an_error_or_harmless(patch: bytes, at: int, cut: int, put: bytes) -> None:
    """Whatever is cut out or put in: sentences, no exception; what passes is what git reads."""
    damaged = patch[:at] + put + patch[at + cut :]
    found = lint_patch(damaged, where="x.patch")
    for error in found.errors:
        assert error.what and (error.where or "").startswith("x.patch:")
    if not found.errors:
        done = subprocess.run(["git", "apply", "--numstat", "-z"], input=damaged,
                              capture_output=True, cwd="/")  # fmt: skip
        if done.returncode == 0:
            lines = done.stdout.split(b"\0")[:-1]
            assert [s.path for s in found.sections] == [line.split(b"\t", 2)[2] for line in lines]


@given(st.binary(max_size=400))
def test_noise_is_never_a_patch(noise: bytes) -> None:
    assert slugs(noise)


PLAIN = changed(
    b"a/b.py", b"@@ -1,3 +1,4 @@ def x():\n one\n-two\n+zwei\n+drei\n three\n@@ -9 +10 @@\n-+\n+-\n"
)
GONE = PLAIN.replace(b"index", b"deleted file mode 100755\nindex").replace(b" 100644\n", b"\n")
GONE = GONE.replace(b"+++ b/a/b.py", b"+++ /dev/null")


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([PLAIN, GONE]), st.integers(0, 300), st.integers(0, 3),
    st.sampled_from([b"", b"\n", b"+", b"-", b" ", b"1", b",", b"\r", b"\\", b"\0", b"@@ ", b"a/"]),
)  # fmt: skip
@example(PLAIN, 0, 0, b"")
@example(GONE, 0, 0, b"")
def test_plain_patches_are_read_as_all_others(patch: bytes, at: int, cut: int, put: bytes) -> None:
    """The short way says what the long way says, or leaves the patch to it."""
    damaged = patch[:at] + put + patch[at + cut :]
    plain = plain_section(damaged)
    if damaged == patch:
        assert plain is not None
    if plain is not None:
        (section,), problems = read_closely(damaged)
        assert not problems
        assert (plain.added, plain.removed) == (section.added, section.removed)
        assert dataclasses.replace(plain, text=b"", start=0) == section


def test_place_of_an_error() -> None:
    data = OTHER + GOOD.replace(b"-1,3", b"-1,5")
    (error,) = lint_patch(data, where="patches/demo/x/diff/y.patch").errors
    assert error.where == f"patches/demo/x/diff/y.patch:{OTHER.count(bytes([10])) + 5}"


def test_all_errors_at_once() -> None:
    data = created(b"../a") + created(b".git/b") + GOOD.replace(b"-1,3", b"-1,5")
    assert set(slugs(data)) == {"path-escape", "dot-git", "truncated"}


def test_a_mail_is_read() -> None:
    mail = b"From 1111 Mon Sep 17 00:00:00 2001\nFrom: A <a@b.org>\nSubject: x\n\n---\n 1 file\n\n"
    assert slugs(mail + GOOD + b"-- \n2.39.5\n\n") == []


def test_warnings() -> None:
    def warned(data: bytes) -> list[str]:
        return [item.slug for item in lint_patch(data, where="x").warnings]

    for path in (b"setup.py", b"a/pyproject.toml", b"CMakeLists.txt", b"cmake/x.cmake", b"i.sh",
                 b"Makefile", b".github/workflows/x.yml", b"tests/conftest.py"):  # fmt: skip
        assert warned(created(path)) == ["build-time"], path
    assert warned(created(b"mysetup.py")) == []
    assert warned(created(b"a.py", "x = 1  # \u202e\n".encode())) == ["bidi"]
    assert warned(created(b"a.py", b"<<<<<<< ours\n=======\n>>>>>>> theirs\n")) == [
        "conflict-markers"
    ]


@pytest.mark.parametrize(
    ("added", "removed", "problems"),
    [
        ([b"# uniscale: begin a", b"x", b"# uniscale: end a"], [], []),
        ([b"/* uniscale: begin a */", b"// uniscale: end a"], [], []),
        ([b"# uniscale: begin a"], [], ["marker"]),
        ([b"# uniscale: end a"], [], ["marker"]),
        ([b"# uniscale: end a", b"# uniscale: begin a"], [], ["marker", "marker"]),
        ([b"# uniscale: begin b", b"# uniscale: end b"], [], ["foreign-marker"] * 2),
        ([], [b"# uniscale: begin b", b"# uniscale: end b"], []),
        ([], [b"# uniscale: end b"], ["marker"]),
    ],
)
def test_markers(added: list[bytes], removed: list[bytes], problems: list[str]) -> None:
    assert [slug for slug, _ in marker_problems(added, removed, "a")] == problems


@pytest.mark.parametrize(
    "links",
    [
        {b"a/up": b"..", b"x": b"a/up/../etc"},
        {b"a/b/top": b"../..", b"x": b"a/b/top/../y"},
        {b"one": b"two", b"two": b"three/..", b"three": b"four", b"four": b"..//.."},
        {b"d": b"/etc"},
    ],
)
def test_links_that_leave_step_by_step(links: dict[bytes, bytes]) -> None:
    assert escaping_links(links)


@pytest.mark.parametrize(
    "links",
    [
        {b"a/up": b"..", b"x": b"a/up/y"},
        {b"a": b"b", b"b": b"a"},
        {b"a": b"a/b"},
        {b"lib/x.so": b"x.so.1", b"lib/x.so.1": b"../lib64/x.so"},
        {b"a/b/c": b"../../d/../e"},
    ],
)
def test_links_that_stay(links: dict[bytes, bytes]) -> None:
    assert escaping_links(links) == []
    assert [link_problem(path, target) for path, target in links.items()] == [None] * len(links)


@given(st.lists(NAME.filter(lambda n: b".patch" not in n), min_size=1, max_size=4))
def test_labels_are_one_to_one(parts: list[bytes]) -> None:
    path = b"/".join(parts)
    assert patch_label(path) == b"diff/" + path + b".patch"
    below = patch_label(b"x.patch/" + path)
    assert below.count(b"/") == 1 and below != patch_label(b"y.patch/" + path)


def test_labels_of_long_names_fit() -> None:
    for length in (249, 250, 255):
        assert len(patch_label(b"a/" + b"n" * length).rsplit(b"/", 1)[1]) <= 255


def test_sections_do_not_split_content() -> None:
    text = b"\n".join([b"diff --git a/x b/x", b"--- a/x", b"@@ -1 +1 @@", b""])
    assert len(sections(created(b"p", text) + GOOD)) == 2


def test_binary_patches_of_another_zlib_are_the_same() -> None:
    one = binary(b"literal", 900, bytes(900))
    other = one.replace(b"literal 900\n", b"literal 900\nAc${Nk\n")
    assert one != other and same_patch(one, other)
    assert not same_patch(one, other.replace(b"1111111", b"2222222"))
    assert not same_patch(GOOD, OTHER)


def test_binary_blocks() -> None:
    assert block_problem(b"literal 5", []) is not None
    assert block_problem(b"literal x", [b"Azzzzz"]) is not None
    assert block_problem(b"delta 5", [b"E" + b"!" * 10]) is not None


def test_text_for_people() -> None:
    assert shown("é文 x".encode()) == "é文 x"
    assert shown(b"\xff\x1b[31m\n") == "\\xff\\x1b[31m\\n"


def test_a_change_that_goes_far() -> None:
    """Thousands of lines in one patch are no problem, and counted right."""
    text = LINES * 200
    found = lint_patch(created(b"big", text), where="x")
    assert not found.errors and len(found.sections[0].added) == text.count(b"\n")
    assert slugs(changed(b"x", b"@@ -1,0 +2 @@\n+a\n")) == []
