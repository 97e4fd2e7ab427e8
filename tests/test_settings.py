from __future__ import annotations

from pathlib import Path

import pytest
from uniscale_build.errors import Problems, SettingsError
from uniscale_build.settings import Settings, read


def given(config: dict[str, object] | None = None, **env: str) -> Settings:
    return read(config, environ=env)


@pytest.mark.parametrize(
    "value",
    [
        "vllm,llama.cpp",
        "vllm, llama.cpp",
        ["vllm", "llama.cpp"],
        ["vllm,llama.cpp", "vllm"],
        ",vllm,,llama.cpp,",
    ],
)
def test_every_spelling_of_a_list_means_the_same(value: object) -> None:
    assert given({"backend": value}).backends == ("vllm", "llama.cpp")


def test_nothing_given_is_the_plain_wheel() -> None:
    assert given() == Settings()
    assert given({"backend": ""}) == Settings()
    assert given({"device": ""}).device is None


def test_config_settings_win_over_environment_and_environment_over_pyproject() -> None:
    env = {"UNISCALE_DEVICE": "metax", "UNISCALE_JOBS": "3"}
    found = read({"device": "cpu"}, environ=env, defaults={"jobs": "1", "strip": False})
    assert (found.device, found.jobs, found.strip) == ("cpu", 3, False)


def test_underscores_and_case_are_accepted_in_keys() -> None:
    assert given({"build_dir": "/x/y", "Compiler-Cache": "none"}).build_dir == Path("/x/y")


def test_cmake_entries_keep_their_case_and_equal_signs() -> None:
    found = given(
        {"cmake.define.GGML_NATIVE": "ON", "cmake.define.X": "A=B", "cmake.args": "-a -b"}
    )
    assert found.cmake_defines == {"GGML_NATIVE": "ON", "X": "A=B"}
    assert found.cmake_args == ("-a", "-b")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("devcie", 'did you mean "device"?'),
        ("backends", 'did you mean "backend"?'),
        ("cmake.define.", "known:"),
        ("--global-option", "known:"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(key: str, hint: str) -> None:
    with pytest.raises(SettingsError) as caught:
        given({key: "musa"})
    assert caught.value.slug == "unknown-setting"
    assert hint in str(caught.value) or "did you mean" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"jobs": "0"}, {"jobs": "-1"}, {"jobs": "many"}, {"device": "cpu,metax"},
        {"device": ["cpu", "metax"]}, {"compression": "zstd"}, {"strip": "maybe"},
        {"compiler-cache": "gcc"}, {"build-dir": ["a", "b"]},
    ],
)  # fmt: skip
def test_a_bad_value_is_refused(config: dict[str, object]) -> None:
    with pytest.raises(SettingsError) as caught:
        given(config)
    assert caught.value.exit_code == 2


def test_all_problems_come_at_once() -> None:
    with pytest.raises(Problems) as caught:
        given({"devcie": "x", "jobs": "no", "strip": "no way"})
    assert len(caught.value.findings()) == 3


def test_the_same_value_twice_is_no_problem() -> None:
    assert given({"device": ["cpu", "cpu"]}).device == "cpu"
