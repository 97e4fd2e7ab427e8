"""`uniscale show`, `uninstall` and `upgrade`, on real environments."""

from __future__ import annotations

import json
import subprocess

from .helpers import lay_payload, record
from .indexes import Place


def rows(place: Place, *words: str) -> list[tuple[str, str]]:
    told = place.run("upgrade", *words, "--index", place.index.root, "--offline", "--json").ok()
    return [(one["backend"], one["what"]) for one in json.loads(told.out)["payloads"]]


def test_upgrade_here_and_in_environments_of_their_own(place: Place) -> None:
    place.index.add()
    place.index.add("vllm")
    place.install("llama.cpp")
    place.install("vllm", "--isolated")
    assert rows(place) == [("llama.cpp", "is the newest"), ("vllm", "is the newest")]
    for backend in ("llama.cpp", "vllm"):
        place.index.add(backend, version="1.2")
    assert rows(place, "--dry-run") == [("llama.cpp", "would become 1.2+cpu"),
                                        ("vllm", "would become 1.2+cpu")]  # fmt: skip
    assert rows(place, "VLLM") == [("vllm", "is now 1.2+cpu")]
    assert rows(place) == [("llama.cpp", "is now 1.2+cpu"), ("vllm", "is the newest")]
    assert len(place.environments()) == 1
    place.index.clear()
    place.index.add(version="1.1")
    result = place.run("upgrade", "--index", place.index.root)
    assert "1.2+cpu is newer than the index's 1.1+cpu: left" in result.out
    assert "the index has no wheel with vllm" in result.refused("unknown-backend", 2)


def test_uninstall_takes_one_payload_and_nothing_else(place: Place) -> None:
    before = place.packages()
    place.index.add()
    place.index.add("vllm")
    place.install("llama.cpp")
    place.install("vllm", "--isolated")
    place.install("vllm")
    # Twice here: the one that is used goes first.
    assert "would remove: vllm (cpu)" in place.run("uninstall", "vllm", "--dry-run").ok().out
    place.run("uninstall", "vllm").ok()
    assert len(place.environments()) == 1
    assert f"{place.root}/data" in place.run("uninstall", "vllm").ok().out
    assert not place.environments()
    assert "no payload here has the backend" in place.run("uninstall", "vllm").refused(
        "unknown-backend", 2
    )
    told = json.loads(place.run("uninstall", "llama_cpp", "--json").ok().out)
    assert told["distribution"] == "uniscale-llama-cpp" and place.packages() == before


def test_what_uninstall_leaves_alone(place: Place) -> None:
    place.index.add(name="uniscale", version="0.1.0", label="llamacpp.cpu", upstream="1.0")
    place.install("llama.cpp")
    assert "with uniscale itself" in place.run("uninstall", "llama.cpp").refused("bundle")
    lay_payload(place.payloads, record("vllm"))
    lay_payload(place.payloads, record("vllm", "Acme"))
    place.environ["UNISCALE_PAYLOADS"] = str(place.payloads)
    assert "--device Acme" in place.run("uninstall", "vllm").refused("several-payloads", 2)
    told = place.run("uninstall", "vllm", "-d", "acme").refused("no-wheel")
    assert "remove it yourself" in told
    place.index.clear()
    assert "came with uniscale itself" in place.run("upgrade").ok().out


def test_a_payload_in_use_is_not_taken_away(place: Place) -> None:
    place.index.add()
    place.install("llama.cpp", "--isolated")
    (made,) = place.environments()
    engine = subprocess.Popen([made / "bin" / "python", "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert str(engine.pid) in place.run("uninstall", "llama.cpp").refused("in-use")
        # A newer one may come; the old one's files stay until nobody runs from them.
        place.index.add(version="1.1")
        place.run("upgrade", "--index", place.index.root, "--offline").ok()
        assert made.is_dir() and "1.1" in place.run("list").ok().out
    finally:
        engine.communicate(b"\n")
    place.install("llama.cpp", "--version", "1.0", "--isolated")
    (now,) = place.environments()
    assert now == made


def test_show(place: Place) -> None:
    place.index.add()
    place.index.add(version="1.1")
    index = ("--index", str(place.index.root))
    assert "did you mean" in place.run("show", "llama.cp", *index).refused("unknown-backend", 2)
    offered = json.loads(place.run("show", "llama.cpp", *index, "--json").ok().out)
    assert offered["installed"] == [] and [one["why"] for one in offered["offered"]] == [
        None, "1.0 is older than 1.1",
    ]  # fmt: skip
    place.install("llama.cpp")
    told = place.run("show", "llama.cpp").ok().out
    assert "llama.cpp 1.1 for cpu" in told and "uniscale-llama-cpp 1.1+cpu" in told
    assert place.run("show", "vllm").refused("unknown-backend", 2)


def test_the_doctor_looks_into_the_environment_of_a_payload(place: Place) -> None:
    """What only our own Python has does not help an engine in an environment of its own."""
    place.index.add(info={"requirements": {"kept": ["typer>=0.1"]}})
    place.install("llama.cpp", "--isolated")
    told = json.loads(place.run("doctor", "--json").out)
    assert "typer" in json.dumps(told)
    place.install("llama.cpp")
    assert '"typer' not in json.dumps(json.loads(place.run("doctor", "--json").out))
