from __future__ import annotations

from pathlib import Path

import pytest
from uniscale_build.errors import LayerError, Problems, SettingsError
from uniscale_build.plans.plan import Plan, make_plan
from uniscale_build.project import Project, find_project
from uniscale_build.settings import read

from .native import ROOT, Native, make_native


@pytest.fixture
def native(tmp_path: Path) -> Native:
    return make_native(tmp_path)


def plan(root: Path, **config: object) -> Plan:
    return make_plan(Project(root, True), read(config, environ={}))


def test_the_plan_of_the_readme() -> None:
    made = make_plan(
        find_project(ROOT), read({"backend": "llama_cpp", "device": "cpu"}, environ={})
    )
    assert made.version.endswith("+llamacpp.cpu")
    (item,) = made.backends
    assert item.tree == item.layers[-1].result != item.pin.tree
    assert item.recipe.defines["LLAMA_BUILD_COMMIT"] == item.pin.commit[:8]


def test_no_backend_is_the_plain_wheel(native: Native) -> None:
    made = plan(native.root)
    assert made.backends == () and "+" not in made.version


def test_the_digest_tells_plans_apart_and_nothing_else_does(native: Native) -> None:
    one = plan(native.root, backend="mini")
    assert one.digest == plan(native.root, backend="MINI-engine", device="CPU").digest
    assert one.digest != plan(native.root, backend="mini", **{"cmake.define.X": "1"}).digest
    # The number of jobs and where it is built change nothing in the result.
    assert one.digest == plan(native.root, backend="mini", jobs="7", **{"build-dir": "/x"}).digest


def test_unknown_names_are_all_told_with_the_nearest(native: Native) -> None:
    with pytest.raises(Problems) as caught:
        plan(native.root, backend="minni", device="cpuu")
    texts = [error.render() for error in caught.value.findings()]
    assert 'did you mean "mini"?' in texts[0] and 'did you mean "cpu"?' in texts[1]


def test_a_device_is_checked_even_for_the_plain_wheel(native: Native) -> None:
    with pytest.raises(SettingsError):
        plan(native.root, device="cpuu")


def test_a_pair_without_adaptation_says_which_devices_there_are(native: Native) -> None:
    text = (native.root / "manifests/devices/cpu.yaml").read_text(encoding="utf-8")
    other = text.replace("device: cpu", "device: Acme_X1").replace("label: cpu", "label: acme")
    (native.root / "manifests/devices/Acme_X1.yaml").write_text(other, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        plan(native.root, backend="mini", device="acme-x1")
    assert caught.value.slug == "no-adaptation"
    assert str(caught.value.hint).splitlines() == [
        "nothing is known here; uniscale-build unpatch is where an adaptation begins",
        "who could: any; docs/new-device.md shows how",
        "mini runs on: cpu",
    ]


def test_a_backend_whose_source_is_not_pinned_says_why() -> None:
    with pytest.raises(SettingsError) as caught:
        plan(ROOT, backend="FlagCX", device="musa")
    assert "USE_MUSA" in str(caught.value.hint)
    assert "its source is not pinned" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("xpu", "Kunlunxin_R310p or intel"),
        ("寒武纪", "Cambricon_MLU"),
        ("MLU590", "Cambricon_MLU"),
        ("torch_musa", 'did you mean "musa"?'),
    ],
)
def test_a_name_that_is_no_alias_says_whose_it_could_be(word: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        plan(ROOT, backend="vllm", device=word)
    assert caught.value.slug == "unknown-device" and meant in str(caught.value.hint)


def test_a_task_that_the_pair_is_not_for(native: Native) -> None:
    with pytest.raises(SettingsError) as caught:
        plan(native.root, backend="mini", task="post_train")
    assert "train" in caught.value.what and caught.value.hint == "it is for: serve, infer"
    assert plan(native.root, backend="mini", task="inference").backends[0].tasks == ("infer",)


def test_a_layer_on_another_base_is_refused_before_anything_is_fetched(native: Native) -> None:
    layer = native.root / "patches/mini/polite/layer.yaml"
    text = layer.read_text(encoding="utf-8")
    base = next(line for line in text.splitlines() if line.startswith("base: "))
    layer.write_text(text.replace(base, "base: " + "1" * 40), encoding="utf-8")
    with pytest.raises(LayerError) as caught:
        plan(native.root, backend="mini")
    assert caught.value.slug == "base-differs" and "port" in (caught.value.hint or "")


def test_a_missing_layer_names_those_that_are_there(native: Native) -> None:
    manifest = native.root / "manifests/backends/mini.yaml"
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("[polite]", "[polite, politer]"), encoding="utf-8")
    with pytest.raises(LayerError) as caught:
        plan(native.root, backend="mini")
    assert caught.value.slug == "no-layer" and caught.value.hint == "it has: polite"


def test_plans_ask_no_compiler_and_no_git(native: Native, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    ran = native.run("plan", "-b", "mini", "--json", env={**native.env, "PATH": str(empty)})
    assert ran.returncode == 0, ran.stderr
    assert '"digest"' in ran.stdout
