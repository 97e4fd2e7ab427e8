"""What an SDK lacks comes from pinned wheels, laid out as one root."""

from __future__ import annotations

import hashlib
import platform
import zipfile
from pathlib import Path

import pytest
from uniscale_build.build.toolchain import Toolchain
from uniscale_build.build.toolkit import Added, lay_out, library_folders, needed
from uniscale_build.errors import UniscaleError
from uniscale_build.manifests.devices import Device
from uniscale_build.manifests.load import load_manifests
from uniscale_build.manifests.model import Kit, PinnedWheel
from uniscale_build.progress import Silent
from uniscale_build.store import Store

from .native import ROOT

FILES = {
    "vendor/kit/include/sums.h": b"int sums(void);\n",
    "vendor/kit/lib/libsums.so.13": b"a library",
    "vendor/kit/lib/libhas.so": b"its own",
    "vendor/kit/lib/libhas.so.2": b"another",
    "vendor/kit/doc/page.html": b"not taken",
}


def make_kit(store: Store, files: dict[str, bytes] = FILES, **words: object) -> Kit:
    """A kit whose wheel is in the store already."""
    name = "sums-1.0-py3-none-any.whl"
    scratch = store.root / name
    scratch.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(scratch, "w") as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    sha256 = hashlib.sha256(scratch.read_bytes()).hexdigest()
    kept = store.downloads / sha256 / name
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch.rename(kept)
    given = {
        "project": "sums", "unless": "include/sums.h", "strip": "vendor/kit",
        "members": ("vendor/kit/include/*", "vendor/kit/lib/*"),
        "files": (PinnedWheel(platform.machine(), name, sha256),),
        "defines": {"CMAKE_LIBRARY_PATH": "{toolkit}/lib"},
        "environment": {"CPATH": "{toolkit}/include"}, "where": "manifest.yaml:7",
    }  # fmt: skip
    return Kit(**{**given, **words})  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def test_members_lie_below_one_root_that_the_build_is_told_of(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "toolkit"
    added = lay_out(store, [make_kit(store)], root, Silent(), offline=True)
    assert added.defines == {"CMAKE_LIBRARY_PATH": f"{root}/lib"}
    assert added.environment == {"CPATH": f"{root}/include"}
    assert (root / "include/sums.h").read_bytes() == FILES["vendor/kit/include/sums.h"]
    # Linkers look for the name without a version; one that is there stays.
    assert (root / "lib/libsums.so").read_bytes() == b"a library"
    assert (root / "lib/libhas.so").read_bytes() == b"its own"
    assert not (root / "doc").exists()


def test_a_complete_root_is_kept_and_another_is_made_anew(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "toolkit"
    lay_out(store, [make_kit(store)], root, Silent(), offline=True)
    before = (root / "include/sums.h").stat().st_mtime_ns
    lay_out(store, [make_kit(store)], root, Silent(), offline=True)
    assert (root / "include/sums.h").stat().st_mtime_ns == before
    lay_out(store, [make_kit(store, members=("vendor/kit/doc/*",))], root, Silent(), offline=True)
    assert (root / "doc/page.html").is_file() and not (root / "include").exists()


def test_what_cannot_be_had_is_told(store: Store, tmp_path: Path) -> None:
    absent = make_kit(store, files=FILES)
    absent = Kit(**{**vars(absent), "files": (
        PinnedWheel(platform.machine(), "sums-2.0-py3-none-any.whl", "0" * 64),)})  # fmt: skip
    with pytest.raises(UniscaleError, match="the build is offline") as told:
        lay_out(store, [absent], tmp_path / "x", Silent(), offline=True)
    assert "include/sums.h" in str(told.value.hint)
    other = make_kit(store)
    other = Kit(**{**vars(other), "files": (PinnedWheel("vax", *_name(other)),)})
    with pytest.raises(UniscaleError, match="no pinned wheel of sums") as told:
        lay_out(store, [other], tmp_path / "x", Silent(), offline=True)
    assert told.value.slug == "no-precompiled"
    nothing = make_kit(store, members=("vendor/kit/include/*", "vendor/bin/*"))
    with pytest.raises(UniscaleError, match="vendor/bin") as told:
        lay_out(store, [nothing], tmp_path / "x", Silent(), offline=True)
    assert told.value.slug == "no-member"


def _name(kit: Kit) -> tuple[str, str]:
    return kit.files[0].file, kit.files[0].sha256


def test_no_member_leaves_the_root(store: Store, tmp_path: Path) -> None:
    bad = make_kit(store, files={"vendor/kit/../../../out.h": b"x"}, members=("vendor/*",))
    with pytest.raises(UniscaleError):
        lay_out(store, [bad], tmp_path / "deep" / "toolkit", Silent(), offline=True)
    assert not list(tmp_path.rglob("out.h"))


def test_a_kit_is_for_an_sdk_that_lacks_it(store: Store, tmp_path: Path) -> None:
    device: Device = load_manifests([ROOT / "manifests"]).devices["nvidia"]
    kits = (make_kit(store),)

    def found(root: Path) -> Toolchain:
        return Toolchain((), "x86_64", "glibc", {}, environment={"CUDA_HOME": str(root)})

    assert needed(kits, device, found(tmp_path)) == kits
    (tmp_path / "include").mkdir()
    (tmp_path / "include" / "sums.h").touch()
    assert needed(kits, device, found(tmp_path)) == ()
    assert lay_out(store, (), tmp_path / "none", Silent(), offline=True) == Added()
    assert not (tmp_path / "none").exists()


def test_what_was_linked_is_found_in_kits_and_the_sdk(tmp_path: Path) -> None:
    devices = load_manifests([ROOT / "manifests"]).devices
    toolchain = Toolchain((), "x86_64", "glibc", {}, environment={"CUDA_HOME": "/opt/cuda"})
    kits, build = tmp_path / "toolkit", tmp_path / "build"
    assert library_folders(devices["cpu"], toolchain, kits, build) == (kits / "lib", build)
    found = library_folders(devices["nvidia"], toolchain, kits, build)
    assert found[2:] == (Path("/opt/cuda/lib64"), Path("/opt/cuda/lib"))


def test_cublas_is_pinned_for_compilers_alone() -> None:
    (kit,) = load_manifests([ROOT / "manifests"]).adaptations["llama.cpp", "nvidia"].recipe.toolkit
    assert kit.project == "nvidia-cublas" and kit.unless == "include/cublas_v2.h"
    assert {item.machine for item in kit.files} == {"x86_64", "aarch64"}
