"""RECORD texts: whatever is written is read back, and nothing else is taken for a RECORD."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uniscale_build.recordfile import Row, parse, render

# Names with control characters are refused before they get here.
NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)
DIGESTS = st.binary(max_size=4).map(lambda data: hashlib.sha256(data).hexdigest())
ROWS = st.dictionaries(NAMES.filter(lambda name: name != "RECORD"),
                       st.tuples(DIGESTS, st.integers(0, 2**40)), max_size=6)  # fmt: skip


@given(ROWS)
def test_what_is_written_is_read_back(facts: dict[str, tuple[str, int]]) -> None:
    rows = [Row(name, digest, size) for name, (digest, size) in facts.items()]
    text = render(rows, "RECORD")
    found, problems = parse(text)
    assert problems == []
    assert found == [*sorted(rows), Row("RECORD", None, None)]
    assert render(reversed(rows), "RECORD") == text


@given(st.text(max_size=80))
def test_any_text_is_rows_or_problems(text: str) -> None:
    rows, problems = parse(text)
    assert all(row.sha256 is None or len(row.sha256) == 64 for row in rows)
    assert all(problem.startswith("RECORD") for problem in problems)


GOOD = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


@pytest.mark.parametrize(
    "line",
    ["a,sha256=" + GOOD + "=,0", "a,sha256=" + GOOD[:-1] + "V,0", "a,sha256=" + GOOD[:-1] + ",0",
     "a,sha512=" + GOOD + ",0", "a,md5=abc,0", "a,sha256=" + GOOD.replace("-", "+") + ",0",
     "a,sha256=" + GOOD + ",-1", "a,sha256=" + GOOD + ",x", "a,sha256=" + GOOD + ",",
     "a,,0", "a,b", "a,b,c,d", "a", "a,sha256=" + GOOD + ",٣"],
)  # fmt: skip
def test_lines_that_are_wrong(line: str) -> None:
    assert parse(f"b,sha256={GOOD},0\n")[1] == []
    rows, problems = parse(line + "\n")
    assert rows == []
    assert len(problems) == 1 and "line 1" in problems[0]


def test_a_name_that_is_listed_twice() -> None:
    assert parse("a,,\na,,\n")[1] == ["RECORD line 2: 'a' is listed twice"]
