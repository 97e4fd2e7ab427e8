"""The FlagGems switch of vLLM's common layer, with a stand-in for the library itself."""

from __future__ import annotations

import importlib.util
import logging
import sys
import types
from typing import Any

import pytest

from .native import ROOT

SWITCH = ROOT / "patches" / "vllm" / "flaggems" / "overlay" / "vllm" / "flaggems.py"


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in ("USE_FLAGGEMS", "FLAGGEMS_UNUSED"):
        monkeypatch.delenv(name, raising=False)
    spec = importlib.util.spec_from_file_location("vllm_flaggems_under_test", SWITCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """A stand-in for flag_gems that notes how it was enabled."""
    calls: list[dict[str, object]] = []
    fake = types.ModuleType("flag_gems")
    vars(fake).update(__version__="9.9", enable=lambda **words: calls.append(words))
    monkeypatch.setitem(sys.modules, "flag_gems", fake)
    return calls


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "off"])
def test_nothing_happens_unless_it_is_asked_for(
    switch: Any, library: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch,
    value: str | None,
) -> None:  # fmt: skip
    if value is not None:
        monkeypatch.setenv("USE_FLAGGEMS", value)
    assert switch.enable() is False
    assert library == []


def test_it_is_enabled_and_the_log_says_so(
    switch: Any, library: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("USE_FLAGGEMS", "1")
    with caplog.at_level(logging.INFO):
        assert switch.enable() is True
    assert library == [{}]
    assert "FlagGems 9.9 is the operator library" in caplog.text


def test_operators_can_be_left_to_pytorch(
    switch: Any, library: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USE_FLAGGEMS", "true")
    monkeypatch.setenv("FLAGGEMS_UNUSED", "index_put_, ,softmax")
    assert switch.enable() is True
    assert library == [{"unused": ["index_put_", "softmax"]}]


def test_without_the_library_the_log_says_what_is_used_instead(
    switch: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("USE_FLAGGEMS", "1")
    monkeypatch.setitem(sys.modules, "flag_gems", None)  # its import fails
    assert switch.enable() is False
    assert "PyTorch's own operators are used" in caplog.text


def test_a_broken_library_is_not_hidden(switch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = types.ModuleType("flag_gems")

    def enable() -> None:
        raise RuntimeError("no kernel for this device")

    vars(fake)["enable"] = enable
    monkeypatch.setitem(sys.modules, "flag_gems", fake)
    monkeypatch.setenv("USE_FLAGGEMS", "1")
    with pytest.raises(RuntimeError, match="no kernel"):
        switch.enable()
