"""A project with a layer to be sealed, and the keys of everybody who has to do with it."""

from __future__ import annotations

import base64
import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from uniscale_build.layers.layer import apply_layer, find_layer
from uniscale_build.sealing.keys import read_signing_key
from uniscale_build.sealing.sealed import statement
from uniscale_build.store import Store

from tests.upstreams import UPSTREAM, Lab, make_lab, snapshot


@dataclass
class Sealing:
    """A project with a plain layer ``secret``, two readers, a stranger, and its owner's key."""

    lab: Lab
    keys: Path
    plain: dict[str, tuple[object, ...]]
    result: str

    def words(
        self, *, to: str = "alice", key: str = "alice", sign: str = "owner.pem",
        layer: str = "secret",
    ) -> list[str]:  # fmt: skip
        """A ``seal`` command line."""
        return ["seal", "-b", "demo", "-l", layer, "--to", to, "--sign-key", str(self.keys / sign),
                "--key", str(self.keys / key)]  # fmt: skip

    def seal(self) -> None:
        """Seal the layer for both readers."""
        self.lab.ok(*self.words(to="alice,bob"))

    def refused(self, *argv: str) -> tuple[int, str]:
        """Exit code and message of a command that must change nothing in the project."""
        before = snapshot(self.lab.root)
        ran = self.lab.run(*argv)
        assert snapshot(self.lab.root) == before
        return ran.code, ran.err

    def unseal(self, key: str) -> tuple[int, str]:
        """Exit code and message of ``unseal``."""
        ran = self.lab.run("unseal", "-b", "demo", "-l", "secret", "--key", str(self.keys / key))
        return ran.code, ran.err

    @property
    def folder(self) -> Path:
        """The layer's folder."""
        return self.lab.layer("secret")

    def apply(self) -> str:
        """The tree that the layer makes, as a build gets it."""
        layer = find_layer(self.lab.root / "patches", "demo", "secret")
        return apply_layer(self.lab.db, layer.base, layer)

    def forge(self, members: bytes, recipient: str = "alice") -> None:
        """A sealed archive of ``members``, signed by the owner."""
        public = (self.keys / recipient).read_text().splitlines()[0].split()[-1]
        sealed = pyrage.encrypt(members, [pyrage.x25519.Recipient.from_str(public)])
        raw = (self.folder / "layer.yaml").read_bytes()
        key = read_signing_key(self.keys / "owner.pem")
        (self.folder / "sealed.age").write_bytes(sealed)
        (self.folder / "sealed.sig").write_bytes(
            base64.b64encode(key.sign(statement("demo", "secret", raw, sealed)))
        )


@functools.cache
def _template(base: Path) -> Sealing:
    """The project that every test gets a copy of; made once."""
    with pytest.MonkeyPatch.context() as patch:
        (base / "home").mkdir()
        lab = make_lab(base, UPSTREAM)
        for name in ("GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME", "UNISCALE_MANIFESTS"):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(base / "home"))
        patch.setenv("UNISCALE_PROJECT", str(lab.root))
        patch.setenv("UNISCALE_CACHE", str(lab.store.root))
        patch.chdir(lab.root)
        return _make(lab, base / "keys")


def make_sealing(template: Path, base: Path, patch: pytest.MonkeyPatch) -> Sealing:
    """A project of one's own below ``base`` with the layer, the keys and the keyring."""
    made = _template(template)
    lab = Lab(base / "project", Store(base / "cache"), made.lab.upstream)
    for old, new in ((made.lab.root, lab.root), (made.lab.store.root, lab.store.root),
                     (made.keys, base / "keys")):  # fmt: skip
        shutil.copytree(old, new, symlinks=True)
    (base / "home").mkdir()
    for name in ("UNISCALE_AGE_KEY", "UNISCALE_KEYRING", "GIT_CONFIG_GLOBAL", "XDG_CONFIG_HOME",
                 "UNISCALE_MANIFESTS"):  # fmt: skip
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(base / "home"))
    patch.setenv("UNISCALE_PROJECT", str(lab.root))
    patch.setenv("UNISCALE_CACHE", str(lab.store.root))
    patch.chdir(lab.root)
    return Sealing(lab, base / "keys", made.plain, made.result)


def _make(lab: Lab, keys: Path) -> Sealing:
    """The layer with every kind of file, three readers' keys, two signers', the keyring."""
    lab.unpatch("-d", "acme")
    place = lab.place("acme")
    (place / "pkg/util.py").write_bytes((place / "pkg/util.py").read_bytes() + b"secret\n")
    (place / "data/logo.bin").write_bytes(bytes(range(255, -1, -1)) * 9)
    (place / "notes.txt").rename(place / "moved notes.txt")
    (place / "new").mkdir()
    (place / "new/\xfcnder [1, 2].py").write_bytes(b"print('new')\r\n")
    (place / "new/tool.sh").write_bytes(b"#!/bin/sh\n")
    (place / "new/tool.sh").chmod(0o755)
    lab.new_layer("secret", device="acme")
    (lab.layer("secret") / "NOTES").write_text("for us\n")
    keys.mkdir()
    public = {}
    for name in ("alice", "bob", "stranger"):
        public[name] = lab.ok("keygen", str(keys / name), "--json").json["public"]
    for name in ("owner.pem", "other.pem"):
        made = lab.ok("keygen", "--signing", str(keys / name), "--json").json
        public[name] = made["public"]
    (lab.root / "patches/keyring.yaml").write_text(
        f"recipients:\n  alice: {public['alice']}\n  bob: {public['bob']}\n"
        f"signers:\n  Dev: {public['owner.pem']}\n"
    )
    return Sealing(lab, keys, snapshot(lab.layer("secret")), lab.result("secret"))
