"""`uniscale.wheels.choosing`: the wheel that fits, and a reason for each that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from uniscale.wheels.catalog import Catalog, Held, Sdk, Wheel
from uniscale.wheels.choosing import choose
from uniscale.wheels.machine import Machine
from uniscale_build.errors import IndexSiteError, SettingsError
from uniscale_build.manifests.devices import Device

METAX = Device("Metax_C550", "MetaX C550", "MetaX", (), "maca")
MACHINE = Machine(
    python="3.11.7",
    tags={tag: rank for rank, tag in enumerate(
        ("cp311-cp311-manylinux_2_36_x86_64", "cp311-cp311-manylinux_2_28_x86_64",
         "py3-none-manylinux_2_17_x86_64", "py3-none-any"))},
    architecture="x86_64",
    glibc="2.36",
    device=METAX,
    sdk="3.0.1",
)  # fmt: skip


def wheel(version: str = "1.0", tag: str = "py3-none-any", **changes: Any) -> Wheel:
    upstream = changes.pop("upstream", version.partition("+")[0].partition(".post")[0])
    held = Held(
        "vllm-Metax_C550",
        "uniscale-vllm-Metax_C550",
        "vllm",
        upstream,
        "",
        "1" * 40,
        ("serve",),
        (),
        {},
    )
    full = version if "+" in version else f"{version}+maca"
    found = Wheel(
        file=f"uniscale_vllm-{full}-{tag}.whl", url="packages/x", sha256="0" * 64, size=1,
        name="uniscale-vllm", version=full, requires_python="", requires_dist=(), tags=(tag,),
        glibc="", device="Metax_C550", sdk=None, image_packages=(), payloads=(held,), time=0,
    )  # fmt: skip
    return replace(found, **changes)


def maca(version: str, **changes: Any) -> Wheel:
    label = "maca" + version.replace(".", "")
    return wheel(f"1.0+{label}", sdk=Sdk("MACA", version, label), **changes)


def chosen(*wheels: Wheel, machine: Machine = MACHINE, version: str | None = None) -> str:
    return choose(Catalog("x", "file:///x", wheels), "VLLM", machine, version).wheel.version


def reasons(*wheels: Wheel, machine: Machine = MACHINE, version: str | None = None) -> str:
    with pytest.raises(IndexSiteError) as caught:
        chosen(*wheels, machine=machine, version=version)
    assert caught.value.slug == "no-wheel" and caught.value.exit_code == 12
    return str(caught.value)


def test_the_highest_version_by_pep_440() -> None:
    wheels = [wheel(version) for version in ("0.9.2", "0.10.0", "0.10.0.post1", "0.11.0rc1")]
    choice = choose(Catalog("x", "file:///x", tuple(wheels)), "vllm", MACHINE)
    assert choice.wheel.version == "0.10.0.post1+maca"
    told = {one.wheel.version: one.why for one in choice.others}
    assert told["0.9.2+maca"] == "0.9.2 is older than 0.10.0"
    assert told["0.11.0rc1+maca"] == "0.11.0rc1 is a pre-release"
    assert "0.10.0.post1+maca" in told["0.10.0+maca"]
    assert chosen(wheel("0.5.0.dev3"), wheel("0.5.0.dev2")) == "0.5.0.dev3+maca"


def test_a_wheel_that_was_taken_back() -> None:
    back = wheel("2.0", yanked="wrong kernels")
    assert chosen(back, wheel("1.0")) == "1.0+maca"
    assert "taken back: wrong kernels" in reasons(back)
    choice = choose(Catalog("x", "file:///x", (back,)), "vllm", MACHINE, "2.0")
    assert choice.remarks == ("it was taken back: wrong kernels",)


def test_the_label_does_not_decide() -> None:
    assert chosen(wheel("1.1+aaa"), wheel("1.0+zzz")) == "1.1+aaa"


@pytest.mark.parametrize(
    ("asked", "found"),
    [("1.0", "1.0.post1+maca"), ("1.0.post1", "1.0.post1+maca"), ("1.0+maca", "1.0+maca"),
     ("<1.1", "1.0.post1+maca"), (">=1.1,!=1.1", "2.0rc1+maca"), ("2.0rc1", "2.0rc1+maca")],
)  # fmt: skip
def test_a_version_that_is_asked_for(asked: str, found: str) -> None:
    wheels = [wheel("1.0"), wheel("1.0.post1"), wheel("1.1"), wheel("2.0rc1")]
    assert chosen(*wheels, version=asked) == found


def test_versions_that_are_none() -> None:
    for word in ("latest", ">=x", "1.0 please"):
        with pytest.raises(SettingsError, match="no version"):
            chosen(wheel(), version=word)
    assert "version 1.0" in reasons(wheel("1.0"), version="3.0")


def test_the_sdk_that_is_nearest_and_not_newer() -> None:
    wheels = [maca("2.31"), maca("3.0"), maca("3.2"), maca("2.29")]
    assert chosen(*wheels) == "1.0+maca30"
    assert "needs MACA 3.2, this machine has 3.0.1" in reasons(maca("3.2"))
    choice = choose(Catalog("x", "file:///x", (maca("2.31"),)), "vllm", MACHINE)
    assert choice.remarks == ("it was built with MACA 2.31; this machine has 3.0.1",)
    unknown = replace(MACHINE, sdk="", sdk_note="is not installed")
    choice = choose(Catalog("x", "file:///x", (maca("3.2"),)), "vllm", unknown)
    assert "not known: is not installed" in choice.remarks[0]


def test_a_driver_that_is_too_old() -> None:
    old = replace(MACHINE, sdk="", driver="2.31")
    assert "this one runs up to 2.31" in reasons(maca("3.0"), machine=old)
    # Within one major version it runs what later ones built.
    assert chosen(maca("2.99"), machine=old) == "1.0+maca299"


def test_python_platform_and_glibc() -> None:
    told = reasons(
        wheel(tag="cp312-cp312-manylinux_2_17_x86_64"),
        wheel(tag="cp311-cp311-manylinux_2_39_x86_64"),
        wheel(tag="cp311-cp311-manylinux_2_17_aarch64"),
        wheel(tag="py3-none-win_amd64"),
        wheel(requires_python=">=3.12"),
        wheel(glibc="2.40"),
        wheel(device="nvidia"),
    )
    for line in (
        "for cp312, this is Python 3.11.7",
        "needs glibc 2.39, this machine has 2.36",
        "for aarch64, this machine is x86_64",
        "for win_amd64",
        "needs Python >=3.12, this is 3.11.7",
        "needs glibc 2.40",
    ):
        assert line in told
    assert "nvidia" not in told  # another device's wheels are not told here
    assert chosen(wheel(), wheel(tag="cp311-cp311-manylinux_2_28_x86_64")) == "1.0+maca"


def test_the_better_tag_wins_among_equals() -> None:
    wheels = (wheel(), wheel(tag="cp311-cp311-manylinux_2_28_x86_64"))
    assert choose(Catalog("x", "file:///x", wheels), "vllm", MACHINE).wheel is wheels[1]


def test_a_payload_alone_before_a_bundle() -> None:
    bundle = wheel("0.1.0+vllm.maca", upstream="1.0", name="uniscale")
    assert chosen(bundle, wheel("1.0")) == "1.0+maca"
    assert chosen(bundle, version="1.0") == "0.1.0+vllm.maca"
    assert "version 1.0" in reasons(bundle, version="0.1.0")


def test_no_such_backend_or_device() -> None:
    with pytest.raises(SettingsError, match='did you mean "vllm"'):
        choose(Catalog("x", "file:///x", (wheel(),)), "vlm", MACHINE)
    assert "there is vllm for nvidia" in reasons(wheel(device="nvidia"))


def test_thousands_of_reasons_are_not_all_told() -> None:
    told = reasons(*(wheel(f"1.{n}", requires_python=">=3.13") for n in range(100)))
    assert "and 88 more" in told
