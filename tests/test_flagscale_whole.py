"""``import-flagscale``: the oldest layout, one diff of FlagScale with its backends as subtrees."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.conftest import MakeProject
from tests.flagscale_lab import (
    BASE,
    Scale,
    Tree,
    add_pin,
    both_edits,
    common_edit,
    encrypt,
    make_scale,
    quirks,
    roles,
    rsa_key,
    vendor_edit,
)
from tests.upstreams import Files, write_files

MAIL = (
    b"From a72d05ea1c2342eb82e20fdce02fd7bcfc9a1a1e Mon Sep 17 00:00:00 2001\n"
    b"From: Zhou <zhou@acme.example>\nDate: Wed, 16 Oct 2024 14:08:35 +0800\n"
    b"Subject: [PATCH] adapt\n\n---\n many files\n\n"
)
OUTSIDE: Tree = {"run.py": b"print(1)\n", "examples/a.yaml": b"a: 1\n"}


@pytest.fixture
def scale(make_project: MakeProject, tmp_path: Path) -> Scale:
    return make_scale(make_project(BASE, devices=()), tmp_path)


def inside(files: Files, folder: str = "demo") -> Tree:
    return {**{f"{folder}/{name}": data for name, data in files.items()}, **OUTSIDE}


def old_set(scale: Scale, base: Files, edited: Files, *, commit: str, folder: str = "demo") -> Path:
    changed = {**inside(edited, folder), "run.py": b"print(2)\n"}
    patch = MAIL + scale.diff(inside(base, folder), changed) + b"-- \n2.34.1\n\n"
    return scale.put(f"hardware/acme_old/{commit[:8]}/{commit[:8]}.patch", patch)


def test_at_its_commit_it_splits_exactly(scale: Scale) -> None:
    write_files(scale.root, inside(common_edit()))
    commit = scale.commit("when it was made")
    old_set(scale, common_edit(), both_edits(), commit=commit)
    scale.commit("later")
    made = scale.bring()
    assert roles(made) == [("common", "flagscale"), ("vendor", "acme-x1")]
    assert scale.layer("flagscale").result == scale.tree(common_edit())
    assert scale.built_tree() == scale.tree(both_edits())
    assert made["sets"][0]["contact"] == "Zhou <zhou@acme.example>"
    found = quirks(made)
    assert "% of its files agree" in found and "in files: the top (1)" in found


def test_without_its_commit_the_pin_must_do(scale: Scale) -> None:
    old_set(scale, BASE, vendor_edit(), commit="c" * 40)
    made = scale.bring()
    assert roles(made) == [("vendor", "acme-x1")]
    assert "the blob ids in its patches are those of demo 1.0" in quirks(made)
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_made_on_a_commit_that_is_not_here(scale: Scale) -> None:
    other: Tree = {**BASE, "pkg/core.py": b"flagscale's own\n"}
    old_set(scale, other, {**other, "pkg/core.py": b"acme\n"}, commit="c" * 40)
    code, err = scale.refused()
    assert code == 3 and "no-pin" in err
    code, err = scale.refused("--pin", "1.0")
    assert code == 5 and "FlagScale's commit cccccccc" in err and "git fetch" in err


def test_the_nearest_pin_is_taken(scale: Scale) -> None:
    add_pin(scale.lab, "2.0", "2" * 40, {"quite": b"another\n", "pkg/core.py": b"x\n"})
    write_files(scale.root, inside(common_edit()))
    commit = scale.commit("when it was made")
    old_set(scale, common_edit(), both_edits(), commit=commit)
    assert scale.bring()["sets"][0]["pin"] == "1.0"


def test_near_to_no_pin(scale: Scale) -> None:
    strange: Tree = {f"f{n}": b"%d\n" % n for n in range(9)}
    write_files(scale.root, inside(strange))
    commit = scale.commit("when it was made")
    old_set(scale, strange, {**strange, "f1": b"new\n"}, commit=commit)
    code, err = scale.refused()
    assert code == 5 and "near to no pinned version" in err


def test_backends_go_by_their_aliases(scale: Scale) -> None:
    old_set(scale, BASE, vendor_edit(), commit="c" * 40, folder="demonstration")
    scale.bring()
    assert scale.built_tree() == scale.tree(vendor_edit())


def test_nothing_of_a_backend_in_it(scale: Scale) -> None:
    old_set(scale, BASE, BASE, commit="c" * 40)
    made = scale.bring()
    assert made["sets"] == [] and "not imported" in quirks(made)
    ran = scale.lab.ok("import-flagscale", str(scale.root))
    assert "nothing to import" in ran.out


def test_encrypted(scale: Scale, tmp_path: Path) -> None:
    key = rsa_key()
    path = old_set(scale, BASE, vendor_edit(), commit="c" * 40)
    path.with_name(path.name + ".encrypted").write_bytes(encrypt(path.read_bytes(), key))
    path.unlink()
    code, err = scale.refused()
    assert code == 5 and "not even its files are known" in err
    (tmp_path / "private_key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    scale.bring("--key", str(tmp_path))
    assert scale.built_tree() == scale.tree(vendor_edit())
