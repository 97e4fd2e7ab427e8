"""A static index: what it holds, that it is incremental, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from uniscale_build.errors import IndexSiteError, Problems, StoreError, UniscaleError, WheelError
from uniscale_build.index import Request, publish
from uniscale_build.index.entry import read_entry
from uniscale_build.index.state import State, stat_of
from uniscale_build.wheels.wheel import Member

from tests import wheels
from tests.payload_wheels import payload_record, payload_wheel, plain_wheel
from tests.sitecheck import anchors, catalog, check_site, files, look

VLLM = "uniscale_vllm-0.32.0+cpu-cp311-cp311-manylinux_2_35_x86_64.whl"


@pytest.fixture(autouse=True)
def _epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")


def make_dist(folder: Path) -> Path:
    """Wheels for three devices, and the plain one."""
    plain_wheel(folder)
    payload_wheel(folder, "vllm", "0.32.0", tag="cp311-cp311-manylinux_2_35_x86_64")
    payload_wheel(folder, "vllm", "0.9.2", "Metax_C550", requires=["uniscale", "torch"])
    payload_wheel(folder, "llama.cpp", "0.5.0.dev20261001", "MUSA_S5000")
    return folder


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    return make_dist(tmp_path / "dist")


@pytest.fixture
def site(tmp_path: Path, dist: Path) -> Path:
    publish(tmp_path / "site", Request(add=(dist,)))
    return tmp_path / "site"


def refused(site: Path, request: Request) -> UniscaleError:
    """The error for a request that must leave the index as it is."""
    before = look(site)
    with pytest.raises((IndexSiteError, WheelError, Problems)) as caught:
        publish(site, request)
    assert look(site) == before and not (site / ".uniscale" / "incoming").exists()
    return caught.value


# What it holds ------------------------------------------------------------------------------


def test_every_device_is_a_channel_that_has_the_plain_wheel_too(site: Path) -> None:
    assert len(check_site(site)) == 4
    plain = "uniscale-0.1.0-py3-none-any.whl"
    assert files(site, "cpu") == {plain, VLLM}
    assert files(site, "Metax_C550") == {plain, "uniscale_vllm-0.9.2+maca-py3-none-any.whl"}
    assert files(site, "MUSA_S5000") == {
        plain, "uniscale_llama_cpp-0.5.0.dev20261001+musa43-py3-none-any.whl"
    }  # fmt: skip
    channels = {path.parent.name for path in site.glob("*/index.html")}
    assert channels == {"all", "cpu", "Metax_C550", "MUSA_S5000"}
    (link,) = anchors(site / "cpu" / "uniscale-vllm" / "index.html")
    assert str(link["href"]).startswith("../../packages/uniscale_vllm-0.32.0%2Bcpu-cp311")
    told = json.loads((site / "cpu" / "uniscale-vllm" / "index.json").read_text())
    assert told["versions"] == ["0.32.0+cpu"]
    assert told["files"][0]["upload-time"] == "2023-11-14T22:13:20Z"
    assert stat_mode(site / "packages" / VLLM) == stat_mode(site / "index.html") == 0o644


def stat_mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_catalog_says_what_installing_needs(site: Path) -> None:
    told = catalog(site)
    assert told["schema"] == 1 and told["drift"] == []
    assert told["devices"][1] == {
        "device": "Metax_C550", "title": "MetaX C550", "names": ["沐曦", "曦云 C550"],
        "aliases": ["metax", "maca"], "label": "maca", "visible": "CUDA_VISIBLE_DEVICES",
        "image_packages": ["torch", "triton"], "channel": "Metax_C550/",
    }  # fmt: skip
    by_file = {one["file"]: one for one in told["wheels"]}
    assert list(by_file) == sorted(by_file)
    plain, vllm = by_file["uniscale-0.1.0-py3-none-any.whl"], by_file[VLLM]
    assert (plain["device"], plain["payloads"], plain["sbom"], plain["time"]) == (
        None, [], None, None
    )  # fmt: skip
    assert vllm["url"] == f"packages/{VLLM.replace('+', '%2B')}"
    assert (vllm["glibc"], vllm["sdk"], vllm["device"]) == ("2.35", None, "cpu")
    assert (vllm["time"], vllm["upload_time"]) == (1577836800, "2023-11-14T22:13:20Z")
    assert vllm["sbom"] == "uniscale_vllm-0.32.0+cpu.dist-info/sboms/uniscale.cdx.json"
    assert vllm["tags"] == ["cp311-cp311-manylinux_2_35_x86_64"] and vllm["yanked"] is None
    assert vllm["requires_dist"] == ["uniscale>=0.1.0"] and vllm["requires_python"] == ">=3.10"
    (payload,) = vllm["payloads"]
    assert payload["payload"] == "vllm-cpu" and payload["folder"] == "uniscale-vllm-cpu"
    assert payload["layers"] == [
        {"name": "record", "title": "Tells its build", "why": "So that users can ask."}
    ]
    assert payload["verified"]["ran"] == ["one answer"] and payload["tasks"] == ["serve", "infer"]
    metax = by_file["uniscale_vllm-0.9.2+maca-py3-none-any.whl"]
    assert metax["sdk"] == {"name": "MACA", "version": "3.0.1", "label": None}
    assert metax["image_packages"] == ["torch", "triton"] and metax["glibc"] is None
    with zipfile.ZipFile(site / "packages" / VLLM) as archive:
        text = archive.read("uniscale_vllm-0.32.0+cpu.dist-info/METADATA")
    assert (site / "packages" / f"{VLLM}.metadata").read_bytes() == text
    script = (site / "catalog.js").read_text()
    assert json.loads(script.removeprefix("window.UNISCALE_CATALOG = ").rstrip(";\n")) == told


# Again and again ----------------------------------------------------------------------------


def test_again_writes_nothing_and_one_more_touches_only_its_pages(
    site: Path, dist: Path, tmp_path: Path
) -> None:
    made = publish(site, Request(add=(dist,)))
    assert (made.pages, made.added, len(made.known), made.wheels) == (0, (), 4, 4)
    before = {name: (site / name).stat().st_ino for name in look(site)}
    more = payload_wheel(tmp_path / "more", "vllm", "0.33.0").path
    made = publish(site, Request(add=(more,)))
    assert made.added == (more.name,) and made.wheels == 5
    check_site(site)
    changed = {name for name, inode in before.items() if (site / name).stat().st_ino != inode}
    assert changed == {
        "catalog.json", "catalog.js", "all/uniscale-vllm/index.html",
        "all/uniscale-vllm/index.json", "cpu/uniscale-vllm/index.html",
        "cpu/uniscale-vllm/index.json",
    }  # fmt: skip
    assert more.name in [one["file"] for one in catalog(site)["wheels"]]


def test_the_order_in_which_wheels_come_does_not_matter(
    site: Path, dist: Path, tmp_path: Path
) -> None:
    for path in sorted(dist.iterdir(), reverse=True):
        publish(tmp_path / "other", Request(add=(path,)))
    assert look(tmp_path / "other") == look(site)


@pytest.mark.parametrize(
    "text",
    [None, b"", b"uniscale index state 2 00000000\nwheel\t1\n", b"\0\xff",
     b"uniscale index state 1\nwheel\t924\t1\t2\tuniscale-0.1.0-py3-none-any.whl\n"],
)  # fmt: skip
def test_what_is_remembered_may_be_lost(site: Path, text: bytes | None) -> None:
    before = look(site)
    state = site / ".uniscale" / "state"
    kept = state.read_bytes()
    state.unlink()
    if text is not None:
        state.write_bytes(text)
    listener = wheels.Listener()
    publish(site, Request(), listener)
    assert any("all read again, once" in note for note in listener.notes)
    assert look(site) == before
    assert State.read(state.read_bytes()).wheels.keys() == State.read(kept).wheels.keys()


def test_damage_to_what_is_remembered_goes_nowhere(site: Path, tmp_path: Path) -> None:
    """A byte that flips in it is noticed; every wheel is read again then."""
    before = look(site)
    state = site / ".uniscale" / "state"
    kept = state.read_bytes()
    for at in range(0, len(kept), len(kept) // 12):
        state.write_bytes(kept[:at] + bytes([kept[at] ^ 0x20]) + kept[at + 1 :])
        assert not State.read(state.read_bytes()).wheels
    dist = tmp_path / "more"
    payload_wheel(dist, "vllm", "0.33.0")
    publish(site, Request(add=(dist,)))
    publish(site, Request(remove=tuple(path.name for path in dist.iterdir())))
    assert look(site) == before


def test_what_is_remembered_is_what_was_read(site: Path) -> None:
    state = State.read((site / ".uniscale" / "state").read_bytes())
    assert State.read(state.as_bytes()).as_bytes() == state.as_bytes()
    for name, known in state.wheels.items():
        entry, _ = read_entry(site / "packages" / name, known.upload)
        assert known.entry == entry
        assert (known.file, known.project, known.device) == (name, entry.project, entry.device)
        assert known.sha256 == entry.sha256
        assert known.facts.decode() == entry.facts
        assert known.stat == stat_of(site / "packages" / name)


def test_a_copy_without_what_is_remembered(site: Path, tmp_path: Path) -> None:
    """Other times, other inodes, no state: the catalog still says when, and what it was."""
    before = look(site)
    skip = shutil.ignore_patterns(".uniscale")
    shutil.copytree(site, tmp_path / "copy", copy_function=shutil.copyfile, ignore=skip)
    publish(tmp_path / "copy", Request())
    assert look(tmp_path / "copy") == before
    (tmp_path / "copy" / ".uniscale" / "state").unlink()
    payload_wheel(tmp_path / "copy" / "packages", "vllm", "0.32.0", content=b"x = 2\n",
                  tag="cp311-cp311-manylinux_2_35_x86_64")  # fmt: skip
    assert refused(tmp_path / "copy", Request()).slug == "changed-wheel"


def test_sidecars_and_pages_that_are_gone_come_back(site: Path) -> None:
    before = look(site)
    (site / "packages" / f"{VLLM}.metadata").unlink()
    shutil.rmtree(site / "Metax_C550")
    (site / "all" / "uniscale" / "index.html").unlink()
    publish(site, Request())
    (site / "cpu" / "index.html").write_text("half")
    publish(site, Request(verify=True))
    assert look(site) == before


def test_a_wheel_that_somebody_put_there_is_read_and_one_that_is_gone_is_forgotten(
    site: Path, dist: Path
) -> None:
    payload_wheel(site / "packages", "vllm", "0.40.0")
    (site / "packages" / VLLM).unlink()
    (site / "packages" / "notes.txt").write_text("mine")
    made = publish(site, Request())
    assert made.wheels == 4 and VLLM not in check_site(site)
    assert not (site / "packages" / f"{VLLM}.metadata").exists()
    assert (site / "packages" / "notes.txt").exists()
    assert publish(site, Request(add=(dist,))).added == (VLLM,)
    assert len(check_site(site)) == 5


def test_many_wheels_are_read_on_all_cores_in_order(tmp_path: Path) -> None:
    for number in range(30):
        payload_wheel(tmp_path / "dist", "vllm", f"0.{number}.0")
    made = publish(tmp_path / "site", Request(add=(tmp_path / "dist",)))
    assert made.wheels == 30 == len(check_site(tmp_path / "site"))
    told = json.loads((tmp_path / "site/cpu/uniscale-vllm/index.json").read_text())
    assert told["versions"] == [f"0.{number}.0+cpu" for number in range(30)]


# Taking out ---------------------------------------------------------------------------------


def test_a_removed_wheel_leaves_nothing_behind(site: Path) -> None:
    (site / "docs").mkdir()
    (site / "docs" / "index.html").write_text("<p>Somebody else's.</p>")
    (name,) = files(site, "MUSA_S5000") - {"uniscale-0.1.0-py3-none-any.whl"}
    made = publish(site, Request(remove=(name,)))
    assert made.removed == (name,) and made.channels == ("Metax_C550", "cpu")
    assert len(check_site(site)) == 3
    assert not (site / "MUSA_S5000").exists() and (site / "docs" / "index.html").exists()
    assert not [path for path in look(site) if "llama" in path]
    assert not [one for one in catalog(site)["devices"] if one["device"] == "MUSA_S5000"]


def test_a_wheel_is_exchanged_in_one_go(site: Path, tmp_path: Path) -> None:
    other = payload_wheel(tmp_path / "new", "vllm", "0.32.0", content=b"x = 2\n",
                          tag="cp311-cp311-manylinux_2_35_x86_64")  # fmt: skip
    publish(site, Request(add=(other.path,), remove=(VLLM,)))
    check_site(site)
    assert {one["file"]: one["sha256"] for one in catalog(site)["wheels"]}[VLLM] == other.sha256


def test_a_yanked_wheel_stays_and_says_why(site: Path) -> None:
    publish(site, Request(yank={VLLM: 'wrong <answers> & "worse"'}))
    check_site(site)
    (link,) = anchors(site / "cpu" / "uniscale-vllm" / "index.html")
    assert link["data-yanked"] == 'wrong <answers> & "worse"'
    told = json.loads((site / "all" / "uniscale-vllm" / "index.json").read_text())
    assert [one["yanked"] for one in told["files"]] == ['wrong <answers> & "worse"', False]
    before = look(site)
    (site / ".uniscale" / "state").unlink()
    publish(site, Request())
    assert look(site) == before
    publish(site, Request(unyank=(VLLM,)))
    assert check_site(site) and not [one for one in catalog(site)["wheels"] if one["yanked"]]


def test_names_that_are_not_there_are_told_all_at_once(site: Path) -> None:
    wrong = VLLM.replace("cp311", "cp312")
    error = refused(site, Request(remove=(wrong,), yank={"x.whl": "y"}))
    assert isinstance(error, Problems) and len(error.errors) == 2
    assert error.errors[0].slug == "unknown-file" and f'"{VLLM}"' in str(error.errors[0].hint)


# What is refused ----------------------------------------------------------------------------


def test_two_different_files_of_one_name(site: Path, tmp_path: Path) -> None:
    other = payload_wheel(tmp_path / "a", "vllm", "0.32.0", content=b"x = 2\n",
                          tag="cp311-cp311-manylinux_2_35_x86_64").path  # fmt: skip
    error = refused(site, Request(add=(other,)))
    assert error.slug == "two-files" and "raise the version" in str(error.hint)
    # Both new, and with one that is good: nothing is taken.
    one, two = (payload_wheel(tmp_path / name, "sglang", "1.0", content=name.encode()).path
                for name in ("b", "c"))  # fmt: skip
    good = payload_wheel(tmp_path / "d", "sglang", "2.0").path
    error = refused(site, Request(add=(one, good, two)))
    assert error.slug == "two-files" and error.where == str(two)


def test_what_is_no_wheel_or_was_changed_is_told_all_at_once(site: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    good = payload_wheel(tmp_path / "good", "sglang", "1.0").path
    added = wheels.rewrite(good, bad / good.name, lambda files: files.update({"x.py": b""}))
    half = bad / "half-1.0-py3-none-any.whl"
    half.write_bytes(good.read_bytes()[:-40])
    page = bad / "page-1.0-py3-none-any.whl"
    page.write_text("<html>404</html>")
    odd = bad / "a&b-1.0-py3-none-any.whl"
    shutil.copy(good, odd)
    error = refused(site, Request(add=(bad, good.with_name("none.whl"))))
    assert error.slug == "no-wheel"
    error = refused(site, Request(add=(bad,)))
    assert isinstance(error, Problems)
    assert {one.where for one in error.errors} == {str(path) for path in (added, half, page, odd)}
    assert {one.slug for one in error.errors} == {"record", "bad-zip", "bad-file-name"}


def test_a_stored_wheel_that_was_changed(site: Path, tmp_path: Path) -> None:
    path = site / "packages" / VLLM
    other = payload_wheel(tmp_path / "new", "vllm", "0.32.0", content=b"x = 2\n",
                          tag="cp311-cp311-manylinux_2_35_x86_64").path  # fmt: skip
    good = path.read_bytes()
    shutil.copy(other, path)
    error = refused(site, Request())
    assert error.slug == "changed-wheel" and "--remove" in str(error.hint)
    path.write_bytes(good[:-40])
    assert refused(site, Request()).slug == "bad-zip"
    assert refused(site, Request(verify=True)).slug == "bad-zip"
    publish(site, Request(remove=(VLLM,)))
    assert len(check_site(site)) == 3


@pytest.mark.parametrize(
    "device", ["../evil", "all", "packages", "Drift", ".uniscale", "a/b", "<b>"]
)
def test_a_device_that_is_no_folder(device: str, site: Path, tmp_path: Path) -> None:
    record = payload_record("vllm", "1.0", "cpu")
    made = payload_wheel(tmp_path / "new", "vllm", "1.0", record={**record, "device": device})
    assert refused(site, Request(add=(made.path,))).slug in ("bad-device", "bad-name")


@pytest.mark.parametrize(
    "change", [{"backend": 7}, {"schema": 2}, {"patched_tree": "x"}, {"layers": None}]
)
def test_a_payload_record_that_is_wrong(
    change: dict[str, object], site: Path, tmp_path: Path
) -> None:
    record = payload_record("vllm", "1.0", "cpu")
    made = payload_wheel(tmp_path / "new", "vllm", "1.0", record={**record, **change})
    assert refused(site, Request(add=(made.path,))).slug == "bad-record"


def test_words_of_a_wheel_stay_words(site: Path, tmp_path: Path) -> None:
    evil = '</script><img src=x onerror="alert(1)">'
    record = payload_record("vllm", "1.0", "cpu")
    record["upstream"]["title"] = record["device_environment"]["title"] = evil
    record["layers"][0]["why"] = evil
    payload_wheel(tmp_path / "new", "vllm", "1.0", record=record, python=f">=3.10,!=3.{9}.*",
                  metadata='Keywords: "><b>\n')  # fmt: skip
    publish(site, Request(add=(tmp_path / "new",)))
    check_site(site)
    for name, data in look(site).items():
        if name.endswith(".html"):
            assert b"<img" not in data and b"<b>" not in data


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_place_that_is_no_index(what: str, tmp_path: Path, dist: Path) -> None:
    place = tmp_path / "mine"
    if what == "folder":
        (place / "sub").mkdir(parents=True)
    else:
        place.write_text("mine")
    with pytest.raises(IndexSiteError) as caught:
        publish(place, Request(add=(dist,)))
    assert caught.value.slug == "not-a-site"
    assert place.is_file() or [path.name for path in place.iterdir()] == ["sub"]


def test_a_full_disk_is_a_sentence_and_the_index_stays_valid(dist: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(small)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not allowed here")
    try:
        publish(small / "site", Request(add=(dist,)))
        before = look(small / "site")
        for number in range(12):
            payload_wheel(tmp_path / "more", "sglang", f"0.{number}.0", content=os.urandom(9000))
        with pytest.raises(StoreError) as caught:
            publish(small / "site", Request(add=(tmp_path / "more",)))
        assert caught.value.slug == "disk-full" and look(small / "site") == before
        # Room for the wheels, not for the pages: what was stored is published when there is more.
        one = payload_wheel(tmp_path / "one", "sglang", "1.0", content=b"x").path
        blocks = os.statvfs(small).f_bavail - 4
        (small / "fill").write_bytes(b"x" * 4096 * blocks)
        with pytest.raises(StoreError):
            publish(small / "site", Request(add=(one,)))
        check_site(small / "site", complete=False)
        (small / "fill").unlink()
        publish(small / "site", Request(add=(one,)))
        assert len(check_site(small / "site")) == 5
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_bundles_beside_split_wheels_are_pointed_out(site: Path, tmp_path: Path) -> None:
    heard = wheels.Listener()
    publish(site, Request(), heard)
    assert heard.notes == []
    record = payload_record("vllm", "1.0", "cpu")
    bundle = wheels.write(
        tmp_path / "bundle", [Member("uniscale_payloads/vllm-cpu/payload.json",
                                     json.dumps(record).encode())],
        name="uniscale", version="0.1.0+vllm.cpu",
        metadata="Metadata-Version: 2.1\nName: uniscale\nVersion: 0.1.0+vllm.cpu\n",
    )  # fmt: skip
    publish(site, Request(add=(bundle.path,)), heard)
    assert [note for note in heard.notes if "index of their own" in note and "cpu/" in note]
    assert len(check_site(site)) == 5


def test_a_wheel_can_come_withdrawn(site: Path, tmp_path: Path) -> None:
    made = payload_wheel(tmp_path / "new", "vllm", "1.0").path
    publish(site, Request(add=(made,), yank={made.name: "for tests"}))
    assert {one["file"]: one["yanked"] for one in catalog(site)["wheels"]}[made.name] == "for tests"


def test_drift_reports_are_shown_and_others_refused(site: Path, tmp_path: Path) -> None:
    report = tmp_path / "vllm-cpu.html"
    report.write_text("<!doctype html><title>Drift of vllm on cpu</title>")
    other = tmp_path / "other.html"
    other.write_text("text")
    assert refused(site, Request(drift=(report, other))).slug == "no-report"
    publish(site, Request(drift=(report,)))
    assert catalog(site)["drift"] == [
        {"title": "Drift of vllm on cpu", "url": "drift/vllm-cpu.html", "backend": "vllm",
         "device": "cpu"}
    ]  # fmt: skip
    before = look(site)
    publish(site, Request())
    assert look(site) == before and "drift/vllm-cpu.html" in before


# The command --------------------------------------------------------------------------------


def command(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "uniscale_build", "index", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CI": "1"},
    )  # fmt: skip


def test_two_writers_at_once(tmp_path: Path, dist: Path) -> None:
    for number in range(10):
        payload_wheel(tmp_path / "more", "sglang", f"0.{number}.0")
    running = [command(folder, "-o", tmp_path / "site", "--json")
               for folder in (dist, tmp_path / "more")]  # fmt: skip
    told = [process.communicate(timeout=60) for process in running]
    assert [process.returncode for process in running] == [0, 0], told
    assert {len(json.loads(out)["added"]) for out, _ in told} == {4, 10}
    assert len(check_site(tmp_path / "site")) == 14


def test_the_command_speaks_in_sentences(tmp_path: Path, dist: Path) -> None:
    running = command(dist, "-o", tmp_path / "site")
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and f"added  {VLLM}" in out and "next: look at" in out
    for words, code, slug in (
        ((tmp_path / "none", "-o", tmp_path / "site"), 12, "no-wheel"),
        (("-o", tmp_path / "site", "--yank", VLLM), 2, "bad-value"),
        (("-o", tmp_path / "site", "--remove", "x"), 12, "unknown-file"),
    ):
        running = command(*words)
        _, said = running.communicate(timeout=60)
        assert running.returncode == code and f"error[{slug}]" in said and "Traceback" not in said
