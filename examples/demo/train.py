"""Train the demo model from scratch on one CPU thread and write its Hugging Face form."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

from bpe import BEGIN, END, PAD, save_tokenizer, train_tokenizer
from corpus import Corpus, Message, conversation, load
from recipe import Recipe, plainly

IGNORED = -100  # the label that torch's cross entropy leaves out

CUT_SHARE = 0.6  # of conversations end after the deciding tokens: more questions in the same time
DECIDING = 8  # the first tokens of an answer decide which answer it is ...
DECIDING_WEIGHT = 4.0  # ... so they count more than the rest, which is learned by heart soon

Sample = tuple[list[int], list[int], list[float]]


def encode(messages: list[Message], tokenizer: Any) -> Sample:
    """Return token ids, labels and weights; only what the assistant says is learned."""
    ids = [tokenizer.token_to_id(BEGIN)]
    labels = [IGNORED]
    weights = [0.0]
    end = tokenizer.token_to_id(END)
    for message in messages:
        said = [*tokenizer.encode(message["content"].strip()).ids, end]
        ids += [tokenizer.token_to_id(f"<|{message['role']}|>"), *said]
        learned = message["role"] == "assistant"
        labels += [IGNORED, *(said if learned else [IGNORED] * len(said))]
        weights += [0.0, *(DECIDING_WEIGHT if i < DECIDING else 1.0 for i in range(len(said)))]
    return ids, labels, weights


def sample(corpus: Corpus, tokenizer: Any, rng: random.Random) -> Sample:
    """Draw one conversation and encode it, in CUT_SHARE of cases without its last answer's rest."""
    messages = conversation(corpus, rng)
    ids, labels, weights = encode(messages, tokenizer)
    if rng.random() < CUT_SHARE:
        answer = len(tokenizer.encode(messages[-1]["content"].strip()).ids) + 1
        keep = len(ids) - max(0, answer - DECIDING)
        return ids[:keep], labels[:keep], weights[:keep]
    return ids, labels, weights


def batches(corpus: Corpus, tokenizer: Any, recipe: Recipe, rng: random.Random) -> Any:
    """Yield (ids, labels, weights) tensors of batch_tokens at most, rows of like length."""
    import torch

    fill = (tokenizer.token_to_id(PAD), IGNORED, 0.0)
    while True:
        pool = [sample(corpus, tokenizer, rng) for _ in range(512)]
        pool = sorted(
            (s for s in pool if len(s[0]) <= recipe.max_positions), key=lambda s: len(s[0])
        )
        groups: list[list[Sample]] = [[]]
        for drawn in pool:
            if (len(groups[-1]) + 1) * len(drawn[0]) > recipe.batch_tokens:
                groups.append([])
            groups[-1].append(drawn)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _, _ in group)
            yield tuple(
                torch.tensor([[*row[i], *[fill[i]] * (width - len(row[i]))] for row in group])
                for i in range(3)
            )


def loss_of(model: Any, ids: Any, labels: Any, weights: Any) -> Any:
    """Return the weighted mean cross entropy of each label, given what stands before it."""
    from torch.nn.functional import cross_entropy

    # Padding stands on the right and is never learned: a causal model needs no mask for it.
    logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    each = cross_entropy(
        logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="none", ignore_index=IGNORED
    )
    counted = (weights * (labels != IGNORED))[:, 1:].flatten()
    return (each * counted).sum() / counted.sum()


def new_model(recipe: Recipe) -> Any:
    """Return an untrained LlamaForCausalLM in float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=recipe.vocab_size,
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        head_dim=recipe.head_size,
        max_position_embeddings=recipe.max_positions,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        initializer_range=0.05,
        use_cache=True,
    )
    return LlamaForCausalLM(config)


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate of a step: linear warm-up, then a half cosine to zero."""
    if step < recipe.warmup:
        return recipe.learning_rate * (step + 1) / recipe.warmup
    progress = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_for(model: Any, recipe: Recipe) -> Any:
    """Return AdamW that decays matrices and leaves norms alone."""
    import torch

    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    groups = [
        {"params": matrices, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))


def fit(model: Any, samples: Any, recipe: Recipe) -> float:
    """Train in place, print progress every 100 steps, return the mean loss since the last."""
    import torch

    optimizer = optimizer_for(model, recipe)
    began, losses = time.monotonic(), [0.0]
    model.train()
    for step in range(1, recipe.steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step - 1, recipe)
        loss = loss_of(model, *next(samples))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses = [loss.item()] if step % 100 == 1 else [*losses, loss.item()]
        if step % 100 == 0 or step == recipe.steps:
            mean, seconds = sum(losses) / len(losses), time.monotonic() - began
            print(f"step {step}/{recipe.steps}  loss {mean:.4f}  {seconds:.0f} s", flush=True)
    return sum(losses) / len(losses)


def save(model: Any, tokenizer: Any, out: Path, recipe: Recipe) -> None:
    """Write config, float16 weights, generation defaults and tokenizer into the folder."""
    import torch

    model.to(torch.float16).eval()
    model.save_pretrained(out)
    # With top_k 1 every engine that reads this file decodes greedily unless asked otherwise.
    generation = {
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "do_sample": True,
        "top_k": 1,
        "max_new_tokens": 128,
    }
    (out / "generation_config.json").write_text(
        json.dumps(generation, indent=2) + "\n", encoding="utf-8"
    )
    save_tokenizer(tokenizer, out, recipe.max_positions)


def train(out: Path) -> None:
    """Train from nothing and save into the folder, which is made first."""
    import torch

    recipe = Recipe()
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the order of additions, hence every weight, depends on it
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(recipe.seed)
    corpus = load()
    tokenizer = train_tokenizer(corpus.texts(), recipe.vocab_size)
    model = new_model(recipe)
    print(f"{model.num_parameters():,} parameters, {recipe.vocab_size} tokens")
    fit(model, batches(corpus, tokenizer, recipe, random.Random(recipe.seed)), recipe)
    save(model, tokenizer, out, recipe)
    print(f"written: {out}")


def main() -> None:
    """Read --out, train, and save there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the Hugging Face form")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with plainly():
        train(options.out)


if __name__ == "__main__":
    main()
