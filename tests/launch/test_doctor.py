"""`uniscale doctor`: what can start, what cannot, and why."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from .helpers import Bench, launch, lay_payload, record
from .test_chips import with_library


def told(bench: Bench, code: int = 0) -> dict[str, Any]:
    result = bench.run("doctor", "--json")
    assert result.code == code, result
    found: dict[str, Any] = json.loads(result.out)
    return found


def faults(bench: Bench) -> dict[str, str]:
    """The faults of the only payload, by name."""
    (payload,) = told(bench, code=13)["payloads"]
    return {
        one["name"]: f"{one['what']} | {one['hint']}"
        for one in payload["findings"]
        if one["state"] in ("missing", "wrong")
    }


def lay(bench: Bench, **changes: Any) -> Path:
    return lay_payload(bench.payloads, record(**changes))


def lay_package(folder: Path, name: str, version: str) -> None:
    place = folder / f"{name}-{version}.dist-info"
    place.mkdir(parents=True)
    (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_machine_that_can_serve(bench: Bench) -> None:
    lay(bench)
    found = told(bench)
    assert found["healthy"] and found["chips"] == [] and found["chips_from"] == "manifests"
    assert found["machine"]["cores"] == os.cpu_count()
    text = bench.run("doctor").ok().out
    assert "ok llama.cpp (cpu) 0.5.0.dev0: serve, infer; built and run before" in text
    assert "none found: engines run on the processor" in text
    assert "smg is not installed" in text and "pip install 'uniscale[gateway]'" in text
    assert len(text.splitlines()) < 40, "it fits a screen"


def test_no_payload_and_a_broken_one(bench: Bench) -> None:
    assert told(bench, code=13)["payloads"] == []
    assert "-- none is installed" in bench.run("doctor").out
    lay_payload(bench.payloads, "{")
    assert "it is not JSON" in faults(bench)["record"]
    result = bench.run("doctor")
    assert "-- broken-cpu" in result.out and "Traceback" not in result.out + result.err


def test_a_program_that_is_missing_or_may_not_run(bench: Bench) -> None:
    prefix = lay(bench)
    (prefix / "bin" / "engine").chmod(0o644)
    assert faults(bench)["program"].endswith(f"chmod +x {prefix}/bin/engine")
    (prefix / "bin" / "engine").unlink()
    assert "bin/engine is not there" in faults(bench)["program"]


def test_a_python_package_that_is_missing(bench: Bench) -> None:
    serve = launch(argv=["python", "-m", "engine_module"])
    prefix = lay(bench, launch={"serve": serve})
    assert told(bench)["healthy"]
    (prefix / "engine_module.py").unlink()
    assert "its Python package engine_module is not there" in faults(bench)["program"]


def test_requirements_of_the_environment(bench: Bench) -> None:
    kept = ["numpy<1", "no-such-thing>=2", "typer", "other; python_version<'3'", "[bad"]
    lay(bench, requirements={"kept": kept})
    lay_package(bench.root, "numpy", "2.1.0")
    told_ = faults(bench)["packages"]
    assert "2 of its requirements are not met: numpy<1 (here: 2.1.0), no-such-thing>=2" in told_
    assert told_.endswith("pip install 'numpy<1' 'no-such-thing>=2'")


def test_libraries_and_machine(bench: Bench) -> None:
    lay(
        bench,
        external_libraries=["libc.so.6", "libno_such.so.9"],
        toolchain={"machine": "s390x"},
    )
    found = faults(bench)
    assert "the machine lacks libno_such.so.9 |" in found["libraries"]
    assert "it was built for s390x" in found["machine"]
    (bench.payloads / "llama.cpp-cpu" / "lib").mkdir()
    (bench.payloads / "llama.cpp-cpu" / "lib" / "libno_such.so.9").touch()
    assert "libraries" not in faults(bench)


def lay_device(bench: Bench, device: str, torch: str | None = None, **changes: Any) -> None:
    own = {"visible": "X", "nodes": ["/dev/no-such-chip*"], "set": {}}
    kept = {"kept": ["torch"], "provided": []}
    lay(bench, **{"device": device, "device_environment": own, "requirements": kept, **changes})
    if torch:
        lay_package(bench.root, "torch", torch)


def test_chips_that_are_not_here(bench: Bench) -> None:
    lay_device(bench, "Metax_C550", "2.10.0+metax3.8")
    found = faults(bench)
    assert "is in this machine (looked for /dev/no-such-chip*)" in found["chips"]
    assert "in a container, was the device passed in?" in found["chips"]
    assert "torch" not in found


def test_a_torch_for_another_chip(bench: Bench) -> None:
    lay_device(bench, "nvidia", "2.13.0+cpu")
    assert "torch 2.13.0+cpu is for cpu; nvidia needs torch+cu…" in faults(bench)["torch"]


def test_a_torch_without_its_vendor_package(bench: Bench) -> None:
    lay_device(bench, "Cambricon_MLU", "2.7.0+cpu")
    told_ = faults(bench)["torch"]
    assert "does not reach the chips without torch-mlu, torch-mlu-ops" in told_


def test_a_torch_that_comes_with_the_image(bench: Bench) -> None:
    site = bench.root / "site"  # without a torch that may be installed here
    site.mkdir()
    for entry in bench.site.iterdir():
        if not entry.name.startswith("torch"):
            (site / entry.name).symlink_to(entry)
    bench.environ["PYTHONPATH"] = bench.environ["PYTHONPATH"].replace(str(bench.site), str(site))
    lay_device(bench, "MUSA_S5000", requirements={"kept": [], "provided": ["torch"]})
    assert "start it in the vendor's image" in faults(bench)["torch"]


def test_a_driver_that_is_too_old(bench: Bench) -> None:
    bin_ = bench.root / "bin"
    bin_.mkdir()
    (bin_ / "nvidia-smi").write_text("#!/bin/sh\necho 'CUDA Version: 12.4'\n")
    (bin_ / "nvidia-smi").chmod(0o755)
    bench.environ["PATH"] = f"{bin_}:{bench.environ['PATH']}"
    lay_device(bench, "nvidia", "2.13.0+cu130", sdk={"name": "CUDA", "version": "13.0.88"})
    assert (
        "it was built with CUDA 13.0.88; the driver here runs up to 12.4" in faults(bench)["driver"]
    )


def test_chips_by_the_vendors_own_libraries(bench: Bench) -> None:
    lay(bench)
    with_library(bench)
    found = told(bench)
    assert found["chips_from"] == "gpustack-runtime" and len(found["chips"]) == 5
    text = bench.run("doctor").out
    assert "ok 4 × S5000 (MUSA_S5000; 0 to 3), 81920 MiB, driver 2.7.0, runs SDK 4.3" in text


def test_a_vendor_library_that_fails_is_a_remark(bench: Bench) -> None:
    lay(bench)
    with_library(bench, "raise OSError('libmusa.so: cannot open shared object file')")
    found = told(bench)
    assert found["healthy"] and "cannot open shared object file" in found["chips_note"]
