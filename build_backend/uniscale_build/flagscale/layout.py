"""Finds patch sets in a FlagScale checkout, in the three layouts that its history has.

``whole``    ``hardware/<device>/<commit8>/<commit8>.patch``: one diff of FlagScale itself, of the
             time when the backends were subtrees of it (``vllm/…``, ``megatron/…``)
``backend``  ``hardware/<Device>/<backend>/diff.patch`` (at first ``<commit7>.patch``) + ``.yaml``
``files``    ``hardware/<Device>/<backend>/<path>.patch`` + ``diff.yaml``

Each patch may be encrypted (``….patch.encrypted``).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import SettingsError
from uniscale_build.flagscale.meta import FLAGSCALE, Quirk

_HEX = re.compile(r"[0-9a-f]{7,40}")
_TASKS = ("train", "inference", "post_train")
ENCRYPTED = ".encrypted"


@dataclass(frozen=True)
class PatchFile:
    """One stored patch; ``label`` is its path below the set without ``.patch[.encrypted]``."""

    path: Path
    label: str
    encrypted: bool


@dataclass(frozen=True)
class PatchSet:
    """The patches that one vendor stored for one backend (for ``whole``: for all of them)."""

    layout: str
    device: str
    backend: str  # as FlagScale spells it; empty for ``whole``
    folder: Path
    shown: str
    files: tuple[PatchFile, ...]
    meta: Path | None
    base: str = ""  # for ``whole``: the FlagScale commit (shortened) that it was made on

    @property
    def encrypted(self) -> bool:
        """True when a key is needed to read it."""
        return any(file.encrypted for file in self.files)


@dataclass(frozen=True)
class Checkout:
    """What was found: the FlagScale checkout (None for a lone folder) and its sets."""

    root: Path | None
    sets: tuple[PatchSet, ...]
    quirks: tuple[Quirk, ...] = field(default=())


def read_checkout(given: Path) -> Checkout:
    """The sets below ``given``: a checkout, its ``hardware`` folder, or a folder inside that."""
    folder = given.expanduser().absolute()
    if not folder.is_dir():
        raise SettingsError("is not a folder", where=str(given), slug="no-folder")
    quirks: list[Quirk] = []
    root, parts = _place(folder)
    if root is None:
        sets = _set(folder, folder.parent.name, folder.name, folder.name, quirks)
    else:
        sets = []
        for device in _folders(root / "hardware"):
            if not parts or device.name == parts[0]:
                sets += _device(device, root, quirks)
        sets = [
            s for s in sets if s.folder.is_relative_to(folder) or folder.is_relative_to(s.folder)
        ]
        shown = "/".join(("hardware", *parts))
        quirks = [quirk for quirk in quirks if quirk.where.startswith(shown)]
    if not sets:
        raise SettingsError(
            "there is no FlagScale patch set here",
            where=str(given),
            hint="\n".join(
                [
                    "name a FlagScale checkout, or a folder hardware/<Device>/<backend> in one",
                    *(f"{quirk.where}: {quirk.what}" for quirk in quirks),
                ]
            ),
            slug="no-patches",
        )
    return Checkout(root, tuple(sets), tuple(quirks))


def _place(folder: Path) -> tuple[Path | None, tuple[str, ...]]:
    """The checkout that ``folder`` is or lies in, and the folder's parts below ``hardware``."""
    if (folder / "hardware").is_dir():
        return folder, ()
    for above in (folder, *folder.parents):
        if above.name == "hardware":
            return above.parent, folder.relative_to(above).parts
    return None, ()


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())


def _device(device: Path, root: Path, quirks: list[Quirk]) -> list[PatchSet]:
    shown = device.relative_to(root).as_posix()
    sets: list[PatchSet] = []
    for child in _folders(device):
        at = f"{shown}/{child.name}"
        nested = _folders(child) if child.name in _TASKS else []
        if nested:
            for inner in nested:
                sets += _set(inner, device.name, inner.name, f"{at}/{inner.name}", quirks)
        else:
            sets += _set(child, device.name, child.name, at, quirks)
    if not sets:
        quirks.append(Quirk("holds no patches; ignored", shown))
    return sets


def _patches(folder: Path, shown: str, quirks: list[Quirk]) -> list[PatchFile]:
    found = []
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(base, name)
            label = path.relative_to(folder).as_posix()
            plain = label.removesuffix(ENCRYPTED)
            if path.is_symlink():
                quirks.append(Quirk("is a link; ignored", f"{shown}/{label}"))
            elif plain.endswith(".patch"):
                found.append(PatchFile(path, plain.removesuffix(".patch"), plain != label))
            elif not (path.parent == folder and name.endswith((".yaml", ".yml"))):
                quirks.append(Quirk("is no patch; ignored", f"{shown}/{label}"))
    return found


def _set(
    folder: Path, device: str, backend: str, shown: str, quirks: list[Quirk]
) -> list[PatchSet]:
    files = _patches(folder, shown, quirks)
    if not files:
        return []
    whole = [file for file in files if "/" not in file.label and _is_whole(file)]
    if whole and len(files) > 1:
        raise SettingsError(
            "holds one patch of everything and other patches too",
            where=f"{shown}/{whole[0].path.name}",
            hint="applying both would apply changes twice: remove the older ones",
            slug="two-layouts",
        )
    yamls = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml"))
    stem = whole[0].label if whole else "diff"
    meta = next((path for path in yamls if path.stem == stem), yamls[0] if yamls else None)
    if meta is not None and meta.stem != stem:
        quirks.append(Quirk(f"is read in place of {stem}.yaml", f"{shown}/{meta.name}"))
    layout, base = ("backend" if whole else "files"), ""
    if whole and _HEX.fullmatch(backend) and backend.startswith(stem[:7]):
        layout, base, backend = "whole", backend, ""
    return [PatchSet(layout, device, backend, folder, shown, tuple(files), meta, base)]


def _is_whole(file: PatchFile) -> bool:
    if file.label != "diff" and not _HEX.fullmatch(file.label):
        return False
    if file.encrypted:
        return True
    # A file of the upstream may be called "diff" too: its own patch then says so.
    head = file.path.read_bytes()[:4096]
    return f"diff --git a/{file.label} b/{file.label}\n".encode() not in head


def is_flagscale(word: str) -> bool:
    """True for the folder of changes to FlagScale itself."""
    return word.lower() == FLAGSCALE.lower()
