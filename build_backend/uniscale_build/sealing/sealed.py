"""Sealed layers: encrypted for named recipients (age), signed by their owner (ed25519).

A sealed layer is a folder with ``layer.yaml`` (readable: why, whose, files, base and result tree,
recipients, signer), ``sealed.age`` (the whole plain layer) and ``sealed.sig`` (the owner's detached
signature over both). The signature is checked against the keyring before a byte is decrypted.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uniscale_build import yamlfile
from uniscale_build.errors import (
    LayerError,
    SettingsError,
    ToolchainError,
    UniscaleError,
    did_you_mean,
    raise_all,
)
from uniscale_build.layers.layer import Layer, read_layer
from uniscale_build.sealing.archive import Member, pack, read_folder, unpack, write_folder
from uniscale_build.sealing.keys import (
    Keyring,
    load_keyring,
    package,
    public_of,
    read_identities,
    verifies,
)
from uniscale_build.yamledit import scalar

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from uniscale_build.store import Store

ARCHIVE = "sealed.age"
SIGNATURE = "sealed.sig"
KEY_VARIABLE = "UNISCALE_AGE_KEY"
_FORMAT = "uniscale sealed layer 1"
# Who could change a layer could write their own address into it.
_NOT_HERE = "at an address that is not from this layer.yaml"
_OWN_KEYS = ("sealed", "recipients", "signer", "files")


def statement(backend: str, name: str, layer_yaml: bytes, archive: bytes) -> bytes:
    """What the owner signs: the layer's name, all that ``layer.yaml`` says, and the sealed bytes.

    Comments and layout of ``layer.yaml`` are free; every value in it (base and result tree, files,
    recipients, contact, signer) is covered.
    """
    said = yamlfile.parse(layer_yaml, f"patches/{backend}/{name}/layer.yaml").plain()
    facts = {
        "format": _FORMAT,
        "backend": backend,
        "layer": name,
        "layer.yaml": said,
        ARCHIVE: hashlib.sha256(archive).hexdigest(),
    }
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def recipient_keys(keyring: Keyring, names: Sequence[str]) -> list[Any]:
    """The age recipients called ``names``; every unknown name is an error."""
    if not names:
        raise SettingsError(
            "a layer is sealed for at least one recipient",
            hint=did_you_mean("", keyring.recipients),
            slug="no-recipient",
        )
    raise_all(
        [
            SettingsError(
                f'the keyring has no recipient "{name}"',
                where="patches/keyring.yaml",
                hint=did_you_mean(name, keyring.recipients),
                slug="unknown-recipient",
            )
            for name in names
            if name not in keyring.recipients
        ]
    )
    recipient = package("pyrage").x25519.Recipient
    return [recipient.from_str(keyring.recipients[name]) for name in names]


def sealed_members(
    layer: Layer,
    files: Sequence[str],
    names: Sequence[str],
    keyring: Keyring,
    signing_key: Ed25519PrivateKey,
    identities: Sequence[Any],
) -> tuple[Member, ...]:
    """The files of the sealed form of ``layer``, proven: opened again and compared.

    ``files`` are the upstream paths that it touches. One of ``identities`` must be able to open it,
    so that sealing never loses the plain layer.
    """
    if layer.sealed:
        raise LayerError(
            f'layer "{layer.name}" is sealed already', where=layer.where, slug="sealed-already"
        )
    signer = public_of(signing_key)
    _check_signer(layer.owner, signer, layer, keyring)
    names = tuple(dict.fromkeys(names))
    keys = recipient_keys(keyring, names)
    plain = read_folder(layer.folder, layer.where)
    described = _sealed_yaml(layer, names, signer, files)
    archive = package("pyrage").encrypt(pack(plain), keys)
    signature = signing_key.sign(statement(layer.backend, layer.name, described, archive))
    if _decrypt(archive, identities, layer, "the key given") != plain:
        raise LayerError("the sealed archive differs from the layer", where=layer.where,
                         slug="seal-differs")  # fmt: skip
    return (
        Member("layer.yaml", False, described),
        Member(ARCHIVE, False, archive),
        Member(SIGNATURE, False, base64.b64encode(signature) + b"\n"),
    )


def _check_signer(owner: str, signer: str, layer: Layer, keyring: Keyring) -> None:
    known = keyring.signers.get(owner)
    if known == signer:
        return
    if known is None:
        raise LayerError(
            f'nobody vouches for the signing key of "{owner}", who owns layer "{layer.name}"',
            where=f"{layer.where}/layer.yaml",
            hint="when it is theirs (ask them, not this file), add it to patches/keyring.yaml:\n"
            f"signers:\n  {scalar(owner)}: {signer or 'ed25519:…'}",
            slug="unknown-signer",
        )
    raise LayerError(
        f'layer "{layer.name}" is signed with another key than the one known of "{owner}"',
        where=f"{layer.where}/layer.yaml",
        hint=f"known: {known}\nfound: {signer or 'none'}\n"
        f"ask {layer.owner} before you trust it, {_NOT_HERE}",
        slug="wrong-signer",
    )


def _sealed_yaml(layer: Layer, names: Sequence[str], signer: str, files: Sequence[str]) -> bytes:
    """``layer.yaml`` with the seal's own keys at its end; the rest stays as its author wrote it."""
    text = (layer.folder / "layer.yaml").read_text("utf-8-sig")
    kept, skipping = [], False
    for line in text.splitlines():
        if line[:1] not in ("", " ", "\t", "#", "-"):
            key = re.match(r"[\"']?(\w+)[\"']?\s*:", line)
            skipping = key is not None and key[1] in _OWN_KEYS
        if not skipping:
            kept.append(line)
    kept += ["sealed: true", "recipients:", *(f"  - {scalar(name)}" for name in names)]
    kept += [f"signer: {signer}", "files:" if files else "files: []"]
    kept += [f"  - {scalar(file)}" for file in files]
    made = ("\n".join(kept) + "\n").encode()
    shown = f"{layer.where}/layer.yaml"
    before, after = yamlfile.parse(text.encode(), shown).plain(), None
    with contextlib.suppress(UniscaleError):  # compared below
        after = yamlfile.parse(made, shown).plain()
    wanted = {"sealed": "true", "recipients": list(names), "signer": signer, "files": list(files)}
    if not isinstance(before, dict) or after != {**before, **wanted}:
        raise LayerError(
            "layer.yaml cannot be given the keys of a seal",
            where=shown,
            hint="write it in block style: one key on each line, lists and texts below it",
            slug="layer-yaml",
        )
    return made


def open_members(
    layer: Layer, keyring: Keyring, identities: Sequence[Any], key_name: str
) -> tuple[Member, ...]:
    """The plain files of a sealed layer, its signature verified first."""
    _check_signer(layer.owner, layer.signer, layer, keyring)
    return _decrypt(_verified(layer), identities, layer, key_name)


def _verified(layer: Layer) -> bytes:
    """The sealed archive, when the key that ``layer.yaml`` names has signed all of the layer."""
    archive, signature = _sealed_files(layer)
    raw = (layer.folder / "layer.yaml").read_bytes()
    if verifies(layer.signer, signature, statement(layer.backend, layer.name, raw, archive)):
        return archive
    raise LayerError(
        f'layer "{layer.name}" is not what {layer.owner} signed',
        where=layer.where,
        hint=f"layer.yaml, {ARCHIVE} or {SIGNATURE} was changed after sealing; nothing was "
        f"decrypted. Restore them from git, or ask {layer.owner}, {_NOT_HERE}",
        slug="seal-broken",
    )


def _sealed_files(layer: Layer) -> tuple[bytes, bytes]:
    archive, signature = layer.folder / ARCHIVE, layer.folder / SIGNATURE
    if not archive.is_file():
        raise LayerError(
            f'layer "{layer.name}" is encrypted by its owner, and its content is not here',
            where=layer.where,
            hint=f"ask its owner for the key: {layer.owner}, {layer.contact}\n"
            "uniscale-build import-flagscale DIR --key FOLDER brings it in",
            slug="sealed",
        )
    for folder in ("diff", "overlay"):
        if (layer.folder / folder).exists():
            raise LayerError(
                f"a sealed layer has no {folder}/ of its own",
                where=f"{layer.where}/{folder}",
                hint="remove it, or unseal the layer before you edit it",
                slug="seal-broken",
            )
    try:
        return archive.read_bytes(), base64.b64decode(signature.read_bytes().strip(), validate=True)
    except (OSError, binascii.Error) as error:
        raise LayerError(
            "the signature is missing or cannot be read",
            where=f"{layer.where}/{SIGNATURE}",
            hint=f"restore it from git, or ask {layer.owner}, {_NOT_HERE}",
            slug="seal-broken",
        ) from error


def _decrypt(
    archive: bytes, identities: Sequence[Any], layer: Layer, key_name: str
) -> tuple[Member, ...]:
    pyrage = package("pyrage")
    try:
        plain = pyrage.decrypt(archive, list(identities))
    except pyrage.DecryptError as error:
        readers = ", ".join(layer.recipients) or "other recipients"
        raise LayerError(
            f'{key_name} does not open layer "{layer.name}"',
            where=layer.where,
            hint=f"it is sealed for: {readers}\nits owner is {layer.owner}: {layer.contact}"
            if layer.sealed
            else "seal it for yourself too (--to), or its plain text would be lost",
            slug="wrong-key",
        ) from error
    return unpack(plain, f"{layer.where}/{ARCHIVE}")


def identities_for(
    layer: Layer, environ: Mapping[str, str] | None = None, key: Path | None = None
) -> tuple[list[Any], str]:
    """The age keys to try and their name for errors: ``key``, else ``UNISCALE_AGE_KEY``."""
    env = os.environ if environ is None else environ
    if key is None and not env.get(KEY_VARIABLE):
        raise LayerError(
            f'layer "{layer.name}" is sealed and there is no key for it here',
            where=layer.where,
            hint=f"its owner is {layer.owner}: {layer.contact}\nwith a key: {KEY_VARIABLE}=FILE",
            slug="sealed",
        )
    path = key if key is not None else Path(env[KEY_VARIABLE]).expanduser()
    return read_identities(path), f"the key in {path}"


@contextlib.contextmanager
def opened(layer: Layer, store: Store, environ: Mapping[str, str] | None = None) -> Iterator[Layer]:
    """A sealed layer in plain, in a private scratch folder of the cache that goes afterwards.

    Nothing is written into the checkout. `LayerError` when there is no key (it names the owner's
    contact), the key is not a recipient's, or anything was changed after sealing.
    """
    _sealed_files(layer)
    try:
        identities, key_name = identities_for(layer, environ)
    except LayerError:
        # Who has no key still learns that somebody changed it (and CI has none).
        with contextlib.suppress(ToolchainError):
            _verified(layer)
        raise
    keyring = load_keyring(layer.folder.parent.parent, environ)
    members = open_members(layer, keyring, identities, key_name)
    with store.scratch() as folder:
        plain = folder / layer.name
        plain.mkdir()
        write_folder(plain, members)
        yield dataclasses.replace(plain_layer(plain, layer), folder=plain)


def plain_layer(folder: Path, sealed: Layer) -> Layer:
    """The layer in ``folder``, when it is the one that ``sealed`` describes."""
    inner = read_layer(folder, sealed.backend)
    if inner.sealed or (inner.base, inner.result) != (sealed.base, sealed.result):
        raise LayerError(
            f'what is sealed in layer "{sealed.name}" is another layer than layer.yaml says',
            where=f"{sealed.where}/{ARCHIVE}",
            hint=f"ask {sealed.contact}",
            slug="seal-broken",
        )
    return inner
