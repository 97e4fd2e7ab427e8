"""Plans the layers of one FlagScale set: decrypt, apply, compare with FlagScale's own, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from uniscale_build.errors import LayerError, ManifestError, UniscaleError, raise_all
from uniscale_build.flagscale.base import Size, measure, stack
from uniscale_build.flagscale.common import apply_all, common_tree, find_common
from uniscale_build.flagscale.crypto import changed, decrypt
from uniscale_build.flagscale.layout import Checkout, PatchSet
from uniscale_build.flagscale.meta import FLAGSCALE, History, Meta, Quirk, plain_version, tasks_of
from uniscale_build.flagscale.patch import Head, all_heads, disagreeing
from uniscale_build.flagscale.pin import choose_pin, said_of
from uniscale_build.git.db import GitDb
from uniscale_build.layers.layerfile import Member, export, shown
from uniscale_build.manifests.model import Backend, Device, Pin
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.sources.obtain import obtain

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

UNKNOWN = "0" * 40  # git's own id for nothing: the result of a layer that cannot be read


@dataclass(frozen=True)
class Wishes:
    """What the command line says; None and empty where it leaves the choice to us."""

    backends: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    as_device: str | None = None
    pin: str | None = None
    layer: str | None = None
    common_layer: str | None = None
    contact: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Context:
    """Everything that planning one set needs besides the set."""

    db: GitDb
    project: Project
    checkout: Checkout
    history: History
    key: RSAPrivateKey | None
    wishes: Wishes
    reporter: Reporter
    # (backend, layer) → (base, result) of the layers planned so far: names must not meet.
    taken: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class NewLayer:
    """A layer to be written: ``role`` is ``common``, ``vendor`` or ``opaque``."""

    role: str
    name: str
    base: str
    result: str
    size: Size
    members: Mapping[bytes, Member]
    files: tuple[str, ...] = ()  # of an opaque layer: what it is said to touch


@dataclass(frozen=True)
class Planned:
    """One adaptation to be: a backend on a device, its pin and its layers, all proven."""

    source: str
    layout: str
    backend: Backend
    device: Device
    pin: Pin | None  # None: what the set was made on is not pinned (opaque sets alone)
    new_pin: bool  # the manifest does not have the pin yet
    version: str  # of the upstream, as the adaptation names it
    layers: tuple[NewLayer, ...]
    tasks: tuple[str, ...]
    contact: str
    models: tuple[str, ...]
    commit: str  # of FlagScale
    stored: Size  # what FlagScale stored for it
    encrypted: bool

    @property
    def opaque(self) -> bool:
        """True when only the names of encrypted files are known."""
        return any(layer.role == "opaque" for layer in self.layers)


def read_patches(found: PatchSet, key: RSAPrivateKey | None) -> dict[str, bytes]:
    """The set's patches in plain (place → patch), decrypted with the key; every error at once."""
    patches: dict[str, bytes] = {}
    errors: list[UniscaleError] = []
    for file in found.files:
        where = f"{found.shown}/{file.path.relative_to(found.folder).as_posix()}"
        data = file.path.read_bytes()
        if file.encrypted:
            try:
                data = decrypt(data, _needed(key, where), where)
            except LayerError as error:
                errors.append(error)
                continue
        patches[where] = data
    raise_all(errors)
    return patches


def _needed(key: RSAPrivateKey | None, where: str) -> RSAPrivateKey:
    if key is None:
        raise LayerError(
            "is encrypted and there is no key for it here",
            where=where,
            hint="--key FOLDER names the folder of private_key.pem",
            slug="sealed",
        )
    return key


def plan_backend(
    context: Context, found: PatchSet, backend: Backend, device: Device, meta: Meta,
    quirks: list[Quirk],
) -> Planned:  # fmt: skip
    """What importing one backend's patches will write; an encrypted set without a key is opaque.

    ``quirks`` gains what the metadata says otherwise than the patches do.
    """
    new = False
    if found.encrypted and context.key is None:
        pin, version, layer = _opaque(context, found, backend, device, meta, quirks)
        layers: tuple[NewLayer, ...] = (layer,)
        stored = layer.size
    else:
        patches = read_patches(found, context.key)
        secret = secret_places(found)
        heads, errors = all_heads(patches)
        raise_all(damaged(errors, secret))
        _compare_labels(found, heads, quirks)
        chosen = choose_pin(context, backend, meta, heads, quirks)
        pin, new = chosen.pin, chosen.new
        obtain(context.db, pin, reporter=context.reporter, offline=context.wishes.offline)
        common = _common(context, backend, pin, meta, quirks)
        try:
            vendor = _apply(context.db, pin, common, patches, found.shown, quirks)
        except UniscaleError as error:
            raise_all(damaged(error.findings(), secret))
            raise
        check_ids(context.db, found, patches, vendor, quirks)
        layers = make_layers(context, device, pin, common, vendor, quirks, found.shown)
        stored, version = measure(context.db, pin.tree, vendor), pin.version
    history = context.history.tasks(found.device, context.project.manifests)
    tasks = tasks_of(meta, history, backend, quirks)
    contact = contact_of(context, backend, device, meta, "", quirks)
    return Planned(
        found.shown, found.layout, backend, device, pin, new, version, layers, tasks, contact,
        meta.models, meta.commit, stored, found.encrypted,
    )  # fmt: skip


def contact_of(
    context: Context, backend: Backend, device: Device, meta: Meta, mailed: str,
    quirks: list[Quirk],
) -> str:  # fmt: skip
    """Whom to ask: as the user says, as ``diff.yaml`` or the mail says, as our manifest says."""
    if context.wishes.contact:
        return context.wishes.contact
    said = meta.contact.strip() or mailed
    if "@" in said or "://" in said:
        return said
    known = context.project.manifests.adaptations.get((backend.name, device.name))
    if said:
        quirks.append(Quirk(f'the contact "{said}" is no address; --contact sets one', meta.where))
    else:
        quirks.append(Quirk("names no contact; --contact sets one", meta.where))
    return (known.contact if known is not None else said) or f"unknown ({meta.where} names nobody)"


def _compare_labels(found: PatchSet, heads: Sequence[Head], quirks: list[Quirk]) -> None:
    """A quirk for each patch that is stored under another name than that of the file it changes."""
    if found.layout != "files":
        return
    labels = {file.label for file in found.files}
    for head in heads:
        name = head.path.decode("utf-8", "surrogateescape")
        if name not in labels:
            quirks.append(Quirk(f"the patch of {shown(head.path)} is stored under another name",
                                found.shown))  # fmt: skip


def _common(
    context: Context, backend: Backend, pin: Pin, meta: Meta, quirks: list[Quirk]
) -> str | None:
    """The tree of FlagScale's own changes on the pin, when they are known and fit it."""
    root = context.checkout.root
    if root is None:
        return None
    found = find_common(root, context.project.manifests, backend, meta.commit, quirks)
    if found is None:
        return None
    try:
        return common_tree(context.db, pin.tree, found)
    except UniscaleError as error:
        count = len(error.findings())
        quirks.append(
            Quirk(
                f"{FLAGSCALE}'s own changes do not fit {backend.name} {pin.version} ({count} "
                f"misfits, the first: {error.findings()[0].what}); the set is not split",
                found.where,
            )
        )
        return None


def _apply(
    db: GitDb, pin: Pin, common: str | None, patches: dict[str, bytes], where: str,
    quirks: list[Quirk],
) -> str:  # fmt: skip
    """The tree that the set makes of the pin, or of FlagScale's own tree if it was made on that."""
    try:
        return apply_all(db, pin.tree, patches)
    except UniscaleError as error:
        if common is None or common == pin.tree:
            raise
        try:
            tree = apply_all(db, common, patches)
        except UniscaleError:
            raise error from None  # the pin is what its diff.yaml names: tell what fails there
        quirks.append(Quirk(f"was made on top of {FLAGSCALE}'s own changes", where))
        return tree


def secret_places(found: PatchSet) -> set[str]:
    """Where the encrypted patches are, as errors name them."""
    return {
        f"{found.shown}/{file.path.relative_to(found.folder).as_posix()}"
        for file in found.files
        if file.encrypted
    }


def damaged(errors: Sequence[UniscaleError], secret: set[str]) -> list[UniscaleError]:
    """The errors; what was encrypted and is no patch inside was damaged or cut off."""
    return [
        changed(error.where)
        if error.where in secret and error.slug in ("bad-patch", "no-patch")
        else error
        for error in errors
    ]


def check_ids(
    db: GitDb, found: PatchSet, patches: Mapping[str, bytes], tree: str, quirks: list[Quirk],
    *, only: bytes = b"",
) -> None:  # fmt: skip
    """Compare what came out with the blob ids in the patches, for paths that begin with ``only``.

    A plain patch was edited by hand then, which is a quirk. An encrypted one was changed by
    somebody who cannot read it, or cut off: that is an error for each file.
    """
    files = db.list_tree(tree)
    secret = secret_places(found)
    errors: list[UniscaleError] = []
    for where, patch in patches.items():
        inside = [h for h in all_heads({where: patch})[0] if h.path.startswith(only)]
        for head in disagreeing(inside, files):
            if where in secret:
                errors.append(changed(where))
                break
            quirks.append(
                Quirk(f"gives {shown(head.path)} another blob id than it says: edited by hand",
                      where)
            )  # fmt: skip
    raise_all(errors)


def make_layers(
    context: Context, device: Device, pin: Pin, common: str | None, vendor: str,
    quirks: list[Quirk], where: str,
) -> tuple[NewLayer, ...]:  # fmt: skip
    """The layers from the pin's own to the vendor's tree, exported in canonical form."""
    from uniscale_build.flagscale.write import layer_name

    steps = stack(context.db, context.project, pin, common, vendor, quirks, where)
    return tuple(
        NewLayer(
            step.role,
            layer_name(
                context, step.role, device, pin.backend, pin.version, step.base, step.result
            ),
            step.base,
            step.result,
            step.size,
            export(context.db, step.base, step.result),
        )
        for step in steps
    )


def _opaque(
    context: Context, found: PatchSet, backend: Backend, device: Device, meta: Meta,
    quirks: list[Quirk],
) -> tuple[Pin | None, str, NewLayer]:  # fmt: skip
    """The layer of a set that cannot be read; it needs no source, and no pin for what it was on."""
    from uniscale_build.flagscale.write import layer_name

    manifests = context.project.manifests
    commit = said_of(meta.commits, manifests, backend, meta.where, "backends_commit", quirks)
    version = plain_version(
        context.wishes.pin
        or said_of(meta.versions, manifests, backend, meta.where, "backends_version", quirks)
    )
    known = [backend.pin(word) for word in (commit, version) if word]
    pin = next((pin for pin in known if pin is not None and pin.tree), None)
    top = UNKNOWN
    if pin is not None:
        version, own = pin.version, context.project.layers(pin, None)
        top = own[-1].result if own else pin.tree
    elif version or commit:
        version = version or commit[:12]
        quirks.append(
            Quirk(f"was made on {backend.name} {version}, which is not pinned", meta.where)
        )
    else:
        raise ManifestError(
            f"does not say which {backend.name} it was made on",
            where=meta.where,
            hint="--pin VERSION says it",
            slug="no-pin",
        )
    name = layer_name(context, "opaque", device, backend.name, version, top, UNKNOWN)
    files = tuple(file.label if found.layout == "files" else file.path.name for file in found.files)
    return pin, version, NewLayer("opaque", name, top, UNKNOWN, Size(len(files), 0, 0), {}, files)
