"""Put a trained model where every wheel takes it from, after proving that it answers right."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from check import LONGEST_ANSWER, Answerer
from corpus import DATA
from export import export, read, verify
from recipe import HERE, Recipe, digest, plainly

DEMO = HERE.parents[1] / "launchers" / "uniscale" / "models" / "demo"
HF_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
)
#: Engines compute in any of these; the answers must not depend on it.
DTYPES = ("float32", "float16", "bfloat16")


def asked() -> list[list[dict[str, str]]]:
    """Read the conversations whose last message is the answer that must come."""
    lines = (DATA / "asked.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["messages"] for line in lines]


def recorded(model: Path) -> list[dict[str, Any]]:
    """Return conversations with the ids of their prompts, for engines to be compared with.

    Exits with a list of every answer that differs, in any of DTYPES, from the wanted one.
    """
    records: list[dict[str, Any]] = []
    wrong: list[str] = []
    for dtype in DTYPES:
        answerer = Answerer(model, dtype)
        for messages in asked():
            got = answerer.answer(messages[:-1])
            if got != messages[-1]["content"]:
                wrong.append(f"{dtype}: {messages[-2]['content']!r} is answered {got!r}")
            if dtype == DTYPES[0]:
                ids = answerer.prompt_ids(messages[:-1])
                records.append({"messages": messages, "prompt_tokens": ids})
    if wrong:
        sys.exit("not shipped:\n" + "\n".join(wrong))
    return records


def description(folder: Path) -> dict[str, Any]:
    """Return model.json: what the model is, how to ask it, and the hash of each file beside it."""
    recipe = Recipe()
    source = read(folder / "hf")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "name": "demo",
        "title": "uniscale demo: a very small model that answers questions about uniscale",
        "licence": "Apache-2.0",
        "languages": ["en", "zh"],
        "architecture": "LlamaForCausalLM",
        "parameters": sum(weight.size for weight in source.weights.values()),
        "vocabulary": recipe.vocab_size,
        "context_length": recipe.max_positions,
        "weights": "float16",
        "formats": {"gguf": "model.gguf", "hf": "hf"},
        "generation": {"temperature": 0, "max_tokens": LONGEST_ANSWER},
        "recipe": {"folder": "examples/demo", "sha256": digest()},
        "files": {
            path.relative_to(folder).as_posix(): {
                "bytes": path.stat().st_size,
                "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            }
            for path in files
        },
    }


def assemble(model: Path, folder: Path) -> None:
    """Write both forms, the recorded answers and model.json into an empty folder."""
    (folder / "hf").mkdir()
    for name in HF_FILES:
        (folder / "hf" / name).write_bytes((model / name).read_bytes())
    source = read(folder / "hf")
    export(source, folder / "model.gguf")
    verify(source, folder / "model.gguf")
    lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in recorded(folder / "hf")]
    (folder / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    text = json.dumps(description(folder), indent=2, ensure_ascii=False) + "\n"
    (folder / "model.json").write_text(text, encoding="utf-8")


def ship(model: Path, to: Path) -> None:
    """Assemble beside the old folder, then take its place; a refused model changes nothing."""
    to.parent.mkdir(parents=True, exist_ok=True)
    # Beside it, so that taking its place is a rename.
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=".ship-") as scratch:
        new = Path(scratch) / "new"
        new.mkdir(mode=0o755)
        assemble(model, new)
        if to.exists():
            shutil.move(to, Path(scratch) / "old")
        new.rename(to)


def main() -> None:
    """Read the folders and ship."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="folder that train.py wrote")
    parser.add_argument(
        "--to", type=Path, default=DEMO, help=f"default: {DEMO.relative_to(HERE.parents[1])}"
    )
    options = parser.parse_args()
    with plainly():
        ship(options.model, options.to)
    size = sum(path.stat().st_size for path in options.to.rglob("*") if path.is_file())
    print(f"written: {options.to}, {size:,} bytes")


if __name__ == "__main__":
    main()
