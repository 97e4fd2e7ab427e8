"""Turns FlagScale patch sets into layers and adaptations: planned and proven in the object store.

Nothing is written here; `flagscale.write` writes what was planned, as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from uniscale_build.errors import SettingsError, UniscaleError, raise_all
from uniscale_build.flagscale.base import same_device
from uniscale_build.flagscale.common import find_commit, object_at
from uniscale_build.flagscale.crypto import read_private_key
from uniscale_build.flagscale.layout import PatchSet, is_flagscale, read_checkout
from uniscale_build.flagscale.meta import History, Meta, Quirk, read_history, read_meta
from uniscale_build.flagscale.plan import Context, Planned, Wishes, plan_backend
from uniscale_build.flagscale.whole import plan_whole
from uniscale_build.git.db import GitDb
from uniscale_build.progress import Reporter
from uniscale_build.project import Project
from uniscale_build.store import Store


def make_context(
    project: Project, folder: Path, wishes: Wishes, key: Path | None, reporter: Reporter
) -> Context:
    """Everything that the import needs: what ``folder`` holds, its history, the key, the store."""
    if not project.checkout:
        raise SettingsError(
            "an installed uniscale has no place for layers",
            hint="change into a checkout of uniscale, or set UNISCALE_PROJECT",
            slug="no-project",
        )
    checkout = read_checkout(folder)
    quirks = list(checkout.quirks)
    history = History()
    if checkout.root is not None:
        path = checkout.root / "hardware" / "patch_history.yaml"
        history = read_history(path, "hardware/patch_history.yaml", quirks)
    private = read_private_key(key) if key is not None else None
    db = GitDb(Store()).open()
    found = replace(checkout, quirks=tuple(quirks))
    return Context(db, project, found, history, private, wishes, reporter)


def wanted(context: Context, found: PatchSet) -> bool:
    """True when the command line's ``--backend`` and ``--device`` let the set through."""
    manifests, wishes = context.project.manifests, context.wishes
    if wishes.devices and not any(
        same_device(found.device, manifests, _device_name(context, word)) for word in wishes.devices
    ):
        return False
    if not wishes.backends or not found.backend:
        return True
    try:
        name = manifests.backend(found.backend).name
    except SettingsError:
        return False
    return name in [manifests.backend(word).name for word in wishes.backends]


def _device_name(context: Context, word: str) -> str:
    try:
        return context.project.manifests.device(word).name
    except SettingsError:
        return word  # FlagScale's own spelling of a device that is mapped with --as-device


def plan_set(context: Context, found: PatchSet) -> tuple[list[Planned], list[Quirk]]:
    """What becomes of one patch set; quirks alone where nothing of it can be a layer.

    `UniscaleError` (often `Problems`) when something in it does not hold.
    """
    quirks: list[Quirk] = []
    if is_flagscale(found.backend):
        text = f"{len(found.files)} patches of FlagScale itself are not imported: it is no backend"
        inner = [f for f in found.files if f.label.startswith("flagscale/backends/")]
        if inner:
            text += f" ({len(inner)} of them change its own patches of backends)"
        return [], [Quirk(text, found.shown)]
    meta = Meta(found.shown)
    if found.meta is not None:
        meta = read_meta(found.meta, f"{found.shown}/{found.meta.name}", quirks)
    elif found.layout != "whole":
        quirks.append(Quirk("has no diff.yaml", found.shown))
    device = context.project.manifests.device(context.wishes.as_device or found.device)
    if meta.device and not same_device(meta.device, context.project.manifests, device.name):
        quirks.append(
            Quirk(f'device_type is "{meta.device}"; the folder counts: {device.name}', meta.where)
        )
    if found.layout == "whole":
        return plan_whole(context, found, device, quirks), quirks
    backend = context.project.manifests.backend(found.backend)
    _compare_history(context, found, quirks)
    return [plan_backend(context, found, backend, device, meta, quirks)], quirks


def _compare_history(context: Context, found: PatchSet, quirks: list[Quirk]) -> None:
    """A quirk when ``patch_history.yaml`` names a commit whose set is not the one here."""
    root = context.checkout.root
    newest = context.history.newest(found.device, found.backend)
    if root is None or not newest:
        return
    commit, head = find_commit(root, newest), find_commit(root, "HEAD")
    where = "hardware/patch_history.yaml"
    if head is None:
        return
    if commit is None:
        quirks.append(Quirk(f"its newest commit {newest[:12]} is not in this checkout", where))
    elif object_at(root, commit, found.shown) != object_at(root, head, found.shown):
        quirks.append(
            Quirk(
                f"names commit {newest[:12]} as the newest, whose {found.shown} differs from the "
                f"one here; git checkout {newest[:12]} and import again to get that one",
                where,
            )
        )


def plan_all(
    context: Context, *, skip_failing: bool = False
) -> tuple[list[Planned], list[Quirk], list[UniscaleError]]:
    """Plan every set that is wanted; errors of all sets together, or with those that hold."""
    planned: list[Planned] = []
    quirks = list(context.checkout.quirks)
    errors: list[UniscaleError] = []
    sets = [found for found in context.checkout.sets if wanted(context, found)]
    if not sets:
        names = sorted({f"{s.device}/{s.backend or 'FlagScale'}" for s in context.checkout.sets})
        raise SettingsError(
            "no patch set here is of that backend and device",
            hint=f"there are: {', '.join(names)}",
            slug="no-patches",
        )
    for found in sets:
        context.reporter.stage("read", found.shown)
        try:
            plans, odd = plan_set(context, found)
        except UniscaleError as error:
            errors += _told_of(error, found)
            continue
        planned += plans
        quirks += odd
    errors += _same_target(planned)
    if not skip_failing:
        raise_all(errors)
    first = {(item.backend.name, item.device.name): item for item in reversed(planned)}
    return [item for item in planned if item in first.values()], quirks, errors


def _told_of(error: UniscaleError, found: PatchSet) -> list[UniscaleError]:
    """The errors, each with the set's folder where it names a place in the manifests instead."""
    told = []
    for item in error.findings():
        if item.slug in ("unknown-device", "unknown-backend"):
            item.where = found.shown
            if item.slug == "unknown-device":
                item.hint = f"{item.hint}\n--as-device NAME says which of our devices it is"
        told.append(item)
    return told


def _same_target(planned: Sequence[Planned]) -> list[UniscaleError]:
    seen: dict[tuple[str, str], Planned] = {}
    errors: list[UniscaleError] = []
    for item in planned:
        key = (item.backend.name, item.device.name)
        if key in seen:
            errors.append(
                SettingsError(
                    f"{seen[key].source} and {item.source} are both for {key[0]} on {key[1]}",
                    where=item.source,
                    hint="import one of them: name its folder",
                    slug="two-sets",
                )
            )
        seen.setdefault(key, item)
    return errors
