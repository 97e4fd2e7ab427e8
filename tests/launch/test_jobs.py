"""`uniscale.cli.jobs`: ``ps``, ``logs`` and ``stop`` where a record cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from uniscale import folders
from uniscale.jobs.state import Job

from .helpers import Bench


@pytest.mark.parametrize("damage", ["an earlier version", "cut short", "not ours", "empty"])
def test_a_record_that_cannot_be_read_is_told(bench: Bench, damage: str) -> None:
    base = Path(bench.environ[folders.STATE])
    for name in ("good", "bad"):
        (base / name).mkdir(parents=True)
        Job(name, str(base / name), 1, 0, "", "engine", ("m",), "http://x", 1.0).save()
    (base / "begun").mkdir()  # its record is not there yet: nothing to tell
    record = base / "bad" / "job.json"
    told = json.loads(record.read_text())
    del told["boot"]
    record.write_text({
        "an earlier version": json.dumps(told), "cut short": record.read_text()[:40],
        "not ours": "[1]", "empty": "",
    }[damage])  # fmt: skip
    shown = bench.run("ps", "--all").ok()
    assert "good  ended" in shown.out and "bad" not in shown.out
    assert shown.err.count("another version") == 1 and str(base / "bad") in shown.err
    machine = json.loads(bench.run("ps", "--all", "--json").ok().out)
    assert [one["id"] for one in machine["jobs"]] == ["good"]
    assert machine["unread"] == [str(base / "bad")]
    for command in ("stop", "logs"):
        error = bench.run(command, "bad").refused("bad-record")
        assert "delete its folder" in error and str(record) in error
