"""The build record: what a payload says of itself in ``payload.json``, schema 1.

`payload_json` makes it from the plan; SBOM and provenance are made from it and from nothing else,
so the three can never tell different stories. All are pure functions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from uniscale_build.errors import UniscaleError, WheelError, raise_all
from uniscale_build.ids import is_object_id, is_sha256
from uniscale_build.records.provenance import provenance
from uniscale_build.records.sbom import sbom

__all__ = ["SCHEMA", "check_payload", "payload_json", "payload_name", "provenance", "sbom"]

SCHEMA = 1

_TEXTS = ("backend", "device", "distribution", "version")
_MAPPINGS = ("upstream", "toolchain", "settings", "launch", "device_environment", "verified",
             "requirements")  # fmt: skip
_LISTS = ("tasks", "layers", "external_libraries")


def payload_name(info: Mapping[str, object]) -> str:
    """``<backend>-<device>``: the payload's folder in a wheel."""
    return f"{info['backend']}-{info['device']}"


def payload_json(
    facts: Mapping[str, object],
    *,
    distribution: str,
    plan: str,
    toolchain: Mapping[str, str],
    launch: Mapping[str, object],
    verified: Mapping[str, object],
    external: Sequence[str],
    visible: str | None = None,
    aliases: Sequence[str] = (),
    nodes: Sequence[str] = (),
    device: Mapping[str, object] | None = None,
    sdk: Mapping[str, object] | None = None,
    upstream: Mapping[str, object] | None = None,
    dropped: Sequence[str] = (),
    replaced: Mapping[str, str] | None = None,
    provided: Sequence[str] = (),
) -> dict[str, object]:
    """The content of ``payload.json`` for one backend of a plan.

    ``facts`` is ``BackendPlan.as_json()``: backend, device, tasks, pin (version, commit, tree,
    origins), layers (name, title, base, result, and what else is told of them), tree, recipe,
    requirements, environment. ``plan`` is the digest of the whole plan. ``launch`` is the
    manifest's, completed with the flags that the engine has. ``verified`` says what was ``built``
    and ``ran`` (a sentence or several) and ``not_run``, why not; its other keys become ``partly``.
    ``external`` are the libraries that the machine must have. ``visible``, ``aliases`` and
    ``nodes`` are the device's; ``device`` adds what else of it installing needs; ``sdk`` is its
    SDK: name, and version and label where the build used it. ``upstream`` adds what is known of
    the project: ``title``, ``purl``, ``license`` (SPDX), ``homepage``, ``archives`` (name and
    sha256 of each). ``dropped`` and
    ``replaced`` are requirements of upstream that the rules took out or exchanged, ``provided``
    those that the device's image has.
    `WheelError` for facts that contradict each other, all at once.
    """
    pin = _mapping(facts.get("pin"))
    return _checked(
        {
            "schema": SCHEMA,
            "backend": facts.get("backend"),
            "device": facts.get("device"),
            "distribution": distribution,
            "version": pin.get("version"),
            "tasks": _list(facts.get("tasks")),
            "upstream": _upstream(pin, upstream or {}),
            "layers": [dict(_mapping(layer)) for layer in _list(facts.get("layers"))],
            "patched_tree": facts.get("tree"),
            "plan": plan,
            "toolchain": dict(toolchain),
            "settings": dict(_mapping(facts.get("recipe"))),
            "sdk": dict(sdk) if sdk is not None else None,
            "launch": dict(launch),
            "device_environment": {
                **(device or {}),
                "visible": visible,
                "aliases": list(aliases),
                "nodes": list(nodes),
                "set": dict(_mapping(facts.get("environment"))),
            },
            "verified": _verified(verified),
            "external_libraries": list(external),
            "requirements": {
                "kept": _list(facts.get("requirements")),
                "dropped": list(dropped),
                "replaced": dict(replaced or {}),
                "provided": list(provided),
            },
        }
    )


def _upstream(pin: Mapping[str, object], more: Mapping[str, object]) -> dict[str, object]:
    """The project and its pin; ``origin`` is the first place with an address."""
    origins = [str(origin) for origin in _list(pin.get("origins"))]
    return {
        **more,
        "version": pin.get("version"),
        "commit": pin.get("commit"),
        "tree": pin.get("tree"),
        "origin": next((text for text in origins if "://" in text), (origins or [""])[0]),
        "origins": origins,
    }


def _verified(told: Mapping[str, object]) -> dict[str, object]:
    return {
        "built": _sentences(told.get("built")),
        "ran": _sentences(told.get("ran")),
        "not_run": str(told.get("not_run") or told.get("note") or ""),
        **({"partly": short} if (short := partly(told)) else {}),
    }


def _checked(info: dict[str, object]) -> dict[str, object]:
    """``info`` itself, when nothing in it contradicts itself."""
    errors: list[UniscaleError] = [
        WheelError(f"the build record is wrong: {problem}", slug="bad-record",
                   hint="the plan that it is made from contradicts itself: a defect of ours")
        for problem in check_payload(info)
    ]  # fmt: skip
    raise_all(errors)
    return info


def check_payload(info: object) -> list[str]:
    """What is wrong with the content of a ``payload.json``, in sentences; nothing for a good one.

    Beyond types: ids are whole, and the layers lead from the upstream tree to the patched one.
    """
    if not isinstance(info, Mapping):
        return ["it must hold an object"]
    if info.get("schema") != SCHEMA:
        return [f"schema is {info.get('schema')!r}, and {SCHEMA} is what we know"]
    problems = [
        f"{key} must be text" for key in _TEXTS
        if not isinstance(info.get(key), str) or not info[key]
    ]  # fmt: skip
    kinds = ((_MAPPINGS, Mapping, "an object"), (_LISTS, list, "a list"))
    for keys, kind, word in kinds:
        problems += [f"{key} must be {word}" for key in keys if not isinstance(info.get(key), kind)]
    if problems:
        return problems
    if not is_sha256(str(info.get("plan"))):
        problems.append("plan must be a SHA-256")
    for key in ("commit", "tree"):
        given = str(info["upstream"].get(key))
        # An archive that does not tell its commit is pinned by its tree alone.
        if not is_object_id(given) and (key, given) != ("commit", ""):
            problems.append(f"upstream.{key} must be a whole git object id")
    return problems + _chain_problems(info)


def _chain_problems(info: Mapping[str, object]) -> list[str]:
    problems = []
    tree = _mapping(info["upstream"]).get("tree")
    for number, item in enumerate(_list(info["layers"])):
        layer = _mapping(item)
        name = layer.get("name")
        if not isinstance(name, str) or not name:
            problems.append(f"layers[{number}].name must be text")
        for key in ("base", "result"):
            if not is_object_id(str(layer.get(key))):
                problems.append(f"layers[{number}].{key} must be a whole git object id")
        if layer.get("base") != tree:
            problems.append(f"layer {name} is based on {layer.get('base')}, not on {tree}")
        tree = layer.get("result")
    if info.get("patched_tree") != tree:
        problems.append(f"patched_tree is {info.get('patched_tree')}, the layers give {tree}")
    return problems


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def partly(verified: Mapping[str, object]) -> list[str]:
    """What was tried short of a build or a run, as ``configured: front end only``."""
    said = ("built", "ran", "not_run", "note")
    return [
        f"{state}: {text}"
        for state, texts in verified.items()
        if state not in said
        for text in _sentences(texts)
    ]


def _sentences(value: object) -> list[str]:
    """One sentence, several, or none; a bare true is a sentence too."""
    if isinstance(value, (list, tuple)):
        return [str(item) for item in value]
    if value is True:
        return ["yes"]
    return [str(value)] if value else []
