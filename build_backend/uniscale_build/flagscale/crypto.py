"""Reads what FlagScale encrypted: 16 bytes IV, 512 bytes RSA-OAEP(SHA-256) wrapped AES-256 key,
then AES-CBC with PKCS7 padding.

The format has no authentication: a changed byte decrypts to something else without an error, and
whoever has the public key can write a file that decrypts. What comes out is therefore believed only
when it is a patch whose blob ids hold before and after applying (`flagscale_patch.heads`).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from uniscale_build.errors import LayerError, SettingsError
from uniscale_build.sealing.keys import package

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

_IV, _WRAPPED, _BLOCK = 16, 512, 16
KEY_FILE = "private_key.pem"


def read_private_key(given: Path) -> RSAPrivateKey:
    """The RSA-4096 key in the folder ``given`` (``private_key.pem``), or in the file ``given``."""
    package("cryptography")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    path = given.expanduser()
    if path.is_dir():
        path = path / KEY_FILE
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the key cannot be read: {os.strerror(error.errno or 0).lower()}",
            where=str(path),
            hint=f"--key names the folder that holds {KEY_FILE}",
            slug="no-key-file",
        ) from error
    key: object = None
    with contextlib.suppress(ValueError, TypeError, UnsupportedAlgorithm):  # told below
        key = load_pem_private_key(raw, password=None)
    if not isinstance(key, RSAPrivateKey) or key.key_size != 8 * _WRAPPED:
        raise SettingsError(
            "is not an RSA-4096 private key (PEM, without a passphrase)",
            where=str(path),
            hint="a public key cannot decrypt: ask for the vendor's private_key.pem",
            slug="bad-key",
        )
    return key


def decrypt(data: bytes, key: RSAPrivateKey, where: str) -> bytes:
    """The plain patch; `LayerError` for another key, and for a file cut off or changed."""
    from cryptography.hazmat.primitives import hashes, padding
    from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    iv, wrapped, body = data[:_IV], data[_IV : _IV + _WRAPPED], data[_IV + _WRAPPED :]
    if not body or len(body) % _BLOCK:
        raise LayerError(
            f"is cut off: {len(data)} bytes cannot be a file that FlagScale encrypted",
            where=where,
            hint="fetch it again",
            slug="cut-off",
        )
    sha256 = hashes.SHA256()
    oaep = rsa_padding.OAEP(rsa_padding.MGF1(sha256), sha256, None)
    try:
        secret = key.decrypt(wrapped, oaep)
    except ValueError:
        secret = b""
    if len(secret) != 32:
        raise LayerError(
            "was encrypted for another key (or its first bytes were changed)",
            where=where,
            hint="ask the vendor which key pair this set was made with",
            slug="wrong-key",
        )
    decryptor = Cipher(algorithms.AES(secret), modes.CBC(iv)).decryptor()
    unpadder = padding.PKCS7(8 * _BLOCK).unpadder()
    padded = decryptor.update(body) + decryptor.finalize()
    try:
        plain = unpadder.update(padded) + unpadder.finalize()
    except ValueError as error:
        raise changed(where) from error
    if b"diff --git " not in plain:
        raise changed(where)
    return plain


def changed(where: str) -> LayerError:
    """The error for an encrypted file whose content is not what its author encrypted."""
    return LayerError(
        "was cut off or changed after it was encrypted: what it decrypts to is not the patch that "
        "its own blob ids describe",
        where=where,
        hint="fetch it again; if that does not help, ask the vendor",
        slug="changed",
    )
