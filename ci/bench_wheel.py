"""Measures writing a wheel: ``ci/bench wheel`` writes ci/results/wheel.json.

A payload of about 300 MB (shared libraries and Python sources of this machine) is written by us at
each level and by the peers: scikit-build-core, hatchling, ``wheel pack`` and plain ``zipfile``.
Every writer runs in a process of its own, interleaved; medians. CPU is user + system time of that
process. The peers' wheels and ours are unpacked by nothing here: tests do that.

Needs scikit-build-core, hatchling and wheel; isal for what ``fast`` can do.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path

from benchlib import ROOT, machine, save

RUNS = int(os.environ.get("BENCH_RUNS", "3"))
LIBRARIES, SOURCES = 255_000_000, 45_000_000  # bytes of each kind
FILES = 3146
LIMITS = {"default_wall_s": 4.0, "unchanged_cpu_over_hash_s": 0.3}
TAG = "py3-none-linux_x86_64"
PEERS = ("scikit_build_core", "hatchling", "wheel")

HASH = """
import hashlib, os, sys, time
begin = time.process_time()
for base, _, names in os.walk(sys.argv[1]):
    for name in names:
        value = hashlib.sha256()
        with open(os.path.join(base, name), "rb", buffering=0) as stream:
            while block := stream.read(1 << 20):
                value.update(block)
print(time.process_time() - begin)
"""
OURS = f"""
import json, sys, time
from pathlib import Path
sys.path.insert(0, {str(ROOT / "build_backend")!r})
from uniscale_build.wheels.wheel import Member, write_wheel
source, out, level, previous, digest, stamp = sys.argv[1:]
root = Path(source)
members = [Member(path.relative_to(root).as_posix(), path)
           for path in root.rglob("*") if path.is_file()]
begin = time.process_time()
made = write_wheel(
    Path(out), name="bench", version="1", tag="{TAG}", members=members,
    metadata="Metadata-Version: 2.1\\nName: bench\\nVersion: 1\\n", compression=level,
    previous=Path(previous) if previous else None, previous_sha256=digest or None,
    previous_stamp=json.loads(stamp or "null"))
print(made.sha256, time.process_time() - begin)
"""
ZIPFILE = """
import base64, hashlib, os, sys, zipfile
source, out = sys.argv[1:]
rows = []
with zipfile.ZipFile(os.path.join(out, "bench.whl"), "w", zipfile.ZIP_DEFLATED) as archive:
    for base, _, names in os.walk(source):
        for name in names:
            path = os.path.join(base, name)
            data = open(path, "rb").read()
            value = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode()
            rows.append(f"{name},sha256={value},{len(data)}")
            archive.writestr(os.path.relpath(path, source), data)
    archive.writestr("bench-1.dist-info/RECORD", "\\n".join(rows))
"""
HOOK = """
import importlib, sys
print(importlib.import_module(sys.argv[1]).build_wheel(sys.argv[2]))
"""
HATCHLING = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "bench"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["payload"]
"""
SCIKIT = """\
[build-system]
requires = ["scikit-build-core"]
build-backend = "scikit_build_core.build"
[project]
name = "bench"
version = "1"
[tool.scikit-build]
wheel.packages = ["payload"]
wheel.cmake = false
"""


def once(command: Sequence[str], folder: Path) -> tuple[float, float, str]:
    """Wall and CPU time (s) of one run, which must succeed, and its last line of output."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    said = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"exit code {process.returncode}: {' '.join(command[:4])}")
    return wall, usage.ru_utime + usage.ru_stime, said[-1] if said else ""


def found_files(suffix: str) -> Iterator[Path]:
    """Real files of this machine, always in the same order, hard links once."""
    seen: set[int] = set()
    roots = [Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("purelib"))]
    if suffix != ".py":
        roots = [
            *sorted(Path("/usr/lib").glob("*-linux-gnu")),
            Path("/usr/lib/llvm-14/lib"),
            *roots,
        ]
    for root in roots:
        for path in sorted(root.rglob(f"*{suffix}*")):
            if not path.is_file() or path.is_symlink() or "__pycache__" in path.parts:
                continue
            if (inode := path.stat().st_ino) not in seen:
                seen.add(inode)
                yield path


def lay(folder: Path) -> int:
    """Fill ``folder`` with the payload; its size in bytes. Files repeat when there are too few."""
    total = number = 0
    for kind, suffix, wanted in (("lib", ".so", LIBRARIES), ("src", ".py", SOURCES)):
        paths, have = list(found_files(suffix)), 0
        if not paths:
            sys.exit(f"this machine has no {suffix} files to make a payload from")
        smallest = wanted // FILES if kind == "src" else 0
        paths = [path for path in paths if path.stat().st_size > smallest // 4]
        while have < wanted:
            path = paths[number % len(paths)]
            data = path.read_bytes()[: wanted - have]
            target = folder / kind / f"d{number % 40}" / f"m{number}{suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            have += len(data)
            number += 1
        total += have
    (folder / "__init__.py").write_text("")
    return total


def commands(work: Path, payload: Path) -> dict[str, tuple[list[str], Path]]:
    """What to run, by name, and where; outputs go to ``out-<name>``."""
    python = sys.executable
    for name, text in (("hatchling", HATCHLING), ("scikit", SCIKIT)):
        (work / name).mkdir()
        (work / name / "pyproject.toml").write_text(text)
        (work / name / "payload").symlink_to(payload, target_is_directory=True)
    packed = work / "pack"
    shutil.copytree(payload, packed / "payload", copy_function=os.link)
    info = packed / "bench-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: bench\nVersion: 1\n")
    (info / "WHEEL").write_text(f"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {TAG}\n")
    (info / "RECORD").write_text("")
    found: dict[str, tuple[list[str], Path]] = {"hash": ([python, "-c", HASH, str(payload)], work)}
    for level in ("default", "fast", "best", "store"):
        out = work / f"out-ours-{level}"
        found[f"ours {level}"] = (
            [python, "-c", OURS, str(payload), str(out), level, "", "", ""],
            work,
        )
    for name in ("zipfile", "wheel pack", "hatchling", "scikit-build-core"):
        (work / f"out-{name}").mkdir()
    found["zipfile"] = ([python, "-c", ZIPFILE, str(payload), str(work / "out-zipfile")], work)
    found["wheel pack"] = (
        [python, "-m", "wheel", "pack", str(packed), "-d", str(work / "out-wheel pack")],
        work,
    )
    for name, module, place in (
        ("hatchling", "hatchling.build", "hatchling"),
        ("scikit-build-core", "scikit_build_core.build", "scikit"),
    ):
        found[name] = ([python, "-c", HOOK, module, str(work / f"out-{name}")], work / place)
    return found  # fmt: skip


def unchanged(work: Path, command: list[str], folder: Path) -> dict[str, tuple[list[str], Path]]:
    """Commands that write again what ``command`` wrote: over it, and into another folder."""
    from uniscale_build.wheels.previous import stamp

    _, _, said = once(command, folder)
    made = next((work / "out-ours-default").glob("*.whl"))
    found = {}
    for name in ("ours unchanged", "ours unchanged elsewhere"):
        kept = work / f"out-{name.replace(' ', '-')}" / made.name
        kept.parent.mkdir()
        shutil.copy(made, kept)
        out = str(kept.parent) if name == "ours unchanged" else f"{kept.parent}-new"
        # Digest and stamp are known from when the wheel was written.
        known = [said.split()[0], json.dumps(stamp(kept))]
        again = [*command[:4], out, "default", str(kept), *known]
        found[name] = (again, folder)
    return found


def measure(work: Path, payload: Path) -> dict[str, dict[str, float]]:
    """Medians of `RUNS` interleaved runs of everything."""
    todo = commands(work, payload)
    todo |= unchanged(work, *todo["ours default"])
    taken: dict[str, list[tuple[float, float]]] = {}
    inside: dict[str, list[float]] = {name: [] for name in todo if "unchanged" in name}
    inside["hash"] = []
    sizes: dict[str, int] = {}
    for turn in range(RUNS):
        for name, (command, folder) in todo.items():
            wall, cpu, said = once(command, folder)
            print(f"  {turn + 1}/{RUNS} {name}: {wall:.2f} s, {cpu:.2f} CPU s", file=sys.stderr)
            taken.setdefault(name, []).append((wall, cpu))
            if name in inside:
                # What the work itself took, without starting Python and importing.
                inside[name].append(float(said.split()[-1]))
            if name == "hash":
                continue
            out = work / f"out-{name.replace(' ', '-')}"
            made = next((out if out.exists() else work / f"out-{name}").glob("*.whl"))
            sizes[name] = made.stat().st_size
    return {
        name: {
            "wall_s": round(statistics.median(wall for wall, _ in runs), 2),
            "cpu_s": round(statistics.median(cpu for _, cpu in runs), 2),
            "bytes": sizes.get(name, 0),
            **({"work_cpu_s": round(statistics.median(inside[name]), 3)} if name in inside else {}),
        }
        for name, runs in taken.items()
    }


def versions() -> dict[str, str]:
    """The peers' versions; absent ones say so."""
    found = {}
    for name in ("scikit-build-core", "hatchling", "wheel", "isal"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def main() -> None:
    """Measure, print, keep."""
    if missing := [name for name in PEERS if importlib.util.find_spec(name) is None]:
        sys.exit(f"not installed: {', '.join(missing)}")
    began = machine()
    with tempfile.TemporaryDirectory(prefix="bench-wheel-") as name:
        work = Path(name)
        payload = work / "payload"
        size = lay(payload)
        count = sum(1 for path in payload.rglob("*") if path.is_file())
        results = measure(work, payload)
    ours, floor = results["ours default"], results["hash"]
    over = round(results["ours unchanged"]["work_cpu_s"] - floor["work_cpu_s"], 3)
    print(f"{size / 1e6:.0f} MB in {count} files; ratios to ours at the default level")
    for name, row in results.items():
        print(
            f"{name:25} {row['wall_s']:7.2f} s  {row['cpu_s']:7.2f} CPU s  "
            f"{row['bytes'] / 1e6:7.1f} MB  wall x{row['wall_s'] / ours['wall_s']:.2f}  "
            f"CPU x{row['cpu_s'] / ours['cpu_s']:.2f}"
        )
    print(f"unchanged, CPU over the hash floor: {over} s")
    kept = {
        "machine": began,
        "versions": versions(),
        "payload": {"bytes": size, "files": count},
        "runs": RUNS,
        "results": results,
        "unchanged_cpu_over_hash_s": over,
        "limits": LIMITS,
    }
    save("wheel", kept)
    if ours["wall_s"] > LIMITS["default_wall_s"] or over > LIMITS["unchanged_cpu_over_hash_s"]:
        sys.exit("a limit is not met (read CPU seconds where the machine was busy)")


if __name__ == "__main__":
    main()
