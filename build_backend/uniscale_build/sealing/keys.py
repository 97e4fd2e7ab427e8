"""Keys of sealed layers: age keys that read, ed25519 keys that sign, and whose is whose.

``patches/keyring.yaml`` (and, for a site's own, the file that ``UNISCALE_KEYRING`` names) maps
people to public keys: ``recipients`` may read, ``signers`` vouch for the layers that they own.
Private keys are files of their own, readable by their owner alone, never part of a project.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build.errors import (
    ManifestError,
    SettingsError,
    ToolchainError,
    UniscaleError,
    raise_all,
)
from uniscale_build.store import disk_errors
from uniscale_build.yamlfile import Fields, load

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYRING = "keyring.yaml"
_PREFIX = "ed25519:"


def package(name: str) -> Any:
    """The module ``name`` of the ``seal`` extra; `ToolchainError` says how to install it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise ToolchainError(
            f"the Python package {name.partition('.')[0]} is not installed",
            hint="pip install 'uniscale[seal]' brings what sealed layers need",
            slug="no-package",
        ) from error


@dataclass(frozen=True)
class Keyring:
    """Public keys by name: ``recipients`` (age) and ``signers`` (ed25519)."""

    recipients: Mapping[str, str]
    signers: Mapping[str, str]


def load_keyring(patches: Path, environ: Mapping[str, str] | None = None) -> Keyring:
    """The project's keyring with the site's own on top; every malformed key is an error."""
    env = os.environ if environ is None else environ
    recipients: dict[str, str] = {}
    signers: dict[str, str] = {}
    sources = [(patches / KEYRING, f"patches/{KEYRING}", True)]
    if given := env.get("UNISCALE_KEYRING"):
        sources.append((Path(given).expanduser(), given, False))
    errors: list[UniscaleError] = []
    for path, shown, may_miss in sources:
        if may_miss and not path.exists():
            continue
        fields = Fields(load(path, shown=shown), errors)
        for key, found, check in (("recipients", recipients, _is_age),
                                  ("signers", signers, _is_ed25519)):  # fmt: skip
            for name, text in fields.pairs(key).items():
                if not check(text):
                    errors.append(
                        ManifestError(
                            f"the key of {name} is not a public key",
                            where=f"{shown} ({key})",
                            hint="age1… for recipients, ed25519:… for signers; "
                            "uniscale-build keygen prints both",
                            slug="bad-key",
                        )
                    )
                found[name] = text
        fields.finish()
    raise_all(errors)
    return Keyring(recipients, signers)


def _is_age(text: str) -> bool:
    pyrage = package("pyrage")
    try:
        pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        return False
    return True


def _is_ed25519(text: str) -> bool:
    return _raw_key(text) is not None


def _raw_key(text: str) -> bytes | None:
    if not text.startswith(_PREFIX):
        return None
    try:
        raw = base64.b64decode(text[len(_PREFIX) :], validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == 32 else None


def _create(path: Path, data: bytes) -> None:
    """Write a private key: a new file, mode 0600 from its first byte; never over an old one."""
    with disk_errors(path):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise SettingsError(
                "there is a file already, and a key is never overwritten",
                where=str(path),
                hint="choose another name; what was sealed for a lost key cannot be opened again",
                slug="key-exists",
            ) from error
        except (FileNotFoundError, NotADirectoryError) as error:
            raise SettingsError(
                "its folder is not there", where=str(path), slug="no-folder"
            ) from error
        try:
            with os.fdopen(handle, "wb") as out:
                os.fchmod(out.fileno(), 0o600)
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:
            path.unlink()  # half a key opens nothing, and would be in the way
            raise


def outside_projects(path: Path) -> None:
    """Refuse a place inside a project: what lies there is published sooner or later."""
    from uniscale_build.project import is_project

    for folder in path.expanduser().absolute().parents:
        if is_project(folder):
            raise SettingsError(
                "a private key does not belong in a project",
                where=str(path),
                hint=f"choose a place outside of {folder}, such as your home folder",
                slug="key-in-project",
            )


def new_identity(path: Path) -> str:
    """Make an age key in ``path``; gives its public part (``age1…``)."""
    identity = package("pyrage").x25519.Identity.generate()
    public = str(identity.to_public())
    _create(path, f"# public key: {public}\n{identity}\n".encode())
    return public


def new_signing_key(path: Path) -> str:
    """Make an ed25519 key (PEM) in ``path``; gives its public part (``ed25519:…``)."""
    package("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _create(path, pem)
    return public_of(key)


def public_of(key: Ed25519PrivateKey) -> str:
    """The public part as text."""
    from cryptography.hazmat.primitives import serialization

    raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return _PREFIX + base64.b64encode(raw).decode()


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the {what} cannot be read: {os.strerror(error.errno or 0).lower()}",
            where=str(path),
            slug="no-key-file",
        ) from error


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """The ed25519 key in ``path``; `SettingsError` when it is none, or others may read it.

    (An age key may lie open: build machines get theirs as mounted files with modes of their own.)
    """
    package("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    raw = _read(path, "signing key")
    if path.stat().st_mode & 0o077:
        raise SettingsError(
            "others may read this signing key, and sign in its owner's name",
            where=str(path),
            hint=f"chmod 600 {shlex.quote(str(path))}; when others have been on this machine, make "
            "another key",
            slug="open-key",
        )
    key: object = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):  # told below
        key = load_pem_private_key(raw, password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            "is not an ed25519 private key (PEM, without a passphrase)",
            where=str(path),
            hint="uniscale-build keygen --signing FILE makes one",
            slug="bad-key",
        )
    return key


def read_identities(path: Path) -> list[Any]:
    """The age keys in ``path`` (one on each line, ``#`` comments)."""
    pyrage = package("pyrage")
    identities = []
    text = _read(path, "age key").decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        word = line.strip()
        if not word or word.startswith("#"):
            continue
        try:
            identities.append(pyrage.x25519.Identity.from_str(word))
        except pyrage.IdentityError as error:
            raise SettingsError(
                "this line is not an age key",
                where=f"{path}:{number}",
                hint="a key begins with AGE-SECRET-KEY-1; uniscale-build keygen FILE makes one",
                slug="bad-key",
            ) from error
    if not identities:
        raise SettingsError("holds no age key", where=str(path), slug="bad-key")
    return identities


def verifies(public: str, signature: bytes, statement: bytes) -> bool:
    """True when ``signature`` is the one of the key ``public`` over ``statement``."""
    package("cryptography")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    raw = _raw_key(public)
    if raw is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, statement)
    except InvalidSignature:
        return False
    return True
