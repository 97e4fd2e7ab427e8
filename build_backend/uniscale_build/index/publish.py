"""Wheels in, a static index out: incremental, one copy of each file, valid at every moment.

Everything is checked before anything is changed. Wheels come before the pages that name them, and
go after; each file is replaced in one step. A run that is killed leaves an index that is valid, and
the next one completes it.
"""

from __future__ import annotations

import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from uniscale_build.errors import IndexSiteError, UniscaleError, did_you_mean, raise_all
from uniscale_build.index import front, pages
from uniscale_build.index.entry import Entry
from uniscale_build.index.site import Site
from uniscale_build.index.state import Known, source_of, stat_of
from uniscale_build.index.take import (
    METADATA,
    PROVENANCE,
    Given,
    Job,
    Taken,
    given_wheels,
    now,
    take_all,
)
from uniscale_build.progress import Reporter, Silent
from uniscale_build.recordfile import file_sha256
from uniscale_build.store import disk_errors

ALL = "all"
NAME = "uniscale"


@dataclass(frozen=True)
class Request:
    """What to do to an index: files (or folders of them) to add, names of stored ones to change."""

    add: tuple[Path, ...] = ()
    remove: tuple[str, ...] = ()
    yank: Mapping[str, str] = field(default_factory=dict)  # file → why
    unyank: tuple[str, ...] = ()
    drift: tuple[Path, ...] = ()
    verify: bool = False  # read every stored wheel again
    variants: bool = False  # write variants/ too; an index that has it keeps it in step


@dataclass(frozen=True)
class Published:
    """What was done: names of files, and what the index now holds."""

    site: Path
    added: tuple[str, ...]
    known: tuple[str, ...]  # given, and stored already
    removed: tuple[str, ...]
    wheels: int
    channels: tuple[str, ...]
    pages: int  # files that were written


def publish(root: Path, request: Request, reporter: Reporter | None = None) -> Published:
    """Bring the index at ``root`` to what ``request`` says.

    `WheelError`, `IndexSiteError` or `Problems` with everything that is wrong with what was given
    or stored: then the index is as it was. Two wheels of one name with different content are
    refused.
    """
    reporter = reporter if reporter is not None else Silent()
    given = given_wheels(request.add)
    site = Site(root.absolute())
    with disk_errors(root, "point --out"), site.locked(reporter):
        run = _Run(site, request, given, reporter)
        made = run()
        if request.variants or site.has_variants:
            from uniscale_build.index import variants

            written = variants.write(site, run.state, run.yanked, reporter)
            made = replace(made, pages=made.pages + written)
        return made


class _Run:
    """One change of an index, under its lock."""

    def __init__(
        self, site: Site, request: Request, given: list[Given], reporter: Reporter
    ) -> None:
        self.site = site
        self.request = request
        self.given = given
        self.reporter = reporter
        self.state = site.state()
        self.stored = site.stored()
        self.wheels = {name for name, (_, time, _) in self.stored.items()
                       if time and name.endswith(".whl")}  # fmt: skip
        self.yanked = site.yanked()
        self.errors: list[UniscaleError] = []
        self._catalog: dict[str, tuple[str, int]] | None = None
        self.known: list[str] = []

    def __call__(self) -> Published:
        before = dict(self.state.wheels)
        self._check_names()
        fresh = self._read()
        drift = front.check_drift(self.request.drift, self.errors)
        raise_all(self.errors)
        yanked = {name: why for name, why in {**self.yanked, **self.request.yank}.items()
                  if name not in (*self.request.unyank, *self.request.remove)}  # fmt: skip
        self._settle(fresh)
        changed = {
            name for name in {*before, *self.state.wheels}
            if before.get(name) != self.state.wheels.get(name)
            or self.yanked.get(name) != yanked.get(name)
        }  # fmt: skip
        everything = self.site.dirty or self.request.verify
        self.site.begin()
        self._store(fresh)
        self.yanked = yanked
        self.site.put_yanked(yanked)
        front.put_drift(self.site, drift)
        pages_written = self._pages(before, changed, everything=everything)
        for name in self.stored:
            # A sidecar may be left of a run that was killed, or of a wheel that somebody removed.
            wheel = name.removesuffix(METADATA).removesuffix(PROVENANCE)
            ours = name in self.request.remove or wheel != name
            if ours and wheel not in self.state.wheels:
                (self.site.packages / name).unlink()
        self.site.finish(self.state)
        added = tuple(sorted(one.job.path.name for one in fresh if not one.job.stored))
        return Published(
            self.site.root, added, tuple(self.known), self.request.remove,
            len(self.state.wheels), self.channels, pages_written,
        )  # fmt: skip

    # What is there and what is given --------------------------------------------------------

    def _check_names(self) -> None:
        """Stored files that are named must be there, and what was stored must still be."""
        coming = {one.name for one in self.given}
        for name in (*self.request.remove, *self.request.yank, *self.request.unyank):
            if name not in self.wheels and not (name in coming and name in self.request.yank):
                self.errors.append(
                    IndexSiteError(f"the index has no {name}", where=str(self.site.packages),
                                   hint=did_you_mean(name, self.wheels), slug="unknown-file")
                )  # fmt: skip
        for name in [name for name in self.state.wheels if name not in self.wheels]:
            self.reporter.note(f"{name} is gone from packages/: it is taken out of the pages")
            del self.state.wheels[name]

    def _read(self) -> list[Taken]:
        """Read what is new or looks changed; what is wrong is gathered in ``errors``."""
        stored = self._stored_jobs()
        if stored and not self.state.wheels and not self.request.verify:
            self.reporter.note(
                "what was read of the stored wheels is gone, or was written by another version: "
                "they are all read again, once"
            )
        jobs = [*stored, *self._given_jobs()]
        if jobs:
            self.reporter.stage("read", f"{len(jobs)} wheels")
        taken = []
        for one in take_all(jobs, self.reporter):
            self.errors.extend(one.errors)
            if one.entry is not None and self._is_as_published(one):
                taken.append(one)
        return taken

    def _stored_jobs(self) -> list[Job]:
        jobs: list[Job] = []
        for name in sorted(filter(self._must_be_read, self.wheels - set(self.request.remove))):
            folder = self.site.incoming / f"s{len(jobs)}"
            upload = self._published(name)[1] or self.stored[name][1] // 10**9
            jobs.append(Job(self.site.packages / name, folder, upload, stored=True))
        return jobs

    def _must_be_read(self, name: str) -> bool:
        """True for a stored wheel that is new here, looks changed, or has no sidecar."""
        known = self.state.wheels.get(name)
        as_it_was = known is not None and known.stat == self.stored[name]
        return self.request.verify or not as_it_was or f"{name}{METADATA}" not in self.stored

    def _published(self, name: str) -> tuple[str, int]:
        """SHA-256 and time of a stored wheel as it was published; "" and 0 when nobody knows."""
        if name in self.state.wheels:
            known = self.state.wheels[name]
            return known.sha256, known.upload
        if self._catalog is None:
            self._catalog = self.site.published()
        return self._catalog.get(name, ("", 0))

    def _is_as_published(self, taken: Taken) -> bool:
        if not taken.job.stored or taken.entry is None:
            return True
        sha256, _ = self._published(taken.job.path.name)
        if sha256 in ("", taken.entry.sha256):
            return True
        self.errors.append(
            IndexSiteError(
                "this is not the file that was published "
                f"(SHA-256 {sha256}, now {taken.entry.sha256})",
                where=str(taken.job.path),
                hint=f"put the right one back, or take it out: --remove {taken.job.path.name}",
                slug="changed-wheel",
            )
        )
        return False

    def _given_jobs(self) -> list[Job]:
        jobs: dict[str, Job] = {}
        hashes: dict[str, str] = {}
        sources, time = self.state.sources, now()
        self.state.sources = {}
        ours: dict[str, bool] = {}  # folder → is it the index's own?
        for path, name, source in self.given:
            first = jobs.get(name)
            if first is None and (name not in self.wheels or name in self.request.remove):
                jobs[name] = Job(Path(path), self.site.incoming / f"g{len(jobs)}", time)
                continue
            folder = path[: -len(name)]
            if folder not in ours:
                ours[folder] = os.path.samefile(folder, self.site.packages)
            if ours[folder]:
                continue
            sha256 = sources.get(source) or file_sha256(Path(path))
            if name not in hashes:
                hashes[name] = self._sha256_of(name, first)
            if sha256 == hashes[name]:
                self.state.sources[source] = sha256
                self.known.append(name)
            else:
                other = str(first.path) if first else f"the index's packages/{name}"
                self.errors.append(_two_files(path, sha256, other, hashes[name]))
        return list(jobs.values())

    def _sha256_of(self, name: str, first: Job | None) -> str:
        if first is not None:
            return file_sha256(first.path)
        known = self.state.wheels.get(name)
        if known is not None and known.stat == self.stored[name]:
            return known.sha256
        return file_sha256(self.site.packages / name)

    # Changing the index ---------------------------------------------------------------------

    def _settle(self, fresh: Sequence[Taken]) -> None:
        """Remember what was read; the stored wheels' looks follow when they are stored."""
        for name in self.request.remove:
            self.state.wheels.pop(name, None)
        for one in fresh:
            assert one.entry is not None
            self.state.wheels[one.job.path.name] = Known.of((0, 0, 0), one.entry)
        wheels = self.state.wheels.values()
        self.channels = tuple(sorted({wheel.device for wheel in wheels} - {""}))
        self._note_bundles(wheels)

    def _note_bundles(self, wheels: Iterable[Known]) -> None:
        """pip takes a bundle for the launchers that a split wheel requires: it sorts higher."""
        held: dict[str, set[bool]] = defaultdict(set)
        for wheel in wheels:
            if wheel.device:
                held[wheel.device].add(wheel.project == NAME)
        for device in sorted(device for device, kinds in held.items() if len(kinds) > 1):
            self.reporter.note(
                f"{device}/ holds bundles and wheels of one backend: for the latter pip will take "
                "a bundle as their launchers; give bundles an index of their own"
            )

    def _store(self, fresh: Sequence[Taken]) -> None:
        """Wheels and their sidecars under their names, the wheel last."""
        for one in fresh:
            assert one.entry is not None
            name = one.job.path.name
            target = self.site.packages / name
            for suffix in (METADATA, PROVENANCE):
                source = one.job.folder / f"{name}{suffix}"
                if source.exists():
                    source.replace(self.site.packages / source.name)
            if not one.job.stored:
                source_key = source_of(one.job.path.stat()) if one.job.path.exists() else None
                (one.job.folder / name).replace(target)
                if source_key is not None:
                    self.state.sources[source_key] = one.entry.sha256
            self.state.wheels[name] = Known.of(stat_of(target), one.entry)

    def _pages(self, before: Mapping[str, Known], changed: set[str], *, everything: bool) -> int:
        """Write the pages of changed projects, then what lists them; gives how many files."""
        wheels = [self.state.wheels[name] for name in sorted(self.state.wheels)]
        kinds: dict[tuple[str, str], list[Known]] = defaultdict(list)
        for wheel in wheels:
            kinds[wheel.device, wheel.project].append(wheel)
        groups: dict[tuple[str, str], list[list[Known]]] = defaultdict(list)
        for (device, project), members in kinds.items():
            for channel in (ALL, *self._channels_of(device)):
                groups[channel, project].append(members)
        touched = {
            (channel, source[name].project)
            for name in changed for source in (before, self.state.wheels) if name in source
            for channel in (ALL, *self._channels_of(source[name].device))
        }  # fmt: skip
        fresh_channel = {name for name in (ALL, *self.channels)
                         if not (self.site.root / name / "index.html").exists()}  # fmt: skip
        there = set(self.site.page_folders())
        written = 0
        for key, parts in groups.items():
            if everything or key in touched or key[0] in fresh_channel or key not in there:
                members = sorted(itertools.chain(*parts), key=lambda wheel: wheel.file)
                written += self._project(key, [wheel.entry for wheel in members])
        written += self._lists(groups)
        written += front.write(self.site, wheels, self.yanked)
        # Last of all: what these pages name is in no list any more; a channel's own goes first.
        keep = {*groups, *((channel, "") for channel, _ in groups)}
        for channel, project in sorted(there - keep):
            self.site.drop_page(channel, project)
        return written

    def _channels_of(self, device: str) -> tuple[str, ...]:
        """The channels beside ``all`` that list a wheel: every one, where it is of no device."""
        return (device,) if device else self.channels

    def _project(self, key: tuple[str, str], members: Sequence[Entry]) -> int:
        channel, project = key
        folder = self.site.root / channel / project
        html = pages.project_html(project, members, self.yanked)
        text = pages.project_json(project, members, self.yanked)
        written = self.site.put(folder / "index.html", html.encode())
        return written + self.site.put(folder / "index.json", text.encode())

    def _lists(self, groups: Mapping[tuple[str, str], object]) -> int:
        projects: dict[str, list[str]] = defaultdict(list)
        for channel, project in sorted(groups):
            projects[channel].append(project)
        written = 0
        for channel, names in projects.items():
            folder = self.site.root / channel
            html = pages.channel_html(channel, names)
            written += self.site.put(folder / "index.html", html.encode())
            written += self.site.put(folder / "index.json", pages.channel_json(names).encode())
        return written


def _two_files(path: str, sha256: str, other: str, theirs: str) -> IndexSiteError:
    name = os.path.basename(path)
    return IndexSiteError(
        f"two different files are called {name}",
        where=path,
        hint=f"this has SHA-256 {sha256}, {other} has {theirs}; a name is given once: raise the "
        f"version,\nor, where nobody has installed it yet, take the old one out first with "
        f"--remove {name}",
        slug="two-files",
    )
