"""One distribution for each backend, and the plain ``uniscale`` wheel that they require.

The payloads are the bundle's, from the same plan. Each lies in a folder that has the distribution's
name, so that a bundle with the same payload in the same environment shares no file with it: either
can be removed, and the other stays whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniscale_build import __version__
from uniscale_build.build.pipeline import Context, Payload, build_payload
from uniscale_build.errors import SettingsError
from uniscale_build.ids import label, slug
from uniscale_build.plans.plan import BackendPlan, Plan
from uniscale_build.wheels import bundle, distribution, revision
from uniscale_build.wheels.bundle import Contents, Wheel


def build_split(context: Context, plan: Plan, out: Path) -> tuple[Wheel, ...]:
    """The plain wheel and one wheel for each backend of ``plan``, written into ``out``.

    A backend's wheel depends on nothing else in the plan: it has the same bytes whatever it is
    built together with. `SettingsError` for a plan without backends.
    """
    if not plan.backends:
        raise SettingsError(
            "there is no backend to split off",
            hint="name one: uniscale-build wheel --split --backend llama.cpp",
            slug="no-backend",
        )
    counted = revision.read(plan.settings)
    payloads = [build_payload(context, plan, item) for item in plan.backends]
    made = [build_plain(context, plan, out, counted)]
    for item, payload in zip(plan.backends, payloads, strict=True):
        made.append(_deliver(context, replace(plan, backends=(item,)), payload, counted, out))
    return tuple(made)


def build_plain(context: Context, plan: Plan, out: Path, counted: revision.Counted) -> Wheel:
    """The wheel with launchers, manifests and layers alone, in the revision that it is to have."""

    def contents(number: int) -> Contents:
        settings = replace(plan.settings, revision=number or None)
        return bundle.contents(context, replace(plan, backends=(), device=None, settings=settings))

    return _Numbered(context, contents, ".post").deliver(counted, out)


def build_one(context: Context, plan: Plan, out: Path) -> Wheel:
    """The wheel of the only backend of ``plan``, without the plain one, written into ``out``."""
    (item,) = plan.backends
    counted = revision.read(plan.settings)
    return _deliver(context, plan, build_payload(context, plan, item), counted, out)


def _deliver(
    context: Context, plan: Plan, payload: Payload, counted: revision.Counted, out: Path
) -> Wheel:
    """The wheel of the only backend of ``plan``, in the revision that it is to have."""
    (item,) = plan.backends

    def contents(number: int) -> Contents:
        return split_contents(context, plan.revised({item.backend.name: number}), payload)

    numbered = _Numbered(context, contents, ".", item.tree, item.adaptation.revision)
    return numbered.deliver(counted, out)


@dataclass(frozen=True)
class _Numbered:
    """A wheel that may have one revision or another; each is written once at most."""

    context: Context
    contents: Callable[[int], Contents]
    before: str  # what comes in a version before its revision
    tree: str = ""
    least: int = 0
    kept: dict[int, Wheel] = field(default_factory=dict)

    def deliver(self, counted: revision.Counted, out: Path) -> Wheel:
        """Written into ``out``, in the revision that was said, or that an index makes it."""
        if isinstance(counted, tuple):
            counted = self._chosen(counted)
        return bundle.deliver(self._keep(self.least if counted is None else counted), out)

    def _chosen(self, wheels: revision.Wheels) -> int:
        base = self.contents(0)
        stored = revision.of(wheels, base.name, base.version, self.before)
        tags = bundle.tag(base) if stored else ""
        return revision.choose(
            stored, self.tree, tags, lambda number: self._keep(number).sha256, at_least=self.least
        )

    def _keep(self, number: int) -> Wheel:
        if number not in self.kept:
            self.kept[number] = bundle.keep(self.context, self.contents(number))
        return self.kept[number]


def split_name(item: BackendPlan) -> str:
    """The distribution of a backend: ``uniscale-llama-cpp``."""
    return f"{bundle.NAME}-{slug(item.backend.name)}"


def split_version(item: BackendPlan, sdk_label: str) -> str:
    """Upstream's version with a label for the device and the SDK: ``0.32.0+cpu``, ``…+cuda.cu130``.

    An SDK's tag that begins with the device's label says both: ``0.9.2+musa43``. A revision is
    the label's last part, a number: ``0.32.0+cpu.2`` comes after ``0.32.0+cpu`` (PEP 440 compares
    it as a number), and ``==0.32.0`` takes either. ``.post2`` might be upstream's own.
    """
    device = label(item.device.label)
    tag = label(sdk_label)
    words = tag if tag.startswith(device) else ".".join(filter(None, (device, tag)))
    public, _, local = item.pin.version.partition("+")
    number = str(item.adaptation.revision or "")
    return f"{public}+{'.'.join(filter(None, (label(local), words, number)))}"


def split_contents(context: Context, plan: Plan, payload: Payload) -> Contents:
    """The wheel of the only backend of ``plan``, whose ``payload`` is built."""
    (item,) = plan.backends
    name = split_name(item)
    sdk = payload.info.get("sdk")
    tag = str(sdk.get("label") or "") if isinstance(sdk, dict) else ""
    version = split_version(item, tag)
    return Contents(
        name=name,
        version=version,
        metadata=_metadata(context, item, payload, version),
        entry_points="",
        files=(),
        plan=plan,
        payloads=(payload,),
        folders={payload.name: f"{name}-{item.device.name}"},
        record=f"wheel-{name}-{item.device.name}",
    )


def _metadata(context: Context, item: BackendPlan, payload: Payload, version: str) -> str:
    """METADATA: the backend's licence and page, our launchers and upstream's requirements."""
    project = distribution.read_pyproject(context.project)["project"]
    backend = item.backend
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {split_name(item)}",
        f"Version: {version}",
        f"Summary: {backend.title} for {item.device.title}, built by uniscale",
        *([f"License-Expression: {backend.license}"] if backend.license else []),
        *([f"Project-URL: Upstream, {backend.homepage}"] if backend.homepage else []),
        f"Requires-Python: {_requires_python(project['requires-python'], payload.prefix)}",
        f"Requires-Dist: {bundle.NAME}>={__version__}",
        *(f"Requires-Dist: {text}" for text in item.adaptation.requirements),
        "Description-Content-Type: text/markdown",
        "",
        *_description(item),
    ]
    return "\n".join(lines) + "\n"


def _description(item: BackendPlan) -> list[str]:
    """What an index shows of it: the pin and why each layer is there."""
    pin = f"{item.pin.version} ({item.pin.commit})" if item.pin.commit else item.pin.version
    layers = [f"- {layer.name}: {layer.title}" for layer in item.layers]
    return [
        f"{item.backend.title}, {pin}, for {item.device.title}.",
        "",
        "Layers of uniscale on it:" if layers else "Unchanged by uniscale.",
        *(["", *layers] if layers else []),
    ]


def _requires_python(ours: str, prefix: Path) -> str:
    """Our range of Pythons, narrowed to what the payload's own distributions ask for."""
    from email.parser import HeaderParser

    from packaging.specifiers import SpecifierSet

    found = SpecifierSet(ours)
    for path in sorted(prefix.glob("*.dist-info/METADATA")):
        text = path.read_text(encoding="utf-8", errors="replace")
        found &= SpecifierSet(HeaderParser().parsestr(text).get("Requires-Python", ""))
    return str(found)
