"""Looks through patches and layers for what must not reach git, and for what a reviewer must see.

Errors are refused before anything is applied: the threats of the design. Warnings mark what runs
at build time, leftovers of a merge, and text that shows otherwise than it reads.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from uniscale_build.errors import LayerError
from uniscale_build.git.entry import GITLINK, SYMLINK, blob_id
from uniscale_build.layers.layerfile import patch_label, shown
from uniscale_build.layers.markers import marker_problems
from uniscale_build.layers.patchtext import read_patch
from uniscale_build.layers.section import Section
from uniscale_build.pathrules import link_problem, path_problem

if TYPE_CHECKING:
    from uniscale_build.layers.layer import Layer

MAX_PATCH = 256 << 20  # bytes of one patch file

_MODES = ("", "100644", "100755", SYMLINK, GITLINK)
# What runs while an upstream is built or tested: a change there can run anything.
_BUILD_TIME = re.compile(
    rb"(?:setup\.py|setup\.cfg|pyproject\.toml|CMakeLists\.txt|[^/]*\.cmake(?:\.in)?"
    rb"|[^/]*\.(?:sh|bash|bat|ps1|mk|pth)|(?:GNU)?[Mm]akefile[^/]*|meson\.build|configure(?:\.ac)?"
    rb"|conftest\.py|sitecustomize\.py|usercustomize\.py|build\.rs|[^/]*Dockerfile[^/]*)"
)
# Characters that turn the direction of text: code that shows otherwise than it runs.
_BIDI = re.compile(rb"\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]")
_CONFLICT = re.compile(rb"^(?:<<<<<<< |>>>>>>> )", re.MULTILINE)


class Added(NamedTuple):
    """A file of an overlay: its path in the tree, where it lies, the id of its bytes as they were
    looked through, and whether it may be run."""

    path: bytes
    file: bytes
    oid: str
    executable: bool

    @property
    def mode(self) -> str:
        """As git writes it."""
        return "100755" if self.executable else "100644"


class Patch(NamedTuple):
    """A patch file: its text, and what it does to each file."""

    data: bytes
    sections: list[Section]

    @property
    def names(self) -> set[bytes]:
        """Every file that it names, old and new."""
        return {name for section in self.sections for name in section.names}


@dataclass
class Lint:
    """What was found, and what was looked at: patches and added files, in order of applying."""

    errors: list[LayerError] = field(default_factory=list)
    warnings: list[LayerError] = field(default_factory=list)
    patches: list[Patch] = field(default_factory=list)
    overlay: list[Added] = field(default_factory=list)

    @property
    def sections(self) -> list[Section]:
        """What the patches do to each file."""
        return [section for patch in self.patches for section in patch.sections]

    @property
    def names(self) -> set[bytes]:
        """Every file that the patches name, old and new."""
        return {name for patch in self.patches for name in patch.names}

    def add(self, other: Lint) -> None:
        """Take over what another lint found."""
        self.errors += other.errors
        self.warnings += other.warnings
        self.patches += other.patches
        self.overlay += other.overlay


def lint_patch(data: bytes, *, where: str, label: bytes | None = None, layer: str = "") -> Lint:
    """Everything that is wrong with one patch (git's format), each with its line.

    ``label`` is the file's path inside the layer (``diff/…``): it must be that of the one upstream
    file that the patch is about. ``layer`` is the name that its markers must carry.
    """
    sections, problems = read_patch(data)
    found = Lint(patches=[Patch(data, sections)])
    for problem in problems:
        found.errors.append(
            LayerError(problem.what, where=f"{where}:{problem.line}", hint=problem.hint,
                       slug=problem.slug)
        )  # fmt: skip
    odd, marked = _is_odd(data), b"uniscale: " in data
    for section in sections:
        place = f"{where}:{section.line}"
        found.errors += _section_errors(section, place)
        found.warnings += _path_warnings(section.path, place)
        if odd:
            found.warnings += text_warnings(b"\n".join(section.added), shown(section.path), place)
        if marked:
            _add_marks(found, marker_problems(section.added, section.removed, layer), place)
    if label is not None and sections and not found.errors:
        found.errors += _label_errors(sections, label, where)
    return found


def _add_marks(found: Lint, told: Iterable[tuple[str, str]], place: str) -> None:
    for slug, what in told:
        kind = found.warnings if slug == "foreign-marker" else found.errors
        kind.append(LayerError(what, where=place, slug=slug))


def _section_errors(section: Section, place: str) -> Iterator[LayerError]:
    for name in section.names:
        if (told := path_problem(name)) is not None:
            yield LayerError(f"{shown(name)} {told[1]}", where=place, slug=told[0])
    for mode in dict.fromkeys((section.old_mode, section.new_mode)):
        if mode not in _MODES:
            yield LayerError(f"the mode {mode} is not one of git's", where=place, slug="bad-mode")
    if GITLINK in (section.old_mode, section.new_mode):
        yield LayerError(
            f"{shown(section.path)} is a git repository of its own (a gitlink)",
            where=place,
            hint="a layer holds files: add the files themselves, or pin that project apart",
            slug="gitlink",
        )
    if section.new_mode == SYMLINK and section.new is not None and section.added:
        target = b"\n".join(section.added)
        if (wrong := link_problem(section.new, target)) is not None:
            link = f"{shown(section.new)} -> {shown(target)}"
            yield LayerError(f"the link {link} {wrong}", where=place,
                             slug="link-escape")  # fmt: skip
    elif section.new_mode == SYMLINK and section.binary:
        yield LayerError("a link with binary data", where=place, slug="link-escape")


def _path_warnings(path: bytes, place: str) -> Iterator[LayerError]:
    name = path[path.rfind(b"/") + 1 :]
    if _BUILD_TIME.fullmatch(name) or path.startswith(b".github/") or b"/.github/" in path:
        yield LayerError(f"{shown(path)} runs when the upstream is built or tested", where=place,
                         hint="read what it does before you build", slug="build-time")  # fmt: skip


def _is_odd(text: bytes) -> bool:
    """False where `text_warnings` finds nothing: plain searches, for expressions are slow."""
    turns = b"\xe2" in text and (b"\xe2\x80" in text or b"\xe2\x81" in text)
    return turns or b"<<<<<<< " in text


def text_warnings(text: bytes, name: str, place: str) -> Iterator[LayerError]:
    """What a reviewer must see in added text."""
    if not _is_odd(text):
        return
    if _BIDI.search(text):
        yield LayerError(f"{name} has characters that turn the direction of text", where=place,
                         hint="it may run otherwise than it shows", slug="bidi")  # fmt: skip
    if len(set(_CONFLICT.findall(text))) == 2:
        yield LayerError(f"{name} has conflict markers", where=place,
                         hint="a merge was not finished", slug="conflict-markers")  # fmt: skip


def _label_errors(sections: Sequence[Section], label: bytes, where: str) -> Iterator[LayerError]:
    if len(sections) == 1 and patch_label(sections[0].path) == label:
        return
    paths = list(dict.fromkeys(section.path for section in sections))
    if len(paths) > 1:
        yield LayerError(
            f"changes {len(paths)} files: {', '.join(shown(path) for path in paths[:6])}",
            where=where,
            hint="a layer has one patch for each file; uniscale-build patch writes them",
            slug="many-files",
        )
    elif len(sections) > 1 and not _type_change(sections):
        yield LayerError(f"changes {shown(paths[0])} twice", where=where, slug="duplicate")
    elif patch_label(paths[0]) != label:
        yield LayerError(
            f"changes {shown(paths[0])}",
            where=where,
            hint=f"it must be called {shown(patch_label(paths[0]))}",
            slug="label",
        )


def _type_change(sections: Sequence[Section]) -> bool:
    return len(sections) == 2 and sections[0].new is None and sections[1].old is None


class Watcher(Protocol):
    """Is told what nothing is wrong with, as long as nothing was found."""

    def added(self, files: Sequence[Added]) -> object:
        """All the added files, before any patch."""

    def patch(self, patch: Patch, of: int) -> object:
        """One of the patches, and how many there are."""


def lint_layer(layer: Layer, watcher: Watcher | None = None) -> Lint:
    """Everything that is wrong with a layer's files, as far as they tell it themselves.

    A sealed layer has nothing that can be read.
    """
    found = Lint()
    if layer.sealed:
        return found
    files = _layer_files(layer, found)
    root = os.fsencode(layer.folder)
    overlay = Lint()
    for path in files:
        if path.startswith(b"overlay/"):
            overlay.add(_overlay_file(layer, root, path))
    good = not (found.errors or overlay.errors)
    if watcher is not None and good:
        watcher.added(overlay.overlay)
    patches = [path for path in files if path.startswith(b"diff/")]
    for path in patches:
        found.add(_patch_file(layer, root, path))
        good = good and not found.errors
        if watcher is not None and good:
            watcher.patch(found.patches[-1], len(patches))
    found.add(overlay)
    found.errors += _duplicates(layer, found.sections, [file.path for file in found.overlay])
    return found


def _layer_files(layer: Layer, found: Lint) -> list[bytes]:
    """The files of ``diff/`` and ``overlay/``, sorted as they are applied."""
    root = os.fsencode(layer.folder)
    files = []
    folders = [b"diff", b"overlay"]
    while folders:
        folder = folders.pop()
        full = os.path.join(root, folder)
        with contextlib.suppress(FileNotFoundError), os.scandir(full) as inside:
            for entry in inside:
                path = folder + b"/" + entry.name
                if entry.is_dir(follow_symlinks=False):
                    folders.append(path)
                elif (told := _stray(entry, path)) is None:
                    files.append(path)
                else:
                    found.errors.append(
                        LayerError(told[0], where=f"{layer.where}/{shown(path)}", hint=told[1],
                                   slug="stray")
                    )  # fmt: skip
    return sorted(files, key=lambda path: path.split(b"/"))


def _stray(entry: os.DirEntry[bytes], path: bytes) -> tuple[str, str] | None:
    if entry.is_symlink():
        return "is a link", "a link is kept as a patch: capture it with uniscale-build patch"
    if not entry.is_file(follow_symlinks=False):
        return "is not a file", "remove it"
    if path.startswith(b"diff/") and not path.endswith(b".patch"):
        return "is not a patch", "diff/ holds *.patch only; remove it"
    return None


def _patch_file(layer: Layer, root: bytes, path: bytes) -> Lint:
    where = f"{layer.where}/{shown(path)}"
    data, about = _read(root + b"/" + path, MAX_PATCH)
    if about.st_size > MAX_PATCH:
        return Lint([LayerError(f"has {about.st_size} bytes", where=where, slug="bomb",
                                hint=f"a patch has at most {MAX_PATCH}")])  # fmt: skip
    return lint_patch(data, where=where, label=path, layer=layer.name)


def _read(file: bytes, most: int | None = None) -> tuple[bytes, os.stat_result]:
    """A file's bytes (none when there are more than ``most``) and what the system says of it.

    A third of the time that `open` takes, which counts for thousands of small files.
    """
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        about = os.fstat(handle)
        if most is not None and about.st_size > most:
            return b"", about
        data = os.read(handle, about.st_size + 1)
        if len(data) != about.st_size:  # it grows or shrinks just now
            with open(handle, "rb", closefd=False) as rest:
                data += rest.read()
        return data, about
    finally:
        os.close(handle)


def _overlay_file(layer: Layer, root: bytes, path: bytes) -> Lint:
    name, where = path[8:], f"{layer.where}/{shown(path)}"
    file = root + b"/" + path
    data, about = _read(file)
    executable = bool(about.st_mode & stat.S_IXUSR)
    found = Lint(overlay=[Added(name, file, blob_id(data), executable)])
    if (told := path_problem(name)) is not None:
        found.errors.append(LayerError(f"{shown(name)} {told[1]}", where=where, slug=told[0]))
    found.warnings += _path_warnings(name, where)
    found.warnings += text_warnings(data, shown(name), where)
    if b"uniscale: " in data:
        _add_marks(found, marker_problems(data.split(b"\n"), (), layer.name), where)
    return found


def _duplicates(
    layer: Layer, sections: Iterable[Section], overlay: Iterable[bytes]
) -> Iterator[LayerError]:
    """One path, one change: later ones would win in silence, or hide what is removed."""
    made: dict[bytes, list[Section | None]] = {}  # None: by the overlay
    gone: dict[bytes, list[Section | None]] = {}
    for section in sections:
        if section.new is not None:
            made.setdefault(section.new, []).append(section)
        if section.old is not None and not section.copied:
            gone.setdefault(section.old, []).append(section)
    for path in overlay:
        made.setdefault(path, []).append(None)
    for what, table in (("is written", made), ("is changed or removed", gone)):
        for path, by in table.items():
            if len(by) > 1:
                labels = [patch_label(s.path) if s else b"overlay/" + path for s in by]
                told = " and ".join(map(shown, labels))
                yield LayerError(
                    f"{shown(path)} {what} {len(labels)} times: by {told}",
                    where=layer.where,
                    slug="duplicate",
                )
