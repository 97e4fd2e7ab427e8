"""The project that commands work on: a checkout, or the data that an installed wheel carries."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from uniscale_build.errors import Gathering, SettingsError, UniscaleError, raise_all
from uniscale_build.layers.layer import Layer, find_layer
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.model import Adaptation, Manifests, Pin


@dataclass(frozen=True)
class Project:
    """Where manifests, layers and in-place trees are; ``checkout`` tells whether to write there."""

    root: Path
    checkout: bool
    site: tuple[Path, ...] = ()

    @property
    def patches(self) -> Path:
        """The folder of all layers."""
        return self.root / "patches"

    @functools.cached_property
    def manifests(self) -> Manifests:
        """All manifests, the site's own (``UNISCALE_MANIFESTS``) added; errors all at once."""
        from uniscale_build import swap

        if self.checkout and swap.decided(self.patches):
            from uniscale_build.inplace.stack import finish_killed

            finish_killed(self)
        return load_manifests((self.root / "manifests", *self.site))

    def layers(self, pin: Pin, adaptation: Adaptation | None) -> tuple[Layer, ...]:
        """The layers on a pin, lowest first: the pin's common ones, then the adaptation's."""
        names = [*pin.layers, *(adaptation.layers if adaptation is not None else ())]
        found: list[Layer] = []
        errors: list[UniscaleError] = []
        for name in names:
            with Gathering(errors):
                found.append(find_layer(self.patches, pin.backend, name))
        raise_all(errors)
        return tuple(found)

    def resolve(self, backend: str, device: str | None) -> tuple[Pin, Adaptation | None]:
        """The pin (and the adaptation, when a device is given) for names in any spelling.

        Without a device it is the backend's first pin, with its common layers.
        """
        found = self.manifests.backend(backend)
        if device is None:
            if not found.pins:
                raise SettingsError(f"{found.name} has no pin", where=found.where, slug="no-pin")
            return found.pins[0], None
        adaptation = self.manifests.adaptation(found, self.manifests.device(device))
        pin = found.pin(adaptation.pin)
        if pin is None:  # load_manifests has checked it
            raise SettingsError(f"{found.name} has no pin {adaptation.pin}", where=adaptation.where)
        return pin, adaptation


def is_project(folder: Path) -> bool:
    """True for the root of a uniscale checkout (or a project laid out like one)."""
    return (folder / "manifests" / "backends").is_dir() and (folder / "patches").is_dir()


def find_project(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Project:
    """``UNISCALE_PROJECT``, else the nearest one above ``start``, else what the wheel carries."""
    env = os.environ if environ is None else environ
    site = tuple(_site_folders(env.get("UNISCALE_MANIFESTS", "").split(os.pathsep)))
    if given := env.get("UNISCALE_PROJECT"):
        root = Path(given).expanduser().absolute()
        if not is_project(root):
            raise SettingsError(
                "UNISCALE_PROJECT does not name a uniscale project",
                where=str(root),
                hint="it must hold manifests/backends and patches",
                slug="no-project",
            )
        return Project(root, True, site)
    here = (start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if is_project(folder):
            return Project(folder, True, site)
    package = Path(__file__).parent
    if is_project(package / "data"):
        return Project(package / "data", False, site)
    if is_project(package.parents[1]):  # an editable install
        return Project(package.parents[1], True, site)
    raise SettingsError(
        "this is not a uniscale project",
        where=str(here),
        hint="change into a checkout of uniscale, or set UNISCALE_PROJECT",
        slug="no-project",
    )


def _site_folders(words: Iterable[str]) -> Iterable[Path]:
    for word in words:
        if word:
            folder = Path(word).expanduser().absolute()
            if not folder.is_dir():
                raise SettingsError(
                    "UNISCALE_MANIFESTS names a folder that is not there",
                    where=str(folder),
                    slug="no-folder",
                )
            yield folder
