"""Revisions of wheels: equal bytes keep theirs, others get the next, which installers take."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from uniscale_build import settings
from uniscale_build.errors import IndexSiteError, Problems, SettingsError
from uniscale_build.wheels import revision
from uniscale_build.wheels.revision import Stored, choose, of

from .native import Native, make_native, set_layer

compiles = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
ONE, OTHER = "1" * 40, "2" * 40


def stored(number: int, sha: str = "a", tree: str = ONE, tags: str = "py3-none-any") -> Stored:
    label = f"cpu.{number}" if number else "cpu"
    return Stored(f"uniscale_mini-1.2+{label}-{tags}.whl", sha, number, tree)


def unasked(number: int) -> str:
    """A digest that nobody may ask for: a wheel would have to be written."""
    raise AssertionError(f"the wheel was written as revision {number}")


@pytest.mark.parametrize(
    ("known", "sha", "tree", "tags", "wanted"),
    [
        ([], "a", ONE, "py3-none-any", 0),
        ([stored(0)], "a", ONE, "py3-none-any", 0),
        ([stored(0)], "b", OTHER, "py3-none-any", 1),
        ([stored(0)], "b", ONE, "py3-none-any", 1),  # built otherwise
        ([stored(0, "a"), stored(1, "b", OTHER)], "b", OTHER, "py3-none-any", 1),
        # Back to what was before: the newest is wanted, so the old file cannot be it.
        ([stored(0, "a"), stored(1, "b", OTHER)], "a", ONE, "py3-none-any", 2),
        # Another Python or platform: with the newest where that has the same tree.
        ([stored(0, tags="cp311-cp311-x")], "z", ONE, "cp312-cp312-x", 0),
        ([stored(0, tags="cp311-cp311-x")], "z", OTHER, "cp312-cp312-x", 1),
        (
            [stored(0, tags="cp312-cp312-x"), stored(1, "b", OTHER, "cp311-cp311-x")],
            "z", OTHER, "cp312-cp312-x", 1,
        ),
        # Unchanged for this Python, while another one has moved on.
        (
            [stored(0, "a", ONE, "cp312-cp312-x"), stored(1, "b", ONE, "cp311-cp311-x")],
            "a", ONE, "cp312-cp312-x", 0,
        ),
    ],
)  # fmt: skip
def test_which_revision(known: list[Stored], sha: str, tree: str, tags: str, wanted: int) -> None:
    assert choose(known, tree, tags, lambda number: sha) == wanted


def test_a_revision_of_the_manifest_is_the_least() -> None:
    tags = "py3-none-any"
    assert choose([], ONE, tags, unasked, at_least=3) == 3
    assert choose([stored(0)], OTHER, tags, unasked, at_least=3) == 3
    assert choose([stored(3)], OTHER, tags, unasked, at_least=3) == 4


def test_other_versions_and_distributions_do_not_count() -> None:
    def wheel(name: str, version: str) -> dict[str, object]:
        return {"name": name, "version": version, "file": f"{name}-{version}-x.whl", "sha256": "a",
                "payloads": [{"tree": ONE}]}  # fmt: skip

    wheels = tuple(
        wheel(name, version)
        for name, version in [
            ("uniscale-mini", "1.2+cpu.10"), ("uniscale-mini", "1.2+cpu.9"),
            ("uniscale-mini", "1.2+cpu"), ("uniscale-mini", "1.2+cpu.rc"),
            ("uniscale-mini", "1.2+cpuX"), ("uniscale-mini", "1x2+cpu"),
            ("uniscale-other", "1.2+cpu.99"), ("uniscale-mini", "1.3+cpu.77"),
        ]
    )  # fmt: skip
    assert [one.revision for one in of(wheels, "uniscale-mini", "1.2+cpu")] == [0, 9, 10]


@pytest.mark.parametrize("word", ["-1", "1.5", "01", "automatic", "1" * 12])
def test_what_is_no_revision(word: str) -> None:
    with pytest.raises((SettingsError, Problems), match="must be a number"):
        settings.read({"revision": word}, environ={})


@pytest.mark.parametrize(
    ("text", "slug"),
    [(None, "no-catalog"), ("{", "bad-catalog"), ('{"schema": 9, "wheels": []}', "bad-catalog"),
     ('{"schema": 1, "wheels": [{"name": "x"}]}', "bad-catalog"), ("[]", "bad-catalog")],
)  # fmt: skip
def test_an_index_that_cannot_be_counted(text: str | None, slug: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "catalog.json").write_text(text)
    for index in (str(tmp_path), tmp_path.as_uri()):
        asked = settings.read({"revision": "auto", "index": index}, environ={})
        with pytest.raises(IndexSiteError) as caught:
            revision.read(asked)
        assert caught.value.slug == slug and "catalog.json" in str(caught.value.where)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Native:
    return make_native(tmp_path_factory.mktemp("native"))


def build(native: Native, *words: str) -> Path:
    ran = native.run("wheel", "-b", "mini", "--split", "--json", *words)
    assert ran.returncode == 0, ran.stderr
    return Path(native.root, json.loads(ran.stdout)["wheels"][1]["wheel"])


def stored_wheels(native: Native) -> set[str]:
    """The names of the backend's wheels that were ever written."""
    wheels = Path(native.env["UNISCALE_CACHE"], "wheels")
    return {path.name for path in wheels.glob("*/uniscale_mini-*.whl")}


@compiles
def test_a_changed_layer_is_a_wheel_of_its_own_that_pip_takes(
    native: Native, tmp_path: Path
) -> None:
    site, auto = tmp_path / "site", ("--revision", "auto", "--index", str(tmp_path / "site"))

    def index() -> None:
        ran = native.run("index", "dist", "-o", str(site))
        assert ran.returncode == 0, ran.stderr
        shutil.rmtree(native.root / "dist")

    first = build(native)
    index()
    assert build(native, *auto).name == first.name  # nothing changed
    set_layer(native, "good evening")
    written = stored_wheels(native)
    second = build(native, *auto)
    # Another tree is another revision at once: it is not packed as the old one first.
    assert stored_wheels(native) - written == {second.name}
    assert second.name == first.name.replace("+cpu-", "+cpu.1-")
    before = second.read_bytes()
    index()
    # The plain wheel carries the layers: it is another one too.
    plain = sorted(path.name for path in (site / "packages").glob("uniscale-*.whl"))
    assert plain == ["uniscale-0.1.0-py3-none-any.whl", "uniscale-0.1.0.post1-py3-none-any.whl"]
    again = build(native, "--revision", "auto", "--index", site.as_uri())
    assert again.name == second.name and again.read_bytes() == before
    ran = native.run("index", "dist", "-o", str(site))
    assert ran.returncode == 0 and "added" not in ran.stdout

    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    for wanted in (first.name, ""):
        target = "uniscale-mini==1.2.3+cpu" if wanted else "uniscale-mini==1.2.3"
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps",
             "--upgrade", "--index-url", f"{site.as_uri()}/cpu/", target,
             "--disable-pip-version-check"], check=True, capture_output=True,
        )  # fmt: skip
    packages = next((tmp_path / "env").glob("lib/python*/site-packages"))
    assert [path.name for path in packages.glob("uniscale_mini*")] == [
        "uniscale_mini-1.2.3+cpu.1.dist-info"
    ]


@compiles
def test_said_by_hand_or_in_the_adaptation(native: Native) -> None:
    assert "+cpu.7-" in build(native, "--revision", "7").name
    assert (native.root / "dist" / "uniscale-0.1.0.post7-py3-none-any.whl").is_file()
    path = next((native.root / "manifests" / "adaptations").glob("*/mini.yaml"))
    before = path.read_text()
    path.write_text(before + "revision: 2\n")
    try:
        made = build(native)
        assert "+cpu.2-" in made.name
        assert "+cpu-" in build(native, "--revision", "0").name
        told = json.loads(native.run("plan", "-b", "mini", "--json").stdout)
        assert told["revisions"] == {"mini": 2}
        path.write_text(before + "revision: two\n")
        ran = native.run("plan", "-b", "mini")
        assert ran.returncode != 0 and '"revision" must be a whole number' in ran.stderr
    finally:
        path.write_text(before)


def test_where_it_says_nothing_it_is_refused(native: Native) -> None:
    ran = native.run("wheel", "-b", "mini", "--revision", "3")
    assert ran.returncode == 2 and "a bundle has no revision" in ran.stderr
    ran = native.run("wheel", "-b", "mini", "--split", "--revision", "auto")
    assert ran.returncode == 2 and "error[no-index]" in ran.stderr


@pytest.mark.compile
@compiles
def test_the_matrix_counts_too(native: Native, tmp_path: Path) -> None:
    site = str(tmp_path / "site")
    words = ("matrix", "--run", "--only", "mini-cpu", "--json", "--out")
    for number, greeting in enumerate(("how do you do", "good morning")):
        set_layer(native, greeting)
        out = str(tmp_path / f"dist{number}")
        more = ("-C", "revision=auto", "-C", f"index={site}") if number else ()
        ran = native.run(*words, out, *more)
        assert ran.returncode == 0, ran.stderr
        assert native.run("index", out, "-o", site).returncode == 0
    names = sorted(path.name.split("-")[1] for path in Path(site, "packages").glob("*.whl"))
    assert names == ["0.1.0", "0.1.0.post1", "1.2.3+cpu", "1.2.3+cpu.1"]
