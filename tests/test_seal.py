"""Sealed layers: round trip, who can open them, and everything that was changed after sealing."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from uniscale_build.errors import LayerError
from uniscale_build.layers.layer import find_layer
from uniscale_build.sealing.keys import read_signing_key
from uniscale_build.sealing.sealed import statement

from tests.seal_lab import Sealing, make_sealing
from tests.upstreams import git, snapshot


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template")


@pytest.fixture
def sealing(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    return make_sealing(template, tmp_path, monkeypatch)


def test_unseal_restores_the_very_bytes(sealing: Sealing) -> None:
    sealing.seal()
    assert sorted(os.listdir(sealing.folder)) == ["layer.yaml", "sealed.age", "sealed.sig"]
    assert sealing.unseal("bob") == (0, "")
    assert snapshot(sealing.folder) == sealing.plain


def test_what_stays_readable(sealing: Sealing) -> None:
    ran = sealing.lab.ok(*sealing.words(), "--json")
    layer = find_layer(sealing.lab.root / "patches", "demo", "secret")
    assert layer.sealed and layer.recipients == ("alice",)
    assert layer.result == sealing.result
    assert set(layer.files) == {
        "data/logo.bin", "moved notes.txt", "new/tool.sh", "new/\xfcnder [1, 2].py", "notes.txt",
        "pkg/util.py",
    }  # fmt: skip
    assert ran.json["signer"] == layer.signer and layer.signer.startswith("ed25519:")
    sealed = b"".join(path.read_bytes() for path in sealing.folder.iterdir())
    assert b"print('new')" not in sealed and b"diff --git" not in sealed


def test_a_build_opens_it_without_a_trace_in_the_checkout(
    sealing: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing.seal()
    before = snapshot(sealing.lab.root)
    monkeypatch.setenv("UNISCALE_AGE_KEY", str(sealing.keys / "bob"))
    assert sealing.apply() == sealing.result
    assert snapshot(sealing.lab.root) == before
    assert list(sealing.lab.store.tmp.iterdir()) == []


def test_unpatch_works_with_a_key_and_names_the_contact_without(
    sealing: Sealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing.seal()
    sealing.lab.remove_place("acme")
    ran = sealing.lab.run("unpatch", "-b", "demo", "-d", "acme")
    assert ran.code == 5
    assert "sealed" in ran.err and "dev@example.org" in ran.err
    monkeypatch.setenv("UNISCALE_AGE_KEY", str(sealing.keys / "alice"))
    sealing.lab.unpatch(device="acme")
    assert sealing.lab.work_tree("acme") == sealing.result


def test_a_stranger_cannot_open_it(sealing: Sealing) -> None:
    sealing.seal()
    before = snapshot(sealing.folder)
    code, err = sealing.unseal("stranger")
    assert code == 5
    assert "wrong-key" in err and "alice, bob" in err and "dev@example.org" in err
    assert snapshot(sealing.folder) == before


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _edit(old: str, new: str) -> Callable[[Sealing], None]:
    def change(sealing: Sealing) -> None:
        path = sealing.folder / "layer.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def _cut(name: str, size: int) -> Callable[[Sealing], None]:
    return lambda sealing: os.truncate(sealing.folder / name, size)


def _write(name: str, data: bytes) -> Callable[[Sealing], None]:
    def change(sealing: Sealing) -> None:
        (sealing.folder / name).write_bytes(data)

    return change


def _rename(sealing: Sealing) -> None:
    shutil.copytree(sealing.folder, sealing.folder.with_name("renamed"))


CHANGES: dict[str, Callable[[Sealing], None]] = {
    "archive, first byte": lambda s: _flip(s.folder / "sealed.age", 0),
    "archive, last byte": lambda s: _flip(s.folder / "sealed.age", -1),
    "archive, cut off": _cut("sealed.age", 300),
    "archive, empty": _cut("sealed.age", 0),
    "signature": _write("sealed.sig", base64.b64encode(bytes(64))),
    "signature, too short": _write("sealed.sig", base64.b64encode(bytes(9))),
    "signature, no base64": _write("sealed.sig", b"!!"),
    "signature, missing": lambda s: (s.folder / "sealed.sig").unlink(),
    "base tree": _edit("base: ", "base: " + "0" * 40 + " # "),
    "result tree": _edit("result: ", "result: " + "0" * 40 + " # "),
    "list of files": _edit("  - pkg/util.py\n", ""),
    "list of recipients": _edit("  - bob\n", ""),
    "contact": _edit("dev@example.org", "dev@example.com"),
    "title": _edit("title: ", "title: Not "),
    "plain files beside it": lambda s: (s.folder / "overlay").mkdir(),
    "another layer's name": _rename,
}


@pytest.mark.parametrize("what", CHANGES)
def test_changed_after_sealing(
    sealing: Sealing, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing.seal()
    CHANGES[what](sealing)
    name = "renamed" if what.startswith("another") else "secret"
    before = snapshot(sealing.lab.root)

    def never(*_: object) -> bytes:
        raise AssertionError("decrypted before it was verified")

    monkeypatch.setattr(pyrage, "decrypt", never)
    ran = sealing.lab.run("unseal", "-b", "demo", "-l", name, "--key", str(sealing.keys / "alice"))
    assert ran.code == 5
    assert "seal-broken" in ran.err
    assert "dev@example." not in ran.err, "who changed it may have written whom to ask"
    assert snapshot(sealing.lab.root) == before


def test_who_has_no_key_learns_of_changes_too(sealing: Sealing) -> None:
    sealing.seal()
    with pytest.raises(LayerError) as caught:
        sealing.apply()
    assert caught.value.slug == "sealed"
    _flip(sealing.folder / "sealed.age", -1)
    with pytest.raises(LayerError) as caught:
        sealing.apply()
    assert caught.value.slug == "seal-broken"


def test_a_seal_that_layer_yaml_does_not_speak_of(sealing: Sealing) -> None:
    sealing.seal()
    path = sealing.folder / "layer.yaml"
    path.write_text(path.read_text().replace("sealed: true\n", ""))
    for more in ((), ("--fix",)):
        ran = sealing.lab.run("check", "-b", "demo", *more)
        assert (ran.code, "error[seal-broken]" in ran.out) == (5, True), ran
    assert f"result: {sealing.result}" in path.read_text()


def test_comments_in_layer_yaml_are_free(sealing: Sealing) -> None:
    sealing.seal()
    path = sealing.folder / "layer.yaml"
    path.write_text(
        "# reviewed in May\n" + path.read_text().replace("sealed: true", "sealed: 'true'")
    )
    assert sealing.unseal("alice")[0] == 0


def test_signed_by_somebody_else(sealing: Sealing) -> None:
    sealing.seal()
    other = read_signing_key(sealing.keys / "other.pem")
    sealed = (sealing.folder / "sealed.age").read_bytes()
    text = (sealing.folder / "layer.yaml").read_text()
    owner = next(line for line in text.splitlines() if line.startswith("signer: "))
    key = sealing.lab.run("keygen", "--signing", str(sealing.keys / "third.pem"), "--json").json
    # First: the owner's name with another signature; then: another key named in layer.yaml too.
    signature = other.sign(statement("demo", "secret", text.encode(), sealed))
    (sealing.folder / "sealed.sig").write_bytes(base64.b64encode(signature))
    code, err = sealing.unseal("alice")
    assert code == 5 and "seal-broken" in err
    (sealing.folder / "layer.yaml").write_text(text.replace(owner, f"signer: {key['public']}"))
    code, err = sealing.unseal("alice")
    assert code == 5 and "wrong-signer" in err and key["public"] in err
    (sealing.lab.root / "patches/keyring.yaml").write_text("recipients: {}\n")
    code, err = sealing.unseal("alice")
    assert code == 5 and "unknown-signer" in err and "patches/keyring.yaml" in err


def test_a_site_may_vouch_for_signers_of_its_own(
    sealing: Sealing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing.seal()
    ring = sealing.lab.root / "patches/keyring.yaml"
    text = ring.read_text()
    ring.write_text("recipients: {}\n")
    site = tmp_path / "site.yaml"
    site.write_text(text)
    monkeypatch.setenv("UNISCALE_KEYRING", str(site))
    assert sealing.unseal("alice")[0] == 0
    monkeypatch.setenv("UNISCALE_KEYRING", str(tmp_path / "absent.yaml"))
    ran = sealing.lab.run("unseal", "-b", "demo", "-l", "secret", "--key", "x")
    assert ran.code == 3


def test_sealing_refuses(sealing: Sealing) -> None:
    code, err = sealing.refused(*sealing.words()[:-2])
    assert code == 2 and "no-key" in err
    code, err = sealing.refused(*sealing.words(to="bob"))
    assert code == 5 and "wrong-key" in err and "seal it for yourself too" in err
    code, err = sealing.refused(*sealing.words(to="alise,carol"))
    assert code == 2 and 'did you mean "alice"?' in err and '"carol"' in err
    code, err = sealing.refused(*sealing.words(to=","))
    assert code == 2 and "no-recipient" in err
    code, err = sealing.refused(*sealing.words(sign="other.pem"))
    assert code == 5 and "wrong-signer" in err
    code, err = sealing.refused(*sealing.words(sign="alice"))
    assert code == 2 and "bad-key" in err
    code, err = sealing.refused(*sealing.words(layer="absent"))
    assert code == 5 and "no-layer" in err
    for wrong in ("absent", "owner.pem"):
        code, err = sealing.refused(*sealing.words(key=wrong))
        assert code == 2


def test_sealing_refuses_a_layer_that_does_not_make_its_tree(sealing: Sealing) -> None:
    (sealing.folder / "overlay/new/tool.sh").write_bytes(b"#!/bin/sh\nother\n")
    code, err = sealing.refused(*sealing.words())
    assert code == 5 and "result-differs" in err


def test_sealing_refuses_links(sealing: Sealing) -> None:
    (sealing.folder / "passwd").symlink_to("/etc/passwd")
    code, err = sealing.refused(*sealing.words())
    assert code == 5 and "bad-layer" in err


def test_twice_sealed_and_never_sealed(sealing: Sealing) -> None:
    code, err = sealing.unseal("alice")
    assert code == 5 and "not-sealed" in err
    sealing.seal()
    code, err = sealing.refused(*sealing.words())
    assert code == 5 and "sealed-already" in err


def test_the_base_is_fetched_when_the_cache_is_gone(sealing: Sealing) -> None:
    shutil.rmtree(sealing.lab.store.root)
    sealing.seal()
    assert find_layer(sealing.lab.root / "patches", "demo", "secret").sealed


def test_plain_files_in_the_history_are_told(sealing: Sealing) -> None:
    git("init", "-q", ".", cwd=sealing.lab.root)
    git("add", "-A", "patches", cwd=sealing.lab.root)
    git("commit", "-q", "-m", "plain", cwd=sealing.lab.root)
    commit = git("rev-parse", "--short", "HEAD", cwd=sealing.lab.root).decode().strip()
    ran = sealing.lab.ok(*sealing.words())
    assert f"commit {commit} has its plain files" in ran.out


def test_layer_yaml_keeps_its_author_s_words(sealing: Sealing) -> None:
    path = sealing.folder / "layer.yaml"
    text = "# first\n" + path.read_text().replace(
        "upstream:", "# why not\nsealed: false\nupstream:"
    )
    path.write_text(text)
    sealing.seal()
    made = path.read_text()
    assert made.startswith("# first\n") and "# why not\n" in made and "sealed: false" not in made
    sealing.unseal("alice")
    assert path.read_text() == text


def test_layer_yaml_in_flow_style_is_refused(sealing: Sealing) -> None:
    import yaml

    path = sealing.folder / "layer.yaml"
    data = yaml.load(path.read_text(), Loader=yaml.BaseLoader)
    path.write_text(yaml.safe_dump(data, default_flow_style=True))
    code, err = sealing.refused(*sealing.words())
    assert code == 5 and "layer-yaml" in err


# -- killed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.25, 0.4, 0.55, 0.7, 0.9])
def test_killed_while_sealing_nothing_is_lost(
    sealing: Sealing, delay: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [sys.executable, "-m", "uniscale_build", *sealing.words()]
    source = Path(__file__).parents[1] / "build_backend"
    monkeypatch.setenv("PYTHONPATH", str(source))
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    layer = find_layer(sealing.lab.root / "patches", "demo", "secret")
    if not layer.sealed:
        # Once the exchange was decided, the next command finishes it first.
        ran = sealing.lab.run(*sealing.words())
        assert ran.code == 0 or "sealed-already" in ran.err
    assert sealing.unseal("alice")[0] == 0
    assert snapshot(sealing.folder) == sealing.plain
    assert [p.name for p in sealing.folder.parent.iterdir()] == ["secret"]
