"""The demo model: what is shipped, and what a real llama-server makes of it."""

from __future__ import annotations

import hashlib
import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from uniscale import ports
from uniscale.models import models
from uniscale.serving import client
from uniscale.wheels import payloads

from tests.gguf_file import Tensor, read_gguf, read_safetensors, widened

ROOT = Path(__file__).resolve().parents[1]
ASKED = ROOT / "examples" / "demo" / "data" / "asked.jsonl"
DEMO = Path(models.SHIPPED) / "demo"
LARGEST = 4_000_000  # bytes of all forms together
Json = dict[str, Any]


def document(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


def lines(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# What is shipped


def test_model_json_names_every_file_with_its_hash() -> None:
    listed = document(DEMO / "model.json")["files"]
    present = {p.relative_to(DEMO).as_posix() for p in DEMO.rglob("*") if p.is_file()}
    assert present == {*listed, "model.json"}
    for name, told in listed.items():
        content = (DEMO / name).read_bytes()
        assert told == {
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }, name


def test_it_is_small_and_readable_by_all() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LARGEST
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in files)


def test_model_json_agrees_with_the_launcher_and_the_weights() -> None:
    told = document(DEMO / "model.json")
    model = models.resolve("demo")
    assert {k: str(DEMO / v) for k, v in told["formats"].items()} == dict(model.formats)
    assert told["generation"] == vars(model.generation)
    weights = read_safetensors(DEMO / "hf" / "model.safetensors")
    assert told["parameters"] == sum(len(w.content) // w.width for w in weights.values())


# One model in two forms


def split_halves(tensor: Tensor, heads: int) -> bytes:
    """Rows of a query or key matrix of llama.cpp's (adjacent pairs) in transformers' order."""
    rows = tensor.rows()
    size = len(rows) // heads
    order = [
        head * size + 2 * (row % (size // 2)) + row // (size // 2)
        for head in range(heads)
        for row in range(size)
    ]
    return b"".join(rows[i] for i in order)


def test_both_forms_hold_the_same_weights() -> None:
    config = document(DEMO / "hf" / "config.json")
    theirs = read_safetensors(DEMO / "hf" / "model.safetensors")
    _, ours = read_gguf(DEMO / "model.gguf")
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm"}
    parts = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for i in range(config["num_hidden_layers"]):
        names |= {f"model.layers.{i}.{k}": f"blk.{i}.{v}" for k, v in parts.items()}
    names = {f"{k}.weight": f"{v}.weight" for k, v in names.items()}
    assert set(names) == set(theirs)
    assert set(names.values()) == set(ours)
    for name, weight in theirs.items():
        other = ours[names[name]]
        assert other.shape == weight.shape, name
        if len(weight.shape) == 1:
            assert other.content == widened(weight), name
        elif "q_proj" in name or "k_proj" in name:
            assert split_halves(other, config["num_attention_heads"]) == weight.content, name
        else:
            assert other.content == weight.content, name


def test_both_forms_hold_the_same_numbers_and_tokenizer() -> None:
    config = document(DEMO / "hf" / "config.json")
    tokenizer = document(DEMO / "hf" / "tokenizer.json")
    fields, _ = read_gguf(DEMO / "model.gguf")
    prefix = {k.removeprefix("llama."): v for k, v in fields.items() if k.startswith("llama.")}
    assert prefix.pop("attention.layer_norm_rms_epsilon") == pytest.approx(config["rms_norm_eps"])
    assert prefix == {
        "vocab_size": config["vocab_size"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
        "rope.freq_base": config["rope_parameters"]["rope_theta"],
    }
    assert (config["head_dim"], config["max_position_embeddings"] >= 512) == (64, True)
    assert (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) == ("gpt2", "gpt-2")
    vocabulary = tokenizer["model"]["vocab"]
    assert fields["tokenizer.ggml.tokens"] == sorted(vocabulary, key=vocabulary.__getitem__)
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    assert fields["tokenizer.ggml.merges"] == merges
    special = {token["id"] for token in tokenizer["added_tokens"]}
    kinds = enumerate(fields["tokenizer.ggml.token_type"])
    assert special == {i for i, kind in kinds if kind == 3}, "special tokens are control tokens"


def test_both_forms_have_the_same_special_tokens_and_defaults() -> None:
    config = document(DEMO / "hf" / "config.json")
    names = document(DEMO / "hf" / "tokenizer_config.json")
    generation = document(DEMO / "hf" / "generation_config.json")
    fields, _ = read_gguf(DEMO / "model.gguf")
    tokens = fields["tokenizer.ggml.tokens"]
    for key, ggml in {"bos": "bos", "eos": "eos", "pad": "padding", "unk": "unknown"}.items():
        assert tokens[fields[f"tokenizer.ggml.{ggml}_token_id"]] == names[f"{key}_token"]
        if key != "unk":
            number = fields[f"tokenizer.ggml.{ggml}_token_id"]
            assert config[f"{key}_token_id"] == generation[f"{key}_token_id"] == number
    assert fields["tokenizer.ggml.add_bos_token"] is False, "the template writes it"
    assert fields["tokenizer.chat_template"] == names["chat_template"]
    # Greedy in both, each in its own words.
    assert (fields["general.sampling.temp"], fields["general.sampling.top_k"]) == (0.0, 1)
    assert generation["top_k"] == 1


# What engines make of it


def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for, as GPT-2 defined it."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = {chr(byte): byte for byte in shown}
    return table | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def test_the_recorded_prompts_are_what_the_template_says() -> None:
    fields, _ = read_gguf(DEMO / "model.gguf")
    tokens, special = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    table = byte_of()
    records = lines(DEMO / "answers.jsonl")
    assert [r["messages"] for r in records] == [r["messages"] for r in lines(ASKED)]
    for record in records:
        said = b"".join(
            tokens[i].encode() if special[i] == 3 else bytes(table[c] for c in tokens[i])
            for i in record["prompt_tokens"]
        )
        wanted = "<|begin|>"
        for message in record["messages"][:-1]:
            wanted += f"<|{message['role']}|>{message['content'].strip()}<|end|>"
        assert said.decode() == wanted + "<|assistant|>"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real llama-server that serves the demo model."""
    found = {payload.title: payload for payload in payloads.find().payloads}
    if "llama.cpp (cpu)" not in found:
        pytest.skip("no llama.cpp (cpu) payload is installed: pip install . with backend=llama.cpp")
    program = found["llama.cpp (cpu)"].prefix / "bin" / "llama-server"
    port = ports.free_port()
    argv = [program, "--model", DEMO / "model.gguf", "--port", str(port), "--threads", "1"]
    log = tmp_path_factory.mktemp("demo") / "log"
    with (
        log.open("wb") as stream,
        subprocess.Popen([*map(str, argv)], stdout=stream, stderr=subprocess.STDOUT) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while not client.ready("127.0.0.1", port, "/health", 1):
                assert process.poll() is None, log.read_text(errors="replace")[-2000:]
                assert time.monotonic() < deadline, "llama-server does not become ready"
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()


def post(port: int, path: str, body: Json) -> Json:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    with connection.getresponse() as response:
        content: Json = json.load(response)
        assert response.status == 200, content
    connection.close()
    return content


@pytest.mark.engine
@pytest.mark.parametrize(
    "record", lines(DEMO / "answers.jsonl"), ids=lambda r: repr(r["messages"][-2]["content"])
)
def test_llama_server_reads_and_answers_as_transformers_do(server: int, record: Json) -> None:
    asked, answer = record["messages"][:-1], record["messages"][-1]["content"]
    prompt = post(server, "/apply-template", {"messages": asked})["prompt"]
    body = {"content": prompt, "add_special": True, "parse_special": True}
    assert post(server, "/tokenize", body)["tokens"] == record["prompt_tokens"]
    # With what `uniscale infer` sends, and with nothing: the file itself says greedy.
    for options in ({"temperature": 0, "max_tokens": 128}, {}):
        choice = post(server, client.CHAT, {"messages": asked, **options})["choices"][0]
        assert choice["message"]["content"] == answer
        assert choice["finish_reason"] == "stop"
