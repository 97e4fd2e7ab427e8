"""``variants/``: the wheels of an index once more, as wheel variants. Experimental.

By the draft PEP 825 (schema 0.1.1): a label at the end of the file name, ``variant.json`` in the
wheel, and ``<name>-<version>-variants.json`` beside the wheels of one version. The draft leaves
open who tells which properties a machine has; until that is settled, installers that know variants
take the ``null`` variant, which is the one for processors.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from uniscale_build.build.distinfo import file_stem
from uniscale_build.errors import IndexSiteError, UniscaleError, WheelError, raise_all
from uniscale_build.ids import label as as_label
from uniscale_build.index import pages, variantpages
from uniscale_build.index.entry import Entry, about_wheel
from uniscale_build.index.site import VARIANTS, Site
from uniscale_build.index.state import State
from uniscale_build.index.take import METADATA, PROVENANCE
from uniscale_build.index.variantpages import Link
from uniscale_build.progress import Reporter
from uniscale_build.wheels.bundle import NAME
from uniscale_build.wheels.variant import Variant, WrittenVariant, write_variant

SCHEMA = "https://variants-schema.wheelnext.dev/peps/825/v0.1.1.json"
NAMESPACE = "uniscale"
NULL = "null"  # the label of the variant without properties, which every machine can use
# Raise when what is written into a variant changes.
_WRITER = 1


@dataclass(frozen=True)
class _Made:
    """What is remembered of a variant: which wheel it is of, and what its page says."""

    of: str
    sha256: str
    size: int
    metadata: str
    writer: int = _WRITER


def write(site: Site, state: State, yanked: Mapping[str, str], reporter: Reporter) -> int:
    """Bring ``variants/`` to what the index holds; gives how many files were written.

    ``yanked`` says of withdrawn wheels why. The lock is held. `IndexSiteError` for wheels whose
    variants contradict each other.
    """
    entries = [known.entry for known in state.wheels.values()]
    bundles = [entry.file for entry in entries if entry.device and entry.project == NAME]
    if bundles:
        reporter.note(
            f"bundles are no variants of each other: {len(bundles)} left out of variants/"
        )
    plain = [entry for entry in entries if not entry.device]
    pairs = [(entry, variant_of(entry)) for entry in sorted(entries, key=lambda one: one.file)
             if entry.device and entry.project != NAME]  # fmt: skip
    documents = _documents(pairs)
    return _Tree(site, yanked, reporter)(plain, pairs, documents)


def variant_of(entry: Entry) -> Variant:
    """The variant that a wheel of one backend becomes.

    ``0.32.0+cuda.cu130.2`` is version 0.32.0, build 2, label ``cuda.cu130``: a revision is what
    build numbers are for. Without a local label the device's name is the label.
    """
    public, _, local = entry.version.partition("+")
    words = local.split(".") if local else [as_label(entry.device)]
    revision = words.pop() if len(words) > 1 and words[-1].isdigit() else ""
    facts = json.loads(entry.facts)
    text, properties = ".".join(words), _properties(entry, facts)
    if entry.device == "cpu" and text == "cpu":
        text, properties = NULL, {}
    build = entry.file.split("-")[2] if entry.file.count("-") > 4 else ""
    document = _dump(_document({text: properties}))
    return Variant(public, "_".join(filter(None, (build, revision))), text, document)


def _properties(entry: Entry, facts: Mapping[str, Any]) -> dict[str, dict[str, list[str]]]:
    """What a machine must be, in our namespace: the device, and the SDK's tag where one is told."""
    tag = as_label(str((facts.get("sdk") or {}).get("label") or ""))
    found = {"device": [as_label(entry.device).replace(".", "_")]}
    return {NAMESPACE: {**found, **({"sdk": [tag]} if tag else {})}}


def _document(variants: Mapping[str, object]) -> dict[str, object]:
    return {
        "$schema": SCHEMA,
        "default-priorities": {"namespace": [NAMESPACE]},
        "variants": dict(sorted(variants.items())),
    }


def _dump(document: object) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _documents(pairs: Iterable[tuple[Entry, Variant]]) -> dict[tuple[str, str], str]:
    """``…-variants.json`` for each project and version; errors for labels with two meanings."""
    found: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
    first: dict[tuple[str, str, str], str] = {}
    errors: dict[tuple[str, str, str], UniscaleError] = {}
    for entry, variant in pairs:
        key = entry.project, variant.version, variant.label
        properties = json.loads(variant.document)["variants"][variant.label]
        first.setdefault(key, entry.file)
        if found[key[:2]].setdefault(variant.label, properties) != properties:
            errors.setdefault(key, _two_meanings(key, entry.file, first[key]))
    raise_all(list(errors.values()))
    return {key: _dump(_document(known)) for key, known in found.items()}


def _two_meanings(key: tuple[str, str, str], file: str, other: str) -> IndexSiteError:
    project, version, label = key
    return IndexSiteError(
        f"the variant label {label} of {project} {version} would mean two things: {other} and "
        f"{file} are for different devices or SDKs",
        where=file,
        hint="give the devices different labels (`label` in their manifests), or take one out: "
        f"--remove {file}",
        slug="two-variants",
    )


class _Tree:
    """Writes the folder: wheels, then what names them, and last takes out what nothing names."""

    def __init__(self, site: Site, yanked: Mapping[str, str], reporter: Reporter) -> None:
        self.site = site
        self.root = site.root / VARIANTS
        self.reporter = reporter
        self.yanked = yanked
        self.before = self._remembered()
        self.made: dict[str, _Made] = {}
        self.keep: dict[str, set[str]] = defaultdict(set)
        self.written = 0

    def __call__(
        self,
        plain: Sequence[Entry],
        pairs: Sequence[tuple[Entry, Variant]],
        documents: Mapping[tuple[str, str], str],
    ) -> int:
        links: dict[str, list[Link]] = defaultdict(list)
        for entry in plain:
            url = f"../../packages/{entry.href}"
            links[entry.project].append(Link.of(entry, url=url, why=self.yanked.get(entry.file)))
        for number, (entry, variant) in enumerate(pairs, 1):
            links[entry.project].append(self._wheel(entry, variant))
            self.reporter.advance(number, len(pairs), "variants")
        for (project, version), text in documents.items():
            file = f"{file_stem(project, version)}-variants.json"
            links[project].append(Link.document(file))
            self._put(project, file, text.encode())
        for project, ours in links.items():
            self._put(project, "index.html", variantpages.html(project, ours).encode())
            self._put(project, "index.json", variantpages.as_json(project, ours).encode())
        self._put("", "index.html", pages.channel_html(VARIANTS, sorted(links)).encode())
        self._put("", "index.json", pages.channel_json(sorted(links)).encode())
        self._drop()
        told = {name: asdict(one) for name, one in sorted(self.made.items())}
        self.site.put(self.site.variants, json.dumps(told, indent=1).encode())
        return self.written

    def _wheel(self, entry: Entry, variant: Variant) -> Link:
        """The link to a variant, which is written unless it is there."""
        folder = self.root / entry.project
        file = variant.file(entry.file)
        known = self.before.get(file)
        path = folder / file
        if known is None or known.of != entry.sha256 or _size(path) != known.size:
            folder.mkdir(parents=True, exist_ok=True)
            done = write_variant(self.site.packages / entry.file, folder, variant,
                                 sha256=entry.sha256, reporter=self.reporter)  # fmt: skip
            self.written += 1
            known = self._beside(entry, done)
        self.made[file] = known
        self.keep[entry.project] |= {file, f"{file}{METADATA}", f"{file}{PROVENANCE}"}
        return Link(
            file, variantpages.quoted(file), variant.version, known.sha256, known.size,
            entry.upload, entry.requires_python, known.metadata, self.yanked.get(entry.file),
        )  # fmt: skip

    def _beside(self, entry: Entry, done: WrittenVariant) -> _Made:
        """The variant's METADATA and provenance, as files of their own."""
        import hashlib

        file = done.path.name
        self._put(entry.project, f"{file}{METADATA}", done.metadata)
        if done.provenance is not None:
            try:
                told = about_wheel(done.provenance, file, done.sha256)
            except (ValueError, KeyError, TypeError) as error:
                raise WheelError(
                    f"its provenance cannot be read: {error}", where=entry.file,
                    hint="build the wheel again", slug="bad-provenance",
                ) from error  # fmt: skip
            self._put(entry.project, f"{file}{PROVENANCE}", told)
        digest = hashlib.sha256(done.metadata).hexdigest()
        return _Made(entry.sha256, done.sha256, done.size, digest)

    def _put(self, project: str, file: str, data: bytes) -> None:
        self.keep[project].add(file)
        self.written += self.site.put(self.root / project / file, data)

    def _drop(self) -> None:
        """Take out what we wrote before and nothing names any more; what is not ours stays."""
        folders = [path for path in self.root.iterdir() if path.is_dir()]
        for folder in folders:
            keep = self.keep.get(folder.name, set())
            for path in folder.iterdir():
                if path.name not in keep and _ours(path.name):
                    path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()

    def _remembered(self) -> dict[str, _Made]:
        """What the last run wrote; nothing where that cannot be read."""
        try:
            told = json.loads(self.site.variants.read_text(encoding="utf-8"))
            found = {str(name): _Made(**one) for name, one in told.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}
        return {name: one for name, one in found.items() if one.writer == _WRITER}


def _ours(name: str) -> bool:
    """True for the kinds of files that are written here."""
    ends = (".whl", METADATA, PROVENANCE, "-variants.json", ".part")
    return name in ("index.html", "index.json") or name.endswith(ends)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
