"""``import-flagscale``: encrypted sets, with the key, without it, and damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uniscale_build.errors import LayerError
from uniscale_build.flagscale.crypto import decrypt
from uniscale_build.project import find_project

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    DEVICE,
    Scale,
    encrypt,
    make_scale,
    quirks,
    roles,
    rsa_key,
    vendor_edit,
)

SMALL = {**BASE, "notes.txt": b"one\ntwo\n3", "acme.py": b"# acme\n" * 40}


def pem(key: RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )


@pytest.fixture
def key() -> RSAPrivateKey:
    return rsa_key()


@pytest.fixture
def folder(key: RSAPrivateKey, tmp_path: Path) -> str:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys/private_key.pem").write_bytes(pem(key))
    return str(tmp_path / "keys")


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


@pytest.mark.parametrize("layout", ["files", "backend", "short"])
def test_with_the_key(scale: Scale, layout: str, key: RSAPrivateKey, folder: str) -> None:
    scale.store(scale.diff(BASE, vendor_edit()), layout, key=key)
    ran = scale.lab.ok("import-flagscale", str(scale.root), "--key", folder)
    assert "uniscale-build seal --backend demo --layer acme-x1" in ran.out
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_without_the_key_it_is_an_opaque_layer(scale: Scale, key: RSAPrivateKey) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key)
    made = scale.bring()
    assert roles(made) == [("opaque", "acme-x1")]
    layer = scale.layer()
    assert layer.sealed and set(layer.files) == {"acme.py", "notes.txt"}
    assert [path.name for path in layer.folder.iterdir()] == ["layer.yaml"]
    ran = scale.lab.run("unpatch", "-b", "demo", "-d", DEVICE)
    assert ran.code == 2 and "needs-layers" in ran.err and "li@acme.example" in ran.err
    assert "acme-x1 is encrypted" in ran.err


def test_an_opaque_layer_refuses_to_be_built_on(scale: Scale, key: RSAPrivateKey) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key)
    scale.bring()
    path = scale.lab.root / f"manifests/adaptations/{DEVICE}/demo.yaml"
    gone = ("status", "missing")
    lines = [line for line in path.read_text().splitlines() if line.split(":")[0] not in gone]
    path.write_text("\n".join(lines) + "\n")
    ran = scale.lab.run("unpatch", "-b", "demo", "-d", DEVICE)
    assert ran.code == 5 and "sealed" in ran.err and "li@acme.example" in ran.err


def test_without_a_pin_it_is_an_opaque_layer_still(scale: Scale, key: RSAPrivateKey) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key, backends_version={"demo": "v9.9"},
                backends_commit={"demo": "9" * 40})  # fmt: skip
    made = scale.bring()
    assert "which is not pinned" in quirks(made)
    pair = find_project(scale.lab.root, {}).manifests.adaptations["demo", DEVICE]
    assert not pair.ready and pair.pin == "9.9"


def test_once_there_is_a_key_the_opaque_layer_is_replaced(
    scale: Scale, key: RSAPrivateKey, folder: str
) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key)
    scale.bring()
    made = scale.bring("--key", folder)
    assert made["replaced"] == ["patches/demo/acme-x1", f"manifests/adaptations/{DEVICE}/demo.yaml"]
    assert scale.built_tree() == scale.tree(SMALL)
    code, err = scale.refused()
    assert code == 5 and "layer-exists" in err


def test_one_diff_of_the_backend_names_itself(scale: Scale, key: RSAPrivateKey) -> None:
    scale.store(scale.diff(BASE, SMALL), "backend", key=key)
    scale.bring()
    assert scale.layer().files == ("diff.patch.encrypted",)


def test_a_set_that_is_encrypted_in_part(scale: Scale, key: RSAPrivateKey, folder: str) -> None:
    where = scale.store(scale.diff(BASE, SMALL))
    plain = where / "notes.txt.patch"
    (where / "notes.txt.patch.encrypted").write_bytes(encrypt(plain.read_bytes(), key))
    plain.unlink()
    made = scale.bring("--dry-run")
    assert roles(made) == [("opaque", "acme-x1")]
    scale.bring("--key", folder)
    assert scale.built_tree() == scale.tree(SMALL)


def _cut(size: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:size]


def _flip(at: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    return change


DAMAGE = {
    "empty": (_cut(0), "cut-off"),
    "cut in the key": (_cut(300), "cut-off"),
    "cut at the content": (_cut(528), "cut-off"),
    "cut in a block": (_cut(-3), "cut-off"),
    "cut between blocks": (_cut(-16), "changed"),
    "key changed": (_flip(100), "wrong-key"),
    "content changed": (_flip(-100), "changed"),
    "end changed": (_flip(-1), "changed"),
    "no such file at all": (lambda _: b"\x7fELF" * 400, "wrong-key"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damaged_files_are_told_one_by_one(
    scale: Scale, what: str, key: RSAPrivateKey, folder: str
) -> None:
    damage, slug = DAMAGE[what]
    where = scale.store(scale.diff(BASE, SMALL), key=key)
    path = where / "acme.py.patch.encrypted"
    path.write_bytes(damage(path.read_bytes()))
    before = path.read_bytes()
    code, err = scale.refused("--key", folder)
    assert code == 5 and slug in err
    assert err.count("error[") == 1 and "acme.py.patch.encrypted" in err
    assert path.read_bytes() == before


def test_a_patch_that_somebody_else_encrypted(
    scale: Scale, key: RSAPrivateKey, folder: str
) -> None:
    """Whoever has the public key can write a file that decrypts: its blob ids give it away."""
    where = scale.store(scale.diff(BASE, SMALL), key=key)
    plain = decrypt((where / "acme.py.patch.encrypted").read_bytes(), key, "x")
    forged = plain.replace(b"+# acme", b"+# evil", 1)
    (where / "acme.py.patch.encrypted").write_bytes(encrypt(forged, key))
    code, err = scale.refused("--key", folder)
    assert code == 5 and "changed" in err


def test_the_wrong_key_for_every_file(scale: Scale, key: RSAPrivateKey, tmp_path: Path) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key)
    (tmp_path / "other.pem").write_bytes(pem(rsa_key(1)))
    code, err = scale.refused("--key", str(tmp_path / "other.pem"))
    assert code == 5 and err.count("error[wrong-key]") == 2


def test_keys_that_are_none(scale: Scale, key: RSAPrivateKey, tmp_path: Path) -> None:
    scale.store(scale.diff(BASE, SMALL), key=key)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    short = rsa.generate_private_key(65537, 2048)
    curve = ec.generate_private_key(ec.SECP256R1())
    for data in (b"", b"nonsense", public, pem(short), pem(curve)):
        (tmp_path / "private_key.pem").write_bytes(data)
        code, err = scale.refused("--key", str(tmp_path))
        assert code == 2 and "bad-key" in err
    code, err = scale.refused("--key", str(tmp_path / "absent"))
    assert code == 2 and "no-key-file" in err


@settings(deadline=None, max_examples=50)
@given(data=st.binary(max_size=600))
def test_what_is_no_patch_is_refused(data: bytes) -> None:
    with pytest.raises(LayerError):
        decrypt(encrypt(data.replace(b"diff --git ", b""), rsa_key()), rsa_key(), "x")


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.randoms(use_true_random=False))
def test_a_flipped_bit_is_refused_or_changes_nothing(
    scale: Scale, key: RSAPrivateKey, folder: str, seed: object
) -> None:
    import random

    assert isinstance(seed, random.Random)
    where = scale.root / f"hardware/{DEVICE}/demo"
    if not where.exists():
        scale.store(scale.diff(BASE, SMALL), "backend", key=key)
        (where / "good").write_bytes((where / "diff.patch.encrypted").read_bytes())
    data = bytearray((where / "good").read_bytes())
    # The wrapped key's bytes are the same case each: once is enough (see above).
    at = seed.choice([*range(16), *range(528, len(data))])
    data[at] ^= 1 << seed.randrange(8)
    (where / "diff.patch.encrypted").write_bytes(data)
    ran = scale.lab.run("import-flagscale", str(scale.root), "--key", folder, "--dry-run", "--json")
    if ran.code == 0:
        assert ran.json["sets"][0]["layers"][0]["result"] == scale.tree(SMALL)
    else:
        assert ran.code == 5, ran
