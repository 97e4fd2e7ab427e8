"""The structural merge: what it settles, what it leaves alone, and that it never breaks a file."""

from __future__ import annotations

import ast
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uniscale_build.structural import merge_file
from uniscale_build.structural.threeway import Hunk, diff, merge


def merged(base: str, ours: str, theirs: str, path: str = "pkg/mod.py") -> str | None:
    found = merge_file(path, base.encode(), ours.encode(), theirs.encode())
    return None if found is None else found.data.decode()


MERGES = {
    "imported-names": (
        "from x import a, b\n",
        "from x import a, b, d\n",
        "from x import a, b, c\n",
        "from x import a, b, d, c\n",
    ),
    "imported-names-in-parentheses": (
        "from x import (\n    a,\n    b,\n)\n",
        "from x import (\n    a,\n    b,\n    c,\n)\n",
        "from x import (\n    a,\n    b,\n    d,  # noqa: F401\n)\n",
        "from x import (\n    a,\n    b,\n    c,\n    d,  # noqa: F401\n)\n",
    ),
    "import-block": (
        "import os\nimport sys\n",
        "import os\nimport re\nimport sys\n",
        "import os\n# for the cache\nimport json\nimport sys\n",
        "import os\nimport re\n# for the cache\nimport json\nimport sys\n",
    ),
    "import-block-both-modules": (
        "from a import x\n\nz = 1\n",
        "from a import x\nfrom b import y\n\nz = 1\n",
        "from a import x\nfrom c import w\n\nz = 1\n",
        "from a import x\nfrom b import y\nfrom c import w\n\nz = 1\n",
    ),
    "import-same-on-both-sides": (
        "import os\n",
        "import os\nimport re\nimport abc\n",
        "import os\nimport re\nimport json\n",
        "import os\nimport re\nimport json\nimport abc\n",
    ),
    "type-checking-block": (
        "if TYPE_CHECKING:\n    from a import b\n",
        "if TYPE_CHECKING:\n    from a import b\n    from c import d\n",
        "if TYPE_CHECKING:\n    from a import b\n    from e import f\n",
        "if TYPE_CHECKING:\n    from a import b\n    from c import d\n    from e import f\n",
    ),
    "list": (
        "x = [\n    1,\n    2,\n]\n",
        "x = [\n    1,\n    2,\n    3,  # three\n]\n",
        "x = [\n    1,\n    2,\n    # a chip of ours\n    4,\n]\n",
        "x = [\n    1,\n    2,\n    3,  # three\n    # a chip of ours\n    4,\n]\n",
    ),
    "list-without-last-comma": (
        "x = [\n    1\n]\n",
        "x = [\n    1,\n    2\n]\n",
        "x = [\n    1,\n    3\n]\n",
        "x = [\n    1,\n    2,\n    3\n]\n",
    ),
    "all": (
        "__all__ = ['a']\n",
        "__all__ = ['a', 'b']\n",
        "__all__ = ['a', 'c']\n",
        "__all__ = ['a', 'b', 'c']\n",
    ),
    "dict": (
        "x = {'a': 1}\n",
        "x = {'a': 1, 'b': 2}\n",
        "x = {'a': 1, 'c': 3}\n",
        "x = {'a': 1, 'b': 2, 'c': 3}\n",
    ),
    "set": ("x = {1}\n", "x = {1, 2}\n", "x = {1, 3, 2}\n", "x = {1, 2, 3}\n"),
    "tuple-of-words": ("x = ('a',)\n", "x = ('a', 'b',)\n", "x = ('a', 'c',)\n",
                       "x = ('a', 'b', 'c',)\n"),
    "one-changes-one-appends": (
        "x = {\n    'a': 1,\n    'b': 2,\n}\n",
        "x = {\n    'a': 1,\n    'b': 22,\n}\n",
        "x = {\n    'a': 1,\n    'b': 2,\n    'c': 3,\n}\n",
        "x = {\n    'a': 1,\n    'b': 22,\n    'c': 3,\n}\n",
    ),
    "one-removes-one-appends": (
        "x = [\n    'a',\n    'b',\n]\n",
        "x = [\n    'a',\n]\n",
        "x = [\n    'a',\n    'b',\n    'c',\n]\n",
        "x = [\n    'a',\n    'c',\n]\n",
    ),
    "keyword-arguments": (
        "f(a, b=1)\n", "f(a, b=1, c=2)\n", "f(a, b=1, d=3)\n", "f(a, b=1, c=2, d=3)\n",
    ),
    "nested": (
        "x = {\n    'a': f(1),\n}\n",
        "x = {\n    'a': f(1, k=2),\n}\n",
        "x = {\n    'a': f(1, z=3),\n}\n",
        "x = {\n    'a': f(1, k=2, z=3),\n}\n",
    ),
    "parameters": (
        "def f(self, a, b=1) -> int:\n    return 1\n",
        "def f(self, a, b=1, c: int = 2) -> int:\n    return 1\n",
        "def f(self, a, b=1, *, d=3) -> int:\n    return 1\n",
        None,
    ),
    "parameters-with-defaults": (
        "class C:\n    def f(self, a, b=1):  # why\n        return 1\n",
        "class C:\n    def f(self, a, b=1, c: int = 2):  # why\n        return 1\n",
        "class C:\n    def f(self, a, b=1, d=3):  # why\n        return 1\n",
        "class C:\n    def f(self, a, b=1, c: int = 2, d=3):  # why\n        return 1\n",
    ),
    "literal": (
        "K = Literal['a', 'b']\n",
        "K = Literal['a', 'b', 'c']\n",
        "K = Literal['a', 'b', 'd']\n",
        "K = Literal['a', 'b', 'c', 'd']\n",
    ),
    "decorator": (
        "@deco(a=1)\ndef g():\n    pass\n",
        "@deco(a=1, b=2)\ndef g():\n    pass\n",
        "@deco(a=1, c=3)\ndef g():\n    pass\n",
        "@deco(a=1, b=2, c=3)\ndef g():\n    pass\n",
    ),
    "crlf": (
        "x = [\r\n    1,\r\n]\r\n",
        "x = [\r\n    1,\r\n    2,\r\n]\r\n",
        "x = [\r\n    1,\r\n    3,\r\n]\r\n",
        "x = [\r\n    1,\r\n    2,\r\n    3,\r\n]\r\n",
    ),
    "chinese": (
        "x = ['甲']  # 一\n", "x = ['甲', '乙']  # 一\n", "x = ['甲', '丙']  # 一\n",
        "x = ['甲', '乙', '丙']  # 一\n",
    ),
    "elements-of-several-lines": (
        "x = [\n    f(\n        1,\n    ),\n]\n",
        "x = [\n    f(\n        1,\n    ),\n    g(\n        2,\n    ),\n]\n",
        "x = [\n    f(\n        1,\n    ),\n    h(\n        3,\n    ),\n]\n",
        "x = [\n    f(\n        1,\n    ),\n    g(\n        2,\n    ),\n"
        "    h(\n        3,\n    ),\n]\n",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MERGES)
def test_settles(name: str) -> None:
    base, ours, theirs, wanted = MERGES[name]
    assert merged(base, ours, theirs) == wanted


@pytest.mark.parametrize("name", sorted(MERGES.keys() - {"crlf"}))
def test_settles_in_the_middle_of_a_file(name: str) -> None:
    base, ours, theirs, wanted = MERGES[name]
    frame = '"""Doc."""\n\nimport abc  # noqa\n\nA = 1\n\n\n{}\n\n\ndef last() -> None:\n    pass\n'
    if name.startswith(("imported", "import-")):
        frame = '"""Doc."""\n\n{}\n\ndef last() -> None:\n    pass\n'
    got = merged(frame.format(base), frame.format(ours), frame.format(theirs))
    assert got == (None if wanted is None else frame.format(wanted))


DOUBTS = {
    "same-key": ("x = {'a': 1}\n", "x = {'a': 1, 'b': 2}\n", "x = {'a': 1, 'b': 3}\n"),
    "same-keyword": ("f(b=1)\n", "f(b=1, c=2)\n", "f(b=1, c=3)\n"),
    "same-parameter": ("def f(a=1):\n    pass\n", "def f(a=1, b=2):\n    pass\n",
                       "def f(a=1, b=3):\n    pass\n"),
    "positional": ("f(a)\n", "f(a, b)\n", "f(a, c)\n"),
    "positional-parameter": ("def f(a): pass\n", "def f(a, b): pass\n", "def f(a, c): pass\n"),
    "bases": ("class C(A): pass\n", "class C(A, B): pass\n", "class C(A, D): pass\n"),
    "tuple-of-values": ("x = (a, 1)\n", "x = (a, 1, 2)\n", "x = (a, 1, 3)\n"),
    "both-change-an-element": ("x = ['a', 'b']\n", "x = ['a', 'B']\n", "x = ['a', 'bb']\n"),
    "both-change-a-value": ("x = {'a': 1}\n", "x = {'a': 2}\n", "x = {'a': 3}\n"),
    "changed-and-removed": ("x = {\n 'a': 1,\n 'b': 2,\n}\n", "x = {\n 'a': 1,\n}\n",
                            "x = {\n 'a': 1,\n 'b': 3,\n}\n"),
    "name-imported-twice": ("import os\n", "import os\nfrom a import n\n",
                            "import os\nfrom b import n\n"),
    "module-moved-away": ("from a import x\n", "from b import x\n", "from a import x, y\n"),
    "star": ("from a import x\n", "from a import *\n", "from a import x, y\n"),
    "future": ("import os\n", "import re\nimport os\n",
               "from __future__ import annotations\nimport os\n"),
    "body-in-the-line": ("if x: y = [1]\n", "if x: y = [1, 2]\n", "if z: y = [1, 3]\n"),
    "semicolon": ("x = [1]; y = 1\n", "x = [1, 2]; y = 2\n", "x = [1, 3]; y = 3\n"),
    "imports-and-code": ("import os\n", "import os\nX = 1\n", "import os\nimport re\n"),
    "statements": ("x = 1\n", "x = 1\ny = 2\n", "x = 1\nz = 3\n"),
    "text": ("x = 'a'\n", "x = 'b'\n", "x = 'c'\n"),
    "f-string": ("x = f'{a}'\n", "x = f'{a}{b}'\n", "x = f'{a}{c}'\n"),
    "comment-lost": ("x = [1]  # one\n", "x = [1, 2]  # two\n", "x = [1, 3]  # three\n"),
    "not-python": ("x = [1\n", "x = [1, 2\n", "x = [1, 3\n"),
    "half-not-python": ("x = [1]\n", "x = [1, 2\n", "x = [1, 3]\n"),
    "sort-order-changed": ("x = [1, 2]\n", "x = [2, 1]\n", "x = [1, 2, 3]\n"),
    "byte-order-mark": ("\ufeffx = [1]\n", "\ufeffx = [1, 2]\n", "\ufeffx = [1, 3]\n"),
    "old-mac-lines": ("x = [1]\r", "x = [1, 2]\r", "x = [1, 3]\r"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOUBTS)
def test_leaves_what_is_not_certain(name: str) -> None:
    assert merged(*DOUBTS[name]) is None


def test_only_known_kinds_of_file() -> None:
    base, ours, theirs, wanted = MERGES["all"]
    assert merged(base, ours, theirs, "pkg/mod.pyi") == wanted
    assert merged(base, ours, theirs, "pkg/mod.txt") is None
    assert merge_file("a.py", b"x = ['\xff']\n", b"x = ['\xff', 1]\n", b"x = ['\xff', 2]\n") is None


@pytest.mark.parametrize(
    "path", ["requirements.txt", "requirements/common.txt", "requirements-x.in"]
)
def test_requirement_files(path: str) -> None:
    base, ours = "torch==2.5\nnumpy\n", "torch==2.6\nnumpy\nregex >= 2  # why\n"
    theirs = "torch==2.5\nnumpy\ntorch-chip==1 ; python_version < '3.13'\n"
    wanted = ours + "torch-chip==1 ; python_version < '3.13'\n"
    assert merged(base, ours, theirs, path) == wanted
    assert merged(base, ours, base.replace("2.5", "2.5.1+chip") + "x\n", path) is None
    assert merged(base, base + "x==1\n", base + "X==2\n", path) is None
    assert merged(base, base + "-r a.txt\n", base + "-r b.txt\n", path) is None
    assert merged(base, base + "x", base + "y", path) is None


@st.composite
def _edited(draw: st.DrawFn, size: int) -> list[int]:
    """Numbers below ``size`` with some removed and new ones put in."""
    items = [n for n in range(size) if not draw(st.booleans()) or draw(st.booleans())]
    for _ in range(draw(st.integers(0, 3))):
        items.insert(draw(st.integers(0, len(items))), draw(st.integers(size, size + 9)))
    return items


_LAYOUTS = {
    "list": ("x = [{}]\n", "{}"),
    "lines": ("x = [\n{}\n]\n", "    {},"),
    "dict": ("x = {{{}}}\n", "{0}: f({0})"),
    "call": ("f({})\n", "k{0}={0}"),
    "names": ("from m import {}\nx = 1\n", "n{}"),
    "imports": ("import os\n{}\n\nx = 1\n", "import m{}"),
    "block": ("def f():\n    return [\n{}\n    ]\n", "        'v{}',  # note {}"),
}


def _render(layout: str, numbers: list[int]) -> str:
    whole, one = _LAYOUTS[layout]
    parts = [one.format(n, n) for n in numbers]
    return whole.format(("\n" if "\n" in whole.split("{}")[0] else ", ").join(parts))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(_LAYOUTS)), st.integers(1, 5).flatmap(
    lambda n: st.tuples(st.just(n), _edited(n), _edited(n))))  # fmt: skip
def test_merges_mean_both_sides_and_parse(
    layout: str, sides: tuple[int, list[int], list[int]]
) -> None:
    size, ours, theirs = sides
    base = list(range(size))
    texts = [_render(layout, numbers) for numbers in (base, ours, theirs)]
    got = merged(*texts)
    if got is None:
        return
    ast.parse(got)
    numbers = [int(n) for n in re.findall(r"\d+", re.sub(r"#.*", "", got))]
    if layout == "dict":
        numbers = numbers[::2]
    if layout == "call":
        numbers = numbers[::2]
    kept = [n for n in base if n in ours and n in theirs]
    if layout in ("names", "imports"):
        numbers = [int(n) for n in re.findall(r"[nm](\d+)", got)]
    new = [n for n in (*ours, *theirs) if n >= size]
    assert set(numbers) == {*kept, *new}
    assert [n for n in numbers if n < size] == kept


_SNIPPETS = [
    "import os", "import re", "from a import b", "from a import (b, c)", "x = [1, 2]",
    "x = {'a': 1}", "f(1, k=2)", "def g(a, b=1):\n    return [a,\n        b]", "class C(A): pass",
    "if x:\n    y = (1,\n        2)\nelse:\n    z = 1", "# a comment", "", "s = '''\n[1,\n'''",
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.randoms(use_true_random=False))
def test_random_files_never_break(rng: random.Random) -> None:
    lines = [rng.choice(_SNIPPETS) for _ in range(rng.randint(1, 6))]
    base = "\n".join(lines) + "\n"

    def edited() -> str:
        text = base
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(text))
            what = rng.choice([", 7", ", q=8", "\nimport json", ", 'n'", "9, ", "\n", " # c", ""])
            text = text[:at] + what + text[at + rng.randint(0, 2) :]
        return text

    got = merged(base, edited(), edited())
    if got is not None:
        compile(got, "x", "exec")


_items = st.lists(st.integers(0, 6), max_size=14)


@given(_items, _items)
def test_diff_turns_one_into_the_other(a: list[int], b: list[int]) -> None:
    out, at = [], 0
    for hunk in diff(a, b):
        assert hunk.a0 > at or at == 0
        out += a[at : hunk.a0]
        assert len(out) == hunk.b0
        out += b[hunk.b0 : hunk.b1]
        at = hunk.a1
    assert out + a[at:] == b


@given(_items, _items, _items)
def test_merge_regions_cover_all_sides(base: list[int], ours: list[int], theirs: list[int]) -> None:
    regions = merge(base, ours, theirs)
    for side, name in ((base, "base"), (ours, "ours"), (theirs, "theirs")):
        spans = [getattr(region, name) for region in regions]
        assert [n for span in spans for n in range(*span)] == list(range(len(side)))
    for region in regions:
        parts = [s[slice(*span)] for s, span in
                 ((base, region.base), (ours, region.ours), (theirs, region.theirs))]  # fmt: skip
        same = {"same": parts[0] == parts[1] == parts[2], "ours": parts[0] == parts[2],
                "theirs": parts[0] == parts[1], "both": parts[1] == parts[2],
                "conflict": parts[1] != parts[2]}  # fmt: skip
        assert same[region.kind]


def test_diff_of_long_rewritten_files_is_quick_and_right() -> None:
    a = [n % 7 for n in range(3000)]
    b = [n % 5 for n in range(3000)]
    hunks = diff(a, b)
    assert hunks
    assert diff(a, a) == []
    assert diff([], [1]) == [Hunk(0, 0, 0, 1)]
