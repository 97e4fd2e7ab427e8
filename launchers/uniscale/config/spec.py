"""What a configuration may say: every key once, for reading it, for its JSON Schema, for help."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from uniscale_build.errors import did_you_mean
from uniscale_build.yamlfile import Fields, Value

from uniscale.ports import LARGEST

POLICIES = (
    *("random", "round_robin", "cache_aware", "power_of_two", "least_load", "consistent_hashing"),
    *("prefix_hash", "manual"),
)
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")
_WORDS: Mapping[str, object] = {
    "true": True, "True": True, "false": False, "False": False, "None": None,
}  # fmt: skip


@dataclass(frozen=True)
class Key:
    """One key: its kind (text, word, switch, integer, number, texts, map…), and what it means."""

    name: str
    kind: str
    help: str
    flag: str = ""  # of the gateway, where it is one of its settings
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


EXPERIMENT = (
    Key("name", "text", "name of the job in `uniscale ps`"),
    Key("task", "text", "what the file is for", choices=("serve", "infer", "train")),
    Key("env", "env", "environment variables of all engines"),
    Key("dir", "text", "folder that a training writes into"),
    Key("nodes", "text", "hostfile: the machines that the task runs on"),
)
MODEL = (
    Key("model", "text", "demo, a .gguf file, a Hugging Face folder, or owner/name of the hub"),
    Key("name", "text", "what the API calls it; several entries may share a name"),
    Key("engine", "texts", "engine, or several: the first that is here and takes the model"),
    Key("device", "text", "device that the engine was built for"),
    Key("devices", "text", "chips that the engine may see: 0,2"),
    Key("replicas", "integer", "engines of this kind", least=1),
    Key("args", "map", "common arguments, by vLLM's names"),
    Key("engine_args", "maps", "arguments of one engine, by engine"),
    Key("env", "env", "environment variables of this engine"),
    Key("flags", "texts", "the engine's own flags, verbatim, last"),
)
MOE = (
    Key("expert_parallel", "word", "experts on different chips: true, or over how many"),
    Key("placement", "text", "which expert goes where", choices=("linear", "round_robin")),
    Key("balance", "switch", "move experts to where the load is"),
    Key("redundant_experts", "integer", "copies of busy experts", least=0),
    Key("all_to_all", "text", "the library that exchanges tokens, in the engine's words"),
    Key("offload", "word", "layers whose experts stay in the processor's memory, or all"),
)
# Common arguments that the block `moe` sets, by its keys.
MOE_ARGUMENTS: Mapping[str, str] = {
    "expert_parallel": "expert_parallel",
    "placement": "expert_placement",
    "balance": "expert_balance",
    "redundant_experts": "expert_redundancy",
    "all_to_all": "expert_all_to_all",
    "offload": "expert_offload",
}
SERVE = (
    Key("host", "text", "address to listen on"),
    Key("port", "integer", "port to listen on", least=1, most=LARGEST),
    Key("start_timeout", "number", "seconds that an engine may take to load", least=0.1),
)
TRAIN = (
    Key("model", "text", "demo, a Hugging Face folder, or owner/name of the hub"),
    Key("data", "text", "JSON, JSONL, CSV, Parquet, or a Hugging Face data set"),
    Key("eval_data", "text", "data whose loss is measured after each epoch"),
    Key(
        "format", "text", "of the rows", choices=("openai", "sharegpt", "alpaca", "prompt", "text")
    ),
    Key("columns", "env", "column names of the data, by the names of the format"),
    Key("split", "text", "of a Hugging Face data set"),
    Key("method", "text", "full, or one of PEFT's: lora, dora, ia3, …"),
    Key("method_args", "map", "arguments of the method, by PEFT's names"),
    Key("args", "map", "arguments of the trainer, by TRL's (or the backend's) names"),
    Key("chat_template", "text", "Jinja file, for a model that has none"),
    Key("backend", "text", "payload that pre-trains, in place of fine-tuning"),
    Key("device", "text", "device that trains"),
    Key("devices", "text", "chips that the processes may see: 0,2; or how many"),
    Key("processes", "text", "on this machine: a number, or gpu"),
    Key("script", "text", "a training script of your own, in place of all this"),
    Key("flags", "texts", "the script's own flags"),
    Key("env", "env", "environment variables of the processes"),
)
GATEWAY = (
    Key("policy", "text", "how requests are spread", "--policy", POLICIES),
    Key("api_keys", "text", "file with a key on each line: KEY or NAME:KEY"),
    Key("max_concurrent_requests", "integer", "requests at a time", "--max-concurrent-requests"),
    Key("queue_size", "integer", "requests that may wait", "--queue-size", least=0),
    Key("queue_timeout", "integer", "seconds that one may wait", "--queue-timeout-secs", least=1),
    Key("requests_per_second", "integer", "sustained", "--rate-limit-tokens-per-second", least=0),
    Key("request_timeout", "integer", "seconds for one answer", "--request-timeout-secs", least=1),
    Key("max_payload_size", "integer", "bytes of a request", "--max-payload-size", least=1),
    Key("retries", "integer", "attempts for a request that failed", "--retry-max-retries", least=1),
    Key("cors_allowed_origins", "texts", "web pages that may ask", "--cors-allowed-origins"),
    Key("tls_certificate", "text", "PEM file", "--tls-cert-path"),
    Key("tls_key", "text", "PEM file", "--tls-key-path"),
    Key("metrics_host", "text", "address of the Prometheus metrics", "--prometheus-host"),
    Key(
        "metrics_port",
        "integer",
        "port of the Prometheus metrics",
        "--prometheus-port",
        least=1,
        most=LARGEST,
    ),
    Key("traces_endpoint", "text", "OpenTelemetry collector, host:port", "--otlp-traces-endpoint"),
    Key("log_level", "text", "", "--log-level", ("debug", "info", "warn", "error")),
    Key("flags", "texts", "the gateway's own flags, verbatim, last"),
)


def read(fields: Fields, block: tuple[Key, ...]) -> dict[str, object]:
    """The keys of ``block`` that are there, checked; what is wrong is recorded in ``fields``."""
    found: dict[str, object] = {}
    for key in block:
        value = fields.get(key.name)
        if value is None:
            continue
        checked = _checked(fields, key, value)
        if checked is not None:
            found[key.name] = checked
    return found


def _checked(fields: Fields, key: Key, value: Value) -> object:
    plain = python(value)
    if key.kind in ("map", "maps", "env"):
        return _mapping(fields, key, value)
    if key.kind == "switch" and not isinstance(plain, bool):
        fields.fail(value, f'"{key.name}" must be true or false')
        return None
    if key.kind in ("switch", "word") and isinstance(value.data, str):
        return plain
    if key.kind == "texts":
        items = plain if isinstance(plain, list) else [plain]
        if all(isinstance(item, (str, int, float)) for item in items):
            return tuple(str(item) for item in items)
        fields.fail(value, f'"{key.name}" must be a text or a list of texts')
        return None
    if not isinstance(value.data, str):
        fields.fail(value, f'"{key.name}" must be {_ARTICLE[key.kind]}')
        return None
    return _scalar(fields, key, value, value.data)


def _mapping(fields: Fields, key: Key, value: Value) -> object:
    if not isinstance(value.data, dict):
        fields.fail(value, f'"{key.name}" must be a mapping')
        return None
    if key.kind == "map":
        return {name: argument(item) for name, item in value.data.items()}
    found: dict[str, object] = {}
    for name, item in value.data.items():
        if key.kind == "maps" and isinstance(item.data, dict):
            found[name] = {word: argument(one) for word, one in item.data.items()}
        elif key.kind == "env" and isinstance(item.data, str):
            found[name] = item.data
        elif item.data is not None:
            wanted = "a mapping" if key.kind == "maps" else "text"
            fields.fail(item, f'"{key.name}.{name}" must be {wanted}')
    return found


_ARTICLE = {"text": "text", "word": "text", "integer": "a whole number", "number": "a number"}


def _scalar(fields: Fields, key: Key, value: Value, text: str) -> object:
    if key.choices and text not in key.choices:
        hint = did_you_mean(text, key.choices)
        fields.fail(value, f'"{key.name}" cannot be {text!r}', hint)
        return None
    if key.kind == "text":
        return text
    match = _NUMBER.fullmatch(text)
    if match is None or (key.kind == "integer" and (match[2] or match[3])):
        fields.fail(value, f'"{key.name}" must be {_ARTICLE[key.kind]}, not {text!r}')
        return None
    number = int(text) if key.kind == "integer" else float(text)
    if key.least is not None and number < key.least:
        fields.fail(value, f'"{key.name}" must be {key.least:g} or more, not {text}')
        return None
    if key.most is not None and number > key.most:
        fields.fail(value, f'"{key.name}" must be {key.most:.0f} or less, not {text}')
        return None
    return number


def argument(value: Value) -> object:
    """An argument's value: a lone number stays the text that it was (``0.10`` is no 0.1).

    Inside a list or mapping, which becomes JSON, numbers are numbers.
    """
    return python(value, inner=isinstance(value.data, (dict, list)))


def python(value: Value, *, inner: bool = False) -> object:
    """A YAML value as Python's: true, false, None, and with ``inner`` numbers too."""
    if isinstance(value.data, dict):
        return {key: python(item, inner=inner) for key, item in value.data.items()}
    if isinstance(value.data, list):
        return [python(item, inner=inner) for item in value.data]
    if value.quoted or value.data is None:
        return value.data
    if value.data in _WORDS:
        return _WORDS[value.data]
    if inner and _NUMBER.fullmatch(value.data):
        return float(value.data) if set(value.data) & set(".eE") else int(value.data)
    return value.data


def json_schema() -> dict[str, object]:
    """The JSON Schema of a configuration, for editors."""
    model = {**_block(MODEL), "moe": _object(_block(MOE))}
    gateway = {"oneOf": [{"const": "none"}, _object(_block(GATEWAY))]}
    entry = _object(model)
    serve = {**_block(SERVE), **model, "gateway": gateway}
    serve["models"] = {"type": "array", "minItems": 1, "items": entry}
    flagscale = {"type": "array", "items": {"type": "object", "required": ["serve_id"]}}
    groups = {"type": "object", "required": ["model", "data"]}
    flagscale_train = {**groups, "properties": {"model": {"type": "object"}}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "uniscale configuration",
        "type": "object",
        "properties": {
            "defaults": {"type": "array", "items": {"type": ["string", "object"]}},
            "experiment": {"type": "object", "properties": _block(EXPERIMENT)},
            "serve": {"anyOf": [_object(serve), flagscale]},
            "train": {"anyOf": [_object(_block(TRAIN)), flagscale_train]},
        },
    }


def _object(properties: Mapping[str, object]) -> dict[str, object]:
    return {"type": "object", "additionalProperties": False, "properties": dict(properties)}


def _block(block: tuple[Key, ...]) -> dict[str, object]:
    return {key.name: _property(key) for key in block}


def _property(key: Key) -> dict[str, object]:
    told: dict[str, object] = {"description": key.help} if key.help else {}
    if key.choices:
        return {**told, "enum": list(key.choices)}
    if key.kind in ("integer", "number"):
        bounds = {"minimum": key.least, "maximum": key.most}
        told |= {name: bound for name, bound in bounds.items() if bound is not None}
        return {**told, "type": key.kind}
    if key.kind == "switch":
        return {**told, "type": "boolean"}
    if key.kind == "word":
        return {**told, "type": ["string", "number", "boolean"]}
    if key.kind in ("map", "maps", "env"):
        return {**told, "type": "object"}
    if key.kind == "texts":
        texts = {"type": "array", "items": {"type": ["string", "number"]}}
        return {**told, "anyOf": [{"type": ["string", "number"]}, texts]}
    return {**told, "type": ["string", "number"]}


if __name__ == "__main__":
    import json

    print(json.dumps(json_schema(), indent=2))
