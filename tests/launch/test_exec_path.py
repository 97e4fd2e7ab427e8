"""The way from `uniscale serve MODEL` to exec is short: a list of modules, held by name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from uniscale import folders, frozen
from uniscale.frozen import NONE, Frozen, changed, told
from uniscale.jobs.state import Job

from .helpers import Bench, lay_payload

# One that is added here is read and run before every engine starts. None of them, and nothing
# that they import, may load what is in SLOW.
OURS = {
    "uniscale", "uniscale.__main__", "uniscale.quick", "uniscale.frozen", "uniscale.folders",
    "uniscale.ports", "uniscale.talk", "uniscale.config", "uniscale.config.plans",
    "uniscale.engines", "uniscale.engines.engines", "uniscale.engines.flags",
    "uniscale.jobs", "uniscale.jobs.handover", "uniscale.jobs.state",
    "uniscale.models", "uniscale.models.models",
    "uniscale.serving", "uniscale.serving.asked", "uniscale.serving.prepare",
    "uniscale.serving.serve",
    "uniscale.wheels", "uniscale.wheels.payloads", "uniscale.wheels.record",
    "uniscale_build", "uniscale_build.errors", "uniscale_build.ids",
}  # fmt: skip
SLOW = {
    "dataclasses", "inspect", "typing", "pathlib", "contextlib", "urllib", "ipaddress",
    "subprocess", "shutil", "tempfile", "difflib", "hashlib", "argparse", "typer", "yaml",
}  # fmt: skip
# What an argument for the engine adds; its engine file comes as JSON.
SPOKEN = {"uniscale.engines.enginefile", "uniscale.engines.vocabulary"}
# As an installed command does it: `python -m` loads several modules more.
COMMAND = "import sys; from uniscale.__main__ import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("words", "more"),
    [
        (("small.gguf",), set()),
        (("small.gguf", "--arg", "max_model_len=8K"), SPOKEN),
        (("c.yaml",), {"uniscale.config.remembered"}),
    ],
    ids=["plain", "arg", "configuration"],
)
def test_what_is_loaded_before_exec(
    bench: Bench, model: Path, words: tuple[str, ...], more: set[str]
) -> None:
    lay_payload(bench.payloads)
    jobs = Path(bench.environ[folders.STATE])
    for number in range(12):  # of ended jobs, the oldest are forgotten on the way
        folder = jobs / str(number)
        folder.mkdir(parents=True)
        (folder / "engine.log").touch()
        Job(str(number), str(folder), 1, 0, "", "engine", (), "", float(number)).save()
    (bench.root / "c.yaml").write_text(f"serve:\n  model: {model.name}\n")
    if words == ("c.yaml",):  # read before, as it is now
        bench.run("serve", *words, "--dry-run").ok()
    python, *_ = bench.words()
    result = subprocess.run(
        [python, "-S", "-X", "importtime", "-c", COMMAND,
         "serve", *words, "--", "--die-at-start", "x"],
        env=bench.environ, cwd=bench.root, capture_output=True, text=True,
    )  # fmt: skip
    assert "serves small" in result.stderr
    lines = (line for line in result.stderr.splitlines() if line.startswith("import time:"))
    loaded = {line.rpartition("|")[2].strip() for line in lines}
    assert {name for name in loaded if name.partition(".")[0].startswith("uniscale")} == OURS | more
    assert not {name.partition(".")[0] for name in loaded} & SLOW
    assert not (jobs / "0").exists() and (jobs / "11").exists()


class Point(Frozen):
    """Where something is."""

    x: int
    y: int = 0


class Named(Point, kw_only=True):
    """A point with a name."""

    name: str


def test_a_record() -> None:
    one = Point(1, y=2)
    assert (one.x, one.y) == (1, 2) and one == Point(1, 2) and hash(one) == hash(Point(1, 2))
    assert Point(1) != Point(2) and Point(1) != (1, 0)
    assert repr(one) == "Point(x=1, y=2)"
    assert Named(x=1, name="a") != Point(1)
    assert told(Named(name="a", x=1)) == {"x": 1, "y": 0, "name": "a"}
    assert changed(Named(name="a", x=1), y=3) == Named(name="a", x=1, y=3)


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        ((), {}, "Point lacks x"),
        ((1, 2, 3), {}, "Point has 2 fields, not 3"),
        ((1,), {"x": 2}, "Point was given twice: x"),
        ((1,), {"z": 2}, "Point has no field z"),
        ((1,), {"y": 1, "z": 2}, "Point has no field z"),
    ],
)
def test_a_record_is_made_like_a_call(
    given: tuple[int, ...], named: dict[str, int], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        Point(*given, **named)


def test_a_record_does_not_change() -> None:
    one = Point(1)
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        setattr(one, "x", 2)  # noqa: B010  (mypy knows that it is frozen)
    with pytest.raises(AttributeError, match="Point is frozen: x"):
        delattr(one, "x")
    assert one == Point(1)
    assert not NONE and frozen.NONE is NONE
