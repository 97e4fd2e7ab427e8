"""Building llama.cpp for the CPU: ours beside plain CMake and Ninja, and beside the peer.

``ci/bench build`` runs each once (a cold build takes minutes) and prints ratios; sources are
fetched before anything is timed. The peer is llama-cpp-python built by pip from its own source
distribution, which compiles the same upstream tree.

- cold: nothing built, no compiler cache
- again: the same command with nothing changed
- one file: a layer changes one upstream source file
- build folder deleted: with a warm compiler cache (needs ccache)
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from benchlib import ROOT, Took, run, save

FILE = "tools/server/server-http.cpp"
TARGETS = ("llama-server", "llama-quantize")


def ours(env: dict[str, str], *settings: str) -> Took:
    """``uniscale-build wheel`` for the pair."""
    words = [word for setting in settings for word in ("-C", setting)]
    return run(
        [sys.executable, "-m", "uniscale_build", "wheel", "-b", "llama.cpp", "-d", "cpu",
         "-o", env["OUT"], *words],
        cwd=Path(env["UNISCALE_PROJECT"]), env=env,
    )  # fmt: skip


def touch_layer(project: Path, cache: Path) -> None:
    """Put a layer on top that adds one comment to `FILE`."""
    from uniscale_build.git.db import Entry, GitDb, changed_tree
    from uniscale_build.project import Project
    from uniscale_build.store import Store

    pin, adaptation = Project(project, True).resolve("llama.cpp", "cpu")
    base = Project(project, True).layers(pin, adaptation)[-1].result
    db = GitDb(Store(cache))
    entry = db.list_tree(base)[FILE.encode()]
    changed = db.read_blob(entry.oid) + b"\n// one more line\n"
    change = {FILE.encode(): Entry(entry.mode, db.write_blob(changed))}
    result = changed_tree(db, db.listing(base), change)
    folder = project / "patches" / "llama.cpp" / "bench"
    target = folder / "diff" / f"{FILE}.patch"
    target.parent.mkdir(parents=True)
    target.write_bytes(db.run("diff", "--binary", "--full-index", base, result).out)
    (folder / "layer.yaml").write_text(
        "title: bench\nwhy: bench\nowner: {name: bench, contact: bench}\nupstream: inappropriate\n"
        f"base: {base}\nresult: {result}\n",
        encoding="utf-8",
    )
    manifest = project / "manifests" / "adaptations" / "cpu" / "llama.cpp.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text + "layers: [bench]\n", encoding="utf-8")


def plain(source: Path, build: Path, spec: dict[str, object]) -> dict[str, Took]:
    """CMake and Ninja alone: same sources, same targets, same flags."""
    defines = spec["defines"]
    assert isinstance(defines, dict)
    args = [f"-D{k}={v}" for k, v in {**defines, "UNISCALE_SOURCE": str(source)}.items()]
    configure = ["cmake", "-GNinja", "-S", str(spec["source"]), "-B", str(build),
                 "-DCMAKE_BUILD_TYPE=Release", *args]  # fmt: skip
    compile_ = ["cmake", "--build", str(build), f"-j{spec['jobs']}", "--target", *TARGETS]
    first, second = run(configure), run(compile_)
    cold = Took(first.wall + second.wall, first.cpu + second.cpu)
    again = run(compile_)
    with (source / FILE).open("a", encoding="utf-8") as file:
        file.write("\n// one more line\n")
    return {"cold": cold, "again": again, "one file": run(compile_)}


def peer(folder: Path, sdist: Path) -> tuple[dict[str, Took], Path]:
    """pip wheel of llama-cpp-python with a persistent build folder; and its wheel."""
    with tarfile.open(sdist) as tar:
        tar.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    env = {"CMAKE_ARGS": "-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DGGML_CCACHE=OFF "
           "-DLLAMA_OPENSSL=OFF -DLLAMA_USE_PREBUILT_UI=OFF"}  # fmt: skip
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", "-w", str(folder / "out"),
               "-C", f"build-dir={folder / 'build'}", str(source)]  # fmt: skip
    found = {"cold": run(command, env=env), "again": run(command, env=env)}
    with (source / "vendor" / "llama.cpp" / "src" / "llama.cpp").open("a") as file:
        file.write("\n// one more line\n")
    found["one file"] = run(command, env=env)
    return found, next((folder / "out").glob("*.whl"))


def library_bytes(wheel: Path) -> dict[str, int]:
    """Compressed size of every library by what it is called up to its version, copies added up."""
    found: dict[str, int] = {}
    with zipfile.ZipFile(wheel) as bundle:
        for item in bundle.infolist():
            name = PurePosixPath(item.filename).name
            if name.startswith("lib") and ".so" in name:
                key = name.partition(".so")[0]
                found[key] = found.get(key, 0) + item.compress_size
    return found


def main() -> None:
    """Run everything, print a table, keep the results."""
    sys.path.insert(0, str(ROOT / "build_backend"))
    keep = Path(tempfile.mkdtemp(prefix="uniscale-bench-"))
    project, cache = keep / "project", keep / "cache"
    skip = shutil.ignore_patterns(".git", "__pycache__", ".venv", "build", "dist", "third_party")
    shutil.copytree(ROOT, project, ignore=skip)
    env = {"UNISCALE_CACHE": str(cache), "UNISCALE_PROJECT": str(project), "CI": "1",
           "OUT": str(keep / "out"), "UNISCALE_COMPILER_CACHE": "none",
           "PYTHONPATH": os.pathsep.join([str(ROOT / "build_backend"), str(ROOT / "launchers")]),
           "CCACHE_DIR": str(keep / "ccache")}  # fmt: skip
    os.environ.update(env)
    from uniscale_build.git.db import GitDb
    from uniscale_build.git.worktree import materialise
    from uniscale_build.project import Project
    from uniscale_build.sources.obtain import obtain
    from uniscale_build.store import Store

    pin, adaptation = Project(project, True).resolve("llama.cpp", "cpu")
    db = GitDb(Store(cache))
    obtain(db, pin)
    found: dict[str, dict[str, Took]] = {"uniscale": {"cold": ours(env), "again": ours(env)}}
    work = cache / "work" / "llama.cpp-cpu"
    spec = json.loads((work / "build" / "uniscale-spec.json").read_text(encoding="utf-8"))
    wheel = next((keep / "out").glob("*.whl"))
    tree = Project(project, True).layers(pin, adaptation)[-1].result
    materialise(db, tree, keep / "plain" / "src")
    found["cmake and ninja"] = plain(keep / "plain" / "src", keep / "plain" / "build", spec)
    report(found, wheel, None)
    touch_layer(project, cache)
    found["uniscale"]["one file"] = ours(env)
    if shutil.which("ccache"):
        env["UNISCALE_COMPILER_CACHE"] = "ccache"
        for warm in (False, True):
            shutil.rmtree(work / "build")
            shutil.rmtree(cache / "payloads")
            shutil.rmtree(cache / "wheels")
            took = ours(env)
            if warm:
                found["uniscale"]["build folder deleted"] = took
    report(found, wheel, None)
    origin = next(item for item in pin.origins if item.kind == "sdist")
    (keep / "peer").mkdir()
    found["llama-cpp-python"], theirs = peer(
        keep / "peer", cache / "downloads" / origin.sha256 / origin.file
    )
    report(found, wheel, theirs)
    shutil.rmtree(keep)


def sizes(ours: Path, theirs: Path | None) -> dict[str, object]:
    """Bytes of both wheels, and of the libraries that both hold."""
    if theirs is None:
        return {"uniscale": ours.stat().st_size}
    mine, other = library_bytes(ours), library_bytes(theirs)
    both = sorted(set(mine) & set(other))
    ours_both, theirs_both = sum(mine[name] for name in both), sum(other[name] for name in both)
    return {
        "uniscale": ours.stat().st_size, "llama-cpp-python": theirs.stat().st_size,
        "same_libraries": {"names": both, "uniscale": ours_both, "llama-cpp-python": theirs_both,
                           "ratio": round(ours_both / theirs_both, 3)},
    }  # fmt: skip


def report(found: dict[str, dict[str, Took]], ours: Path, theirs: Path | None) -> None:
    """Print the table as far as it goes and keep it: the whole takes half an hour."""
    ratios = {}
    print(f"{'':<18}{'case':<22}{'wall s':>9}{'CPU s':>9}{'wall ×':>9}{'CPU ×':>9}")
    for who, cases in found.items():
        for case, took in cases.items():
            base = found.get("cmake and ninja", {}).get(case)
            line = f"{who:<18}{case:<22}{took.wall:9.2f}{took.cpu:9.2f}"
            if base is not None:
                line += f"{took.wall / base.wall:9.2f}{took.cpu / base.cpu:9.2f}"
                ratios[f"{who}, {case}"] = round(took.cpu / base.cpu, 3)
            print(line)
    wheels = sizes(ours, theirs)
    print(f"wheel bytes (ours with server, launchers and demo model): {wheels}", flush=True)
    seconds = {who: {c: [round(t.wall, 2), round(t.cpu, 2)] for c, t in cases.items()}
               for who, cases in found.items()}  # fmt: skip
    save("build", {"seconds_wall_cpu": seconds, "cpu_ratio_to_cmake_and_ninja": ratios,
                   "wheel_bytes": wheels})  # fmt: skip


if __name__ == "__main__":
    main()
