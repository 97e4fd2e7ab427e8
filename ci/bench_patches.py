"""Measures the patch engine: ``ci/bench patches`` writes ci/results/patches.json.

Inputs are made here: vendor-like edit sets (`editsets`) over real vLLM source distributions, 60 of
them over six versions. Ours and the peers (one ``git apply``, ``git apply`` for each file as the
predecessor did, GNU quilt, ``git am``) run interleaved in one run; medians. CPU is user + system
time of the process and its children.

Needs the package index for the first run (about 70 MB), quilt (a Debian package) and 2 GB of disk.
``--work DIR`` keeps cache and inputs there for the next run.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import benchlib
from editsets import EditSet, make_set
from uniscale_build.git.db import GitDb, git_environment
from uniscale_build.layers.layer import Layer, apply_layer, read_layer
from uniscale_build.layers.layerfile import About, export, new_yaml, sections, write_folder
from uniscale_build.manifests.model import Backend, Origin, Pin, Recipe
from uniscale_build.progress import Plain
from uniscale_build.sources.obtain import Found, obtain_version
from uniscale_build.store import Store

VERSIONS = ("0.8.3", "0.8.5", "0.9.1", "0.9.2", "0.10.0", "0.11.0")
SETS = 60
TARGETS = {"apply_over_git_apply": 1.5, "unpatch_s": 1.0, "port_s": 2.0, "check_s": 10.0}
_BACKEND = """\
backend: vllm
title: vLLM
aliases: []
label: vllm
distribution: uniscale-vllm
homepage: https://github.com/vllm-project/vllm
license: Apache-2.0
purl: pkg:pypi/vllm
tasks: [serve]
recipe:
  kind: pep517
pins:
"""
_PIN = """\
  - version: "{version}"
    tree: {tree}
    note: The commit does not matter here.
    origins:
      - sdist: {file}
        project: vllm
        sha256: {sha256}
"""
_DEVICE = "device: {name}\ntitle: {name}\nvendor: Bench\nlabel: {name}\n"
_ADAPTATION = """\
backend: vllm
device: {name}
pin: "{version}"
layers: [{name}]
tasks: [serve]
contact: bench
"""


@dataclass(frozen=True)
class Bench:
    """A project with sets as layers, and its store."""

    root: Path
    work: Path
    db: GitDb
    found: dict[str, Found]
    sets: dict[str, EditSet]

    def layer(self, number: int) -> Layer:
        """The layer of a set."""
        return read_layer(self.root / "patches" / "vllm" / f"chip{number:02d}", "vllm")

    def command(self, *args: str) -> list[str]:
        """``uniscale-build`` as a process."""
        return [sys.executable, "-m", "uniscale_build", *args]


def set_up(work: Path, count: int) -> Bench:
    """Fetch the versions and make the sets; what ``work`` has already is used."""
    db = GitDb(Store(work / "cache")).open()
    model = Pin("vllm", "none", "", "", (Origin("sdist", project="vllm", sha256="0" * 64),), ())
    backend = Backend("vllm", "", (), "vllm", "", "", "", "", (), (model,), Recipe("pep517"), {})
    found = {v: obtain_version(db, backend, v, reporter=Plain()) for v in VERSIONS}
    bench = Bench(work / "project", work, db, found, {})
    for number in range(count):
        name, version = f"chip{number:02d}", VERSIONS[number % len(VERSIONS)]
        made = make_set(db, found[version].tree, number)
        bench.sets[name] = made
        folder = bench.root / "patches" / "vllm" / name
        if folder.exists() and read_layer(folder, "vllm").result == made.tree:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        base = found[version].tree
        about = About(f"Edit set {number}", "A benchmark.", "bench", "bench")
        write_folder(folder, export(db, base, made.tree), new_yaml(about, base, made.tree))
        print(f"made {name} over vLLM {version}: {made.hunks} hunks in {made.modified} files, "
              f"{made.new} new files", flush=True)  # fmt: skip
    _manifests(bench, count)
    return bench


def _manifests(bench: Bench, count: int) -> None:
    texts = {"backends/vllm": _BACKEND}
    for version, found in bench.found.items():
        pin = _pin_text(bench, version, found)
        texts["backends/vllm"] += pin
    for number in range(count):
        name = f"chip{number:02d}"
        version = VERSIONS[number % len(VERSIONS)]
        texts[f"devices/{name}"] = _DEVICE.format(name=name)
        texts[f"adaptations/{name}/vllm"] = _ADAPTATION.format(name=name, version=version)
    for name, text in texts.items():
        path = bench.root / "manifests" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def _pin_text(bench: Bench, version: str, found: Found) -> str:
    origin = found.origin
    if origin is not None:
        file, sha256 = origin.file, origin.sha256
    else:  # kept from an earlier run: only the tree counts then
        file, sha256 = f"vllm-{version}.tar.gz", "0" * 64
    return _PIN.format(version=version, tree=found.tree, file=file, sha256=sha256)


@dataclass
class Times:
    """Runs of one thing."""

    wall: list[float]
    cpu: list[float]

    def as_json(self) -> dict[str, float]:
        """Medians in seconds, and the best run: what the machine can do when it is quiet."""
        return {"wall_s": round(statistics.median(self.wall), 3),
                "cpu_s": round(statistics.median(self.cpu), 3),
                "best_wall_s": round(min(self.wall), 3)}  # fmt: skip


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def timed(
    jobs: dict[str, tuple[Callable[[], None], Callable[[], None]]],
    runs: int,
    slow: Sequence[str] = (),
) -> dict[str, Times]:
    """Run each (prepare, work) pair ``runs`` times, interleaved; only the work is timed.

    Jobs named in ``slow`` run three times at most.
    """
    times = {name: Times([], []) for name in jobs}
    for run in range(runs):
        for name, (prepare, work) in jobs.items():
            if name in slow and run >= 3:
                continue
            prepare()
            cpu, begin = _cpu(), time.perf_counter()
            work()
            times[name].wall.append(time.perf_counter() - begin)
            times[name].cpu.append(_cpu() - cpu)
    return times


def _git(cwd: Path, *args: str, stdin: Path | None = None) -> None:
    with (stdin or Path(os.devnull)).open("rb") as source:
        done = subprocess.run(["git", *args], cwd=cwd, stdin=source, capture_output=True,
                              env=git_environment(), check=False)  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(f"git {args[0]} failed: {done.stderr.decode('utf-8', 'replace')[:2000]}")


class Peers:
    """A checkout of the base, and the set as patches for the peers."""

    def __init__(self, bench: Bench, layer: Layer) -> None:
        self.tree = bench.work / "peers"
        self.patches = bench.work / "peer-patches"
        for folder in (self.tree, self.patches):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        who = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
        self.am = (*who, "am", "--quiet", "--keep-cr", "--whitespace=nowarn")
        _git(self.tree, "init", "-q", ".")
        alternates = self.tree / ".git" / "objects" / "info" / "alternates"
        alternates.write_text(f"{bench.db.path / 'objects'}\n", encoding="utf-8")
        commit = bench.db.commit(layer.base, [], "base")
        _git(self.tree, "update-ref", "refs/heads/main", commit)
        _git(self.tree, "checkout", "-q", "-f", "main")
        options = ("--binary", "--full-index", "-M", "-l0")
        whole = bench.db.run("diff-tree", "-r", "-p", *options, layer.base, layer.result).out
        self.files = []
        for number, part in enumerate(sections(whole)):
            path = self.patches / f"{number:04d}.patch"
            path.write_bytes(part)
            self.files.append(path)
        end = bench.db.commit(layer.result, [commit], "the set")
        self.mail = self.patches / "set.mbox"
        mail = bench.db.run("format-patch", "--stdout", *options, f"{commit}..{end}").out
        self.mail.write_bytes(mail)
        # quilt is patch(1): no binary patches, renames or modes; CRLF confuses it.
        text = [path for path in self.files if _is_plain(path.read_bytes())]
        self.series = self.patches / "series"
        self.series.write_text("".join(f"{path.name}\n" for path in text), encoding="utf-8")
        self.quilted = len(text)

    def reset(self) -> None:
        """The checkout as it was."""
        shutil.rmtree(self.tree / ".pc", ignore_errors=True)
        _git(self.tree, "reset", "-q", "--hard", "refs/tags/base")
        _git(self.tree, "clean", "-fdxq")

    def one_apply(self) -> None:
        """All files in one ``git apply``."""
        _git(self.tree, "apply", "--whitespace=nowarn", *map(str, self.files))

    def apply_each(self) -> None:
        """One ``git apply`` for each file."""
        for path in self.files:
            _git(self.tree, "apply", "--whitespace=nowarn", str(path))

    def quilt(self) -> None:
        """``quilt push -a``."""
        env = {**os.environ, "QUILT_PATCHES": str(self.patches), "QUILT_NO_DIFF_TIMESTAMPS": "1"}
        subprocess.run(["quilt", "push", "-a", "-q"], cwd=self.tree, env=env, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip

    def mailbox(self) -> None:
        """``git am`` of the whole set as one mail."""
        _git(self.tree, *self.am, str(self.mail))


def _is_plain(patch: bytes) -> bool:
    odd = (b"\nGIT binary patch", b"\nrename from", b"\nold mode", b"\r\n", b'diff --git "')
    return not any(mark in b"\n" + patch for mark in odd) and b"\n@@ " in patch


def _fresh_store(bench: Bench, tree: str) -> GitDb:
    """A store that has nothing but the upstream ``tree``, as it is after it was fetched."""
    folder = bench.work / "first"
    shutil.rmtree(folder, ignore_errors=True)
    db = GitDb(Store(folder)).open()
    pack = bench.db.pack_of(tree)
    if pack is None:
        raise SystemExit(f"no pack holds all of {tree}: remove {bench.work / 'cache'}")
    for file in (pack, pack.with_suffix(".idx")):
        os.link(file, db.path / "objects" / "pack" / file.name)
    return db


def measure_apply(bench: Bench, runs: int) -> dict[str, object]:
    """Applying one set: ours in memory, the peers in a checkout.

    Every run of ours looks through all files and lets git apply all patches. The first time the
    store has the upstream alone, so every object that comes out is written; again, in that same
    store, they are there.
    """
    layer = bench.layer(0)
    peers = Peers(bench, layer)
    _git(peers.tree, "tag", "base", "main")

    fresh: list[GitDb] = []

    def forget() -> None:
        fresh[:] = [_fresh_store(bench, layer.base)]

    def ours() -> None:
        if apply_layer(fresh[0], layer.base, layer) != layer.result:
            raise SystemExit("the result is not the recorded one")

    def nothing() -> None:
        pass

    jobs = {
        "ours, first time": (forget, ours),
        "ours": (nothing, ours),
        "git apply, once": (peers.reset, peers.one_apply),
        "git apply, each file": (peers.reset, peers.apply_each),
        "git am": (peers.reset, peers.mailbox),
    }
    quilt = "quilt push -a (text patches only)"
    if shutil.which("quilt"):
        jobs[quilt] = (peers.reset, peers.quilt)
    times = timed(jobs, 3 * runs, (quilt,))
    bare = times["git apply, once"]
    lines = sum(path.read_bytes().count(b"\n") for path in peers.files)
    return {
        "patch_files": len(layer.patches), "added_files": len(layer.overlay),
        "peer_patches": len(peers.files), "peer_lines": lines, "quilt_patches": peers.quilted,
        "times": {name: item.as_json() for name, item in times.items()},
        "ours_over_git_apply": _over(times["ours"], bare),
        "ours_first_time_over_git_apply": _over(times["ours, first time"], bare),
    }  # fmt: skip


def _over(mine: Times, bare: Times) -> dict[str, float]:
    return {
        "wall": round(statistics.median(mine.wall) / statistics.median(bare.wall), 2),
        "cpu": round(statistics.median(mine.cpu) / statistics.median(bare.cpu), 2),
        "best_wall": round(min(mine.wall) / min(bare.wall), 2),
    }


def _commands(
    bench: Bench, runs: int, jobs: dict[str, tuple[Callable[[], None], Sequence[str], int]]
) -> dict[str, object]:
    env = {**os.environ, "UNISCALE_PROJECT": str(bench.root),
           "UNISCALE_CACHE": str(bench.work / "cache"),
           "PYTHONPATH": str(benchlib.ROOT / "build_backend")}  # fmt: skip

    def runner(args: Sequence[str], code: int) -> Callable[[], None]:
        def work() -> None:
            done = subprocess.run(bench.command(*args), env=env, capture_output=True, check=False)
            if done.returncode != code:
                raise SystemExit(f"{args} gave {done.returncode}: {done.stderr.decode()[-2000:]}")

        return work

    times = timed({name: (job[0], runner(job[1], job[2])) for name, job in jobs.items()}, runs)
    return {name: item.as_json() for name, item in times.items()}


def measure_commands(bench: Bench, runs: int) -> dict[str, object]:
    """``unpatch`` and ``port --dry-run`` as a person runs them, store warm."""
    place = bench.root / "build" / "chip00"
    aside = Path(tempfile.mkdtemp(prefix="aside-", dir=bench.work))

    def remove() -> None:
        # Moved, not deleted: ext4 takes seconds to make files where thousands have just gone.
        if place.exists():
            place.rename(aside / str(len(os.listdir(aside))))

    def nothing() -> None:
        pass

    one = ("--backend", "vllm", "--device", "chip00", "--offline")
    jobs: dict[str, tuple[Callable[[], None], Sequence[str], int]] = {
        "unpatch, new": (remove, ("unpatch", *one), 0),
        "unpatch, in place already": (nothing, ("unpatch", *one), 0),
    }
    for version in VERSIONS[1:]:
        jobs[f"port --dry-run 0.8.3 -> {version}"] = (
            nothing, ("port", *one, "--to", version, "--dry-run", "--fresh"), 11,
        )  # fmt: skip
    found = _commands(bench, runs, jobs)
    shutil.rmtree(aside)
    return found


def measure_check(bench: Bench, runs: int) -> dict[str, object]:
    """``check`` of all sets."""

    def nothing() -> None:
        pass

    return _commands(bench, runs, {f"check of {len(bench.sets)} sets": (
        nothing, ("check", "--offline"), 0)})  # fmt: skip


def main() -> None:
    """Measure and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--work", type=Path, help="keep cache and inputs here")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--sets", type=int, default=SETS)
    parser.add_argument("--only", choices=("apply", "commands", "check"))
    parser.add_argument("--no-save", action="store_true")
    asked = parser.parse_args()
    work = asked.work.absolute() if asked.work else Path(tempfile.mkdtemp(prefix="bench-patches-"))
    facts: dict[str, object] = {"runs": asked.runs, "targets": TARGETS}
    bench = set_up(work, asked.sets)
    os.environ["UNISCALE_CACHE"] = str(work / "cache")
    parts: dict[str, Callable[[Bench, int], dict[str, object]]] = {
        "apply": measure_apply, "commands": measure_commands, "check": measure_check,
    }  # fmt: skip
    for name, part in parts.items():
        if asked.only in (None, name):
            runs = min(asked.runs, 3) if name == "check" else asked.runs
            facts[name] = part(bench, runs)
            print(name, facts[name], flush=True)
    if asked.only is None and not asked.no_save:
        print(f"written: {benchlib.save('patches', facts)}")
    if asked.work is None:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
