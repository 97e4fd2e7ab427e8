from __future__ import annotations

import json
from pathlib import Path

import jsonschema  # type: ignore[import-untyped,unused-ignore]
import pytest
import yaml
from uniscale_build.bringup import schema
from uniscale_build.bringup.schema_help import HELP

from .native import ROOT

SCHEMAS = ROOT / "manifests" / "schema"
FOLDERS = {"backend": "backends/*", "device": "devices/*", "adaptation": "adaptations/*/*"}


def test_the_schemas_in_the_repository_are_current() -> None:
    assert [error.render() for error in schema.stale(SCHEMAS)] == []


def test_a_stale_schema_is_told_and_written_again(tmp_path: Path) -> None:
    assert schema.write(tmp_path) == ["backend.json", "device.json", "adaptation.json"]
    assert schema.write(tmp_path) == []
    (tmp_path / "device.json").write_text("{}", encoding="utf-8")
    (error,) = schema.stale(tmp_path)
    assert error.where == "manifests/schema/device.json"
    assert schema.write(tmp_path) == ["device.json"]


@pytest.mark.parametrize("kind", FOLDERS)
def test_an_editor_accepts_every_manifest_of_the_project(kind: str) -> None:
    made = json.loads((SCHEMAS / f"{kind}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(made)
    checker = jsonschema.Draft202012Validator(made)
    paths = list((ROOT / "manifests").glob(f"{FOLDERS[kind]}.yaml"))
    assert paths
    for path in paths:
        # As editors do: with YAML's own types.
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert [f"{path}: {error.message}" for error in checker.iter_errors(found)] == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"visibel": "X"},
        {"aliases": "musa"},
        {"vllm": {"route": "plug-in"}},
        {"sdk": {"roots": []}},
        {"facts": [{"of": ["colour"], "level": "verified"}]},
        {"title": None},
    ],
)
def test_an_editor_refuses_what_the_reader_refuses(wrong: dict[str, object]) -> None:
    made = schema.schemas()["device.json"]
    sound = {"device": "x", "title": "x", "vendor": "x", "label": "x"}
    checker = jsonschema.Draft202012Validator(made)
    assert checker.is_valid(sound)
    assert not checker.is_valid({**sound, **wrong})


def test_every_sentence_is_of_a_key() -> None:
    asked: set[str] = set()

    def walk(path: str, made: object) -> None:
        if isinstance(made, dict):
            for key, below in made.get("properties", {}).items():
                asked.add(f"{path}.{key}")
                walk(f"{path}.{key}", below)
            walk(path, made.get("items"))

    for name, made in schema.schemas().items():
        walk(name.removesuffix(".json"), made)
    assert set(HELP) - asked == set()
