"""One distribution for each backend, and the plain ``uniscale`` wheel that they require.

The payloads are the bundle's, from the same plan. Each lies in a folder that has the distribution's
name, so that a bundle with the same payload in the same environment shares no file with it: either
can be removed, and the other stays whole.
"""

from __future__ import annotations

from dataclasses import replace
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

    def numbered(number: int) -> Plan:
        settings = replace(plan.settings, revision=number or None)
        return replace(plan, backends=(), device=None, settings=settings)

    def make(number: int) -> revision.Stored:
        with context.store.scratch() as scratch:
            made = bundle.build_wheel(context, numbered(number), scratch)
            return revision.Stored(made.path.name, made.sha256, number, "")

    if isinstance(counted, tuple):
        stored = revision.of(counted, bundle.NAME, __version__, ".post")
        counted = revision.choose(stored, "", make)
    return bundle.build_wheel(context, numbered(counted or 0), out)


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

    if not isinstance(counted, tuple):
        number = item.adaptation.revision if counted is None else counted
        return bundle.deliver(context, contents(number), out)

    def make(number: int) -> revision.Stored:
        with context.store.scratch() as scratch:
            made = bundle.deliver(context, contents(number), scratch)
            return revision.Stored(made.path.name, made.sha256, number, item.tree)

    base = contents(0)
    stored = revision.of(counted, base.name, base.version)
    chosen = revision.choose(stored, item.tree, make, at_least=item.adaptation.revision)
    return bundle.deliver(context, contents(chosen), out)


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
