"""`uniscale.wheels.payloads`: payloads found, and the one chosen that does a task."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from uniscale import folders
from uniscale.wheels import payloads
from uniscale.wheels.record import Payload
from uniscale_build.errors import LaunchError, SettingsError, UniscaleError

from .helpers import launch, lay_payload, record


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only entry of sys.path, and the payload folder in it."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    monkeypatch.delenv(payloads.VARIABLE, raising=False)
    return tmp_path / "site" / folders.PAYLOADS


def titles(found: payloads.Found) -> list[str]:
    return [payload.title for payload in found.payloads]


def test_none(here: Path) -> None:
    assert payloads.find() == payloads.Found((), (), ())
    here.mkdir(parents=True)
    assert payloads.find() == payloads.Found((), (), ())


def test_a_namespace_over_several_entries(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = here.parents[1] / "other"
    lay_payload(here, record("vllm"))
    lay_payload(other / folders.PAYLOADS)
    # sys.path also holds zip files, missing folders, and the same folder under other names.
    (other / "x.zip").write_bytes(b"")
    (other / "link").symlink_to(other)
    entries = [str(here.parent), str(other), str(other / "x.zip"), "/missing", str(other / "link")]
    monkeypatch.setattr(sys, "path", entries)
    found = payloads.find()
    assert titles(found) == ["vllm (cpu)", "llama.cpp (cpu)"]
    assert not found.hidden and not found.broken


def test_left_over_folders_do_not_count(here: Path) -> None:
    prefix = lay_payload(here)
    shutil.copytree(prefix, here / "vllm-cpu")
    (here / "vllm-cpu" / "payload.json").unlink()
    (here / "sglang-cpu").mkdir()
    (here / "a-file").write_text("x")
    assert titles(payloads.find()) == ["llama.cpp (cpu)"]


def test_broken_ones_are_listed_and_hide_no_others(here: Path) -> None:
    lay_payload(here)
    lay_payload(here, "{")
    (here / "vllm-cpu").mkdir()
    (here / "vllm-cpu" / "payload.json").symlink_to("nowhere")
    (here / "sglang-cpu" / "payload.json").mkdir(parents=True)
    found = payloads.find()
    assert titles(found) == ["llama.cpp (cpu)"]
    assert [one.prefix.name for one in found.broken] == ["broken-cpu", "sglang-cpu", "vllm-cpu"]


def test_the_variable_comes_first_and_hides(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_payload(here)
    mine = lay_payload(tmp_path / "mine")
    monkeypatch.setenv(payloads.VARIABLE, f"{tmp_path / 'mine'}:")
    found = payloads.find()
    assert [one.prefix for one in found.payloads] == [mine]
    assert [one.payload.prefix.parent for one in found.hidden] == [here]


def test_the_variable_must_name_folders(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(payloads.VARIABLE, "/no/such/folder")
    with pytest.raises(SettingsError, match="/no/such/folder"):
        payloads.find()


def choose(here: Path, formats: tuple[str, ...] = ("gguf",), **words: Any) -> Payload:
    return payloads.choose(
        payloads.find(), **{"task": "serve", "formats": formats, "model": "m", **words}
    )


def chip(name: str, *, nodes: list[str], **more: Any) -> dict[str, Any]:
    return record(device=name, device_environment={"nodes": nodes, "aliases": ["gpu"]}, **more)


def hf(backend: str) -> dict[str, Any]:
    return record(backend, launch={"serve": launch(formats=["hf"])})


def refused(here: Path, *words: Any, **more: Any) -> UniscaleError:
    with pytest.raises((LaunchError, SettingsError)) as caught:
        choose(here, *words, **more)
    return caught.value


def test_no_payload(here: Path) -> None:
    error = refused(here)
    assert error.slug == "no-payload" and "--config-settings=backend=llama.cpp" in str(error.hint)


def test_only_broken_payloads(here: Path) -> None:
    lay_payload(here, "{")
    error = refused(here)
    assert error.slug == "broken-payload" and "it is not JSON" in str(error.hint)


def test_the_format_decides(here: Path) -> None:
    lay_payload(here)
    lay_payload(here, hf("vllm"))
    assert choose(here, ("gguf",)).backend == "llama.cpp"
    assert choose(here, ("hf",)).backend == "vllm"
    assert refused(here, ("gguf", "hf")).slug == "several-payloads"


def test_no_payload_for_the_format(here: Path) -> None:
    lay_payload(here)
    error = refused(here, ("hf",))
    assert error.slug == "wrong-format" and "llama.cpp (cpu) takes gguf" in str(error.hint)


def test_no_payload_for_the_task(here: Path) -> None:
    lay_payload(here, record(tasks=["train"]))
    lay_payload(here, record("vllm", launch={}))
    assert refused(here).slug == "no-task"


def test_several_are_named_with_the_options_that_choose(here: Path) -> None:
    lay_payload(here)
    lay_payload(here, record("ik_llama.cpp"))
    lay_payload(here, chip("MUSA_S5000", nodes=["/"]))
    lay_payload(here, chip("nvidia", nodes=["/dev/null"]))
    error = refused(here)
    assert error.slug == "several-payloads"
    assert "--device MUSA_S5000" in str(error.hint) and "--device nvidia" in str(error.hint)
    error = refused(here, device="cpu")
    assert "--backend ik_llama.cpp" in str(error.hint) and "--device" not in str(error.hint)
    assert choose(here, device="cpu", backend="Llama-CPP").title == "llama.cpp (cpu)"


def test_a_chip_that_is_there_goes_before_cpu(here: Path) -> None:
    lay_payload(here)
    lay_payload(here, chip("nvidia", nodes=["/dev/nul[l]"]))
    lay_payload(here, chip("MUSA_S5000", nodes=["/dev/no-such-chip*"]))
    assert choose(here).device == "nvidia"
    assert choose(here, device="cpu").device == "cpu"


def test_without_a_chip_cpu_is_taken(here: Path) -> None:
    lay_payload(here)
    lay_payload(here, chip("nvidia", nodes=["/dev/no-such-chip*"]))
    assert choose(here).device == "cpu"


def test_one_payload_needs_no_choice_even_without_its_chip(here: Path) -> None:
    lay_payload(here, chip("nvidia", nodes=[]))
    assert choose(here).device == "nvidia"
    assert choose(here, device="GPU").device == "nvidia"


@pytest.mark.parametrize(
    ("words", "slug", "hint"),
    [
        ({"backend": "lama.cpp"}, "unknown-backend", 'did you mean "llama.cpp"?'),
        ({"backend": ""}, "unknown-backend", "known: llama.cpp"),
        ({"device": "cpuu"}, "unknown-device", 'did you mean "cpu"?'),
        ({"device": "my_cpu_thing"}, "unknown-device", "cpu"),
    ],
)
def test_words_that_match_nothing(here: Path, words: Any, slug: str, hint: str) -> None:
    lay_payload(here)
    error = refused(here, **words)
    assert isinstance(error, SettingsError)
    assert error.slug == slug and hint in str(error.hint)
