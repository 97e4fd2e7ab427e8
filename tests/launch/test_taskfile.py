"""The level of the experiment, which every task of a configuration reads alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from uniscale.config import servefile
from uniscale.training import trainfile
from uniscale_build.errors import SettingsError, UniscaleError

READERS: dict[str, Callable[[Path], Any]] = {"serve": servefile.read, "train": trainfile.read}
BOTH = """\
experiment: {{name: both, env: {{ALL: "1"}}{more}}}
serve: {{model: demo, env: {{OWN: "2"}}}}
train: {{model: demo, data: rows.jsonl, env: {{OWN: "2"}}}}
action: run
"""


@pytest.fixture(params=sorted(READERS))
def task(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def lay(tmp_path: Path, more: str) -> Path:
    path = tmp_path / "both.yaml"
    path.write_text(BOTH.format(more=more), encoding="utf-8")
    return path


def test_each_task_reads_the_same_experiment(tmp_path: Path, task: str) -> None:
    (tmp_path / "hosts").write_text("one slots=2\ntwo slots=2\n", encoding="utf-8")
    plan = READERS[task](lay(tmp_path, f", nodes: {tmp_path / 'hosts'}"))
    assert plan.name == "both" and [host.name for host in plan.nodes] == ["one", "two"]
    environment = plan.models[0].environment if task == "serve" else plan.environment
    assert environment == {"ALL": "1", "OWN": "2"}


def test_a_hostfile_that_is_gone_hides_no_other_mistake(tmp_path: Path, task: str) -> None:
    path = lay(tmp_path, f", nodes: {tmp_path / 'gone'}, dri: x")
    path.write_text(path.read_text() + "srve: {}\n")
    with pytest.raises(UniscaleError) as caught:
        READERS[task](path)
    told = "\n".join(one.render() for one in caught.value.findings())
    assert str(tmp_path / "gone") in told
    assert 'unknown key "dri"' in told and 'unknown key "srve"' in told


def test_a_configuration_of_another_task(tmp_path: Path, task: str) -> None:
    path = tmp_path / "none.yaml"
    path.write_text("experiment: {name: none}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=f"the configuration {task}s nothing") as caught:
        READERS[task](path)
    assert caught.value.slug == f"nothing-to-{task}" and caught.value.where is not None
