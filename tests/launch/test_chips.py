"""Which chips: words on the command line, and the closest of several."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest
from uniscale import ports
from uniscale.devices import chips, devices
from uniscale_build.errors import SettingsError, UniscaleError

from .helpers import Bench, lay_payload, record, recorded

# Two boards of four: links within a pair, PCIe within a board, the processors' bus between boards.
BOARDS = [
    [0 if a == b else 5 if a // 2 == b // 2 else 20 if a // 4 == b // 4 else 50 for b in range(8)]
    for a in range(8)
]


def test_the_closest() -> None:
    assert chips.closest(BOARDS, 1) == (0,)
    assert chips.closest(BOARDS, 2) == (0, 1)
    assert chips.closest(BOARDS, 4) == (0, 1, 2, 3)
    assert chips.closest(BOARDS, 8) == tuple(range(8))
    busy = [
        [value + 40 * ({a, b} <= {0, 1}) for b, value in enumerate(row)]
        for a, row in enumerate(BOARDS)
    ]
    assert chips.closest(busy, 2) == (2, 3), "a slow link is no near neighbour"


def test_large_machines_are_answered_at_once() -> None:
    order = list(range(64))
    random.Random(7).shuffle(order)
    table = [
        [0 if a == b else 5 if order[a] // 8 == order[b] // 8 else 50 for b in range(64)]
        for a in range(64)
    ]
    found = chips.closest(table, 8)
    assert all(table[a][b] == 5 for a, b in itertools.combinations(found, 2))


def test_small_sets_are_the_best_there_are() -> None:
    random.seed(3)
    for _ in range(30):
        size = random.randint(2, 7)
        table = [[0] * size for _ in range(size)]
        for a, b in itertools.combinations(range(size), 2):
            table[a][b] = table[b][a] = random.choice([5, 10, 20, 30, 40, 50])
        number = random.randint(1, size)
        best = min(chips._sum(table, one) for one in itertools.combinations(range(size), number))
        assert chips._sum(table, chips.closest(table, number)) == best


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("0,2", "0,2"), ("2,", "2"), (" 0, 2 ", "0,2"), ("0", "0"),
        ("GPU-8932f937-d72c-4106", "GPU-8932f937-d72c-4106"), ("2,0", "2,0"),
    ],
)  # fmt: skip
def test_chips_by_name(word: str, value: str) -> None:
    assert chips.chosen(word, "nvidia") == (value, None)


@pytest.mark.parametrize("word", ["", ",", "0,,2", "a b;c", "$(touch x)", "-1", "0,0", "2,2,"])
def test_words_that_choose_nothing(word: str) -> None:
    with pytest.raises(UniscaleError) as caught:
        chips.chosen(word, "nvidia")
    assert caught.value.findings()[0].slug == "bad-devices"


def test_a_number_without_any_chip_known_is_the_first_ones() -> None:
    value, remark = chips.chosen("2", "MUSA_S5000")
    assert value == "0,1" and "the first 2" in str(remark)


LIBRARY = '''
"""Stands where gpustack-runtime is: its two functions and the fields that we read."""
from enum import Enum
from types import SimpleNamespace


class Vendor(str, Enum):
    MTHREADS = "mthreads"
    THEAD = "thead"


def detect_devices(fast=True, usage=True):
    chip = lambda vendor, index: SimpleNamespace(
        manufacturer=vendor, index=index, name="S5000", memory=81920,
        driver_version="2.7.0", runtime_version="4.3", runtime_version_original=None,
    )
    return [*(chip(Vendor.MTHREADS, index) for index in range(4)), chip(Vendor.THEAD, 0)]


def get_devices_topologies(fast=True):
    near = {(1, 3), (3, 1)}
    table = [[0 if a == b else 10 if (a, b) in near else 50 for b in range(4)] for a in range(4)]
    return [SimpleNamespace(manufacturer=Vendor.MTHREADS, devices_distances=table)]
'''


def lay_library(folder: Path, text: str = LIBRARY) -> Path:
    package = folder / "gpustack_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "detector.py").write_text(text)
    return folder


def with_library(bench: Bench, text: str = LIBRARY) -> None:
    lay_library(bench.root / "library", text)
    bench.environ["PYTHONPATH"] = f"{bench.root / 'library'}:{bench.environ['PYTHONPATH']}"


def lay_musa(bench: Bench) -> None:
    told = record(
        device="MUSA_S5000",
        device_environment={"visible": "MUSA_VISIBLE_DEVICES", "set": {}, "aliases": ["musa"]},
    )
    lay_payload(bench.payloads, told)


def test_two_chips_are_the_two_that_are_closest(bench: Bench, model: Path) -> None:
    lay_musa(bench)
    with_library(bench)
    result = bench.run("serve", model, "--devices", "2", "--dry-run").ok()
    assert "MUSA_VISIBLE_DEVICES=1,3 " in result.out
    assert "chips 1,3: the closest 2 (distance 10)" in result.err
    assert (
        "MUSA_VISIBLE_DEVICES=2 " in bench.run("serve", model, "--devices", "2,", "--dry-run").out
    )
    err = bench.run("serve", model, "--devices", "5", "--dry-run").refused("no-devices")
    assert "this machine has 4 chips of MUSA_S5000, not 5" in err
    bench.run("serve", model, "--devices", "0;2").refused("bad-devices", 2)


def test_an_engine_that_sees_all_there_is_refuses_a_choice(bench: Bench, model: Path) -> None:
    lay_payload(bench.payloads, record())  # llama.cpp on a processor: no variable limits it
    err = bench.run("serve", model, "--devices", "0", "--dry-run").refused("no-devices")
    assert "numactl or taskset" in err


def test_replicas_share_the_chips_out(bench: Bench, model: Path) -> None:
    lay_musa(bench)
    with_library(bench)
    words = ("serve", model, "--replicas", "2", "--dry-run", "--devices")
    told = json.loads(bench.run(*words, "0,1,2,3", "--json").ok().out)["engines"]
    seen = [one["environment"]["MUSA_VISIBLE_DEVICES"] for one in told]
    assert seen == ["0,1", "2,3"]
    result = bench.run(*words, "2").ok()
    assert [f"MUSA_VISIBLE_DEVICES={one} " in result.out for one in "123"] == [True, False, True]
    assert result.err.count("the closest 2") == 1
    err = bench.run(*words, "0,1,2").refused("bad-devices", 2)
    assert "3 chips cannot be shared out to 2 engines" in err


@pytest.mark.parametrize(
    ("value", "parts", "each", "shares"),
    [
        ("0,1,2,3", 1, 1, ["0,1,2,3"]),
        ("0,1,2,3", 2, 2, ["0,1", "2,3"]),
        ("0,1,2,3", 2, 1, ["0,1", "2,3"]),
        ("GPU-a,GPU-b", 2, 1, ["GPU-a", "GPU-b"]),
        ("3,1", 2, 1, ["3", "1"]),
        ("0,1,2,3", 2, 4, None),
        ("0,1,2,3,4,5", 2, 2, None),
        ("0", 2, 1, None),
    ],
)
def test_shares(value: str, parts: int, each: int, shares: list[str] | None) -> None:
    if shares is None:
        with pytest.raises(SettingsError, match="cannot be shared out") as caught:
            chips.shared(value, 0, parts, each=each)
        assert caught.value.hint is not None and str(parts * each) in caught.value.hint
        return
    found = [chips.shared(value, which, parts, each=each) for which in range(parts)]
    assert found == shares


def test_the_engine_sees_them(bench: Bench, model: Path) -> None:
    lay_musa(bench)
    facts = bench.root / "facts.json"
    port = str(ports.free_port())
    process = bench.start(
        "serve", model, "--devices", "0,2", "--port", port, "--", "--record", facts
    )
    assert recorded(facts)["environ"]["MUSA_VISIBLE_DEVICES"] == "0,2"
    process.kill()


def test_chips_come_with_what_the_library_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(lay_library(tmp_path))
    known = devices.known()
    try:
        found = chips.here(known)
    finally:
        monkeypatch.delitem(__import__("sys").modules, "gpustack_runtime.detector", raising=False)
        monkeypatch.delitem(__import__("sys").modules, "gpustack_runtime", raising=False)
    assert found.source == "gpustack-runtime" and found.note == ""
    assert [one.index for one in found.of("MUSA_S5000")] == [0, 1, 2, 3]
    first = found.chips[0]
    assert (first.memory, first.driver, first.runtime) == (81920, "2.7.0", "4.3")
    assert found.chips[-1].device == "thead", "a vendor without a manifest keeps its name"
