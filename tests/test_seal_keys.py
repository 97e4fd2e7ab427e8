"""Keys and the archive of sealed layers: private files, and nothing unsafe comes out."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from uniscale_build.errors import LayerError, ToolchainError
from uniscale_build.sealing.archive import Member, pack, read_folder, unpack, write_folder
from uniscale_build.sealing.keys import package

from tests.seal_lab import Sealing, make_sealing
from tests.upstreams import snapshot


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("template")


@pytest.fixture
def sealing(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sealing:
    return make_sealing(template, tmp_path, monkeypatch)


# -- keys ------------------------------------------------------------------------------------------


def test_keys_are_private_and_never_overwritten(sealing: Sealing) -> None:
    os.umask(0o022)
    for options in ((), ("--signing",)):
        path = sealing.keys / f"fresh{len(options)}"
        sealing.lab.ok("keygen", str(path), *options)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        before = path.read_bytes()
        ran = sealing.lab.run("keygen", str(path), *options)
        assert ran.code == 2 and "key-exists" in ran.err
        assert path.read_bytes() == before
    ran = sealing.lab.run("keygen", str(sealing.keys / "none/at/all"))
    assert ran.code == 2 and "no-folder" in ran.err
    ran = sealing.lab.run("keygen", str(sealing.lab.root / "patches/key"))
    assert ran.code == 2 and "key-in-project" in ran.err
    assert not (sealing.lab.root / "patches/key").exists()


def test_a_signing_key_that_others_may_read_is_refused(sealing: Sealing) -> None:
    key = sealing.keys / "owner.pem"
    for bits in (0o640, 0o604, 0o660):
        key.chmod(bits)
        code, said = sealing.refused(*sealing.words())
        assert (code, "error[open-key]" in said, f"chmod 600 {key}" in said) == (2, True, True)
    key.chmod(0o400)
    sealing.seal()


def test_a_keyring_with_bad_keys_names_them_all(sealing: Sealing) -> None:
    ring = sealing.lab.root / "patches/keyring.yaml"
    ring.write_text(
        "recipients:\n  carol: age1nonsense\nsigners:\n  Dev: ed25519:AAAA\n  Eve: rsa:AAAA\n"
        "friends: {}\n"
    )
    code, err = sealing.unseal("alice")
    assert code == 3
    assert all(word in err for word in ("carol", "Dev", "Eve", '"friends"'))


def test_an_age_key_file_says_where_it_is_wrong(sealing: Sealing) -> None:
    sealing.seal()
    path = sealing.keys / "broken"
    path.write_text("# a key\n\nAGE-SECRET-KEY-1NONSENSE\n")
    code, err = sealing.unseal("broken")
    assert code == 2 and f"{path}:3" in err
    path.write_text("# nothing\n")
    code, err = sealing.unseal("broken")
    assert code == 2 and "holds no age key" in err


def test_a_file_of_several_keys(sealing: Sealing) -> None:
    sealing.seal()
    both = sealing.keys / "both"
    both.write_text((sealing.keys / "stranger").read_text() + (sealing.keys / "bob").read_text())
    assert sealing.unseal("both")[0] == 0


def test_the_hint_when_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(ToolchainError) as caught:
        package("pyrage")
    assert caught.value.hint is not None and "uniscale[seal]" in caught.value.hint


# -- the archive inside ----------------------------------------------------------------------------


def _tar(*entries: tarfile.TarInfo, data: bytes = b"x") -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info in entries:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return gzip.compress(raw.getvalue())


def _link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


HOSTILE = {
    "..": _tar(tarfile.TarInfo("../evil")),
    ".. inside": _tar(tarfile.TarInfo("overlay/../../evil")),
    "absolute": _tar(tarfile.TarInfo("/tmp/evil")),
    "empty part": _tar(tarfile.TarInfo("overlay//evil")),
    "dot": _tar(tarfile.TarInfo("./evil")),
    ".git": _tar(tarfile.TarInfo("overlay/.GIT/hooks/post-checkout")),
    "control character": _tar(tarfile.TarInfo("overlay/a\nb")),
    "link out": _tar(_link("overlay/x", "../../../../etc/passwd")),
    "hard link": _tar(_link("overlay/x", "layer.yaml", tarfile.LNKTYPE)),
    "device": _tar(_link("overlay/x", "", tarfile.CHRTYPE)),
    "fifo": _tar(_link("overlay/x", "", tarfile.FIFOTYPE)),
    "folder": _tar(_link("overlay", "", tarfile.DIRTYPE)),
    "twice": _tar(tarfile.TarInfo("overlay/x"), tarfile.TarInfo("overlay/x")),
    "file as folder": _tar(tarfile.TarInfo("overlay/x"), tarfile.TarInfo("overlay/x/y")),
    "no archive": b"<html>404</html>",
    "no tar": gzip.compress(b"nothing of the kind" * 99),
    "cut off": _tar(tarfile.TarInfo("overlay/x"))[:-20],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_archives_write_nothing(
    sealing: Sealing, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sealing.seal()
    sealing.forge(HOSTILE[what])
    before = snapshot(tmp_path, skip=("cache", ".git"))
    code, err = sealing.unseal("alice")
    assert code == 5, err
    assert "bad-archive" in err or "path-escape" in err
    monkeypatch.setenv("UNISCALE_AGE_KEY", str(sealing.keys / "alice"))
    with pytest.raises(LayerError):
        sealing.apply()
    assert snapshot(tmp_path, skip=("cache", ".git")) == before


def test_a_bomb_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniscale_build.sealing.archive.MAX_BYTES", 1 << 20)
    with pytest.raises(LayerError) as caught:
        unpack(gzip.compress(bytes(2 << 20)), "x")
    assert caught.value.slug == "archive-bomb"


def test_another_layer_inside_is_refused(sealing: Sealing) -> None:
    plain = read_folder(sealing.folder, "x")
    other = [
        Member(m.path, m.executable, m.data.replace(b"result: ", b"result: " + b"0" * 40 + b" # "))
        if m.path == "layer.yaml" else m for m in plain
    ]  # fmt: skip
    sealing.seal()
    sealing.forge(pack(other))
    before = snapshot(sealing.lab.root)
    code, err = sealing.unseal("alice")
    assert code == 5 and "another layer" in err
    assert snapshot(sealing.lab.root) == before


NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=["Cc", "Cs"]),
    min_size=1,
    max_size=12,
).filter(lambda name: name not in (".", "..") and name.lower() != ".git" and "\x7f" not in name)


@given(st.dictionaries(NAMES, st.tuples(st.booleans(), st.binary(max_size=200)), max_size=8))
def test_packing_is_deterministic_and_comes_back(found: dict[str, tuple[bool, bytes]]) -> None:
    members = [Member(name, *rest) for name, rest in found.items()]
    packed = pack(members)
    assert packed == pack(reversed(members))
    assert set(unpack(packed, "x")) == set(members)


def test_folders_come_back_as_they_were(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    (source / "x").mkdir(parents=True)
    target.mkdir()
    (source / os.fsdecode(b"x/\xff\xfe name")).write_bytes(b"\0\1")
    (source / ("n" * 200)).write_bytes(b"long")
    write_folder(target, unpack(pack(read_folder(source, "x")), "x"))
    assert snapshot(source) == snapshot(target)
