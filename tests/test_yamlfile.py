from __future__ import annotations

from pathlib import Path

import pytest
from uniscale_build.errors import ManifestError, UniscaleError
from uniscale_build.yamlfile import MAX_BYTES, Fields, load, parse


def fields(text: str) -> tuple[Fields, list[UniscaleError]]:
    errors: list[UniscaleError] = []
    return Fields(parse(text.encode(), "x.yaml"), errors), errors


def refused(raw: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        parse(raw, "x.yaml")
    return caught.value


def test_scalars_stay_text() -> None:
    found, errors = fields("a: 0.10\nb: no\nc: 12:30\nd: 1e3\ne: 0x10\nf: 2026-01-01\ng: ~\n")
    told = {key: found.text(key, "none") for key in "abcdefg"}
    assert told == {
        "a": "0.10", "b": "no", "c": "12:30", "d": "1e3", "e": "0x10", "f": "2026-01-01",
        "g": "none",
    }  # fmt: skip
    assert errors == []


@pytest.mark.parametrize(
    ("raw", "slug", "where"),
    [
        (b"a: 1\nb: 2\na: 3\n", "duplicate-key", "x.yaml:3"),
        (b"a: &x 1\nb: *x\n", "yaml-anchor", "x.yaml:1"),
        (b"a: !!python/object:os.system x\n", "yaml-tag", "x.yaml:1"),
        (b"a: !!set {x}\n", "yaml-tag", "x.yaml:1"),
        (b"a: [1\n", "yaml", "x.yaml:2"),
        (b"a: b: c\n", "yaml", "x.yaml:1"),
        (b"a: 1\n\tb: 2\n", "yaml", "x.yaml:2"),
        (b"", "yaml", "x.yaml"),
        (b"# nothing\n", "yaml", "x.yaml"),
        (b"a: 1\n---\nb: 2\n", "yaml", "x.yaml:2"),
        (b"a: 1\nb: \xff\n", "encoding", "x.yaml:2"),
        (b"a: \x07\n", "yaml", "x.yaml"),
        (b"[" * 100_000, "too-deep", "x.yaml:1"),
        (b"- " * 100_000, "too-deep", "x.yaml:1"),
        (b"{a: " * 5_000, "too-deep", "x.yaml:1"),
        (b"? [a]\n: 1\n", "yaml-key", "x.yaml:1"),
        (b"a" * (MAX_BYTES + 1), "too-large", "x.yaml"),
    ],
)
def test_what_is_no_manifest_has_a_line(raw: bytes, slug: str, where: str) -> None:
    error = refused(raw)
    assert (error.slug, error.where) == (slug, where)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(ManifestError) as caught:
        load(Path("/nonexistent/x.yaml"), shown="manifests/x.yaml")
    assert caught.value.slug == "no-file" and caught.value.where == "manifests/x.yaml"


def test_unknown_keys_are_all_told_with_the_nearest() -> None:
    found, errors = fields("titel: x\nnope: y\n")
    found.text("title", "")
    found.finish()
    assert [error.where for error in errors] == ["x.yaml:1", "x.yaml:2"]
    assert errors[0].hint == 'did you mean "title"?'


def test_wrong_shapes_are_told_where_they_are() -> None:
    found, errors = fields("a: [x]\nb: x\nc: x\nd:\n  - [y]\ne:\n  k: [z]\nf: maybe\ng: odd\n")
    assert found.text("a") == ""
    assert found.texts("b") == ()
    assert found.pairs("c") == {}
    assert found.texts("d") == ()
    assert found.pairs("e") == {}
    assert found.flag("f", True) is True
    found.one_of("g", ("even", "add"))
    assert found.text("missing") == ""
    lines = [(error.where or "").partition(":")[2] for error in errors]
    assert lines == ["1", "2", "3", "5", "7", "8", "9", "1"]


def test_words_out_of_a_set() -> None:
    found, errors = fields("a: [serve, sreve]\n")
    assert found.some_of("a", ("serve", "train"), "unknown-task") == ("serve", "sreve")
    assert [(e.slug, e.hint) for e in errors] == [("unknown-task", 'did you mean "serve"?')]


def test_nested_readers_collect_into_one_list() -> None:
    found, errors = fields("list:\n  - a: 1\n  - b: 2\nmap:\n  one:\n    k: v\n")
    for item in found.each("list", "an item"):
        item.text("a")
        item.finish()
    assert found.tables("map") == {"one": {"k": "v"}}
    assert [error.slug for error in errors] == ["missing-key", "unknown-key"]
    assert found.lines == {"list": 2, "map": 5}
