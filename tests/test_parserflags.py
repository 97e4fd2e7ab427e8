"""The flags that are read off a parser's source are those that the parser has when it is run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from uniscale_build.build.engine_flags import record_flags
from uniscale_build.build.parserflags import read_flags
from uniscale_build.errors import ManifestError

# A package that fills its parser in all the ways that vLLM and SGLang do.
FILES = {
    "engine/__init__.py": "raise SystemExit('reading must not run this')\n",
    "engine/config/__init__.py": "from .model import ModelConfig as ModelConfig\n",
    "engine/config/model.py": """
from __future__ import annotations
from dataclasses import InitVar, dataclass
from typing import Annotated, ClassVar, Optional, Union
@dataclass
class Shared:
    trace: bool = False
    many: list[bool] | None = None
@dataclass
class ModelConfig(Shared):
    dtype: str = "auto"
    eager: bool = False
    maybe: Optional[bool] = None
    either: Union[bool, None] = None
    noted: Annotated[bool, "a note"] = False
    token: bool | str | None = None
    quoted: "bool" = False
    SHOWN: ClassVar[bool] = True
    given: InitVar[bool] = False
""",
    "engine/kwargs.py": """
import argparse, dataclasses, typing
from argparse import BooleanOptionalAction
def types(hint):
    if typing.get_origin(hint) is typing.Annotated:
        return types(typing.get_args(hint)[0])
    if typing.get_origin(hint) is typing.Union or hasattr(hint, "__or__") and str(hint).count("|"):
        return set().union(*map(types, typing.get_args(hint)))
    return {hint}
def get_kwargs(cls):
    hints = typing.get_type_hints(cls, include_extras=True)
    made = {}
    for field in dataclasses.fields(cls):
        kinds = types(hints[field.name])
        made[field.name] = {"default": None}
        if kinds == {bool, str, type(None)}:
            made[field.name] |= {"nargs": "?", "const": True}
        elif bool in kinds:
            made[field.name]["action"] = BooleanOptionalAction
    return made
""",
    "engine/args.py": """
import argparse
from dataclasses import dataclass
from engine.config import ModelConfig
from engine.kwargs import get_kwargs
from engine.extra import more as others
@dataclass
class Base:
    api_key: str = ""
    docs: bool = True
    @classmethod
    def add_cli_args(cls, parser):
        for key, value in get_kwargs(cls).items():
            parser.add_argument(f"--{key.replace('_', '-')}", **value)
        return parser
@dataclass
class Front(Base):
    host_name: str = ""
    ssl: bool | None = None
class Args:
    @staticmethod
    def add_cli_args(parser):
        model = get_kwargs(ModelConfig)
        group = parser.add_argument_group("ModelConfig")
        group.add_argument("--dtype", "-d", **model["dtype"])
        group.add_argument("--eager", **model["eager"])
        noted = model["noted"]
        group.add_argument("--noted-too", **noted)
        group.add_argument("--either", **{**model["either"], "default": None})
        for name in ("maybe",):
            group.add_argument("--maybe", **model["maybe"])
        group.add_argument("--token", **model["token"])
        group.add_argument("--quoted", **model["quoted"])
        group.add_argument("--trace", **model["trace"])
        group.add_argument("--many", **model["many"])
        parser.add_argument("--off", action=argparse.BooleanOptionalAction)
        parser.add_argument("--store", action="store_true")
        return others(parser)
class Command:
    def fill(self, parser):
        parser.add_argument("model_tag", nargs="?")
        parser = Front.add_cli_args(parser)
        parser = Args.add_cli_args(parser)
        print("--not-a-flag", parser)
        return parser
def unused(parser):
    parser.add_argument("--never")
""",
    "engine/extra.py": """
def more(parser):
    from argparse import BooleanOptionalAction
    parser.add_argument("--late", action=BooleanOptionalAction)
    return parser
def nothing(parser):
    return parser
""",
}
RUN = """
import argparse, json, sys, types
package = types.ModuleType("engine"); package.__path__ = [sys.argv[1] + "/engine"]
sys.modules["engine"] = package
from engine.args import Command
parser = argparse.ArgumentParser()
sys.stdout = sys.stderr
Command().fill(parser)
sys.stdout = sys.__stdout__
print(json.dumps(sorted({flag for action in parser._actions for flag in action.option_strings})))
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_they_are_the_parsers_own(tree: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", RUN, str(tree)], capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    real = json.loads(ran.stdout)
    assert list(read_flags(tree, "engine.args:Command.fill")) == real
    assert {"--no-eager", "--no-ssl", "--no-late", "-d", "--host-name"} <= set(real)
    assert not {"--no-token", "--no-many", "--never", "--not-a-flag"} & set(real)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ("engine.args:Command.absent", "there is no function"),
        ("engine.args:Absent.fill", "there is no function"),
        ("engine.absent:fill", "there is no function"),
        ("engine.args:Command", "there is no function"),
        ("engine.args", "there is no function"),
        ("engine.extra:nothing", "adds no flag"),
    ],
)
def test_what_is_no_such_function_is_told(tree: Path, entry: str, what: str) -> None:
    with pytest.raises(ManifestError, match=what) as told:
        read_flags(tree, entry)
    assert told.value.slug == "no-parser"
    launch, note = record_flags(tree, _launch(entry))
    assert "flags" not in launch["serve"] and what in note


def test_they_are_recorded_and_the_place_of_the_parser_is_not(tree: Path) -> None:
    launch, note = record_flags(tree, _launch("engine.args:Command.fill"))
    assert not note and "--no-eager" in launch["serve"]["flags"]
    assert "parser" not in launch["serve"]


def test_source_that_is_none_leaves_flags_unknown(tree: Path) -> None:
    (tree / "engine" / "extra.py").write_text("def more(:", encoding="utf-8")
    launch, note = record_flags(tree, _launch("engine.args:Command.fill"))
    assert "flags" not in launch["serve"] and "flags unknown" in note


ASKED = """\
#include <stdio.h>
int chip(void);
int main(void) { return chip() + puts("--model PATH  the model") < 0; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler on this machine")
def test_a_program_is_asked_with_the_libraries_that_it_was_linked_with(tmp_path: Path) -> None:
    sdk = tmp_path / "sdk"
    sdk.mkdir()
    (tmp_path / "chip.c").write_text("int chip(void) { return 0; }\n")
    (tmp_path / "asked.c").write_text(ASKED)
    library, program = sdk / "libchip.so.1", tmp_path / "asked"
    for words in (["-shared", "-fPIC", "-Wl,-soname,libchip.so.1", "-o", library, "chip.c"],
                  ["-o", program, "asked.c", library]):  # fmt: skip
        subprocess.run(["cc", *map(str, words)], cwd=tmp_path, check=True)
    launch = {"serve": {"argv": ["asked"], "help": ["--help"]}}
    told, note = record_flags(tmp_path, launch, [tmp_path / "none", sdk])
    assert told["serve"]["flags"] == ["--model"] and not note
    told, note = record_flags(tmp_path, launch)
    assert "flags" not in told["serve"] and "libchip.so.1" in note


def _launch(entry: str) -> dict[str, Any]:
    return {"serve": {"argv": ["python", "-m", "engine"], "parser": entry}}
