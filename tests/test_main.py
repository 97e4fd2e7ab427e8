"""The command line's last resort: whatever happens is a sentence with a place and a hint."""

from __future__ import annotations

import errno
import json
import os
from importlib import import_module

import pytest
import typer
from typer.main import get_group
from uniscale_build.cli.app import COMMANDS, application

from tests.conftest import MakeProject
from tests.upstreams import Lab


@pytest.fixture
def lab(make_project: MakeProject) -> Lab:
    return make_project()


def _raise(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("uniscale_build.inplace.status.read_status", fail)


def test_a_fault_of_our_own_is_told_without_a_traceback(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    _raise(monkeypatch, KeyError("tree"))
    ran = lab.run("status", "-b", "demo")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("error[fault]: KeyError: 'tree'\n  --> ")
    assert "Traceback" not in ran.err and "-v" in ran.err
    told = lab.run("status", "-b", "demo", "--json").json["errors"]
    assert [error["slug"] for error in told] == ["fault"]
    with pytest.raises(KeyError):
        lab.run("status", "-b", "demo", "-v")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (errno.ENOSPC, 9, "error[disk-full]: cannot write: no space left on device"),
        (errno.EROFS, 9, "error[read-only]: cannot write: read-only file system"),
        (errno.EIO, 1, "error[system]: input/output error"),
    ],
)
def test_what_the_disk_refuses_has_its_class(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, number: int, code: int, said: str
) -> None:
    _raise(monkeypatch, OSError(number, os.strerror(number), "/some/where"))
    ran = lab.run("status", "-b", "demo")
    assert (ran.code, said in ran.err, "/some/where" in ran.err) == (code, True, True), ran
    assert "UNISCALE_CACHE" not in ran.err, "the place is not in the cache"


def test_a_wrong_command_line_stays_a_usage_error(lab: Lab) -> None:
    for more in ((), ("-v",)):
        ran = lab.run("status", "--bakend", "demo", *more)
        assert (ran.code, "No such option" in ran.err) == (2, True), ran
    assert json.loads(lab.ok("status", "-b", "demo", "--json").out)


def test_each_command_is_looked_for_in_the_module_that_has_it() -> None:
    for module, commands in COMMANDS.items():
        app = typer.Typer()
        import_module(f"uniscale_build.cli.{module}").register(app)
        names = [
            one.name or getattr(one.callback, "__name__", "") for one in app.registered_commands
        ]
        names += [one.name for one in app.registered_groups]
        assert tuple(names) == commands
        for word in commands:
            assert set(commands) == set(get_group(application(word)).commands)
    every = [word for commands in COMMANDS.values() for word in commands]
    assert set(get_group(application("wheell")).commands) == set(every)
    assert len(set(every)) == len(every)
