"""Merge an adapter into its model, and write GGUF; started by ``uniscale export``.

    python -m uniscale.workers.export '{"adapter": …, "base": …, "hf": …, "gguf": …, …}'

Each step is whole or not there; the last line of standard output says as JSON what was done.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from uniscale.workers.begin import die_with_parent, failures_kept


def main() -> None:
    """Do the steps that the request names."""
    die_with_parent()
    request: dict[str, Any] = json.loads(sys.argv[1])
    done: dict[str, object] = {}
    with failures_kept(Path(request["failure"])):
        if request["adapter"]:
            merge(request["base"], Path(request["adapter"]), Path(request["hf"]))
            done["hf"] = request["hf"]
        if request["shards"]:
            from uniscale.workers.gpt_to_hf import convert

            convert(Path(request["shards"]), Path(request["base"]), Path(request["hf"]))
            done["hf"] = request["hf"]
        if request["gguf"]:
            from uniscale.workers.gguf_model import NotCovered, read
            from uniscale.workers.gguf_write import write

            path = Path(request["gguf"])
            try:
                write(read(Path(request["hf"])), path, request["type"], request["name"])
                done |= {"gguf": str(path), "bytes": path.stat().st_size}
            except NotCovered as error:
                done["refused"] = str(error)
    print(json.dumps(done), flush=True)


def merge(base: str | None, adapter: Path, out: Path) -> None:
    """Write the weights of ``base`` with what ``adapter`` learned, in the base's data type."""
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    place = base or str(PeftConfig.from_pretrained(str(adapter)).base_model_name_or_path)
    dtype: Any = getattr(AutoConfig.from_pretrained(place), "dtype", None) or torch.float32
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype)
    # 32 bits while they are added: a small change must not vanish before it is rounded once.
    model: Any = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    merged.to(dtype).save_pretrained(str(part))
    tokenizer = adapter if (adapter / "tokenizer_config.json").is_file() else place
    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(str(part))
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)


if __name__ == "__main__":
    main()
