"""The fine-tuning methods: which PEFT configuration each is, and what we set where a user is mute.

As data: nothing of PEFT is imported. Names are PEFT 0.21's; what a user sets beside a method is
checked against the fields of the installed PEFT (`trainer_fields`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from uniscale_build.errors import SettingsError, did_you_mean


@dataclass(frozen=True)
class Method:
    """One way to fine-tune; ``config`` is the name of PEFT's class, None for all weights."""

    title: str
    learning_rate: float
    config: tuple[str, str] | None = None  # folder under peft/tuners, class
    fixed: Mapping[str, object] = field(default_factory=dict)  # what makes it this method
    usual: Mapping[str, object] = field(default_factory=dict)  # where the user says nothing
    plain_loss: bool = False  # its model gives no more than transformers' own loss
    merges: bool = True  # whether the adapter can become part of the weights


_LORA = ("lora", "LoraConfig")
_RANK: Mapping[str, object] = {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"}
_ALL: Mapping[str, object] = {"target_modules": "all-linear"}
_ALPHA: Mapping[str, object] = {"r": 8, "alpha": 8, **_ALL}

METHODS: Mapping[str, Method] = {
    "full": Method("all weights", 2e-5),
    "lora": Method("low-rank adapters", 2e-4, _LORA, {}, _RANK),
    "rslora": Method("LoRA with rank-stabilised scaling", 2e-4, _LORA, {"use_rslora": True}, _RANK),
    "dora": Method("LoRA of direction beside magnitude", 2e-4, _LORA, {"use_dora": True}, _RANK),
    "pissa": Method(
        "LoRA begun from principal components", 2e-4, _LORA, {"init_lora_weights": "pissa"}, _RANK
    ),
    "adalora": Method(
        "LoRA that moves rank to where it helps", 1e-3, ("adalora", "AdaLoraConfig"), {},
        {"init_r": 12, "target_r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    ),
    "ia3": Method("learned scales of activations", 8e-3, ("ia3", "IA3Config")),
    "loha": Method("low-rank Hadamard products", 1e-3, ("loha", "LoHaConfig"), {}, _ALPHA),
    "lokr": Method("low-rank Kronecker products", 1e-3, ("lokr", "LoKrConfig"), {}, _ALPHA),
    "vera": Method("shared random projections", 4e-3, ("vera", "VeraConfig")),
    "fourierft": Method(
        # PEFT would begin with random coefficients: another model than the one that was named.
        "few Fourier coefficients", 1e-2, ("fourierft", "FourierFTConfig"), {},
        {"init_weights": True, **_ALL},
    ),
    "adaption_prompt": Method(
        "learned prompts in the attention (LLaMA-Adapter)", 9e-3,
        ("adaption_prompt", "AdaptionPromptConfig"), {}, {"adapter_len": 10},
        plain_loss=True, merges=False,
    ),
}  # fmt: skip
_ALIASES = {
    "sft": "full",
    "full-parameter": "full",
    "adaptionprompt": "adaption_prompt",
    "adaption-prompt": "adaption_prompt",
    "adaliprompt": "adaption_prompt",
    "llama-adapter": "adaption_prompt",
}
_NONE = {
    "hyenadna": "HyenaDNA is a model of DNA, not a way to fine-tune: PEFT has no such method",
}


def named(word: str) -> str:
    """The method's own name for what a user wrote; `SettingsError` when there is none."""
    name = _ALIASES.get(word.lower(), word.lower())
    if name in METHODS:
        return name
    what = _NONE.get(name, f"there is no fine-tuning method {word}")
    raise SettingsError(
        what, where="method", hint=did_you_mean(name, METHODS), slug="unknown-method"
    )
