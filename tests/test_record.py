"""payload.json, SBOM and provenance: complete, valid by their schemas, and the same every time."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.build.distinfo import write_dist_info
from uniscale_build.errors import Problems, WheelError
from uniscale_build.recordfile import file_sha256
from uniscale_build.records import record
from uniscale_build.records.sbom import upstream_purl

EPOCH = 1577836800
TREES = ["1" * 40, "2" * 40, "3" * 40]
FACTS: dict[str, Any] = {
    "backend": "llama.cpp",
    "device": "cpu",
    "tasks": ["serve", "infer"],
    "pin": {
        "version": "0.5.0",
        "commit": "c" * 40,
        "tree": TREES[0],
        "origins": ["llama_cpp_python-0.3.36.tar.gz (vendor/llama.cpp)",
                    "https://github.com/ggml-org/llama.cpp.git"],
    },
    "layers": [
        {"name": "record", "title": "Tells its build", "why": "So that users can ask.",
         "owner": "uniscale", "upstream": "inappropriate", "base": TREES[0], "result": TREES[1]},
        {"name": "fix", "title": "A fix of theirs", "upstream": "backport", "base": TREES[1],
         "result": TREES[2]},
    ],
    "tree": TREES[2],
    "recipe": {"kind": "cmake", "defines": {"GGML_NATIVE": "OFF"}},
    "requirements": ["torch==2.13.0"],
    "environment": {"OMP_NUM_THREADS": "1"},
}  # fmt: skip
OPTIONS: dict[str, Any] = {
    "distribution": "uniscale-llama-cpp",
    "plan": "a" * 64,
    "toolchain": {"compiler.C": "gcc 12.2.0 (x86_64-linux-gnu)", "libc": "glibc-2.36"},
    "launch": {"serve": {"argv": ["bin/llama-server"]}},
    "verified": {"built": "every commit", "ran": ["serve", "infer"]},
    "external": ("libc.so.6", "libm.so.6"),
    "visible": "X_VISIBLE",
    "upstream": {"purl": "pkg:github/ggml-org/llama.cpp", "license": "MIT",
                 "archives": [{"name": "x.tar.gz", "sha256": "b" * 64}]},
}  # fmt: skip


def payload(**changes: Any) -> dict[str, Any]:
    return record.payload_json({**copy.deepcopy(FACTS), **changes}, **OPTIONS)


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A payload's folder with its record and dist-info."""
    folder = tmp_path / "llama.cpp-cpu"
    folder.mkdir()
    (folder / "payload.json").write_text(json.dumps(payload()))
    write_dist_info(folder, name="uniscale-llama-cpp", version="0.5.0", requires=[],
                    entry_points=None, tag="py3-none-any")  # fmt: skip
    return folder


# payload.json -------------------------------------------------------------------------------


def test_the_record_says_everything() -> None:
    info = payload()
    assert json.loads(json.dumps(info)) == info
    assert record.check_payload(info) == []
    assert record.payload_name(info) == "llama.cpp-cpu"
    assert set(info) == {
        "schema", "backend", "device", "distribution", "version", "tasks", "upstream", "layers",
        "patched_tree", "plan", "toolchain", "settings", "sdk", "launch", "device_environment",
        "verified", "external_libraries", "requirements",
    }  # fmt: skip
    assert info["upstream"]["origin"] == "https://github.com/ggml-org/llama.cpp.git"
    assert info["upstream"]["commit"] == "c" * 40
    assert info["layers"][0]["why"] == "So that users can ask."
    assert info["verified"] == {"built": ["every commit"], "ran": ["serve", "infer"], "not_run": ""}
    assert info["device_environment"]["set"] == {"OMP_NUM_THREADS": "1"}
    assert info["settings"]["defines"] == {"GGML_NATIVE": "OFF"}


def test_what_was_tried_short_of_a_build_stays_with_the_wheel() -> None:
    told = {"configured": "front end only", "tried": ["a", "b"], "note": "no chip"}
    made = record.payload_json(copy.deepcopy(FACTS), **{**OPTIONS, "verified": told})
    assert made["verified"] == {
        "built": [], "ran": [], "not_run": "no chip",
        "partly": ["configured: front end only", "tried: a", "tried: b"],
    }  # fmt: skip


def test_without_layers_the_tree_is_upstreams() -> None:
    assert payload(layers=[], tree=TREES[0])["patched_tree"] == TREES[0]
    with pytest.raises(WheelError, match="patched_tree is"):
        payload(layers=[])


def test_contradictions_are_all_told() -> None:
    layers = copy.deepcopy(FACTS["layers"])
    layers[1]["base"] = TREES[0]
    layers[0]["result"] = "short"
    pin = {**FACTS["pin"], "commit": "main"}
    with pytest.raises(Problems) as caught:
        payload(layers=layers, pin=pin)
    told = " ".join(error.what for error in caught.value.findings())
    assert "upstream.commit must be a whole git object id" in told
    assert "layers[0].result must be" in told
    assert "layer fix is based on" in told


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"backend": ""}, {"backend": None}, {"plan": "x"}, {"layers": {}},
     {"upstream": []}, {"launch": None}, {"tasks": "serve"}, {"version": 3}],
)  # fmt: skip
def test_a_record_that_is_wrong_is_noticed(change: dict[str, object]) -> None:
    assert record.check_payload({**payload(), **change})
    assert record.check_payload([]) == ["it must hold an object"]


# SBOM ---------------------------------------------------------------------------------------


@pytest.mark.skipif(
    importlib.util.find_spec("cyclonedx") is None, reason="cyclonedx-python-lib is not installed"
)
@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_sbom_is_valid_by_the_strict_schema(count: int, prefix: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    found = [payload(), payload(device="nvidia")][:count]
    text = record.sbom(found, name="uniscale", version="0.1.0+llamacpp.cpu", epoch=EPOCH,
                       prefixes={"llama.cpp-cpu": prefix})  # fmt: skip
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert len(json.loads(text)["components"]) == count


def test_the_sbom_tells_upstream_patches_and_hashes(prefix: Path) -> None:
    options: dict[str, Any] = {"name": "uniscale", "version": "0.1+cpu", "epoch": EPOCH}
    text = record.sbom([payload()], **options, prefixes={"llama.cpp-cpu": prefix})
    assert text == record.sbom([payload()], **options, prefixes={"llama.cpp-cpu": prefix})
    document = json.loads(text)
    assert document["metadata"]["timestamp"] == "2020-01-01T00:00:00Z"
    assert document["metadata"]["component"]["purl"] == "pkg:pypi/uniscale@0.1%2Bcpu"
    [component] = document["components"]
    [ancestor] = component["pedigree"]["ancestors"]
    assert ancestor["purl"] == f"pkg:github/ggml-org/llama.cpp@{'c' * 40}"
    patches = component["pedigree"]["patches"]
    assert [patch["type"] for patch in patches] == ["unofficial", "backport"]
    assert patches[0]["resolves"][0]["description"] == "So that users can ask."
    assert component["components"][0]["hashes"] == [
        {"alg": "SHA-256",
         "content": file_sha256(prefix / "uniscale_llama_cpp-0.5.0.dist-info/RECORD")}
    ]  # fmt: skip
    serial = document["serialNumber"]
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-"
                        r"[0-9a-f]{12}", serial)  # fmt: skip
    other = json.loads(record.sbom([payload(tasks=["serve"])], **{**options, "epoch": EPOCH + 1}))
    assert other["serialNumber"] != serial


@pytest.mark.parametrize(
    ("origin", "purl"),
    [
        ("https://github.com/vLLM-project/vLLM.git", "pkg:github/vllm-project/vllm@C"),
        ("https://github.com/a/b (src)", "pkg:github/a/b@C"),
        ("https://git.example.com/x/y.git",
         "pkg:generic/llama.cpp@C?vcs_url=git%2Bhttps%3A%2F%2Fgit.example.com%2Fx%2Fy.git%40C"),
        ("x-1.0.tar.gz (vendor)", "pkg:generic/llama.cpp@C"),
    ],
)  # fmt: skip
def test_the_package_url_of_upstream(origin: str, purl: str) -> None:
    info = payload()
    info["upstream"].pop("purl")
    info["upstream"]["origin"] = origin
    assert upstream_purl(info) == purl.replace("C", "c" * 40)


# Provenance ---------------------------------------------------------------------------------


def statement(prefix: Path, **options: Any) -> dict[str, Any]:
    plan = {"device": "cpu", "version": "0.1+cpu", "settings": {"compression": "default"}}
    text = record.provenance([payload()], prefixes={"llama.cpp-cpu": prefix}, plan=plan,
                             epoch=EPOCH, **options)  # fmt: skip
    found: dict[str, Any] = json.loads(text)
    return found


def test_the_provenance_has_what_the_specifications_require(prefix: Path) -> None:
    found = statement(prefix)
    # in-toto Statement v1
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    [subject] = found["subject"]
    inner = "uniscale_llama_cpp-0.5.0.dist-info/RECORD"
    assert subject["name"] == f"uniscale_payloads/llama.cpp-cpu/{inner}"
    assert subject["digest"] == {"sha256": file_sha256(prefix / inner)}
    # SLSA provenance v1
    definition = found["predicate"]["buildDefinition"]
    assert re.match(r"[a-z][a-z0-9+.-]*:", definition["buildType"])
    assert definition["externalParameters"]["backends"] == ["llama.cpp"]
    for item in definition["resolvedDependencies"]:
        assert item.get("uri") or item.get("digest") or item.get("content")
    details = found["predicate"]["runDetails"]
    assert re.match(r"[a-z][a-z0-9+.-]*:", details["builder"]["id"])
    assert details["metadata"]["startedOn"] == "2020-01-01T00:00:00Z"
    other = statement(prefix, builder="https://ci.example.com/uniscale")
    assert other["predicate"]["runDetails"]["builder"]["id"] == "https://ci.example.com/uniscale"


def test_the_provenance_lists_pin_archives_layers_and_tools(prefix: Path) -> None:
    definition = statement(prefix)["predicate"]["buildDefinition"]
    items = {item["name"]: item for item in definition["resolvedDependencies"]}
    assert items["llama.cpp"]["digest"] == {"gitCommit": "c" * 40, "gitTree": TREES[0]}
    assert items["llama.cpp"]["uri"] == (
        f"git+https://github.com/ggml-org/llama.cpp.git@{'c' * 40}"
    )
    assert items["x.tar.gz"]["digest"] == {"sha256": "b" * 64}
    assert items["llama.cpp/record"]["digest"] == {"gitTree": TREES[1]}
    assert items["llama.cpp/fix"]["annotations"]["base"] == TREES[1]
    assert items["toolchain/compiler.C"]["annotations"]["version"].startswith("gcc 12.2.0")


def test_a_payload_without_record_has_no_provenance(tmp_path: Path) -> None:
    with pytest.raises(WheelError, match="no RECORD"):
        statement(tmp_path)
