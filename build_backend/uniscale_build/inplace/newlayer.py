"""Adds a new layer's name to the manifest that lists the layers of a pin or an adaptation."""

from __future__ import annotations

from pathlib import Path

from uniscale_build.errors import ManifestError, SettingsError, did_you_mean
from uniscale_build.git.user import user_setting
from uniscale_build.inplace.stack import Target
from uniscale_build.layers.layer import STATUSES
from uniscale_build.layers.layerfile import About
from uniscale_build.swap import Edit
from uniscale_build.yamledit import Step, append_text


def about(title: str, why: str, owner: str, contact: str, upstream: str) -> About:
    """What a person says about a new layer; owner and contact default to their git identity."""
    owner = owner or user_setting("user.name") or ""
    contact = contact or user_setting("user.email") or ""
    words = {"title": title, "why": why, "owner": owner, "contact": contact}
    missing = [f"--{key}" for key, text in words.items() if not text.strip()]
    if missing:
        raise SettingsError(
            f"a new layer needs {', '.join(missing)}",
            hint="whoever ports it in a year must know what it does, why, and whom to ask",
            slug="missing-option",
        )
    broken = [f"--{key}" for key, text in words.items()
              if key != "why" and not text.isprintable()]  # fmt: skip
    if broken:
        raise SettingsError(f"{', '.join(broken)} must be one line of plain text", slug="bad-value")
    if upstream not in STATUSES:
        raise SettingsError(f"--upstream cannot be {upstream!r}",
                            hint=did_you_mean(upstream, STATUSES), slug="bad-value")  # fmt: skip
    return About(title, why, owner, contact, upstream)


def manifest_edit(target: Target, name: str) -> tuple[Edit | None, str]:
    """The manifest with the new layer in its list, or what to add there by hand."""
    path: list[Step] = ["layers"]
    if target.adaptation is not None:
        where, after = target.adaptation.where, "pin"
    else:
        backend = target.project.manifests.backend(target.backend)
        path = ["pins", backend.pins.index(target.pin), "layers"]
        where, after = backend.where, "tree"
    file = _manifest_file(target, where)
    old = file.read_bytes()
    try:
        return Edit(file, old, append_text(old, path, name, where, after=after)), ""
    except ManifestError as error:
        return None, f"{where}: {error.hint}"


def _manifest_file(target: Target, where: str) -> Path:
    roots = [target.project.root / "manifests", *target.project.site]
    for root in reversed(roots):
        if (file := root.parent / where).is_file():
            return file
    raise ManifestError("is gone", where=where, slug="no-file")
