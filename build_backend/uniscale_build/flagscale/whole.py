"""The oldest layout: one diff of FlagScale as a whole, its backends still subtrees of it.

Such a diff was made on one FlagScale commit. Where the checkout has that commit, the subtree there
is upstream with FlagScale's own changes, and the set splits exactly. Where it does not, the diff is
tried on the pins that we have.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from uniscale_build.errors import LayerError, SettingsError, UniscaleError, raise_all
from uniscale_build.flagscale.base import measure
from uniscale_build.flagscale.common import apply_all, find_commit, read_commit
from uniscale_build.flagscale.layout import PatchSet
from uniscale_build.flagscale.meta import Meta, Quirk, tasks_of
from uniscale_build.flagscale.patch import Head, all_heads
from uniscale_build.flagscale.pin import choose_pin
from uniscale_build.flagscale.plan import (
    Context,
    Planned,
    check_ids,
    contact_of,
    damaged,
    make_layers,
    read_patches,
    secret_places,
)
from uniscale_build.git.db import EMPTY, GitDb, changed_tree
from uniscale_build.manifests.model import Backend, Device, Pin
from uniscale_build.sources.obtain import obtain

_FROM = re.compile(rb"^From: (.+)$", re.MULTILINE)


def plan_whole(
    context: Context, found: PatchSet, device: Device, quirks: list[Quirk]
) -> list[Planned]:
    """One plan for each backend whose subtree the diff changes."""
    if found.encrypted and context.key is None:
        raise LayerError(
            "is encrypted, and without a key not even its files are known",
            where=f"{found.shown}/{found.files[0].path.name}",
            hint="ask the vendor for private_key.pem, then --key FOLDER",
            slug="sealed",
        )
    patches = read_patches(found, context.key)
    heads, errors = all_heads(patches)
    raise_all(damaged(errors, secret_places(found)))
    folders = _subtrees(context, heads, found, quirks)
    return [
        _plan_subtree(context, found, device, folder, backend, patches, heads, quirks)
        for folder, backend in folders.items()
    ]


def _subtrees(
    context: Context, heads: Sequence[Head], found: PatchSet, quirks: list[Quirk]
) -> dict[str, Backend]:
    """The top folders that are a backend's; a quirk counts what lies elsewhere."""
    manifests, folders = context.project.manifests, {}
    wanted = [manifests.backend(word).name for word in context.wishes.backends]
    counts: dict[str, int] = {}
    for head in heads:
        top = head.path.split(b"/")[0].decode("utf-8", "replace") if b"/" in head.path else ""
        counts[top] = counts.get(top, 0) + 1
    for top in sorted(counts):
        try:
            backend = manifests.backend(top) if top else None
        except SettingsError:
            backend = None
        if backend is not None and (not wanted or backend.name in wanted):
            folders[top] = backend
            del counts[top]
    if counts:
        names = ", ".join(f"{name or 'the top'} ({count})" for name, count in counts.items())
        quirks.append(
            Quirk(f"changes of FlagScale itself are not imported, in files: {names}", found.shown)
        )
    return folders


def _plan_subtree(
    context: Context, found: PatchSet, device: Device, folder: str, backend: Backend,
    patches: Mapping[str, bytes], heads: Sequence[Head], quirks: list[Quirk],
) -> Planned:  # fmt: skip
    db, where = context.db, f"{found.shown} ({folder}/)"
    inside = [head for h in heads if (head := _below(h, f"{folder}/".encode())) is not None]
    common, new = _at_commit(context, found, folder), False
    meta = Meta(where)
    if common is not None:
        pin = _nearest(context, backend, common, where, quirks)
    else:
        chosen = choose_pin(context, backend, meta, inside, quirks)
        pin, new = _obtained(context, chosen.pin), chosen.new
    below = common if common is not None else pin.tree
    placed = _placed(db, below, folder)
    try:
        whole = apply_all(db, placed, dict(patches), include=f"{folder}/*")
    except UniscaleError as error:
        if common is None:
            for item in error.findings():
                item.hint = (
                    f"it was made on FlagScale's commit {found.base}, which this checkout does not "
                    "have: git fetch origin, and import again"
                )
        raise_all(damaged(error.findings(), secret_places(found)))
        raise
    check_ids(db, found, patches, whole, quirks, only=f"{folder}/".encode())
    vendor = db.subtree(whole, folder)
    mailed = next((m[1].decode("utf-8", "replace") for p in patches.values()
                   if (m := _FROM.search(p))), "")  # fmt: skip
    layers = make_layers(context, device, pin, common, vendor, quirks, where)
    history = context.history.tasks(found.device, context.project.manifests)
    tasks = tasks_of(meta, history, backend, quirks)
    contact = contact_of(context, backend, device, meta, mailed, quirks)
    return Planned(
        where, found.layout, backend, device, pin, new, pin.version, layers, tasks, contact, (),
        found.base, measure(db, below, vendor), found.encrypted,
    )  # fmt: skip


def _below(head: Head, folder: bytes) -> Head | None:
    """``head`` with paths below ``folder``, or None when it lies elsewhere."""
    if not head.path.startswith(folder):
        return None
    old = head.old.removeprefix(folder) if head.old is not None else None
    new = head.new.removeprefix(folder) if head.new is not None else None
    return replace(head, old=old, new=new)


def _at_commit(context: Context, found: PatchSet, folder: str) -> str | None:
    """The tree of the subtree at the FlagScale commit that the diff was made on, if it is here."""
    root = context.checkout.root
    commit = find_commit(root, found.base) if root is not None else None
    if root is None or commit is None:
        return None
    files = read_commit(root, commit, folder)
    if not files:
        return None
    return context.db.import_files((file.path, file.mode, file.data) for file in files)


def _nearest(context: Context, backend: Backend, tree: str, where: str, quirks: list[Quirk]) -> Pin:
    """The pin that ``tree`` is nearest to: by far the most files are upstream's, unchanged."""
    db, wishes = context.db, context.wishes
    if wishes.pin is not None:
        return _obtained(context, choose_pin(context, backend, Meta(where), (), quirks).pin)
    files = db.list_tree(tree)
    best: tuple[float, Pin] | None = None
    for pin in backend.pins:
        try:
            upstream = db.list_tree(_obtained(context, pin).tree)
        except UniscaleError as error:
            context.reporter.note(f"{backend.name} {pin.version} is not compared: {error.what}")
            continue
        same = sum(files.get(path) == entry for path, entry in upstream.items())
        share = same / max(len(upstream), 1)
        if best is None or share > best[0]:
            best = (share, pin)
    if best is None or best[0] < 0.5:
        raise LayerError(
            f"its {backend.name} is near to no pinned version",
            where=where,
            hint=f"add the version that FlagScale had to the pins of {backend.where}, or name it "
            "with --pin",
            slug="no-pin",
        )
    percent = int(100 * best[0])
    quirks.append(
        Quirk(f"taken for {backend.name} {best[1].version}: {percent} % of its files agree", where)
    )
    return best[1]


def _obtained(context: Context, pin: Pin) -> Pin:
    obtain(context.db, pin, reporter=context.reporter, offline=context.wishes.offline)
    return pin


def _placed(db: GitDb, tree: str, folder: str) -> str:
    """The tree that has ``tree`` as its folder ``folder``."""
    prefix = f"{folder}/".encode()
    return changed_tree(
        db, EMPTY, {prefix + path: entry for path, entry in db.list_tree(tree).items()}
    )
