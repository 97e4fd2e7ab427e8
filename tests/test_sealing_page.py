"""The commands of docs/sealing.md, run in their order."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from uniscale_build.layers.layer import find_layer

from tests.conftest import MakeProject

PAGE = Path(__file__).parents[1] / "docs" / "sealing.md"


def commands() -> list[list[str]]:
    """Each command of the page as words, ``NAME=value`` before it included."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_the_page_works(make_project: MakeProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNISCALE_AGE_KEY", raising=False)
    lab = make_project()
    lab.unpatch(device="acme")
    (lab.place("acme") / "acme.py").write_text("secret\n")
    lab.patch("--new-layer", "acme-x1", "--title", "Acme X1", "--why", "A new chip.",
              "--owner", "Acme", "--contact", "chips@acme.example", device="acme")  # fmt: skip
    lab.remove_place("acme")
    home = Path(os.environ["HOME"])
    (home / "keys").mkdir()
    ran = []
    for words in commands():
        words = [re.sub(r"(^|=)~/", rf"\g<1>{home}/", word) for word in words]
        while "=" in words[0]:
            monkeypatch.setenv(*words.pop(0).split("=", 1))
        assert words.pop(0) == "uniscale-build"
        out = lab.ok(*words).out
        ran.append(words[0])
        if words[0] == "keygen":
            # As the page says: the public part goes into the keyring.
            section, key = re.findall(r"(\w+):\n  .*?: ((?:age1|ed25519:)\S+)", out)[-1]
            name = "Acme" if section == "signers" else Path(words[-1]).name
            ring = lab.root / "patches/keyring.yaml"
            text = ring.read_text() if ring.exists() else "recipients:\nsigners:\n"
            ring.write_text(text.replace(f"{section}:\n", f"{section}:\n  {name}: {key}\n"))
        if words[0] == "seal":
            folder = lab.layer("acme-x1")
            assert sorted(os.listdir(folder)) == ["layer.yaml", "sealed.age", "sealed.sig"]
        if words[0] == "unpatch":
            assert (lab.place("acme") / "acme.py").read_text() == "secret\n"
    assert ran == ["keygen", "keygen", "keygen", "seal", "unpatch", "unseal"]
    assert not find_layer(lab.root / "patches", "demo", "acme-x1").sealed
    assert (lab.layer("acme-x1") / "overlay/acme.py").read_text() == "secret\n"
