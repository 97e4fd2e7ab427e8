"""What a device manifest says: a chip family, its SDK, how it is found, named and made visible.

Data only. ``facts`` says of every such field where it is from and whether somebody verified it on
the hardware; ``detection`` and ``sdk`` act on what is said here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from uniscale_build.ids import label as make_label
from uniscale_build.yamlfile import Fields

LEVELS = ("verified", "documented", "unknown")
PLATFORMS = ("linux_x86_64", "linux_aarch64")
ROUTES = ("in-tree", "plugin", "fork", "none")
# Fields whose origin must be known: a manifest's ``facts`` may speak of these.
FACTS = (
    "names", "chips", "visible", "environment", "sdk", "cmake", "detect", "cli", "container",
    "torch", "collective", "image_packages", "llama_cpp", "vllm",
)  # fmt: skip


@dataclass(frozen=True)
class Root:
    """A folder of the SDK: the variable that names it, where it is by default, what is in it.

    ``default`` may be a glob (the last match in order counts) and may use earlier roots:
    ``{MACA_PATH}/tools``. ``{MUSA_HOME}`` alone says that both variables name one folder.
    """

    variable: str  # "" when the vendor has none
    default: str
    holds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Probe:
    """How the SDK's compiler is found and asked: ``version`` is a pattern with one group."""

    program: str
    paths: tuple[str, ...] = ()  # folders below the SDK's root to look in, then PATH
    arguments: tuple[str, ...] = ("--version",)
    version: str = r"(\d+(?:\.\d+)+)"
    least: str = ""
    below: str = ""  # the first version that is too new
    suffix: str = ""  # of a source file that the compiler must compile when asked to prove itself


@dataclass(frozen=True)
class Sdk:
    """What a build for the device needs on the machine, and who provides it."""

    name: str
    roots: tuple[Root, ...] = ()
    script: str = ""  # below the root; what it changes in the environment is taken over
    compiler: Probe | None = None
    programs: tuple[str, ...] = ()
    tag: str = ""  # with {0}, {1} for the parts of the compiler's version
    debian: tuple[str, ...] = ()
    vendor: str = ""
    driver: Probe | None = None  # its version is that of the newest SDK that the driver runs

    def label(self, version: str) -> str:
        """The tag for a version (``cu130`` for 13.0.88), "" when it has too few parts."""
        try:
            return self.tag.format(*version.split(".")) if version else ""
        except IndexError:
            return ""


@dataclass(frozen=True)
class Detect:
    """What shows the device: of each kind that is given, one must be there (and none absent)."""

    nodes: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()  # nodes of a look-alike
    commands: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()


@dataclass(frozen=True)
class Container:
    """How a container gets the device: a variable of the vendor's runtime, nodes, options."""

    visible: str | None = None
    every: str = ""  # the value for all chips
    nodes: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    image: str = ""  # that has the SDK, to build in
    note: str = ""


@dataclass(frozen=True)
class Torch:
    """The PyTorch packages for the device and its device type there."""

    packages: tuple[str, ...] = ()
    device: str = ""
    note: str = ""


@dataclass(frozen=True)
class Collective:
    """The collective library: its name, its torch.distributed backend, FlagCX's switch for it."""

    name: str = ""
    backend: str = ""
    flagcx: str = ""
    note: str = ""


@dataclass(frozen=True)
class VllmRoute:
    """How vLLM comes to the device: in its tree, by a platform plugin, or as a changed vLLM."""

    route: str = "none"
    package: str = ""
    note: str = ""


@dataclass(frozen=True)
class Fact:
    """Where fields of the manifest are from; ``unknown`` says that nobody found a source."""

    of: tuple[str, ...]
    level: str
    source: str
    note: str = ""


@dataclass(frozen=True)
class Device:
    """One chip family."""

    name: str
    title: str
    vendor: str
    aliases: tuple[str, ...]
    label: str
    visible: str | None = None  # variable that limits which chips a process sees
    environment: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()  # in Chinese
    chips: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()  # a mixed machine: the devices in it
    platforms: tuple[str, ...] = ("linux_x86_64",)  # of the machines that it is in
    visible_more: tuple[str, ...] = ()  # other variables that work
    visible_rule: str = ""
    sdk: Sdk | None = None
    cmake: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # backend family → flags
    detect: Detect = field(default_factory=Detect)
    cli: tuple[str, ...] = ()  # the management command that lists the chips
    container: Container = field(default_factory=Container)
    torch: Torch = field(default_factory=Torch)
    collective: Collective = field(default_factory=Collective)
    image_packages: tuple[str, ...] = ()  # come with the vendor's image, never from an index
    llama_cpp: str | None = None  # the CMake switch of its ggml backend
    vllm: VllmRoute = field(default_factory=VllmRoute)
    contact: str = ""
    note: str = ""
    facts: tuple[Fact, ...] = ()
    where: str = ""
    lines: Mapping[str, int] = field(default_factory=dict, compare=False)

    def at(self, key: str) -> str:
        """``file:line`` of a key, for errors (of the file when the key is not there)."""
        return f"{self.where}:{self.lines[key]}" if key in self.lines else self.where


def _compiler(probe: Fields) -> Probe | None:
    found = Probe(
        program=probe.text("program", ""),
        paths=probe.texts("paths"),
        arguments=probe.texts("arguments") or Probe.arguments,
        version=probe.text("version", Probe.version),
        least=probe.text("least", ""),
        below=probe.text("below", ""),
        suffix=probe.text("suffix", ""),
    )
    return _checked(probe, found)


def _driver(probe: Fields) -> Probe | None:
    found = Probe(
        program=probe.text("program", ""),
        arguments=probe.texts("arguments") or Probe.arguments,
        version=probe.text("version", Probe.version),
    )
    return _checked(probe, found)


def _checked(probe: Fields, found: Probe) -> Probe | None:
    probe.finish()
    try:
        groups = re.compile(found.version).groups
    except re.error as error:
        probe.fail(probe.value, f'"version" is not a pattern: {error}')
    else:
        if groups != 1:
            probe.fail(probe.value, '"version" must have one group', "write (…) around the number")
    if probe.keys and not found.program:
        probe.fail(probe.value, '"program" is missing', slug="missing-key")
    return found if found.program else None


def _sdk(fields: Fields) -> Sdk:
    roots = []
    for item in fields.each("roots", "a root"):
        roots.append(Root(item.text("variable", ""), item.text("default", ""), item.texts("holds")))
        item.finish()
    sdk = Sdk(
        name=fields.text("name"),
        roots=tuple(roots),
        script=fields.text("script", ""),
        compiler=_compiler(fields.fields("compiler")),
        programs=fields.texts("programs"),
        tag=fields.text("tag", ""),
        debian=fields.texts("debian"),
        vendor=fields.text("vendor", ""),
        driver=_driver(fields.fields("driver")),
    )
    fields.finish()
    return sdk


def _detect(fields: Fields) -> Detect:
    found = Detect(
        nodes=fields.texts("nodes"),
        absent=fields.texts("absent"),
        commands=fields.texts("commands"),
        environment=fields.texts("environment"),
    )
    fields.finish()
    return found


def image(fields: Fields) -> str:
    """The ``image`` of a device's container or of an adaptation: a reference, or nothing."""
    found = fields.text("image", "")
    if found and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*", found) is None:
        what = f'"image" {found!r} is not the reference of a container image'
        fields.fail(fields.get("image") or fields.value, what)
    return found


def _container(fields: Fields) -> Container:
    found = Container(
        visible=fields.maybe("visible"),
        every=fields.text("every", ""),
        nodes=fields.texts("nodes"),
        flags=fields.texts("flags"),
        image=image(fields),
        note=fields.text("note", ""),
    )
    fields.finish()
    return found


def _torch(fields: Fields) -> Torch:
    found = Torch(fields.texts("packages"), fields.text("device", ""), fields.text("note", ""))
    fields.finish()
    return found


def _collective(fields: Fields) -> Collective:
    found = Collective(
        name=fields.text("name", ""),
        backend=fields.text("backend", ""),
        flagcx=fields.text("flagcx", ""),
        note=fields.text("note", ""),
    )
    fields.finish()
    return found


def _vllm(fields: Fields) -> VllmRoute:
    found = VllmRoute(
        route=fields.one_of("route", ROUTES, "none"),
        package=fields.text("package", ""),
        note=fields.text("note", ""),
    )
    fields.finish()
    return found


def _facts(fields: Fields) -> tuple[Fact, ...]:
    found = []
    for item in fields.each("facts", "a fact"):
        fact = Fact(
            of=item.some_of("of", FACTS),
            level=item.one_of("level", LEVELS),
            source=item.text("source", ""),
            note=item.text("note", ""),
        )
        item.finish()
        if fact.level != "unknown" and not fact.source:
            item.fail(item.value, "a fact that is not unknown needs a source", slug="no-source")
        for name in fact.of:
            if fact.level == "unknown" and fields.get(name) is not None:
                item.fail(item.value, f'"{name}" is said to be unknown, but it is given')
        found.append(fact)
    return tuple(found)


def read_device(fields: Fields, where: str) -> Device:
    """The device that a manifest describes; errors are collected in ``fields``."""
    sdk = fields.fields("sdk")
    device = Device(
        name=fields.text("device"),
        title=fields.text("title"),
        vendor=fields.text("vendor"),
        aliases=fields.texts("aliases"),
        label=fields.text("label"),
        visible=fields.maybe("visible"),
        environment=fields.pairs("environment"),
        names=fields.texts("names"),
        chips=fields.texts("chips"),
        parts=fields.texts("parts"),
        platforms=fields.some_of("platforms", PLATFORMS) or Device.platforms,
        visible_more=fields.texts("visible_more"),
        visible_rule=fields.text("visible_rule", ""),
        sdk=_sdk(sdk) if sdk.keys else None,
        cmake=fields.tables("cmake"),
        detect=_detect(fields.fields("detect")),
        cli=fields.texts("cli"),
        container=_container(fields.fields("container")),
        torch=_torch(fields.fields("torch")),
        collective=_collective(fields.fields("collective")),
        image_packages=fields.texts("image_packages"),
        llama_cpp=fields.maybe("llama_cpp"),
        vllm=_vllm(fields.fields("vllm")),
        contact=fields.text("contact", ""),
        note=fields.text("note", ""),
        facts=_facts(fields),
        where=where,
        lines=fields.lines,
    )
    if device.label and make_label(device.label) != device.label:
        fields.fail(
            fields.get("label") or fields.value,
            f'"label" {device.label!r} is not a local version label',
            f"write {make_label(device.label)}" if make_label(device.label) else None,
        )
    fields.finish()
    return device
