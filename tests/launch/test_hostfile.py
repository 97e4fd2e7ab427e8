"""Hostfiles: plain, FlagScale's and MPI's; every bad line named."""

from __future__ import annotations

from pathlib import Path

import pytest
from uniscale.nodes import hostfile
from uniscale_build.errors import SettingsError, UniscaleError

FLAGSCALE = """\
# ip slots type=xxx[optional]
10.0.0.1 slots=8 type=A800
10.0.0.2 slots=8 type=BI_V150   # the other kind

node-3 max_slots=4
"""


def test_the_formats_that_people_have() -> None:
    one, two, three = hostfile.parse(FLAGSCALE, "hosts")
    assert (one.name, one.slots, one.type) == ("10.0.0.1", 8, "A800")
    assert (two.type, three.name, three.slots, three.type) == ("BI_V150", "node-3", 4, None)
    (own,) = hostfile.parse("me@gpu.example.org port=2222 python=/opt/py/bin/python", "hosts")
    assert (own.user, own.name, own.port) == ("me", "gpu.example.org", 2222)
    assert own.python == "/opt/py/bin/python" and own.slots is None
    (six,) = hostfile.parse("[fd00::1] slots=2", "hosts")
    assert six.name == "fd00::1" and six.at(29500) == "[fd00::1]:29500"
    assert one.at(1) == "10.0.0.1:1"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("10.0.0.1 slots=8typo", "slots=8typo is no whole number"),
        ("10.0.0.1 slots=0", "slots=0 is no whole number"),
        ("10.0.0.1 slots=٣", "is no whole number"),
        ("10.0.0.1 port=70000", "port=70000"),
        ("10.0.0.1 slot5=8", 'did you mean "slots"?'),
        ("10.0.0.1 slots=8 slots=4", '"slots" is given twice'),
        ("10.0.0.1 8", "unknown word '8'"),
        ("10.0.0.1:8", "the ssh port is port=2222"),
        ("10.0.0", "names no machine"),
        ("10.0.0.256", "names no machine"),
        ("-oProxyCommand=touch", "names no machine"),
        ("$(touch /tmp/x)", "names no machine"),
        ("a;b", "names no machine"),
        ("me;rm@10.0.0.1", "is no user's name"),
        ("-l@10.0.0.1", "is no user's name"),
        ("10.0.0.1 type=A;800", "is no kind of chip"),
        ("10.0.0.1 python=python3", "is no absolute path"),
        ("10.0.0.1\n10.0.0.1 slots=2", "stands in lines 1 and 2"),
        ("", "names no machine"),
        ("# only words", "names no machine"),
    ],
)
def test_a_bad_line_is_named(line: str, told: str) -> None:
    with pytest.raises(UniscaleError) as caught:
        hostfile.parse(line, "hosts")
    assert caught.value.findings()[0].slug == "bad-hostfile"
    assert told in caught.value.render()


def test_all_bad_lines_at_once() -> None:
    with pytest.raises(UniscaleError) as caught:
        hostfile.parse("a_b!\nok slots=x\nok2\nok2", "hosts")
    wheres = [one.where for one in caught.value.findings()]
    assert wheres == ["hosts:1", "hosts:2", "hosts:4"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a" * (1 << 20) + b"\n"])
def test_a_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "hosts"
    path.write_bytes(content)
    with pytest.raises(UniscaleError, match="the hostfile cannot be used"):
        hostfile.read(path)
    with pytest.raises(SettingsError, match="it cannot be read"):
        hostfile.read(tmp_path / "none")
    with pytest.raises(SettingsError, match="it cannot be read"):
        hostfile.read(tmp_path)
