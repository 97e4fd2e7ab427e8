"""What a model answers when transformers run it: the measure for engines."""

from __future__ import annotations

import json
from collections.abc import Mapping

from .conftest import ROOT, Installed

DEMO = ROOT / "launchers" / "uniscale" / "models" / "demo" / "hf"
TOKENS = 24
GENERATE = """\
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, prompt, tokens = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
ids = tokenizer.apply_chat_template([{"role": "user", "content": prompt}],
                                    add_generation_prompt=True, return_tensors="pt",
                                    return_dict=True)
out = model.generate(**ids, do_sample=False, max_new_tokens=int(tokens))
text = tokenizer.decode(out[0, ids["input_ids"].shape[1]:], skip_special_tokens=True)
print(json.dumps({"text": text, "prompt": ids["input_ids"].shape[1]}))
"""


def check_answer(engine: Installed, prompt: str, answer: Mapping[str, object]) -> None:
    """Assert that ``answer`` (of ``uniscale infer --json``) is what transformers generate too."""
    out = engine.ok("python", "-c", GENERATE, str(DEMO), prompt, str(TOKENS))
    wanted = json.loads(out.splitlines()[-1])
    usage = answer["usage"]
    assert isinstance(usage, dict)
    assert usage["prompt_tokens"] == wanted["prompt"]
    assert str(answer["text"]).strip() == wanted["text"].strip()
