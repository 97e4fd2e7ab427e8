"""`uniscale.config.remembered`: a plan is kept while its file is the same, and no longer."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from uniscale import folders
from uniscale.config import remembered, servefile
from uniscale_build.errors import Problems, UniscaleError
from uniscale_build.store import cache_dir

RICH = """
experiment: {name: ours, env: {TOKEN: "$(touch x) 模型"}}
serve:
  port: 8081
  models:
    - {model: demo, name: a, engine: [vllm, llama.cpp], replicas: 2, devices: "0,2",
       args: {max_model_len: 8K, x: [1, 0.10, {a: null}], y: true, z: 0.10}, flags: [--a, b c]}
    - {model: ./m.gguf, engine_args: {vllm: {enforce_eager: true}}, env: {A: "1"}}
  gateway: {policy: random, cors_allowed_origins: [a, b], flags: [--x], queue_size: 3}
"""


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is remembered."""
    monkeypatch.setenv(folders.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "configurations"


def lay(folder: Path, text: str) -> str:
    path = folder / "c.yaml"
    path.write_text(text)
    return str(path)


def never(path: Path, settings: object) -> None:
    raise AssertionError("it was read again")


def test_it_is_read_once(kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = lay(tmp_path, RICH)
    wanted = servefile.read(Path(path), ("serve.port=9000",))
    assert remembered.plan(path, ("serve.port=9000",)) == wanted
    (file,) = kept.iterdir()
    assert file.stat().st_mode & 0o077 == 0 and kept.stat().st_mode & 0o077 == 0
    monkeypatch.setattr(servefile, "read", never)
    found = remembered.plan(path, ("serve.port=9000",))
    assert found == wanted and found.port == 9000
    assert found.gateway == {
        "policy": "random", "cors_allowed_origins": ("a", "b"), "flags": ("--x",), "queue_size": 3,
    }  # fmt: skip


def test_what_changes_is_read_again(kept: Path, tmp_path: Path) -> None:
    path = lay(tmp_path, "serve: {model: demo, port: 8081}")
    assert remembered.plan(path, ()).port == 8081
    lay(tmp_path, "serve: {model: demo, port: 8082}")  # of the same size, at once
    assert remembered.plan(path, ()).port == 8082
    assert remembered.plan(path, ("serve.port=8083",)).port == 8083
    lay(tmp_path, "serve: {model: demo, prot: 8082}")
    with pytest.raises(UniscaleError, match="prot"):
        remembered.plan(path, ())
    Path(path).unlink()
    with pytest.raises(UniscaleError, match="cannot be read"):
        remembered.plan(path, ())


@pytest.mark.parametrize("change", ["", "{", "[]", '{"plan": {}}', "other reader", "other fields"])
def test_what_is_kept_is_not_trusted(kept: Path, tmp_path: Path, change: str) -> None:
    path = lay(tmp_path, "serve: {model: demo, port: 8081}")
    wanted = remembered.plan(path, ())
    (file,) = kept.iterdir()
    told = json.loads(file.read_text())
    if change == "other reader":
        told["key"]["reader"][0] = "0.0.9"
        told["plan"]["port"] = 1
    elif change == "other fields":
        del told["plan"]["models"][0]["raw"]
    file.write_text(json.dumps(told) if change.startswith("other") else change)
    assert remembered.plan(path, ()) == wanted
    assert json.loads(file.read_text())["plan"]["port"] == 8081  # it is kept anew


def test_what_others_have_a_say_in_is_not_kept(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORT", "8081")
    path = lay(tmp_path, "serve: {model: demo, port: '${oc.env:PORT}'}")
    assert remembered.plan(path, ()).port == 8081
    monkeypatch.setenv("PORT", "8082")
    assert remembered.plan(path, ()).port == 8082
    (tmp_path / "base.yaml").write_text("serve: {model: demo}")
    assert remembered.plan(lay(tmp_path, "defaults: [base]"), ()).models[0].model == "demo"
    (tmp_path / "hosts").write_text("localhost\n")
    nodes = f"{{experiment: {{nodes: {tmp_path / 'hosts'}}}, serve: {{model: demo}}}}"
    remembered.plan(lay(tmp_path, nodes), ())
    assert remembered.plan(lay(tmp_path, "serve: {model: demo}"), ("serve.name=${oc.env:PORT}",))
    assert not kept.exists()


def test_a_pipe_is_read_once(kept: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_text, args=("serve: {model: demo}",))
    writer.start()
    assert remembered.plan(str(path), ()).models[0].model == "demo"
    writer.join()
    assert not kept.exists()


def test_a_folder_that_cannot_be_written(kept: Path, tmp_path: Path) -> None:
    kept.parent.write_text("a file in its place")
    assert remembered.plan(lay(tmp_path, "serve: {model: demo}"), ()).models[0].model == "demo"


@settings(deadline=None, max_examples=60)
@given(
    values=st.dictionaries(
        st.text("abc:", min_size=1, max_size=3),
        st.recursive(
            st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(st.text("ab", min_size=1, max_size=2), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    )
)
def test_twice_is_the_same(
    values: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("plan")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(folders.CACHE, str(folder / "cache"))
        path = lay(folder, json.dumps({"serve": {"model": "demo", "args": values}}))
        try:
            first = remembered.plan(path, ())
        except (UniscaleError, Problems):
            return
        patch.setattr(servefile, "read", never)
        assert remembered.plan(path, ()) == first


@pytest.mark.parametrize("variable", ["UNISCALE_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_the_cache_is_where_builds_have_theirs(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found here without what `store` imports: this stands before exec."""
    for name in ("UNISCALE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    assert folders.cache() == str(cache_dir())
