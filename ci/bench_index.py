"""Measures the wheel index: ``python ci/bench_index.py`` writes ci/results/index.json.

10,000 small wheels with payload records (backends × devices × versions × Pythons) are made once.
Measured, each as a command of its own: a full index of all of them, the same again with one more
wheel in the folder, the same with nothing new, and reading every stored wheel again. dumb-pypi,
where it is installed, makes simple pages of the same names: it reads no wheel and keeps no
catalog.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from benchlib import ROOT, Took, run, save

sys.path[:0] = [str(ROOT)]
COUNT = int(os.environ.get("BENCH_WHEELS", "10000"))
LIMITS = {"full_wall_s": 30.0, "one_more_wall_s": 1.0}
BACKENDS = ("vllm", "sglang", "llama.cpp", "Megatron-LM", "verl")
DEVICES = ("cpu", "nvidia", "Metax_C550", "MUSA_S5000", "Cambricon_MLU", "amd", "Hygon_BW1000",
           "BI_V150")  # fmt: skip
PYTHONS = ("cp310", "cp311", "cp312", "cp313")
# A peer that makes the pages of a list of file names; it reads no wheel.
PEER = "dumb-pypi"


def lay(folder: Path) -> Path:
    """Fill ``folder`` with wheels, and make one more beside it, which is given back."""
    from tests.payload_wheels import payload_record, payload_wheel

    made = 0
    versions = -(-COUNT // (len(BACKENDS) * len(DEVICES) * len(PYTHONS)))
    for backend in BACKENDS:
        for device in DEVICES:
            for number in range(versions):
                record = payload_record(backend, f"0.{number}.1", device)
                for python in PYTHONS:
                    if made < COUNT:
                        tag = f"{python}-{python}-manylinux_2_34_x86_64"
                        payload_wheel(folder, backend, f"0.{number}.1", f"{device}", tag=tag,
                                      record=record, content=f"x = {made}\n".encode())  # fmt: skip
                        made += 1
        print(f"  {made} of {COUNT} wheels", file=sys.stderr)
    return payload_wheel(folder.with_name("more"), "vllm", "99.0.1").path


def index(dist: Path, site: Path, *options: str) -> Took:
    """One run of our command."""
    environment = {"PYTHONPATH": str(ROOT / "build_backend"), "CI": "1"}
    command = [
        sys.executable,
        "-m",
        "uniscale_build",
        "index",
        str(dist),
        "-o",
        str(site),
        "--json",
    ]
    took = run([*command, *options], env=environment)
    print(f"  {' '.join(options) or 'index'}: {took.wall:.2f} s, {took.cpu:.2f} CPU s",
          file=sys.stderr)  # fmt: skip
    return took


def peer(dist: Path, work: Path) -> dict[str, object]:
    """The peer, when it is on PATH: pages of the same files from their names alone."""
    program = shutil.which(PEER)
    if program is None:
        return {"state": "not installed"}
    listing = work / "list.txt"
    listing.write_text("".join(f"{path.name}\n" for path in sorted(dist.iterdir())))
    took = run([program, "--package-list", listing, "--packages-url", "../../packages",
                "--output-dir", work / "peer"])  # fmt: skip
    return {"wall_s": round(took.wall, 2), "cpu_s": round(took.cpu, 2)}


def main() -> None:
    """Make the wheels, index them, keep what it took."""
    with tempfile.TemporaryDirectory(prefix="uniscale-bench-index-") as name:
        work = Path(name)
        dist, site = work / "dist", work / "site"
        more = lay(dist)
        count = sum(1 for _ in dist.iterdir())
        took = {"full": index(dist, site)}
        shutil.copy(more, dist)
        took["one more, whole folder given"] = index(dist, site)
        took["nothing new, whole folder given"] = index(dist, site)
        # What adding to a published index looks like.
        shutil.copy(more, more.with_name(more.name.replace("+cpu-", "+cpu-1-")))
        more.unlink()
        took["one more alone"] = index(more.parent, site)
        took["verify everything again"] = index(dist, site, "--verify")
        size = (site / "catalog.json").stat().st_size
        theirs = peer(dist, work)
        wheels = len(json.loads((site / "catalog.json").read_text(encoding="utf-8"))["wheels"])
    assert wheels == count + 2
    save(
        "index",
        {
            "wheels": wheels,
            "catalog_bytes": size,
            "ours": {name: {"wall_s": round(one.wall, 2), "cpu_s": round(one.cpu, 2)}
                     for name, one in took.items()},
            "peer, pages only": {PEER: theirs},
            "limits": LIMITS,
        },
    )  # fmt: skip
    worst = max(took["one more alone"].wall, took["one more, whole folder given"].wall)
    for name, one in took.items():
        print(f"{name:35} {one.wall:7.2f} s  {one.cpu:7.2f} CPU s")
    if took["full"].wall > LIMITS["full_wall_s"] or worst > LIMITS["one_more_wall_s"]:
        sys.exit("a limit is not met (read CPU seconds where the machine was busy)")


if __name__ == "__main__":
    main()
