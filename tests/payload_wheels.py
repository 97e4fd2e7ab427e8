"""Wheels with payload records, as `uniscale-build wheel --split` makes them, in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uniscale_build.ids import label as local_label
from uniscale_build.ids import slug
from uniscale_build.records.record import payload_json, sbom
from uniscale_build.wheels.wheel import Member, WheelFile, write_wheel

EPOCH = 1577836800
TREES = ("1" * 40, "2" * 40)
DEVICES: dict[str, dict[str, Any]] = {
    "cpu": {"title": "Any x86-64 or Arm processor", "names": ["通用处理器"], "label": "cpu",
            "image_packages": [], "aliases": ["host"], "visible": None, "sdk": None},
    "Metax_C550": {"title": "MetaX C550", "names": ["沐曦", "曦云 C550"], "label": "maca",
                   "image_packages": ["torch", "triton"], "aliases": ["metax", "maca"],
                   "visible": "CUDA_VISIBLE_DEVICES",
                   "sdk": {"name": "MACA", "version": "3.0.1", "label": None}},
    "MUSA_S5000": {"title": "Moore Threads MTT S5000", "names": ["摩尔线程"], "label": "musa",
                   "image_packages": ["torch"], "aliases": ["musa"],
                   "visible": "MUSA_VISIBLE_DEVICES",
                   "sdk": {"name": "MUSA", "version": "4.3.0", "label": "musa43"}},
}  # fmt: skip


def payload_record(backend: str, version: str, device: str, **changes: Any) -> dict[str, Any]:
    """The content of a valid ``payload.json``."""
    about = DEVICES.get(device, {**DEVICES["cpu"], "title": device, "label": local_label(device)})
    facts = {
        "backend": backend,
        "device": device,
        "tasks": ["serve", "infer"],
        "pin": {"version": version, "commit": "c" * 40, "tree": TREES[0],
                "origins": [f"https://example.invalid/{slug(backend)}.git"]},
        "layers": [{"name": "record", "title": "Tells its build", "why": "So that users can ask.",
                    "owner": "tests", "upstream": "inappropriate", "base": TREES[0],
                    "result": TREES[1]}],
        "tree": TREES[1],
        "recipe": {"kind": "cmake"},
        "requirements": [],
        "environment": {},
        **changes,
    }  # fmt: skip
    return payload_json(
        facts,
        distribution=f"uniscale-{slug(backend)}",
        plan="a" * 64,
        toolchain={"compiler.C": "gcc 12.2.0 (x86_64-linux-gnu)"},
        launch={"serve": {"argv": ["bin/server"], "formats": ["gguf"]}},
        verified={"built": "here", "ran": "one answer"},
        external=("libc.so.6",),
        visible=about["visible"],
        aliases=about["aliases"],
        device={key: about[key] for key in ("title", "names", "label", "image_packages")},
        sdk=about["sdk"],
        upstream={"title": backend, "license": "MIT", "homepage": "https://example.invalid/"},
    )


def payload_wheel(
    out: Path,
    backend: str = "mini",
    version: str = "1.2.3",
    device: str = "cpu",
    *,
    tag: str = "py3-none-any",
    requires: Sequence[str] = ("uniscale>=0.1.0",),
    python: str = ">=3.10",
    content: bytes = b"x = 1\n",
    record: dict[str, Any] | None = None,
    metadata: str = "",
    **changes: Any,
) -> WheelFile:
    """A split wheel of one payload; ``record`` replaces payload.json, ``changes`` its facts."""
    name = f"uniscale-{slug(backend)}"
    about = DEVICES.get(device, {"sdk": None, "label": local_label(device)})
    label = (about["sdk"] or {}).get("label") or about["label"]
    good = payload_record(backend, version, device, **changes)
    info = good if record is None else record
    folder = f"uniscale_payloads/{name}-{device}"
    bill = sbom([good], name=name, version=f"{version}+{label}", epoch=EPOCH)
    statement = {"_type": "https://in-toto.io/Statement/v1", "subject": [], "predicate": {}}
    lines = [f"Requires-Dist: {text}\n" for text in requires]
    lines += [f"Requires-Python: {python}\n"] if python else []
    return write_wheel(
        out,
        name=name,
        version=f"{version}+{label}",
        tag=tag,
        members=[
            Member(f"{folder}/payload.json", json.dumps(info).encode()),
            Member(f"{folder}/{slug(backend).replace('-', '_')}/__init__.py", content),
            Member(f"{folder}.txt", b"see payload.json\n"),
        ],
        metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}+{label}\n"
        + "".join(lines) + metadata,
        dist_info_extra=[
            Member("sboms/uniscale.cdx.json", bill.encode()),
            Member("provenance.intoto.json", json.dumps(statement).encode()),
        ],
        epoch=EPOCH,
        threads=1,
    )  # fmt: skip


def plain_wheel(
    out: Path, version: str = "0.1.0", *, name: str = "uniscale", requires: Sequence[str] = ()
) -> WheelFile:
    """A wheel without payloads: a package ``uniscale`` that only has a version."""
    lines = "".join(f"Requires-Dist: {text}\n" for text in requires)
    return write_wheel(
        out,
        name=name,
        version=version,
        tag="py3-none-any",
        members=[Member(f"{name.replace('-', '_')}/__init__.py", f"V = {version!r}\n".encode())],
        metadata=f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{lines}",
        epoch=EPOCH,
        threads=1,
    )
