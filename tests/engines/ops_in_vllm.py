"""Generates with vLLM in this process and prints which of our operators ran, and how often.

``python ops_in_vllm.py MODEL``; the last line is JSON: calls by operator, and the tokens.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def main(model: str) -> None:
    """One greedy answer, with PyTorch's profiler listening."""
    import torch
    from vllm import LLM, SamplingParams

    engine = LLM(model=model, enforce_eager=True, max_model_len=512, dtype="float32")
    told = [{"role": "user", "content": "Who are you?"}]
    sampling = SamplingParams(temperature=0.0, max_tokens=16)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as seen:
        (answer,) = engine.chat(told, sampling, use_tqdm=False)
    counted = Counter(event.name for event in seen.events() if event.name.startswith("uniscale::"))
    print(json.dumps({"calls": counted, "tokens": list(answer.outputs[0].token_ids)}))


if __name__ == "__main__":
    main(sys.argv[1])
