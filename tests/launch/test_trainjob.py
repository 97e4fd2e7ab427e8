"""The folder of a training: begun whole, held alone, rewound to what was written to its end."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from uniscale import meter
from uniscale.training import plot, trainjob
from uniscale.training.trainjob import WHOLE, TrainJob
from uniscale.training.trainplan import TrainPlan
from uniscale_build.errors import LaunchError, SettingsError

PLAN = TrainPlan(model="demo", data="x.jsonl")


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    job = TrainJob(tmp_path / "job")
    with trainjob.held(job):
        trainjob.begin(job, PLAN.document("/w"), [{"text": "世界 \ud800"}])
    return job


def checkpoint(job: TrainJob, step: int, *, whole: bool = True) -> Path:
    place = job.checkpoints / f"checkpoint-{step}"
    place.mkdir(parents=True)
    if whole:
        (place / WHOLE).touch()
    return place


def test_begun(job: TrainJob) -> None:
    assert job.told()["weights"] == "/w" and job.told()["name"] == "demo-lora"
    assert [json.loads(line) for line in job.data.read_text().splitlines()] == [
        {"text": "世界 \ud800"}
    ]
    trainjob.check_same(job, PLAN.document("/w"))


def test_another_plan_is_refused(job: TrainJob) -> None:
    other = TrainPlan(model="demo", data="y.jsonl", method="full", processes="2", name="demo-lora")
    with pytest.raises(SettingsError, match=r"another data, method\b") as caught:
        trainjob.check_same(job, other.document("/w"))
    assert "--resume" in str(caught.value.hint)


def test_two_at_once(job: TrainJob) -> None:
    with trainjob.held(job), pytest.raises(LaunchError) as caught, trainjob.held(job):
        pass
    assert caught.value.slug == "job-runs"


def test_a_place_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(LaunchError, match="cannot be written"),
        trainjob.held(TrainJob(tmp_path / "file" / "job")),
    ):
        pass


def test_rewound_to_the_last_whole_checkpoint(job: TrainJob) -> None:
    assert trainjob.rewind(job) is None
    last = [checkpoint(job, 9), checkpoint(job, 10)][1]
    torn = checkpoint(job, 20, whole=False)
    lines = [{"step": step, "loss": 1.0} for step in (1, 10, 11, 20)]
    job.metrics.write_text("\n".join(map(json.dumps, lines)) + '\n{"step": 21, "lo')
    job.failure.write_text("{}")
    assert trainjob.rewind(job) == last
    assert [one["step"] for one in job.measured()] == [1, 10]
    assert not torn.exists() and not job.failure.exists()
    assert job.progress()["phase"] == "starting"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}'])
def test_records_that_are_none(job: TrainJob, text: str) -> None:
    job.record.write_text(text)
    with pytest.raises(SettingsError, match="is no training's folder"):
        job.told()


def test_state_survives_nonsense(job: TrainJob) -> None:
    job.state.write_text('{"phase"')
    assert job.progress() == {}
    job.say(phase="x", step=3)
    job.say(step=4)
    assert job.progress() == {"phase": "x", "step": 4}


def test_a_plot_is_well_formed() -> None:
    points = [(step, 10 / step) for step in range(1, 200)]
    text = plot.svg("a < b: loss", [("loss", points), ("evaluation", [(50, 0.3)])])
    root = ET.fromstring(text)
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a < b: loss", "loss", "evaluation", "step", "0", "10", "100", "200"} & set(texts)
    assert "nan" not in text.lower()


@pytest.mark.parametrize("points", [[], [(1, 2.0)], [(1, math.nan), (2, math.inf)], [(0, 0.0)]])
def test_plots_of_little(points: list[tuple[float, float]]) -> None:
    text = plot.svg("x", [("loss", points)])
    ET.fromstring(text)
    assert "nan" not in text and "inf" not in text


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [(0, 10, [0, 2, 4, 6, 8, 10]), (0, 0.07, [0, 0.02, 0.04, 0.06, 0.08]), (3, 3, [3, 4])],
)
def test_ticks_are_round(low: float, high: float, wanted: list[float]) -> None:
    found = plot.ticks(low, high)
    assert found[: len(wanted)] == wanted or (low == high and found[0] <= low <= found[-1])


def test_words() -> None:
    facts = {
        "phase": "training", "step": 3, "steps": 60, "loss": 1.23456, "tokens_per_second": 1234.5,
        "eta": 75,
    }  # fmt: skip
    assert meter.words(facts) == (
        "training  step 3/60  loss 1.235  1,234 tokens/s  1 min 15 s left"
    )
    assert meter.words({}) == "starting"
    assert meter.duration(7300) == "2 h 1 min"
