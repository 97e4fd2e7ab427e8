"""vLLM for MLU with PyTorch's device for others in the chip's place: no MLU is used.

``python mlu_stand_in.py platform`` names that device ``mlu`` and stands in for ``torch.mlu``'s
functions: what the platform, the attention's choice and the worker ask, and what they refuse.
``python mlu_stand_in.py generate MODEL…`` lets the worker, the runner and the attention generate
with the processor's tensors (that device has no kernels) and compares with transformers.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_USE_V1": "0", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
               "MLU_VISIBLE_DEVICES": "3,5"}  # fmt: skip

import torch

GIB = 1 << 30
CHIPS = 2


class Chips(types.ModuleType):
    """``torch.mlu`` as torch_mlu documents it, over two chips of 80 GiB that count their calls."""

    def __init__(self) -> None:
        super().__init__("torch.mlu")
        self.used, self.growth, self.selected = 2 * GIB, 0, 0
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name in ("empty_cache", "reset_peak_memory_stats", "manual_seed_all"):
            return lambda *words: self.calls.append(name)
        raise AttributeError(name)

    def synchronize(self, device: Any = None) -> None:
        self.calls.append("synchronize")
        self.used += self.growth

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return CHIPS

    def current_device(self) -> int:
        return self.selected

    def set_device(self, device: Any) -> None:
        self.selected = torch.device(device).index or 0

    def get_device_name(self, index: int = 0) -> str:
        return f"MLU590-{index}"

    def mem_get_info(self, index: int = 0) -> tuple[int, int]:
        return 80 * GIB - self.used, 80 * GIB

    def memory_allocated(self, device: Any = None) -> int:
        return self.used - 2 * GIB

    def max_memory_allocated(self, device: Any = None) -> int:
        return self.used - 1 * GIB

    # What PyTorch itself asks a device module.
    def is_initialized(self) -> bool:
        return True

    def _is_in_bad_fork(self) -> bool:
        return False


def register() -> Chips:
    """PyTorch's device for others is called mlu from here on, and torch.mlu is there."""
    torch.utils.rename_privateuse1_backend("mlu")
    chips = Chips()
    torch._register_device_module("mlu", chips)
    return chips


def check_platform(chips: Chips) -> None:
    """Found by its entry point; answers what it is asked."""
    from vllm.platforms import _Backend, current_platform

    assert type(current_platform).__name__ == "MluPlatform", current_platform
    assert current_platform.is_out_of_tree() and not current_platform.is_cuda_alike()
    assert current_platform.device_type == "mlu"
    assert torch.device("mlu", 1).type == "mlu"
    assert current_platform.device_control_env_var == "MLU_VISIBLE_DEVICES"
    assert current_platform.get_device_name(1) == "MLU590-1"
    assert current_platform.get_device_uuid(1) == "mlu-5"
    assert current_platform.get_device_total_memory() == 80 * GIB
    assert current_platform.get_current_memory_usage() == 0.0
    assert current_platform.get_device_capability() is None
    assert not current_platform.is_pin_memory_available()

    def choose(backend: Any, mla: bool) -> Any:
        return current_platform.get_attn_backend_cls(
            backend, 64, torch.bfloat16, None, 16, False, mla
        )

    chosen = "vllm_mlu.attention.PagedAttentionBackend"
    assert choose(None, False) == choose(_Backend.XFORMERS, False) == chosen
    with refused(NotImplementedError, "latent attention"):
        choose(None, True)


@contextlib.contextmanager
def refused(kind: type[Exception], *words: str) -> Any:
    """What is in it must fail so, in these words."""
    try:
        yield
    except kind as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, (missing, str(error))
    else:
        raise AssertionError(f"not refused: {words}")


def configuration(model: str, **words: Any) -> Any:
    from vllm.engine.arg_utils import EngineArgs

    given = {"model": model, "dtype": "float32", "max_model_len": 256, "skip_tokenizer_init": True}
    return EngineArgs(**{**given, **words}).create_engine_config()


def check_configuration(model: str) -> None:
    """The worker, the executor, the block size; and everything at once that cannot be."""
    made = configuration(model)
    assert made.parallel_config.worker_cls == "vllm_mlu.worker.MluWorker"
    assert made.device_config.device_type == "mlu"
    assert made.cache_config.block_size == 16 and made.model_config.enforce_eager
    assert os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert configuration(model, tensor_parallel_size=2).parallel_config.disable_custom_all_reduce
    with refused(NotImplementedError, "LoRA", "multi-step"):
        configuration(model, enable_lora=True, num_scheduler_steps=4)


def check_worker(chips: Chips, model: str) -> None:
    """It takes its own chip, joins over CNCL, and counts blocks by what is measured."""
    from vllm_mlu import device, worker

    made = configuration(model)
    joined: dict[str, Any] = {}
    with replaced(worker, "init_distributed_environment",
                  lambda *words, **more: joined.update(words=words, **more)), \
         replaced(worker, "ensure_model_parallel_initialized", lambda *words: None):  # fmt: skip
        mine = worker.MluWorker(made, 1, 1, "tcp://127.0.0.1:1", True)
        mine.init_device()
    assert mine.device == torch.device("mlu", 1) and chips.selected == 1
    assert joined["backend"] == "cncl" and joined["words"][1] == 1
    assert {"synchronize", "empty_cache", "reset_peak_memory_stats"} <= set(chips.calls)
    with refused(RuntimeError, "MLU 2", "2 are visible", "MLU_VISIBLE_DEVICES"):
        device.select(2)

    def profile() -> None:
        chips.used = 12 * GIB  # the weights and the largest use

    mine.model_runner.profile_run = profile
    block = 1 << 20
    mine.get_cache_block_size_bytes = lambda: block
    blocks, host = mine.determine_num_available_blocks()
    # 80 GiB * 0.9 less a peak of 11 GiB; everything taken since the start is PyTorch's.
    assert blocks == (72 - 11) * GIB // block, blocks
    assert host == made.cache_config.swap_space_bytes // block
    mine.model_runner.profile_run = lambda: None
    chips.used = 1 * GIB
    with refused(RuntimeError, "more free memory"):
        mine.determine_num_available_blocks()
    assert worker.blocks_of(100, 0.5, 60, 7) == 0


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Any:
    """Another attribute for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def generate(models: list[str]) -> list[dict[str, object]]:
    """Tokens of the engine and of transformers, for each model and way of filling the cache."""
    import vllm.platforms
    from vllm_mlu import device
    from vllm_mlu.platform import MluPlatform

    # The device for others has no kernels: the processor's take their place.
    MluPlatform.device_type, MluPlatform.dispatch_key = "cpu", "CPU"
    device.COLLECTIVE = "gloo"
    device.select = lambda index: torch.device("cpu")
    vllm.platforms.current_platform  # noqa: B018
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "chunked": {"enable_chunked_prefill": True, "max_num_batched_tokens": 32,
                    "max_num_seqs": 4},
        "cached": {"enable_prefix_caching": True},
    }  # fmt: skip
    found: list[dict[str, object]] = []
    for model in models:
        vocabulary = json.loads(Path(model, "config.json").read_text())["vocab_size"]
        # Lengths around the size of a block; two begin alike, longer than a block.
        long = [(7 * n + 3) % vocabulary for n in range(70)]
        prompts = [long, [*long[:40], 5, 6, 7], [9], long[5:21]]
        wanted = by_transformers(model, prompts)
        for way, words in ways.items():
            found.append({"model": os.path.basename(model), "way": way, "wanted": wanted,
                          "got": by_engine(model, prompts, words)})  # fmt: skip
    return found


TOKENS = 12


def by_engine(model: str, prompts: list[list[int]], words: dict[str, Any]) -> list[list[int]]:
    from vllm import LLM, SamplingParams

    chips: Any = torch.mlu
    chips.growth = GIB  # what a model takes while the engine starts
    engine = LLM(model=model, dtype="float32", max_model_len=128, skip_tokenizer_init=True,
                 num_gpu_blocks_override=64, swap_space=0, **words)  # fmt: skip
    sampling = SamplingParams(temperature=0.0, max_tokens=TOKENS, detokenize=False, ignore_eos=True)
    rounds = [engine.generate(prompt_token_ids=prompts, sampling_params=sampling, use_tqdm=False)
              for _ in range(2)]  # fmt: skip
    first, second = ([list(item.outputs[0].token_ids) for item in done] for done in rounds)
    assert first == second, "the second round reads what the first left in the cache"
    return first


def by_transformers(model: str, prompts: list[list[int]]) -> list[list[int]]:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(model, torch_dtype=torch.float32).eval()
    found = []
    for prompt in prompts:
        tokens = list(prompt)
        for _ in range(TOKENS):  # the likeliest each time, also after an end of text
            with torch.no_grad():
                logits = theirs(torch.tensor([tokens])).logits
            tokens.append(int(logits[0, -1].argmax()))
        found.append(tokens[len(prompt) :])
    return found


def small_qwen3(folder: str) -> str:
    """A Qwen3 of random weights, with heads larger than the hidden size gives, saved."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, head_dim=32,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=False, initializer_range=0.4, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    Qwen3ForCausalLM(config).save_pretrained(folder)
    return folder


def main(what: str, *models: str) -> None:
    """One of the two; the last line is ``ok`` or JSON."""
    chips = register()
    if what == "platform":
        check_platform(chips)
        check_configuration(models[0])
        check_worker(chips, models[0])
        print("ok")
        return
    folder = small_qwen3(f"{models[1]}/small-qwen3")
    print(json.dumps(generate([models[0], folder])))


if __name__ == "__main__":
    main(*sys.argv[1:])
